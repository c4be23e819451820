//! Tests of what only the real runtime has: threads.

use std::net::SocketAddr;
use std::sync::mpsc;

use super::super::*;
use super::{filled, Scratch};

fn shards(n: usize, dir: &Scratch) -> Vec<ShardConfig> {
    (0..n)
        .map(|id| ShardConfig {
            id,
            cpu: None,
            name: format!("shard-{id}"),
            dirs: vec![dir.path().to_owned()],
            drain: true,
        })
        .collect()
}

#[test]
fn shards_run_and_report() {
    let dir = Scratch::new("shards");
    let threads = run_shards(shards(2, &dir), |id| async move {
        sleep(std::time::Duration::from_millis(1)).await;
        id * 10
    });
    let results: Vec<usize> = threads
        .unwrap()
        .join()
        .into_iter()
        .map(|r| r.unwrap())
        .collect();
    assert_eq!(results, [0, 10]);
}

#[test]
fn a_pinned_shard_runs() {
    let dir = Scratch::new("pinned");
    let mut cfg = shards(1, &dir);
    cfg[0].cpu = Some(0);
    let threads = run_shards(cfg, |_| async { blocking(|| 5).await }).unwrap();
    assert_eq!(threads.join().pop().unwrap().unwrap(), 5);
}

#[test]
fn a_missing_directory_or_a_panic_shows_in_join() {
    let dir = Scratch::new("bad_start");
    let mut cfg = shards(2, &dir);
    cfg[0].dirs.push(dir.path().join("missing"));
    let results = run_shards(cfg, |id| async move {
        assert!(id != 1, "as intended");
    })
    .unwrap()
    .join();
    let e = results[0].as_ref().unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::NotFound);
    let e = results[1].as_ref().unwrap_err();
    assert!(e.to_string().contains("as intended"), "{e}");
}

#[test]
fn the_first_file_may_be_new_and_empty() {
    // Without the probe the executor would take the device for a polled one and fail the read with EOPNOTSUPP.
    let dir = Scratch::new("first_file");
    run_one(async {
        let o = OpenOptions::new().read(true).write(true).create_new(true);
        let f = File::open(&dir.path().join("a"), o).await.unwrap();
        f.write_at(filled(BLOCK, 1), 0).await.unwrap();
        assert_eq!(f.read_at(0, BLOCK).await.unwrap().len(), BLOCK);
    })
    .unwrap();
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "the probe leaves nothing behind");
}

#[test]
fn messages_cross_threads_both_ways() {
    let dir = Scratch::new("crossing");
    let (to0, from1) = inbox::<(usize, u64)>();
    let (to1, from0) = inbox::<(usize, u64)>();
    let ends = std::sync::Arc::new(std::sync::Mutex::new(vec![
        Some((from1, to1)),
        Some((from0, to0)),
    ]));
    let outside = ends.lock().unwrap()[0].as_ref().unwrap().1.clone();
    let threads = run_shards(shards(2, &dir), move |id| {
        let (mut rx, tx) = ends.lock().unwrap()[id].take().unwrap();
        async move {
            let reader = spawn_joined(Class::Network, async move {
                let (mut last, mut n, mut foreign) = (0, 0, 0);
                let mut batch = Vec::new();
                while n < 20_000 {
                    rx.recv_many(&mut batch, 64).await;
                    for (from, i) in batch.drain(..) {
                        if from == 9 {
                            foreign += 1;
                            continue;
                        }
                        n += 1;
                        assert_eq!(i, last, "in order");
                        last = i + 1;
                    }
                }
                while id == 1 && foreign < 100 {
                    foreign += rx.recv_many(&mut batch, 1).await;
                }
                foreign
            });
            for i in 0..20_000 {
                tx.send((id, i)).unwrap();
                if i % 100 == 0 {
                    yield_now().await;
                }
            }
            reader.await
        }
    })
    .unwrap();
    for i in 0..100 {
        outside.send((9, i)).unwrap();
    }
    let results: Vec<usize> = threads.join().into_iter().map(|r| r.unwrap()).collect();
    assert_eq!(results, [0, 100]);
}

#[test]
fn one_listener_feeds_two_shards_and_a_connection_moves() {
    let dir = Scratch::new("two_shards");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let shared = std::sync::Arc::new(listener);
    // Each shard sends the connections it accepts to the other one, which serves them.
    let (to0, at0) = inbox::<DetachedStream>();
    let (to1, at1) = inbox::<DetachedStream>();
    let (stop0, stopped0) = inbox::<()>();
    let (stop1, stopped1) = inbox::<()>();
    let ends = std::sync::Arc::new(std::sync::Mutex::new(vec![
        Some((at0, to1, stopped0)),
        Some((at1, to0, stopped1)),
    ]));
    let threads = run_shards(shards(2, &dir), move |id| {
        let (mut mine, other, mut stopped) = ends.lock().unwrap()[id].take().unwrap();
        let listener = Listener::from_std(shared.try_clone().unwrap()).unwrap();
        async move {
            spawn(Class::Network, async move {
                loop {
                    let (s, _) = listener.accept().await.unwrap();
                    other.send(s.into_raw().unwrap()).unwrap();
                }
            });
            let served = std::rc::Rc::new(std::cell::Cell::new(0));
            let count = served.clone();
            spawn(Class::Network, async move {
                let mut batch = Vec::new();
                while mine.recv_many(&mut batch, 4).await > 0 {
                    for d in batch.drain(..) {
                        let mut s = TcpStream::from_detached(d).unwrap();
                        let mut b = [0; 4];
                        let n = s.read(&mut b).await.unwrap();
                        s.write_all(&b[..n]).await.unwrap();
                        count.set(count.get() + 1);
                    }
                }
            });
            stopped.recv_many(&mut Vec::new(), 1).await;
            served.get()
        }
    })
    .unwrap();
    let (done, all) = mpsc::channel();
    for _ in 0..4 {
        let done = done.clone();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            for _ in 0..10 {
                let mut c = std::net::TcpStream::connect(addr).unwrap();
                c.write_all(b"ping").unwrap();
                let mut b = [0; 4];
                c.read_exact(&mut b).unwrap();
                assert_eq!(&b, b"ping");
            }
            done.send(()).unwrap();
        });
    }
    drop(done);
    assert_eq!(all.iter().count(), 4);
    drop((stop0, stop1));
    let served: usize = threads.join().into_iter().map(|r| r.unwrap()).sum();
    assert_eq!(served, 40);
}

#[test]
fn parked_tasks_end_with_the_executor() {
    struct Flag(std::rc::Rc<std::cell::Cell<u32>>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = std::rc::Rc::new(std::cell::Cell::new(0));
    run_one(async {
        let (tx, mut rx) = inbox::<u8>();
        let l = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let flags: Vec<Flag> = (0..3).map(|_| Flag(dropped.clone())).collect();
        let mut flags = flags.into_iter();
        let (a, b, c) = (flags.next(), flags.next(), flags.next());
        spawn(Class::Network, async move {
            sleep(std::time::Duration::from_secs(3600)).await;
            drop(a);
        });
        spawn(Class::Network, async move {
            rx.recv_many(&mut Vec::new(), 1).await;
            drop((b, tx));
        });
        spawn(Class::Network, async move {
            l.accept().await.unwrap();
            drop(c);
        });
        yield_now().await;
    })
    .unwrap();
    assert_eq!(dropped.get(), 3);
}
