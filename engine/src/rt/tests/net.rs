//! Tests of TCP, on both runtimes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::*;
use super::{both, pattern};

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Answers everything with itself until the end of the stream, then closes.
async fn echo(s: TcpStream) {
    let (mut r, mut w) = s.split();
    let mut buf = vec![0; 8192];
    loop {
        let n = r.read(&mut buf).await.unwrap();
        if n == 0 {
            return;
        }
        w.write_all(&buf[..n]).await.unwrap();
    }
}

async fn echo_server() -> SocketAddr {
    let l = Listener::bind(any()).unwrap();
    let addr = l.local_addr().unwrap();
    spawn(Class::Network, async move {
        loop {
            let (s, peer) = l.accept().await.unwrap();
            assert_eq!(s.peer_addr().unwrap(), peer);
            spawn(Class::Network, echo(s));
        }
    });
    addr
}

async fn read_to_end(r: &mut ReadHalf) -> Vec<u8> {
    let mut out = Vec::new();
    let mut buf = vec![0; 5000];
    loop {
        let n = r.read(&mut buf).await.unwrap();
        if n == 0 {
            return out;
        }
        out.extend_from_slice(&buf[..n]);
    }
}

#[test]
fn echo_with_back_pressure_and_half_close() {
    both("echo", |_| async {
        let addr = echo_server().await;
        let clients: Vec<_> = (1..4usize)
            .map(|i| {
                spawn_joined(Class::Network, async move {
                    let data = pattern(i * 300_000);
                    let s = TcpStream::connect(addr).await.unwrap();
                    assert_eq!(s.peer_addr().unwrap(), addr);
                    let (mut r, mut w) = s.split();
                    let sent = data.clone();
                    let writer = spawn_joined(Class::Network, async move {
                        w.write_all(&sent).await.unwrap();
                        w.shutdown().await.unwrap();
                        w
                    });
                    let got = read_to_end(&mut r).await;
                    assert!(got == data, "{} of {}", got.len(), data.len());
                    drop(writer.await);
                })
            })
            .collect();
        for c in clients {
            c.await;
        }
    });
}

#[test]
fn vectored_writes_arrive_in_order() {
    both("vectored", |_| async {
        let l = Listener::bind(any()).unwrap();
        let addr = l.local_addr().unwrap();
        let data = pattern(3_000_000);
        let expect = data.clone();
        let server = spawn_joined(Class::Network, async move {
            let (mut r, _w) = l.accept().await.unwrap().0.split();
            // Let the writer fill the socket and wait.
            for _ in 0..50 {
                yield_now().await;
            }
            read_to_end(&mut r).await
        });
        let (_r, mut w) = TcpStream::connect(addr).await.unwrap().split();
        w.write_vectored_all(&[]).await.unwrap();
        w.write_vectored_all(&[&[], &[]]).await.unwrap();
        // Many small pieces, empty ones among them, then few large ones.
        let (small, large) = data.split_at(10_000);
        let mut pieces: Vec<&[u8]> = Vec::new();
        for c in small.chunks(37) {
            pieces.push(c);
            pieces.push(&[]);
        }
        pieces.extend(large.chunks(1_000_000));
        w.write_vectored_all(&pieces).await.unwrap();
        w.shutdown().await.unwrap();
        assert!(server.await == expect);
    });
}

#[test]
fn a_cancelled_read_loses_nothing() {
    both("cancelled_read", |_| async {
        let addr = echo_server().await;
        let (mut r, mut w) = TcpStream::connect(addr).await.unwrap().split();
        let mut buf = [0; 64];
        for round in 0..20u8 {
            let polled = futures_lite::future::poll_once(r.read(&mut buf)).await;
            assert!(polled.is_none(), "nothing was sent yet");
            w.write_all(&[round]).await.unwrap();
            assert_eq!(r.read(&mut buf).await.unwrap(), 1);
            assert_eq!(buf[0], round);
        }
    });
}

