//! Tests of the simulated executor and network: determinism, virtual time, faults.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use super::super::sim::{CrashPolicy, NodeId, Sim, SimConfig};
use super::super::*;
use super::{filled, pattern};

/// A bit of everything; gives what it saw.
async fn workload() -> Vec<u64> {
    let dir = std::path::Path::new("/d");
    fs::create_dir_all(dir).await.unwrap();
    let seen = Rc::new(std::cell::RefCell::new(Vec::new()));
    let l = Listener::bind("10.0.0.1:9".parse().unwrap()).unwrap();
    let addr = l.local_addr().unwrap();
    let mut joined = Vec::new();
    for i in 0..8u64 {
        let seen = seen.clone();
        joined.push(spawn_joined(Class::Storage, async move {
            let o = OpenOptions::new().write(true).create(true);
            let f = File::open(&dir.join(format!("f{i}")), o).await.unwrap();
            for n in 0..4 {
                let at = n * BLOCK as u64;
                f.write_at(filled(BLOCK, i as u8), at).await.unwrap();
                sleep(Duration::from_micros(random_u64() % 50)).await;
                f.sync().await.unwrap();
                seen.borrow_mut().push(now().0 ^ (i << 56));
            }
        }));
        joined.push(spawn_joined(Class::Network, async move {
            let mut s = TcpStream::connect(addr).await.unwrap();
            s.write_all(&pattern(1000 * (i as usize + 1)))
                .await
                .unwrap();
        }));
    }
    for _ in 0..8 {
        let (mut s, _) = l.accept().await.unwrap();
        let mut buf = [0; 333];
        loop {
            let n = s.read(&mut buf).await.unwrap();
            seen.borrow_mut().push(n as u64);
            if n == 0 {
                break;
            }
        }
    }
    for j in joined {
        j.await;
    }
    let seen = seen.borrow().clone();
    seen
}

#[test]
fn the_seed_decides_everything() {
    let run = |seed| {
        let sim = Sim::new(seed, SimConfig::default());
        let seen = sim.block_on(workload());
        (seen, sim.trace(), sim.now(), sim.polls())
    };
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed} replays");
        traces.insert(first.1);
    }
    assert_eq!(traces.len(), 10, "other seeds, other histories");
}

#[test]
fn time_is_virtual_and_stands_still_while_there_is_work() {
    let sim = Sim::new(1, SimConfig::default());
    let real = std::time::Instant::now();
    let hour = Duration::from_secs(3600);
    sim.block_on(async {
        let t = now();
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(now(), t);
        sleep(hour * 24).await;
        assert_eq!(now() - t, hour * 24);
    });
    assert!(real.elapsed() < hour);
    // The next run goes on from there.
    assert_eq!(sim.block_on(async { now() }), Mono(0) + hour * 24);
}

#[test]
fn the_wall_clock_jumps_alone() {
    let sim = Sim::new(1, SimConfig::default());
    let inside = sim.clone();
    sim.block_on(async move {
        let (wall, mono) = (wall_ms(), now());
        assert_eq!(wall, SimConfig::default().wall_start_ms);
        inside.jump_wall(-5000);
        assert_eq!((wall_ms(), now()), (wall - 5000, mono));
        sleep(Duration::from_millis(7)).await;
        assert_eq!(wall_ms(), wall - 4993);
    });
}

#[test]
fn tasks_stay_between_runs() {
    let sim = Sim::new(3, SimConfig::default());
    let (tx, mut rx) = inbox();
    sim.block_on(async move {
        spawn(Class::Background, async move {
            for i in 0..3 {
                sleep(Duration::from_secs(1)).await;
                tx.send(i).unwrap();
            }
        });
    });
    let got = sim.block_on(async move {
        let mut got = Vec::new();
        while rx.recv_many(&mut got, 8).await > 0 {}
        got
    });
    assert_eq!(got, [0, 1, 2]);
}

#[test]
#[should_panic(expected = "the simulation is stuck")]
fn a_deadlock_is_found() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let (tx, rx) = oneshot::<()>();
        let (tx2, rx2) = oneshot::<()>();
        spawn(Class::Network, async move {
            rx.await;
            drop(tx2);
        });
        rx2.await;
        drop(tx);
    });
}

#[test]
#[should_panic(expected = "something spins")]
fn a_busy_loop_is_found() {
    let cfg = SimConfig {
        polls_max: 1000,
        ..SimConfig::default()
    };
    Sim::new(1, cfg).block_on(async {
        loop {
            yield_now().await;
        }
    });
}

