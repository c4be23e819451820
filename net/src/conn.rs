//! Owns one connection: reads requests, has them served, and writes the responses in the order of the requests.
//! Does not know how a request is served, nor how connections come about.
//! Invariant: what the connection holds (requests under way, responses not sent) stays within its bounds; at them it
//! stops reading.

use crate::handlers::fetch_session::Session;
use crate::handlers::{self, fetch, produce};
use crate::inbuf::{Framed, InBuf};
use crate::out::Out;
use crate::placement::Placement;
use crate::shard::ShardNet;
use crate::shared::{Handoff, Ticket};
use crate::wire::frame::RequestHeader;
use crate::wire::{ApiKey, Message, Reader, WireError};
use bytes::Bytes;
use millrace_engine::api::{AppendResult, FetchResult};
use millrace_engine::rt;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{poll_fn, Future};
use std::io;
use std::net::SocketAddr;
use std::pin::{pin, Pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Responses encoded into one write before it is started.
const GATHER_BYTES_MAX: usize = 1 << 20;

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
    /// The incremental fetch session that this connection's client uses.
    pub(crate) session: Cell<Option<i32>>,
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
    task: RefCell<Option<Waker>>,
    ended: rt::Notify,
    // What timeouts are judged by.
    last_read: Cell<rt::Mono>,
    frame_begun: Cell<Option<(rt::Mono, usize)>>,
    write_begun: Cell<Option<rt::Mono>>,
    finish_begun: Cell<Option<rt::Mono>>,
    shrink: Cell<bool>,
}

/// A request that was handed over and is not answered yet.
struct InFlight {
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    begun: rt::Mono,
    request_bytes: usize,
    reserved_bytes: usize,
    _memory: rt::Permit,
    work: Work,
}

enum Work {
    Produce {
        results: Pin<Box<dyn Future<Output = Vec<AppendResult>>>>,
        reply: produce::Reply,
    },
    Fetch {
        results: Pin<Box<dyn Future<Output = Option<Vec<FetchResult>>>>>,
        reply: fetch::Reply,
    },
}

/// How reading ended.
enum ReadEnd {
    Close(CloseReason),
    Move(usize),
    /// The reason is in `aborted`.
    Aborted,
}

enum Gathered {
    Write,
    Nothing,
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
            ticket: RefCell::new(Some(ticket)),
            placement: RefCell::new(placement),
            session: Cell::new(session),
            queue: RefCell::default(),
            out: RefCell::default(),
            spare: RefCell::default(),
            writing_bytes: Cell::new(0),
            request_bytes: Cell::new(0),
            reserved_bytes: Cell::new(0),
            finishing: Cell::new(false),
            aborted: RefCell::new(None),
            look_again: Cell::new(false),
            task: RefCell::new(None),
            ended: rt::Notify::new(),
            last_read: Cell::new(now),
            frame_begun: Cell::new(None),
            write_begun: Cell::new(None),
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
                if end.is_some() || !self.look_again.get() {
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

    fn is_aborted(&self) -> bool {
        self.aborted.borrow().is_some()
    }

    /// Has the connection look whether the broker is stopping.
    pub(crate) fn nudge(&self) {
        self.wake();
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
            let allowed = config.frame_timeout + std::time::Duration::from_secs(seconds as u64);
            if now.since(begun) > allowed {
                return self.abort(CloseReason::SlowRequest);
            }
        }
        let quiet = self.queue.borrow().is_empty()
            && self.out.borrow().is_empty()
            && self.writing_bytes.get() == 0;
        if quiet && self.frame_begun.get().is_none() {
            let idle = now.since(self.last_read.get());
            if idle > config.idle_timeout {
                return self.abort(CloseReason::Idle);
            }
            if idle > SHRINK_AFTER && !self.shrink.get() {
                self.shrink.set(true);
                self.wake();
            }
        }
    }

    // ---- reading ----

    async fn read_loop(&self, half: &mut rt::ReadHalf, inbuf: &mut InBuf) -> ReadEnd {
        match self.read_requests(half, inbuf).await {
            Ok(end) => end,
            Err(reason) => ReadEnd::Close(reason),
        }
    }