#[test]
fn a_detached_connection_keeps_unread_bytes() {
    both("detached", |_| async {
        let l = Listener::bind(any()).unwrap();
        let addr = l.local_addr().unwrap();
        let client = spawn_joined(Class::Network, async move {
            let mut s = TcpStream::connect(addr).await.unwrap();
            s.write_all(b"before").await.unwrap();
            let mut buf = [0; 16];
            let n = s.read(&mut buf).await.unwrap();
            assert_eq!(&buf[..n], b"ok");
            s.write_all(b" after").await.unwrap();
        });
        let (s, _) = l.accept().await.unwrap();
        let (mut r, w) = s.split();
        let mut one = [0];
        assert_eq!(r.read(&mut one).await.unwrap(), 1);
        let moved = TcpStream::unsplit(r, w).into_raw().unwrap();
        let (mut r, mut w) = TcpStream::from_detached(moved).unwrap().split();
        w.write_all(b"ok").await.unwrap();
        let rest = read_to_end(&mut r).await;
        assert_eq!([&one[..], &rest].concat(), b"before after");
        client.await;
    });
}

#[test]
fn errors_of_the_peer() {
    both("peer_errors", |_| async {
        let l = Listener::bind(any()).unwrap();
        let addr = l.local_addr().unwrap();
        let e = Listener::bind(addr).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AddrInUse);

        let mut client = TcpStream::connect(addr).await.unwrap();
        let (server, _) = l.accept().await.unwrap();
        drop(server);
        let mut buf = [0; 8];
        assert_eq!(client.read(&mut buf).await.unwrap(), 0);
        // The first write may still be taken; its answer is a reset.
        let error = loop {
            if let Err(e) = client.write_all(&[0; 1000]).await {
                break e;
            }
            yield_now().await;
        };
        assert!(
            matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ),
            "{error}"
        );
        drop(l);
        let e = TcpStream::connect(addr).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_pulse_tells_of_the_peer_to_who_does_not_read() {
    both("pulse", |_| async {
        let l = Listener::bind(any()).unwrap();
        let mut client = TcpStream::connect(l.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = l.accept().await.unwrap();
        let pulse = server.pulse();
        client.write_all(b"not read").await.unwrap();
        sleep(Duration::from_millis(20)).await;
        assert_eq!(pulse.peer(), Peer::Sending);

        let (r, mut w) = client.split();
        w.shutdown().await.unwrap();
        while pulse.peer() == Peer::Sending {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(pulse.peer(), Peer::Ended);

        // What nobody takes makes the peer's end a reset.
        server.write_all(b"not taken").await.unwrap();
        sleep(Duration::from_millis(20)).await;
        drop((r, w));
        while pulse.peer() == Peer::Ended {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(pulse.peer(), Peer::Reset);
        drop(server);
        assert_eq!(pulse.peer(), Peer::Reset);
    });
}

#[test]
fn clones_of_a_listener_share_its_connections() {
    both("listener_clones", |_| async {
        let a = Listener::bind(any()).unwrap();
        let b = a.try_clone().unwrap();
        let addr = a.local_addr().unwrap();
        assert_eq!(b.local_addr().unwrap(), addr);
        let (tx, mut rx) = inbox();
        for l in [a, b] {
            let tx = tx.clone();
            spawn(Class::Network, async move {
                loop {
                    let (s, _) = l.accept().await.unwrap();
                    drop(s);
                    tx.send(()).unwrap();
                }
            });
        }
        for _ in 0..10 {
            let mut s = TcpStream::connect(addr).await.unwrap();
            assert_eq!(s.read(&mut [0; 4]).await.unwrap(), 0);
        }
        let mut seen = Vec::new();
        while seen.len() < 10 {
            rx.recv_many(&mut seen, 10).await;
        }
    });
}

#[test]
fn a_cancelled_accept_loses_nothing() {
    both("cancelled_accept", |_| async {
        let l = Listener::bind(any()).unwrap();
        let addr = l.local_addr().unwrap();
        for _ in 0..10 {
            assert!(futures_lite::future::poll_once(l.accept()).await.is_none());
            let mut client = TcpStream::connect(addr).await.unwrap();
            let (mut server, _) = l.accept().await.unwrap();
            server.write_all(b"x").await.unwrap();
            let mut buf = [0; 4];
            assert_eq!(client.read(&mut buf).await.unwrap(), 1);
        }
    });
}