#[test]
#[should_panic(expected = "the task's own words")]
fn a_panic_comes_out() {
    Sim::new(1, SimConfig::default()).block_on(async {
        spawn(Class::Network, async { panic!("the task's own words") });
        sleep(Duration::from_secs(1)).await;
    });
}

#[test]
fn a_node_dies_with_its_tasks_and_connections() {
    for seed in 0..20 {
        let sim = Sim::new(seed, SimConfig::default());
        let handle = sim.clone();
        sim.block_on(async move {
            let addr = "10.0.0.2:92".parse().unwrap();
            let node = NodeId(2);
            let serve = move || async move {
                let l = Listener::bind(addr).unwrap();
                loop {
                    let (mut s, _) = l.accept().await.unwrap();
                    s.write_all(b"hello").await.unwrap();
                    spawn(Class::Network, async move {
                        s.read(&mut [0; 8]).await.unwrap();
                    });
                }
            };
            let server = handle.spawn_on(node, async move { serve().await });
            let connect = || async move {
                loop {
                    match TcpStream::connect(addr).await {
                        Ok(s) => return s,
                        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionRefused),
                    }
                }
            };
            let (mut r, mut w) = connect().await.split();
            let mut buf = [0; 8];
            assert!(r.read(&mut buf).await.unwrap() > 0);
            handle.crash_node(node, CrashPolicy::POWER);
            assert!(server.outcome().await.is_none(), "its tasks are gone");
            let e = loop {
                match r.read(&mut buf).await {
                    Ok(n) => assert!(n > 0, "a crash is not an orderly end"),
                    Err(e) => break e,
                }
            };
            assert_eq!(e.kind(), ErrorKind::ConnectionReset);
            assert!(w.write_all(&buf).await.is_err());
            let e = TcpStream::connect(addr).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::ConnectionRefused);
            drop(handle.spawn_on(node, async move { serve().await }));
            let mut s = connect().await;
            assert!(s.read(&mut buf).await.unwrap() > 0);
        });
    }
}

#[test]
fn a_partition_delays_and_a_reset_breaks() {
    for seed in 0..20 {
        let sim = Sim::new(seed, SimConfig::default());
        let handle = sim.clone();
        sim.block_on(async move {
            let addr = "10.0.0.2:92".parse().unwrap();
            let node = NodeId(2);
            drop(handle.spawn_on(node, async move {
                let l = Listener::bind(addr).unwrap();
                loop {
                    let (mut s, _) = l.accept().await.unwrap();
                    spawn(Class::Network, async move {
                        let mut b = [0; 100];
                        while let Ok(n @ 1..) = s.read(&mut b).await {
                            if s.write_all(&b[..n]).await.is_err() {
                                break;
                            }
                        }
                    });
                }
            }));
            sleep(Duration::from_millis(1)).await;
            let mut s = TcpStream::connect(addr).await.unwrap();
            let net = handle.net();
            net.partition(NodeId::FIRST, node);
            s.write_all(b"x").await.unwrap();
            let mut b = [0; 8];
            let minute = Duration::from_secs(60);
            assert!(timeout(minute, s.read(&mut b)).await.is_none());
            let e = TcpStream::connect(addr).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::TimedOut);
            net.heal(NodeId::FIRST, node);
            assert_eq!(s.read(&mut b).await.unwrap(), 1);
            assert_eq!(b[0], b'x');
            assert!(TcpStream::connect(addr).await.is_ok());

            net.reset_between(NodeId::FIRST, node);
            let e = s.read(&mut b).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::ConnectionReset);
            drop(s);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(net.open_ends(), 0);
        });
    }
}

#[test]
fn connections_break_by_chance() {
    let cfg = SimConfig {
        reset_ppm: 100_000,
        ..SimConfig::default()
    };
    let sim = Sim::new(5, cfg);
    sim.block_on(async {
        let l = Listener::bind("10.0.0.1:9".parse().unwrap()).unwrap();
        let addr = l.local_addr().unwrap();
        let (mut client, server) = (TcpStream::connect(addr).await.unwrap(), l.accept().await);
        let (mut server, _) = server.unwrap();
        let e = loop {
            if let Err(e) = client.write_all(&[1; 10]).await {
                break e;
            }
            assert!(server.read(&mut [0; 100]).await.unwrap() > 0);
        };
        assert_eq!(e.kind(), ErrorKind::ConnectionReset);
    });
}
