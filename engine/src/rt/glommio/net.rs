//! Owns TCP on the real runtime.
//! Does not know what is said over it.
//! Invariant: everything is readiness based (try the system call, wait only on EAGAIN), so that a dropped future loses
//! no byte and no connection; sockets and listeners may be shared by executors.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::glommio::net::TcpStream as GlommioStream;
use futures_lite::{AsyncRead, AsyncWrite};

use super::io_error;
use crate::rt::Peer;

/// Connections the kernel queues for us; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Pause after running out of descriptors or memory in accept, which otherwise fails at once, again and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(in crate::rt) struct RealListener(StdListener);

impl RealListener {
    /// Without SO_REUSEPORT (glommio's own bind always sets it): a second broker on the same port must fail.
    pub(in crate::rt) fn bind(addr: SocketAddr) -> io::Result<Self> {
        Self::from_std(StdListener::bind(addr)?)
    }

    pub(in crate::rt) fn from_std(l: StdListener) -> io::Result<Self> {
        // SAFETY: the descriptor is an open listener; a second listen only changes the backlog.
        if unsafe { libc::listen(l.as_raw_fd(), BACKLOG) } != 0 {
            return Err(io::Error::last_os_error());
        }
        l.set_nonblocking(true)?;
        Ok(RealListener(l))
    }

    pub(in crate::rt) fn try_clone(&self) -> io::Result<Self> {
        Ok(RealListener(self.0.try_clone()?))
    }

    pub(in crate::rt) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// accept4 by hand: glommio's accept switches the O_NONBLOCK flag off and on, which executors that share the listener
    /// would see, and may swallow a connection when its future is dropped.
    pub(in crate::rt) async fn accept(&self) -> io::Result<(RealStream, SocketAddr)> {
        loop {
            let e = match self.0.accept() {
                Ok((s, peer)) => return Ok((RealStream::new(s)?, peer)),
                Err(e) => e,
            };
            match e.raw_os_error() {
                Some(libc::EAGAIN) => readable(self.0.as_raw_fd()).await?,
                // The peer gave up, or a signal: there may be others.
                Some(libc::ECONNABORTED | libc::EINTR) => {}
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    super::sleep(ACCEPT_PAUSE).await;
                    return Err(e);
                }
                Some(_) | None => return Err(e),
            }
        }
    }
}

/// Waits until a listening descriptor is readable. glommio has no public way to poll a descriptor, but its stream polls
/// the descriptor it is made from, and its first read completes only after that poll does (then with ENOTCONN, a listener
/// having no bytes). One such stream per wait, on a duplicate of the descriptor.
async fn readable(fd: RawFd) -> io::Result<()> {
    let dup = duplicate(fd)?;
    // SAFETY: the descriptor was just duplicated, so the stream alone owns it.
    let mut waiter = unsafe { GlommioStream::from_raw_fd(dup.into_raw_fd()) };
    poll_fn(
        |cx| match Pin::new(&mut waiter).poll_read(cx, &mut [0u8; 1]) {
            Poll::Ready(Ok(_) | Err(_)) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        },
    )
    .await
}

fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: every caller holds the socket that owns `fd`.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}

/// Both halves share it; every borrow ends before its poll returns.
#[derive(Debug)]
pub(in crate::rt) struct RealStream(RefCell<GlommioStream>);

impl RealStream {
    fn new(s: StdStream) -> io::Result<Self> {
        s.set_nodelay(true)?;
        // SAFETY: ownership of the descriptor moves over.
        let s = unsafe { GlommioStream::from_raw_fd(s.into_raw_fd()) };
        Ok(RealStream(RefCell::new(s)))
    }

    pub(in crate::rt) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let s = GlommioStream::connect(addr).await.map_err(io_error)?;
        s.set_nodelay(true).map_err(io_error)?;
        Ok(RealStream(RefCell::new(s)))
    }

    pub(in crate::rt) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::new(StdStream::from(fd))
    }

    /// The connection without this executor: what glommio has under way on it is only a poll.
    pub(in crate::rt) fn into_fd(self) -> io::Result<OwnedFd> {
        duplicate(self.fd())
    }

    fn fd(&self) -> RawFd {
        self.0.borrow().as_raw_fd()
    }

    pub(in crate::rt) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.borrow().peer_addr().map_err(io_error)
    }

    pub(in crate::rt) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.borrow().local_addr().map_err(io_error)
    }

    pub(in crate::rt) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }

    /// Sends some of `bytes`; waits only when the socket is full.
    pub(in crate::rt) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
    }

    /// Like `poll_write`, for several pieces in one system call.
    pub(in crate::rt) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match send_now(self.fd(), pieces) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let Some(first) = pieces.iter().find(|p| !p.is_empty()) else {
                    return Poll::Ready(Ok(0));
                };
                // Sends the first piece if there is room by now; otherwise registers the wake-up.
                self.poll_write(cx, first)
            }
            other => Poll::Ready(other),
        }
    }

    pub(in crate::rt) fn peer(&self) -> Peer {
        let mut poll = libc::pollfd {
            fd: self.fd(),
            events: libc::POLLRDHUP,
            revents: 0,
        };
        // SAFETY: one descriptor, which is open, and no time to wait.
        let ready = unsafe { libc::poll(&mut poll, 1, 0) };
        if ready != 1 {
            Peer::Sending
        } else if poll.revents & (libc::POLLERR | libc::POLLHUP) != 0 {
            Peer::Reset
        } else {
            Peer::Ended
        }
    }

    pub(in crate::rt) fn shutdown_write(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open.
        if unsafe { libc::shutdown(self.fd(), libc::SHUT_WR) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn send_now(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: an all-zero msghdr is valid.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSlice has the layout of iovec, and sendmsg only reads them.
    msg.msg_iov = pieces.as_ptr().cast_mut().cast();
    msg.msg_iovlen = pieces.len().min(libc::UIO_MAXIOV as usize) as _;
    // SAFETY: `msg` and the pieces outlive the call.
    let n = unsafe { libc::sendmsg(fd, &msg, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
