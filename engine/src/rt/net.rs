//! Owns the face of TCP: listeners, streams, their halves, and moving a connection to another core.
//! Does not know what is said over it, nor (beyond one match each) which runtime serves it.
//! Invariant: dropping the future of a read loses no byte, and a connection closes when both halves are gone.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use super::glommio::net::{RealListener, RealStream};
use super::sim::{self, SimListener, SimStream};

/// Pieces handed to the kernel in one call.
const PIECES_MAX: usize = 64;

/// A bound, listening address.
#[derive(Debug)]
pub struct Listener(ListenerKind);

#[derive(Debug)]
enum ListenerKind {
    Real(RealListener),
    Sim(SimListener),
}

impl Listener {
    /// Binds and listens, without SO_REUSEPORT. Port 0 asks for a free one.
    ///
    /// # Errors
    /// `AddrInUse` and the like.
    pub fn bind(addr: SocketAddr) -> io::Result<Listener> {
        Ok(Listener(match sim::current() {
            Some(core) => ListenerKind::Sim(SimListener::bind(core, addr)?),
            None => ListenerKind::Real(RealListener::bind(addr)?),
        }))
    }

    /// A listener bound before the shards started; each of them takes a `try_clone` of the same one. (Real runtime only.)
    pub fn from_std(l: std::net::TcpListener) -> io::Result<Listener> {
        assert!(
            sim::current().is_none(),
            "a real socket inside the simulator"
        );
        Ok(Listener(ListenerKind::Real(RealListener::from_std(l)?)))
    }

    /// Another handle for the same socket: whichever accepts first gets the connection.
    pub fn try_clone(&self) -> io::Result<Listener> {
        Ok(Listener(match &self.0 {
            ListenerKind::Real(l) => ListenerKind::Real(l.try_clone()?),
            ListenerKind::Sim(l) => ListenerKind::Sim(l.clone()),
        }))
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            ListenerKind::Real(l) => l.local_addr(),
            ListenerKind::Sim(l) => Ok(l.local_addr()),
        }
    }

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// Out of descriptors or memory: after a pause, so that a loop may simply try again.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            ListenerKind::Real(l) => {
                let (s, peer) = l.accept().await?;
                Ok((TcpStream::new(Kind::Real(s)), peer))
            }
            ListenerKind::Sim(l) => {
                let (s, peer) = l.accept().await?;
                Ok((TcpStream::new(Kind::Sim(s)), peer))
            }
        }
    }
}

#[derive(Debug)]
enum Kind {
    Real(RealStream),
    Sim(SimStream),
}

impl Kind {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Kind::Real(s) => s.poll_read(cx, buf),
            Kind::Sim(s) => s.poll_read(cx, buf),
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Kind::Real(s) => s.poll_write(cx, bytes),
            Kind::Sim(s) => s.poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Kind::Real(s) => s.poll_write_vectored(cx, pieces),
            Kind::Sim(s) => match pieces.iter().find(|p| !p.is_empty()) {
                Some(first) => s.poll_write(cx, first),
                None => Poll::Ready(Ok(0)),
            },
        }
    }
}

/// A TCP connection, with TCP_NODELAY.
#[derive(Debug)]
pub struct TcpStream(Rc<Kind>);

/// Tells whether a connection still is one, to somebody who neither reads nor writes. Does not keep it open.
#[derive(Debug)]
pub struct Pulse(Weak<Kind>);

/// What is known of the other end, whether or not what it sent has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Sending,
    /// Its stream has ended. It may still read, or be gone: only a write will tell.
    Ended,
    /// The connection is none any more.
    Reset,
}

impl Pulse {
    /// What the system knows by now.
    pub fn peer(&self) -> Peer {
        match self.0.upgrade().as_deref() {
            Some(Kind::Real(s)) => s.peer(),
            Some(Kind::Sim(s)) => s.peer(),
            None => Peer::Reset,
        }
    }
}

/// A connection on its way to another core; bound to no runtime.
#[derive(Debug)]
pub struct DetachedStream(Detached);

#[derive(Debug)]
enum Detached {
    Real(OwnedFd),
    Sim(sim::DetachedSim),
}

impl TcpStream {
    fn new(kind: Kind) -> Self {
        TcpStream(Rc::new(kind))
    }

