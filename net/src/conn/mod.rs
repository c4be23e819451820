//! Owns one connection: reads requests, has them served, and writes the responses in the order of the requests.
//! Does not know how a request is served, nor how connections come about.
//! Invariant: what the connection holds (requests under way, responses not sent) stays within its bounds; at them it
//! stops reading.

mod read;
mod write;

use crate::handlers::fetch_session::Session;
use crate::handlers::share_session::ShareSessions;
use crate::inbuf::InBuf;
use crate::out::Out;
use crate::placement::Placement;
use crate::shard::ShardNet;
use crate::shared::{Door, Handoff, Ticket};
use crate::wire::{ApiKey, WireError};
use millrace_engine::rt;
use read::ReadEnd;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{poll_fn, Future};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use write::InFlight;

/// How long a quiet connection keeps its read buffer.
const SHRINK_AFTER: Duration = Duration::from_secs(10);

/// Why a connection ended, when it was not the client's own doing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseReason {
    #[error("the client closed the connection")]
    Eof,
    #[error("the broker is stopping")]
    Stopping,
    #[error("idle for too long")]
    Idle,
    #[error("a request took too long to arrive")]
    SlowRequest,
    #[error("the client does not take its responses")]
    SlowReader,
    #[error("the connection did not end in time")]
    SlowEnd,
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    #[error("malformed: {0}")]
    Malformed(#[from] WireError),
    #[error("{key} has no version {version} here")]
    UnsupportedVersion { key: ApiKey, version: i16 },
    #[error("a produce without acknowledgement failed: {0}")]
    UnacknowledgedFailed(&'static str),
    #[error("a response could not be encoded: {0}")]
    Response(WireError),
}

/// Since when an unfinished frame has held memory, the bytes that came since, and the time before they are counted.
#[derive(Clone, Copy)]
struct Paid {
    since: rt::Mono,
    bytes: usize,
    grace: Duration,
}

/// A used connection's belongings on the way to another shard.
pub(crate) struct Carried {
    inbuf: InBuf,
    moves: u32,
    session: Option<Session>,
}

/// One connection, on the shard where it lives now. All of it runs in one task; everything else (timeouts, the stop)
/// changes its state and wakes that task.
pub(crate) struct Conn {
    pub(crate) shard: Rc<ShardNet>,
    peer: SocketAddr,
    ticket: RefCell<Option<Ticket>>,
    placement: RefCell<Placement>,
    door: Door,
    /// The incremental fetch session that this connection's client uses.
    pub(crate) session: Cell<Option<i32>>,
    /// The share sessions that this connection's client uses.
    share: Rc<ShareSessions>,
    queue: RefCell<VecDeque<InFlight>>,
    out: RefCell<Out>,
    /// The other of two buffers: one is written while the other is filled.
    spare: RefCell<Out>,
    writing_bytes: Cell<usize>,
    request_bytes: Cell<usize>,
    /// Response bytes that fetches under way may yet produce.
    reserved_bytes: Cell<usize>,
    /// No more requests are read; the responses due are still sent.
    finishing: Cell<bool>,
    /// Set with the reason when the connection ends at once.
    aborted: RefCell<Option<CloseReason>>,
    /// The writer changed something that the reader may be waiting for.
    look_again: Cell<bool>,
    /// The reader has had its turn; others run first.
    yielding: Cell<bool>,
    task: RefCell<Option<Waker>>,
    ended: rt::Notify,
    pulse: rt::Pulse,
    /// Reading now, which is how the end of a connection shows at once.
    reading: Cell<bool>,
    // What timeouts are judged by.
    /// When bytes last came or went, or the broker last had what the client waits for.
    last_active: Cell<rt::Mono>,
    /// A request that has come waits for memory.
    waits_for_room: Cell<bool>,
    frame_begun: Cell<Option<(rt::Mono, usize)>>,
    /// Of an unfinished frame that holds memory of the shard.
    frame_paid: Cell<Option<Paid>>,
    /// When the client last took something of the response being written.
    write_begun: Cell<Option<rt::Mono>>,
    /// What `write_begun` was when the client was found to take nothing.
    unread_since: Cell<Option<rt::Mono>>,
    /// Since when what is due has been all that the client can still want, as far as it is known to have ended.
    finish_begun: Cell<Option<rt::Mono>>,
    shrink: Cell<bool>,
}

impl Conn {
    /// Serves a connection that has just arrived on this shard, until it closes or moves on.
    pub(crate) async fn run(
        shard: Rc<ShardNet>,
        stream: rt::TcpStream,
        peer: SocketAddr,
        ticket: Ticket,
        carried: Option<Box<Carried>>,
    ) {
        let (mut inbuf, moves, session) = match carried {
            None => (InBuf::new(), 0, None),
            Some(carried) => {
                let Carried {
                    inbuf,
                    moves,
                    session,
                } = *carried;
                (
                    inbuf,
                    moves,
                    session
                        .and_then(|session| shard.sessions.borrow_mut().adopt(session, rt::now())),
                )
            }
        };
        let now = rt::now();
        let placement = Placement::new(shard.index, moves, shard.config.move_after_requests);
        let conn = Rc::new(Conn {
            shard: shard.clone(),
            peer,
            door: ticket.door(),
            ticket: RefCell::new(Some(ticket)),
            placement: RefCell::new(placement),
            session: Cell::new(session),
            share: Rc::default(),
            queue: RefCell::default(),
            out: RefCell::default(),
            spare: RefCell::default(),
            writing_bytes: Cell::new(0),
            request_bytes: Cell::new(0),
            reserved_bytes: Cell::new(0),
            finishing: Cell::new(false),
            aborted: RefCell::new(None),
            look_again: Cell::new(false),
            yielding: Cell::new(false),
            task: RefCell::new(None),
            ended: rt::Notify::new(),
            pulse: stream.pulse(),
            reading: Cell::new(false),
            last_active: Cell::new(now),
            waits_for_room: Cell::new(false),
            frame_begun: Cell::new(None),
            frame_paid: Cell::new(None),
            write_begun: Cell::new(None),
            unread_since: Cell::new(None),
            finish_begun: Cell::new(None),
            shrink: Cell::new(false),
        });
        let id = shard.register(conn.clone());
        let (mut read_half, mut write_half) = stream.split();
        let end = conn
            .serve(&mut read_half, &mut write_half, &mut inbuf)
            .await;
        conn.ended.notify_all();
        conn.queue.borrow_mut().clear();
        shard.deregister(id);
        conn.share.end(&shard);
        match end {
            ReadEnd::Move(to) if conn.aborted.borrow().is_none() => {
                let stream = rt::TcpStream::unsplit(read_half, write_half);
                conn.hand_over(to, stream, inbuf);
            }
            ReadEnd::Move(_) | ReadEnd::Close(_) | ReadEnd::Aborted => conn.log_end(&end),
        }
        if let Some(session) = conn.session.take() {
            shard.sessions.borrow_mut().remove(session);
        }
    }

    fn hand_over(&self, to: usize, stream: rt::TcpStream, inbuf: InBuf) {
        let session = self
            .session
            .take()
            .and_then(|id| self.shard.sessions.borrow_mut().remove(id));
        let moves = self.placement.borrow().moves() + 1;
        let ticket = self
            .ticket
            .borrow_mut()
            .take()
            .expect("held until the connection ends");
        match stream.into_raw() {
            Ok(stream) => {
                tracing::debug!(peer = %self.peer, from = self.shard.index, to, "connection moves");
                let carried = Some(Box::new(Carried {
                    inbuf,
                    moves,
                    session,
                }));
                self.shard.shared.send(Handoff {
                    stream,
                    peer: self.peer,
                    ticket,
                    carried,
                });
            }
            Err(error) => {
                tracing::warn!(peer = %self.peer, %error, "connection lost while it moved")
            }
        }
    }

    fn log_end(&self, end: &ReadEnd) {
        let aborted = self.aborted.borrow();
        let reason = match (end, &*aborted) {
            // Whatever became of the last responses: the client had gone.
            (ReadEnd::Close(reason @ CloseReason::Eof), _) => reason,
            (_, Some(reason)) => reason,
            (ReadEnd::Close(reason), None) => reason,
            (ReadEnd::Move(_) | ReadEnd::Aborted, None) => unreachable!("aborting gives a reason"),
        };
        match reason {
            CloseReason::Eof | CloseReason::Stopping | CloseReason::Idle => {
                tracing::debug!(peer = %self.peer, %reason, "connection closed");
            }
            CloseReason::Socket(_) => {
                self.shard.metrics.closed_in_error();
                tracing::debug!(peer = %self.peer, %reason, "connection closed");
            }
            CloseReason::UnsupportedVersion { key, version } => {
                self.shard.metrics.closed_in_error();
                if self.shard.first_refusal(key.code(), *version) {
                    tracing::warn!(peer = %self.peer, %reason, "connection closed");
                }
            }
            CloseReason::Malformed(WireError::UnknownApiKey { key }) => {
                self.shard.metrics.closed_in_error();
                if self.shard.first_refusal(*key, -1) {
                    tracing::warn!(peer = %self.peer, %reason, "connection closed");
                }
            }
            CloseReason::SlowRequest
            | CloseReason::SlowReader
            | CloseReason::SlowEnd
            | CloseReason::Malformed(_)
            | CloseReason::UnacknowledgedFailed(_)
            | CloseReason::Response(_) => {
                self.shard.metrics.closed_in_error();
                tracing::warn!(peer = %self.peer, %reason, "connection closed");
            }
        }
    }

    /// Reads and writes until both are over.
    async fn serve(
        &self,
        read: &mut rt::ReadHalf,
        write: &mut rt::WriteHalf,
        inbuf: &mut InBuf,
    ) -> ReadEnd {
        let mut reading = pin!(self.read_loop(read, inbuf));
        let mut writing = pin!(self.write_loop(write));
        let mut end = None;
        let mut written = false;
        poll_fn(|cx| {
            self.remember_task(cx);
            loop {
                self.look_again.set(false);
                if end.is_none() {
                    if let Poll::Ready(ended) = reading.as_mut().poll(cx) {
                        self.finishing.set(true);
                        self.finish_begun.set(Some(rt::now()));
                        end = Some(ended);
                    }
                }
                if !written && writing.as_mut().poll(cx).is_ready() {
                    written = true;
                    self.look_again.set(true);
                }
                if written && end.is_some() {
                    return Poll::Ready(());
                }
                if end.is_some() || self.yielding.get() || !self.look_again.get() {
                    return Poll::Pending;
                }
            }
        })
        .await;
        end.expect("reading has ended")
    }

    fn remember_task(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        match task.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *task = Some(cx.waker().clone()),
        }
    }

    /// Has the connection's task look at its state again.
    fn wake(&self) {
        let task = self.task.borrow_mut().take();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Ends the connection without sending what is still due.
    pub(crate) fn abort(&self, reason: CloseReason) {
        let mut aborted = self.aborted.borrow_mut();
        if aborted.is_none() {
            *aborted = Some(reason);
        }
        drop(aborted);
        self.wake();
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.borrow().is_some()
    }

    /// Has the connection look whether the broker is stopping.
    pub(crate) fn nudge(&self) {
        self.wake();
    }

    /// Ends the connection if it takes nothing of a response whose memory others need. Looks twice: after a pause of
    /// this process, the client may have made room long ago.
    pub(crate) fn check_unread(&self, now: rt::Mono) {
        let grace = self.shard.config.write_grace_pressed;
        let stuck = self
            .write_begun
            .get()
            .filter(|begun| now.since(*begun) > grace);
        if stuck.is_some() && self.unread_since.replace(stuck) == stuck {
            self.abort(CloseReason::SlowReader);
        }
    }

    /// Ends the connection if its unfinished frame comes too slowly for one that holds what others wait for. Looks
    /// twice, too: the bytes may have been there before this process came to read them.
    pub(crate) fn check_unfinished(&self, now: rt::Mono) {
        let Some(paid) = self.frame_paid.get() else {
            return;
        };
        let late = now.since(paid.since).saturating_sub(paid.grace);
        let rate = self.shard.config.frame_bytes_per_second_min as u128;
        if paid.bytes as u128 >= late.as_millis() * rate / 1000 {
            return;
        }
        if paid.grace.is_zero() {
            return self.abort(CloseReason::SlowRequest);
        }
        self.frame_paid.set(Some(Paid {
            since: now,
            bytes: 0,
            grace: Duration::ZERO,
        }));
    }

    /// Applies the timeouts. Called every now and then.
    pub(crate) fn check_timeouts(&self, now: rt::Mono) {
        let config = &self.shard.config;
        if self
            .finish_begun
            .get()
            .is_some_and(|begun| now.since(begun) > config.stop_grace)
        {
            return self.abort(CloseReason::SlowEnd);
        }
        if self
            .write_begun
            .get()
            .is_some_and(|begun| now.since(begun) > config.write_timeout)
        {
            return self.abort(CloseReason::SlowReader);
        }
        if let Some((begun, size)) = self.frame_begun.get() {
            let seconds = size / config.frame_bytes_per_second_min.max(1);
            let allowed = config.frame_timeout + Duration::from_secs(seconds as u64);
            if now.since(begun) > allowed {
                return self.abort(CloseReason::SlowRequest);
            }
        }
        // It has more to read and does not, as it waits for something: so it sees nothing of what becomes of the client.
        if !self.reading.get() {
            match self.pulse.peer() {
                rt::Peer::Sending => {}
                // It may still read what is due; or be gone, and then nobody needs what it asked for.
                rt::Peer::Ended => {
                    let begun = self.finish_begun.get().unwrap_or(now);
                    self.finish_begun.set(Some(begun));
                }
                rt::Peer::Reset => {
                    return self.abort(io::Error::from(io::ErrorKind::ConnectionReset).into())
                }
            }
        }
        let quiet = self.queue.borrow().is_empty()
            && self.request_bytes.get() == 0
            && !self.waits_for_room.get()
            && self.out.borrow().is_empty()
            && self.writing_bytes.get() == 0;
        if quiet && self.frame_begun.get().is_none() {
            let idle = now.since(self.last_active.get());
            if idle > config.idle_timeout {
                return self.abort(CloseReason::Idle);
            }
            if idle > SHRINK_AFTER && !self.shrink.get() {
                self.shrink.set(true);
                self.wake();
            }
        }
    }
}
