//! Owns the simulated network: listeners, connections, partitions and resets.
//! Does not know what is said.
//! Invariant: bytes of one direction arrive in order and at most once; a partition delays them, a reset loses them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::super::net::Peer;
use super::super::time::Mono;
use super::core::{current, Core};
use super::NodeId;

type SockId = u64;

fn errno(n: i32) -> io::Error {
    io::Error::from_raw_os_error(n)
}

struct Piece {
    at: Mono,
    bytes: Box<[u8]>,
    /// Bytes of it read so far.
    read: usize,
}

struct Sock {
    node: NodeId,
    peer: Option<SockId>,
    peer_node: NodeId,
    local: SocketAddr,
    remote: SocketAddr,
    /// What the peer sent, with the time each piece arrives.
    rx: VecDeque<Piece>,
    rx_bytes: usize,
    last_arrival: Mono,
    /// The peer's end of stream arrives then.
    fin_at: Option<Mono>,
    reset_at: Option<Mono>,
    write_shut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Sock {
    fn wake(&mut self) -> impl Iterator<Item = Waker> {
        self.reader.take().into_iter().chain(self.writer.take())
    }
}

struct Lst {
    id: u64,
    node: NodeId,
    handles: u32,
    queue: VecDeque<SockId>,
    waiting: Vec<Waker>,
}

#[derive(Default)]
pub(super) struct Net {
    socks: BTreeMap<SockId, Sock>,
    listeners: BTreeMap<SocketAddr, Lst>,
    partitions: BTreeSet<(NodeId, NodeId)>,
    next: u64,
}

/// First port handed out by the simulated system.
const EPHEMERAL: u64 = 32_768;
const EPHEMERAL_COUNT: u64 = 28_000;

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for w in wakers {
        w.wake();
    }
}

impl Net {
    fn cut(&self, a: NodeId, b: NodeId) -> bool {
        self.partitions.contains(&pair(a, b))
    }

    fn free_port(&mut self) -> u16 {
        self.next += 1;
        (EPHEMERAL + self.next % EPHEMERAL_COUNT) as u16
    }

    fn listener(&mut self, l: &SimListener) -> Option<&mut Lst> {
        self.listeners.get_mut(&l.addr).filter(|x| x.id == l.id)
    }

    fn find_listener(&self, addr: SocketAddr) -> Option<SocketAddr> {
        let any: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, addr.port()).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, addr.port()).into(),
        };
        [addr, any]
            .into_iter()
            .find(|a| self.listeners.contains_key(a))
    }

    /// Marks a connection end as reset from `at` on.
    fn reset(&mut self, id: SockId, at: Mono) -> Vec<Waker> {
        match self.socks.get_mut(&id) {
            Some(s) => {
                s.reset_at = Some(s.reset_at.map_or(at, |t| t.min(at)));
                s.wake().collect()
            }
            None => Vec::new(),
        }
    }

    /// Forgets an end; the other one reads the end of the stream, or a reset if bytes were left unread.
    fn close(&mut self, id: SockId, at: Mono) -> Vec<Waker> {
        let Some(s) = self.socks.remove(&id) else {
            return Vec::new();
        };
        let Some(peer) = s.peer else {
            return Vec::new();
        };
        let unread = s.rx_bytes > 0;
        match self.socks.get_mut(&peer) {
            Some(p) => {
                p.peer = None;
                let at = at.max(p.last_arrival);
                if unread {
                    return self.reset(peer, at);
                }
                p.fin_at = p.fin_at.or(Some(at));
                p.wake().collect()
            }
            None => Vec::new(),
        }
    }
}

impl Core {
    fn arrival(&self) -> Mono {
        self.now() + self.pick(self.cfg.packet)
    }

    pub(super) fn net_nodes(&self) -> Vec<NodeId> {
        let net = self.net.borrow();
        let socks = net.socks.values().map(|s| s.node);
        socks
            .chain(net.listeners.values().map(|l| l.node))
            .collect()
    }

    pub(super) fn net_open_ends(&self) -> usize {
        self.net.borrow().socks.len()
    }