    /// Connects; wrap it in `timeout` for a limit shorter than the system's.
    pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        Ok(TcpStream::new(match sim::current() {
            Some(core) => Kind::Sim(SimStream::connect(core, addr).await?),
            None => Kind::Real(RealStream::connect(addr).await?),
        }))
    }

    /// For whoever only wants to know whether it is still there.
    pub fn pulse(&self) -> Pulse {
        Pulse(Rc::downgrade(&self.0))
    }

    /// The two directions, each for a task of its own.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (ReadHalf(self.0.clone()), WriteHalf(self.0))
    }

    /// The other end's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &*self.0 {
            Kind::Real(s) => s.peer_addr(),
            Kind::Sim(s) => Ok(s.peer_addr()),
        }
    }

    /// This end's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &*self.0 {
            Kind::Real(s) => s.local_addr(),
            Kind::Sim(s) => Ok(s.local_addr()),
        }
    }

    /// Reads what is there, at least one byte unless `buf` is empty; 0 at the end of the stream.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.0.poll_read(cx, buf)).await
    }

    /// Writes all of `bytes`.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_all(&self.0, bytes).await
    }

    /// Takes the connection off this core. Nothing of what the peer sent is lost.
    pub fn into_raw(self) -> io::Result<DetachedStream> {
        let kind = Rc::into_inner(self.0).expect("an unsplit stream has one owner");
        Ok(DetachedStream(match kind {
            Kind::Real(s) => Detached::Real(s.into_fd()?),
            Kind::Sim(s) => Detached::Sim(s.detach()),
        }))
    }

    /// Puts a connection onto this core.
    pub fn from_detached(d: DetachedStream) -> io::Result<TcpStream> {
        Ok(TcpStream::new(match d.0 {
            Detached::Real(fd) => Kind::Real(RealStream::from_fd(fd)?),
            Detached::Sim(d) => Kind::Sim(SimStream::attach(d)),
        }))
    }

    /// The whole stream again, of two halves of the same connection.
    ///
    /// # Panics
    /// If they are of different connections.
    pub fn unsplit(r: ReadHalf, w: WriteHalf) -> TcpStream {
        assert!(Rc::ptr_eq(&r.0, &w.0), "halves of different connections");
        drop(r);
        TcpStream(w.0)
    }
}

/// The reading direction.
#[derive(Debug)]
pub struct ReadHalf(Rc<Kind>);

impl ReadHalf {
    /// Reads what is there, at least one byte unless `buf` is empty; 0 at the end of the stream.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.0.poll_read(cx, buf)).await
    }
}

/// The writing direction.
#[derive(Debug)]
pub struct WriteHalf(Rc<Kind>);

impl WriteHalf {
    /// Writes all of `bytes`. When the future is dropped, any part may have been written.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_all(&self.0, bytes).await
    }

    /// Writes all the pieces, in order, up to 64 of them in one system call. When the future is dropped, any part may have
    /// been written.
    pub async fn write_vectored_all(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let mut first = 0;
        let mut skip = 0;
        loop {
            while first < pieces.len() && skip == pieces[first].len() {
                first += 1;
                skip = 0;
            }
            if first == pieces.len() {
                return Ok(());
            }
            let mut n = poll_fn(|cx| {
                let mut batch = [IoSlice::new(&[]); PIECES_MAX];
                let rest = &pieces[first..pieces.len().min(first + PIECES_MAX)];
                for (slot, piece) in batch.iter_mut().zip(rest) {
                    *slot = IoSlice::new(piece);
                }
                batch[0] = IoSlice::new(&rest[0][skip..]);
                self.0.poll_write_vectored(cx, &batch[..rest.len()])
            })
            .await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while n > 0 {
                let left = pieces[first].len() - skip;
                if n < left {
                    skip += n;
                    break;
                }
                n -= left;
                first += 1;
                skip = 0;
            }
        }
    }

    /// Ends this direction: the peer reads the end of the stream after what was written.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match &*self.0 {
            Kind::Real(s) => s.shutdown_write(),
            Kind::Sim(s) => s.shutdown_write(),
        }
    }

    /// The other end's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &*self.0 {
            Kind::Real(s) => s.peer_addr(),
            Kind::Sim(s) => Ok(s.peer_addr()),
        }
    }
}

async fn write_all(kind: &Kind, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| kind.poll_write(cx, bytes)).await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
    }
    Ok(())
}