    async fn read_requests(
        &self,
        half: &mut rt::ReadHalf,
        inbuf: &mut InBuf,
    ) -> Result<ReadEnd, CloseReason> {
        let size_max = self.shard.config.request_bytes_max;
        // For the frame that has begun: taken before its body is read.
        let mut memory = None;
        loop {
            if self.is_aborted() {
                return Ok(ReadEnd::Aborted);
            }
            if self.shard.stopping.get() {
                return Err(CloseReason::Stopping);
            }
            let framed = inbuf.framed(size_max)?;
            let partial = match framed {
                Framed::Nothing => None,
                Framed::Partial { size } | Framed::Whole { size } => {
                    if memory.is_none() {
                        if self.frame_begun.get().is_none() {
                            self.frame_begun.set(Some((rt::now(), size)));
                        }
                        self.frame_begun_waits(size, &mut memory).await;
                        if memory.is_none() {
                            continue;
                        }
                    }
                    Some(size)
                }
            };
            if let Framed::Whole { size } = framed {
                self.frame_begun.set(None);
                let permit = memory.take().expect("taken above");
                self.dispatch(inbuf.take(size), permit).await?;
                if let Some(to) = self.wanted_elsewhere() {
                    if self.until(|| self.is_quiet()).await {
                        return Ok(ReadEnd::Move(to));
                    }
                }
                rt::yield_if_needed().await;
                continue;
            }
            if self.shrink.take() {
                inbuf.shrink();
            }
            if !inbuf.is_empty() && self.frame_begun.get().is_none() {
                self.frame_begun.set(Some((rt::now(), 0)));
            }
            match self.read_some(half, inbuf, partial).await {
                None => continue,
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(0)) => return Err(CloseReason::Eof),
                Some(Ok(count)) => {
                    inbuf.read(count);
                    self.last_read.set(rt::now());
                    self.shard.metrics.bytes_in(count);
                }
            }
        }
    }

    /// Waits for this connection and then for its shard to have room for a request of `size` bytes. Time spent here
    /// is not held against the client. Gives no memory when the connection is to end.
    async fn frame_begun_waits(&self, size: usize, memory: &mut Option<rt::Permit>) {
        let begun = self.frame_begun.take();
        if self.until(|| self.has_room(size)).await {
            let mut permit = pin!(self.shard.broker.request_memory(size));
            *memory = poll_fn(|cx| {
                if self.is_over() {
                    return Poll::Ready(None);
                }
                permit.as_mut().poll(cx).map(Some)
            })
            .await;
        }
        self.frame_begun
            .set(begun.map(|(_, size)| (rt::now(), size)));
    }

    /// One read; `None` when the state of the connection is to be looked at again instead.
    async fn read_some(
        &self,
        half: &mut rt::ReadHalf,
        inbuf: &mut InBuf,
        partial: Option<usize>,
    ) -> Option<io::Result<usize>> {
        let mut read = pin!(half.read(inbuf.room(partial)));
        poll_fn(|cx| {
            if self.is_over() || self.shrink.get() {
                return Poll::Ready(None);
            }
            read.as_mut().poll(cx).map(Some)
        })
        .await
    }

    fn is_over(&self) -> bool {
        self.is_aborted() || self.shard.stopping.get()
    }

    /// Waits until the condition holds; false when the connection is to end before that.
    async fn until(&self, condition: impl Fn() -> bool) -> bool {
        poll_fn(|_| {
            if self.is_aborted() {
                Poll::Ready(false)
            } else if condition() {
                Poll::Ready(true)
            } else if self.shard.stopping.get() {
                Poll::Ready(false)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    fn held_bytes(&self) -> usize {
        self.request_bytes.get()
            + self.reserved_bytes.get()
            + self.out.borrow().len()
            + self.writing_bytes.get()
    }

    /// Whether something of `size` may be taken on; always, when nothing else is held.
    fn has_room(&self, size: usize) -> bool {
        let config = &self.shard.config;
        let held = self.held_bytes();
        self.queue.borrow().len() < config.requests_in_flight_max
            && (held == 0 || held.saturating_add(size) <= config.connection_bytes_max)
    }

    fn is_answered(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Nothing under way and nothing left to send.
    fn is_quiet(&self) -> bool {
        self.is_answered() && self.out.borrow().is_empty() && self.writing_bytes.get() == 0
    }

    /// Notes on which shards the partitions of a request live.
    pub(crate) fn note_owners(&self, owners: impl IntoIterator<Item = usize>) {
        if self.shard.shards > 1 {
            self.placement.borrow_mut().note(owners);
        }
    }

    fn wanted_elsewhere(&self) -> Option<usize> {
        let to = self.placement.borrow().wants()?;
        self.placement.borrow_mut().forget();
        let mut ticket = self.ticket.borrow_mut();
        ticket
            .as_mut()
            .expect("held until the connection ends")
            .move_to(to)
            .then_some(to)
    }

    // ---- serving ----

    async fn dispatch(&self, frame: Bytes, memory: rt::Permit) -> Result<(), CloseReason> {
        let begun = rt::now();
        let request_bytes = frame.len();
        if let Some(correlation_id) = handlers::api_versions::unknown_version(&frame) {
            // Answered in the one form that every client understands, whatever version it hoped for.
            self.until(|| self.is_answered()).await;
            handlers::api_versions::refuse(&mut self.out.borrow_mut(), correlation_id)
                .map_err(CloseReason::Response)?;
            self.shard
                .metrics
                .answered(ApiKey::ApiVersions, true, rt::now().since(begun));
            return Ok(());
        }
        let mut body = Reader::new(frame);
        let (header, served) = RequestHeader::decode(&mut body)?;
        let RequestHeader {
            key,
            version,
            correlation_id,
            ..
        } = header;
        if !served.serves(version) {
            return Err(CloseReason::UnsupportedVersion { key, version });
        }
        let in_flight = |work, reserved_bytes| InFlight {
            key,
            version,
            correlation_id,
            begun,
            request_bytes,
            reserved_bytes,
            _memory: memory,
            work,
        };
        match key {
            ApiKey::Produce => {
                let request = decode(&mut body, version)?;
                let (results, reply) = produce::start(self, request, version);
                self.push(in_flight(Work::Produce { results, reply }, 0));
            }
            ApiKey::Fetch => {
                let request = decode(&mut body, version)?;
                let reserved = fetch::response_bytes_max(&self.shard.config, &request);
                if !self.until(|| self.has_room(reserved)).await {
                    return Err(CloseReason::Stopping);
                }
                let (results, reply) = fetch::start(self, request, version);
                self.push(in_flight(Work::Fetch { results, reply }, reserved));
            }
            ApiKey::ListOffsets
            | ApiKey::Metadata
            | ApiKey::FindCoordinator
            | ApiKey::ApiVersions
            | ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::DeleteRecords
            | ApiKey::InitProducerId
            | ApiKey::OffsetForLeaderEpoch
            | ApiKey::DescribeConfigs
            | ApiKey::AlterConfigs
            | ApiKey::DescribeLogDirs
            | ApiKey::CreatePartitions
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::DescribeCluster
            | ApiKey::DescribeTopicPartitions => {
                // It sees the effects of everything before it, and is answered after it.
                if !self.until(|| self.is_answered()).await {
                    return Err(CloseReason::Stopping);
                }
                self.request_bytes
                    .set(self.request_bytes.get() + request_bytes);
                let served =
                    handlers::serve(&self.shard, &self.out, key, version, correlation_id, body)
                        .await;
                self.request_bytes
                    .set(self.request_bytes.get() - request_bytes);
                let failed = served?;
                self.shard
                    .metrics
                    .answered(key, failed, rt::now().since(begun));
            }
        }
        Ok(())
    }

    fn push(&self, request: InFlight) {
        self.request_bytes
            .set(self.request_bytes.get() + request.request_bytes);
        self.reserved_bytes
            .set(self.reserved_bytes.get() + request.reserved_bytes);
        self.queue.borrow_mut().push_back(request);
    }

    /// Resolves when the connection has ended: nobody waits for its requests any more.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + 'static {
        self.ended.notified()
    }

    // ---- writing ----

    async fn write_loop(&self, half: &mut rt::WriteHalf) {
        loop {
            match poll_fn(|cx| self.poll_gather(cx)).await {
                Gathered::Nothing => return,
                Gathered::Write => {}
            }
            let out = self.out.replace(self.spare.take());
            self.writing_bytes.set(out.len());
            self.write_begun.set(Some(rt::now()));
            let result = self.write(half, &out).await;
            self.shard.metrics.bytes_out(out.len());
            self.write_begun.set(None);
            self.writing_bytes.set(0);
            self.look_again.set(true);
            let mut out = out;
            out.clear();
            self.spare.replace(out);
            match result {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    self.abort(error.into());
                    return;
                }
                None => return,
            }
        }
    }

    /// `None` when the connection is aborted meanwhile.
    async fn write(&self, half: &mut rt::WriteHalf, out: &Out) -> Option<io::Result<()>> {
        let pieces = out.pieces();
        let mut write = pin!(half.write_vectored_all(&pieces));
        poll_fn(|cx| {
            if self.is_aborted() {
                return Poll::Ready(None);
            }
            write.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Encodes the responses that are due and ready. Ready when there is something to write, or nothing ever again.
    fn poll_gather(&self, cx: &mut Context<'_>) -> Poll<Gathered> {
        let mut now = None;
        while !self.is_aborted() && self.out.borrow().len() < GATHER_BYTES_MAX {
            let Some(mut request) = self.queue.borrow_mut().pop_front() else {
                break;
            };
            match request.poll(cx) {
                Poll::Pending => {
                    self.queue.borrow_mut().push_front(request);
                    break;
                }
                Poll::Ready(answer) => {
                    let now = *now.get_or_insert_with(rt::now);
                    self.answer(request, answer, now);
                }
            }
        }
        if self.is_aborted() {
            return Poll::Ready(Gathered::Nothing);
        }
        if !self.out.borrow().is_empty() {
            return Poll::Ready(Gathered::Write);
        }
        if self.finishing.get() && self.is_answered() {
            return Poll::Ready(Gathered::Nothing);
        }
        Poll::Pending
    }

    fn answer(&self, request: InFlight, answer: Answer, now: rt::Mono) {
        let InFlight {
            key,
            version,
            correlation_id,
            begun,
            ..
        } = request;
        self.request_bytes
            .set(self.request_bytes.get() - request.request_bytes);
        self.reserved_bytes
            .set(self.reserved_bytes.get() - request.reserved_bytes);
        self.look_again.set(true);
        let encoded = match (request.work, answer) {
            (Work::Produce { reply, .. }, Answer::Produce(results)) => reply.encode(
                results,
                &self.shard,
                correlation_id,
                version,
                &mut self.out.borrow_mut(),
            ),
            (Work::Fetch { reply, .. }, Answer::Fetch(results)) => reply.encode(
                results,
                &self.shard,
                correlation_id,
                version,
                &mut self.out.borrow_mut(),
            ),
            (Work::Produce { .. } | Work::Fetch { .. }, _) => {
                unreachable!("each work has its own answer")
            }
        };
        match encoded {
            Ok(failed) => self.shard.metrics.answered(key, failed, now.since(begun)),
            Err(reason) => self.abort(reason),
        }
    }
}

/// Reads a request body. Bytes behind it are ignored, as Kafka ignores them.
fn decode<M: Message>(body: &mut Reader, version: i16) -> Result<M, WireError> {
    M::decode(body, version)
}

/// How long a quiet connection keeps its read buffer.
const SHRINK_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

enum Answer {
    Produce(Vec<AppendResult>),
    Fetch(Vec<FetchResult>),
}

impl InFlight {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.work {
            Work::Produce { results, .. } => results.as_mut().poll(cx).map(Answer::Produce),
            // No results: the fetch gave up because the connection ended.
            Work::Fetch { results, .. } => results
                .as_mut()
                .poll(cx)
                .map(|results| Answer::Fetch(results.unwrap_or_default())),
        }
    }
}