    pub(super) fn net_partition(&self, a: NodeId, b: NodeId) {
        self.net.borrow_mut().partitions.insert(pair(a, b));
    }

    pub(super) fn net_heal(&self, a: NodeId, b: NodeId) {
        self.net.borrow_mut().partitions.remove(&pair(a, b));
        self.net_wake_everybody();
    }

    pub(super) fn net_heal_all(&self) {
        self.net.borrow_mut().partitions.clear();
        self.net_wake_everybody();
    }

    fn net_wake_everybody(&self) {
        let mut net = self.net.borrow_mut();
        let wakers: Vec<Waker> = net.socks.values_mut().flat_map(Sock::wake).collect();
        drop(net);
        wake_all(wakers);
    }

    pub(super) fn net_reset_between(&self, a: NodeId, b: NodeId) {
        let now = self.now();
        let mut net = self.net.borrow_mut();
        let ids: Vec<SockId> = net
            .socks
            .iter()
            .filter(|(_, s)| pair(s.node, s.peer_node) == pair(a, b))
            .map(|(id, _)| *id)
            .collect();
        let wakers: Vec<Waker> = ids.into_iter().flat_map(|id| net.reset(id, now)).collect();
        drop(net);
        wake_all(wakers);
    }

    /// The node's sockets vanish; peers are reset a packet's time later.
    pub(super) fn net_crash(&self, node: NodeId) {
        let mut net = self.net.borrow_mut();
        net.listeners.retain(|_, l| l.node != node);
        let ids: Vec<SockId> = net
            .socks
            .iter()
            .filter(|(_, s)| s.node == node)
            .map(|(id, _)| *id)
            .collect();
        let mut wakers = Vec::new();
        for id in ids {
            let at = self.arrival();
            let Some(s) = net.socks.remove(&id) else {
                continue;
            };
            if let Some(peer) = s.peer {
                if let Some(p) = net.socks.get_mut(&peer) {
                    p.peer = None;
                }
                wakers.extend(net.reset(peer, at));
            }
        }
        drop(net);
        wake_all(wakers);
    }
}

#[derive(Debug)]
pub(in crate::rt) struct SimListener {
    addr: SocketAddr,
    /// Which of the successive listeners on this address: a crash ends them without their handles.
    id: u64,
}

impl SimListener {
    pub(in crate::rt) fn bind(core: Rc<Core>, mut addr: SocketAddr) -> io::Result<Self> {
        let mut net = core.net.borrow_mut();
        while addr.port() == 0 {
            let port = net.free_port();
            let mut with_port = addr;
            with_port.set_port(port);
            if net.find_listener(with_port).is_none() {
                addr = with_port;
            }
        }
        if net.listeners.contains_key(&addr) {
            return Err(errno(libc::EADDRINUSE));
        }
        net.next += 1;
        let id = net.next;
        net.listeners.insert(
            addr,
            Lst {
                id,
                node: core.node(),
                handles: 1,
                queue: VecDeque::new(),
                waiting: Vec::new(),
            },
        );
        Ok(SimListener { addr, id })
    }

    pub(in crate::rt) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(in crate::rt) async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let core = current().expect("a simulated listener is used inside its simulation");
        poll_fn(|cx| {
            let mut net = core.net.borrow_mut();
            let Some(l) = net.listener(self) else {
                return Poll::Ready(Err(errno(libc::EBADF)));
            };
            match l.queue.pop_front() {
                Some(id) => {
                    let remote = net.socks[&id].remote;
                    Poll::Ready(Ok((SimStream::new(id, &net), remote)))
                }
                None => {
                    l.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Clone for SimListener {
    fn clone(&self) -> Self {
        if let Some(core) = current() {
            if let Some(l) = core.net.borrow_mut().listener(self) {
                l.handles += 1;
            }
        }
        SimListener {
            addr: self.addr,
            id: self.id,
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let Some(core) = current() else { return };
        let at = core.now();
        let mut net = core.net.borrow_mut();
        let Some(l) = net.listener(self) else { return };
        l.handles -= 1;
        if l.handles > 0 {
            return;
        }
        let queue = std::mem::take(&mut l.queue);
        net.listeners.remove(&self.addr);
        let mut wakers = Vec::new();
        for id in queue {
            if let Some(peer) = net.socks.remove(&id).and_then(|s| s.peer) {
                wakers.extend(net.reset(peer, at));
            }
        }
        drop(net);
        wake_all(wakers);
    }
}

#[derive(Debug)]
pub(in crate::rt) struct SimStream {
    id: SockId,
    local: SocketAddr,
    remote: SocketAddr,
}

/// A connection between two shards of the simulation.
#[derive(Debug)]
pub(in crate::rt) struct DetachedSim(SimStream);

impl SimStream {
    fn new(id: SockId, net: &Net) -> SimStream {
        let s = &net.socks[&id];
        SimStream {
            id,
            local: s.local,
            remote: s.remote,
        }
    }

    pub(in crate::rt) async fn connect(core: Rc<Core>, addr: SocketAddr) -> io::Result<Self> {
        let node = core.node();
        core.delay(core.cfg.packet).await;
        let found = {
            let net = core.net.borrow();
            let key = net.find_listener(addr);
            key.map(|k| (k, net.listeners[&k].node))
        };
        let Some((key, server)) = found else {
            return Err(errno(libc::ECONNREFUSED));
        };
        if core.net.borrow().cut(node, server) {
            core.sleep_until(core.now() + core.cfg.connect_timeout)
                .await;
            return Err(errno(libc::ETIMEDOUT));
        }
        let (stream, waiting) = {
            let mut net = core.net.borrow_mut();
            let port = net.free_port();
            let ip = Ipv4Addr::new(10, 0, (node.0 >> 8) as u8, node.0 as u8);
            let local = SocketAddr::new(IpAddr::V4(ip), port);
            let (a, b) = (net.next + 1, net.next + 2);
            net.next += 2;
            let now = core.now();
            let end = |node, peer, peer_node, local, remote| Sock {
                node,
                peer: Some(peer),
                peer_node,
                local,
                remote,
                rx: VecDeque::new(),
                rx_bytes: 0,
                last_arrival: now,
                fin_at: None,
                reset_at: None,
                write_shut: false,
                reader: None,
                writer: None,
            };
            net.socks.insert(a, end(node, b, server, local, addr));
            net.socks.insert(b, end(server, a, node, addr, local));
            let l = net.listeners.get_mut(&key).expect("found just now");
            l.queue.push_back(b);
            let waiting = std::mem::take(&mut l.waiting);
            (SimStream::new(a, &net), waiting)
        };
        wake_all(waiting);
        core.delay(core.cfg.packet).await;
        Ok(stream)
    }

    fn core(&self) -> Rc<Core> {
        current().expect("a simulated socket is used inside its simulation")
    }

    pub(in crate::rt) fn peer_addr(&self) -> SocketAddr {
        self.remote
    }

    pub(in crate::rt) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(in crate::rt) fn detach(self) -> DetachedSim {
        DetachedSim(self)
    }

    pub(in crate::rt) fn attach(d: DetachedSim) -> SimStream {
        d.0
    }

    pub(in crate::rt) fn peer(&self) -> Peer {
        let core = self.core();
        let net = core.net.borrow();
        let Some(s) = net.socks.get(&self.id) else {
            return Peer::Reset;
        };
        let came =
            |at: Option<Mono>| at.is_some_and(|t| t <= core.now()) && !net.cut(s.node, s.peer_node);
        if came(s.reset_at) {
            Peer::Reset
        } else if came(s.fin_at) {
            Peer::Ended
        } else {
            Peer::Sending
        }
    }

    pub(in crate::rt) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let core = self.core();
        let now = core.now();
        let mut net = core.net.borrow_mut();
        let cut = match net.socks.get(&self.id) {
            Some(s) => net.cut(s.node, s.peer_node),
            None => return Poll::Ready(Err(errno(libc::ECONNRESET))),
        };
        let s = net.socks.get_mut(&self.id).expect("looked up just now");
        if !cut {
            if s.reset_at.is_some_and(|t| t <= now) {
                return Poll::Ready(Err(errno(libc::ECONNRESET)));
            }
            if buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let limit = if core.one_in(4) {
                1 + core.below(buf.len() as u64) as usize
            } else {
                buf.len()
            };
            let mut n = 0;
            while n < limit {
                match s.rx.front_mut() {
                    Some(piece) if piece.at <= now => {
                        let left = &piece.bytes[piece.read..];
                        let take = left.len().min(limit - n);
                        buf[n..n + take].copy_from_slice(&left[..take]);
                        n += take;
                        piece.read += take;
                        if piece.read == piece.bytes.len() {
                            s.rx.pop_front();
                        }
                    }
                    Some(_) | None => break,
                }
            }
            if n > 0 {
                s.rx_bytes -= n;
                core.note(self.id ^ (n as u64).rotate_left(40));
                let peer = s.peer;
                let writer = peer
                    .and_then(|p| net.socks.get_mut(&p))
                    .and_then(|p| p.writer.take());
                drop(net);
                wake_all(writer);
                return Poll::Ready(Ok(n));
            }
            if s.rx.is_empty() && s.fin_at.is_some_and(|t| t <= now) {
                return Poll::Ready(Ok(0));
            }
        }
        s.reader = Some(cx.waker().clone());
        let next = [s.rx.front().map(|p| p.at), s.fin_at, s.reset_at]
            .into_iter()
            .flatten()
            .filter(|t| *t > now)
            .min();
        drop(net);
        if let Some(t) = next {
            core.add_timer(t, cx.waker().clone());
        }
        Poll::Pending
    }

    pub(in crate::rt) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let core = self.core();
        let now = core.now();
        let random_reset = core.chance_ppm(core.cfg.reset_ppm);
        let mut net = core.net.borrow_mut();
        let Some(s) = net.socks.get_mut(&self.id) else {
            return Poll::Ready(Err(errno(libc::ECONNRESET)));
        };
        if s.reset_at.is_some_and(|t| t <= now) {
            return Poll::Ready(Err(errno(libc::ECONNRESET)));
        }
        if s.write_shut {
            return Poll::Ready(Err(errno(libc::EPIPE)));
        }
        let Some(peer) = s.peer else {
            return Poll::Ready(Err(errno(libc::EPIPE)));
        };
        if random_reset {
            let mut wakers = net.reset(self.id, now);
            wakers.extend(net.reset(peer, core.arrival()));
            drop(net);
            wake_all(wakers);
            return Poll::Ready(Err(errno(libc::ECONNRESET)));
        }
        let p = net.socks.get_mut(&peer).expect("a peer that is linked");
        let room = core.cfg.window_bytes.saturating_sub(p.rx_bytes);
        if room == 0 && !bytes.is_empty() {
            let s = net.socks.get_mut(&self.id).expect("looked up above");
            s.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut n = bytes.len().min(room);
        if n > 1 && core.one_in(4) {
            n = 1 + core.below(n as u64) as usize;
        }
        if n > 0 {
            let at = core.arrival().max(p.last_arrival);
            p.last_arrival = at;
            p.rx_bytes += n;
            p.rx.push_back(Piece {
                at,
                bytes: bytes[..n].into(),
                read: 0,
            });
            let reader = p.reader.take();
            drop(net);
            wake_all(reader);
        }
        Poll::Ready(Ok(n))
    }

    pub(in crate::rt) fn shutdown_write(&self) -> io::Result<()> {
        let core = self.core();
        let at = core.arrival();
        let mut net = core.net.borrow_mut();
        let Some(s) = net.socks.get_mut(&self.id) else {
            return Err(errno(libc::ENOTCONN));
        };
        s.write_shut = true;
        let peer = s.peer;
        let wakers: Vec<Waker> = match peer.and_then(|p| net.socks.get_mut(&p)) {
            Some(p) => {
                p.fin_at = p.fin_at.or(Some(at.max(p.last_arrival)));
                p.wake().collect()
            }
            None => Vec::new(),
        };
        drop(net);
        wake_all(wakers);
        Ok(())
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let Some(core) = current() else { return };
        let at = core.arrival();
        let wakers = core.net.borrow_mut().close(self.id, at);
        wake_all(wakers);
    }
}
