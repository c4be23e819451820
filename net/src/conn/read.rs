//! Owns the reading side of a connection: frames come in, each is handed to its handler in order.
//! Does not know how responses are written.
//! Invariant: a request is read only when there is room for it, and dispatched only when everything it must see the
//! effects of has taken effect.

use super::write::{InFlight, Work, GATHER_BYTES_MAX};
use super::{CloseReason, Conn, Paid};
use crate::handlers::{self, fetch, produce};
use crate::inbuf::{Framed, InBuf};
use crate::ledger::{FrameMemory, RELIEF_TICK, SMALL_FRAME_BYTES_MAX};
use crate::shared::Door;
use crate::wire::frame::RequestHeader;
use crate::wire::{ApiKey, Message, Reader, WireError};
use bytes::Bytes;
use millrace_engine::rt;
use std::future::{poll_fn, Future};
use std::io;
use std::pin::pin;
use std::task::Poll;

/// How reading ended.
pub(super) enum ReadEnd {
    Close(CloseReason),
    Move(usize),
    /// The reason is in `aborted`.
    Aborted,
}

impl Conn {
    pub(super) async fn read_loop(&self, half: &mut rt::ReadHalf, inbuf: &mut InBuf) -> ReadEnd {
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
        let size_max = self.shard.frames.size_max();
        // For the frame that has begun: taken before its body is read, but for a small one only once that is there.
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
                Framed::Partial { size } if size <= SMALL_FRAME_BYTES_MAX => {
                    self.begin_frame(size);
                    Some(size)
                }
                Framed::Partial { size } | Framed::Whole { size } => {
                    if memory.is_none() {
                        self.begin_frame(size);
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
                self.frame_paid.set(None);
                let permit = memory.take().expect("taken above");
                self.dispatch(inbuf.take(size), permit).await?;
                if let Some(to) = self.wanted_elsewhere() {
                    if self.until(|| self.is_quiet()).await {
                        return Ok(ReadEnd::Move(to));
                    }
                }
                if rt::should_yield() {
                    self.yielding.set(true);
                    rt::yield_now().await;
                    self.yielding.set(false);
                }
                continue;
            }
            if self.shrink.take() {
                inbuf.shrink();
            }
            if !inbuf.is_empty() {
                self.begin_frame(0);
            }
            match self.read_some(half, inbuf, partial).await {
                None => continue,
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(0)) => return Err(CloseReason::Eof),
                Some(Ok(count)) => {
                    inbuf.read(count);
                    if let Some(paid) = self.frame_paid.get() {
                        let bytes = paid.bytes + count;
                        self.frame_paid.set(Some(Paid { bytes, ..paid }));
                    }
                    self.last_active.set(rt::now());
                    self.shard.metrics.bytes_in(count);
                }
            }
        }
    }

    /// Notes that a frame has begun, if none had, or how large it is once that is known (0 before).
    fn begin_frame(&self, size: usize) {
        match self.frame_begun.get() {
            None => self.frame_begun.set(Some((rt::now(), size))),
            Some((since, 0)) => self.frame_begun.set(Some((since, size))),
            Some(_) => {}
        }
    }

    /// Waits for this connection and then for its shard to have room for a request of `size` bytes. Time spent here
    /// is not held against the client. Gives no memory when the connection is to end.
    async fn frame_begun_waits(&self, size: usize, memory: &mut Option<FrameMemory>) {
        let begun = self.frame_begun.take();
        self.waits_for_room.set(true);
        if self.until(|| self.has_room(size)).await {
            *memory = self.frame_memory(size).await;
        }
        self.waits_for_room.set(false);
        let now = rt::now();
        self.last_active.set(now);
        self.frame_begun.set(begun.map(|(_, size)| (now, size)));
        self.frame_paid.set(memory.is_some().then_some(Paid {
            since: now,
            bytes: 0,
            grace: self.shard.config.frame_grace_pressed,
        }));
    }

    /// Memory of the shard; while it waits, those who hold some for nothing have to give it back.
    async fn frame_memory(&self, size: usize) -> Option<FrameMemory> {
        let mut memory = pin!(self.shard.frames.take(&self.shard.broker, size));
        loop {
            let taken = poll_fn(|cx| {
                if self.is_over() {
                    return Poll::Ready(None);
                }
                memory.as_mut().poll(cx).map(Some)
            });
            match rt::timeout(RELIEF_TICK, taken).await {
                Some(taken) => return taken,
                None => self.shard.relieve_requests(rt::now()),
            }
        }
    }

    /// One read; `None` when the state of the connection is to be looked at again instead.
    async fn read_some(
        &self,
        half: &mut rt::ReadHalf,
        inbuf: &mut InBuf,
        partial: Option<usize>,
    ) -> Option<io::Result<usize>> {
        let mut read = pin!(half.read(inbuf.room(partial)));
        self.reading.set(true);
        // The end of what the client sent had been seen before all of that was read.
        self.finish_begun.set(None);
        let read = poll_fn(|cx| {
            if self.is_over() || self.shrink.get() {
                return Poll::Ready(None);
            }
            read.as_mut().poll(cx).map(Some)
        })
        .await;
        self.reading.set(false);
        read
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

    /// Gives up what changes nothing when the connection is aborted.
    async fn unless_aborted<T>(&self, work: impl Future<Output = T>) -> Result<T, CloseReason> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.is_aborted() {
                // The real reason is in `aborted`.
                return Poll::Ready(Err(CloseReason::Stopping));
            }
            work.as_mut().poll(cx).map(Ok)
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

    pub(super) fn is_answered(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Of what was answered, not much is left to send.
    fn takes_answers(&self) -> bool {
        self.out.borrow().len() + self.writing_bytes.get() < GATHER_BYTES_MAX
    }

    /// Nothing under way and nothing left to send.
    fn is_quiet(&self) -> bool {
        self.is_answered() && self.out.borrow().is_empty() && self.writing_bytes.get() == 0
    }

    /// Notes on which shards the partitions of a request live.
    pub(crate) fn note_owners(&self, key: ApiKey, owners: impl Iterator<Item = usize> + Clone) {
        if self.shard.shards == 1 {
            return;
        }
        if self.door == Door::Node {
            self.placement.borrow_mut().note(owners.clone());
        }
        self.shard.note_owners(key, owners);
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

    async fn dispatch(&self, frame: Bytes, memory: FrameMemory) -> Result<(), CloseReason> {
        let begun = rt::now();
        let request_bytes = frame.len();
        if let Some(correlation_id) = handlers::api_versions::unknown_version(&frame) {
            // Answered in the one form that every client understands, whatever version it hoped for.
            if !self.until(|| self.is_answered()).await {
                return Err(CloseReason::Stopping);
            }
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
            client_id,
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
                let client = client_id.as_deref();
                let ahead = produce::look_ahead(&self.shard, &request, version, client);
                let refused = self.unless_aborted(ahead).await?;
                let (results, reply) = produce::start(self, request, version, client, &refused);
                self.push(in_flight(Work::Produce { results, reply }, 0));
            }
            ApiKey::Fetch => {
                let request = decode(&mut body, version)?;
                let room = || {
                    let allowed = fetch::response_bytes_max(&self.shard, &request);
                    // While memory is short, one answer at a time: the first batch of each may be larger than allowed.
                    let alone = !allowed.pressed || self.held_bytes() == 0;
                    (alone && self.has_room(allowed.bytes)).then_some(allowed.bytes)
                };
                if !self.until(|| room().is_some()).await {
                    return Err(CloseReason::Stopping);
                }
                // Nothing else ran since it was there.
                let reserved = room().unwrap_or(0);
                let (results, reply) = fetch::start(self, request, version, reserved);
                self.push(in_flight(Work::Fetch { results, reply }, reserved));
            }
            ApiKey::ListOffsets
            | ApiKey::Metadata
            | ApiKey::OffsetCommit
            | ApiKey::OffsetFetch
            | ApiKey::FindCoordinator
            | ApiKey::JoinGroup
            | ApiKey::Heartbeat
            | ApiKey::LeaveGroup
            | ApiKey::SyncGroup
            | ApiKey::DescribeGroups
            | ApiKey::ListGroups
            | ApiKey::ApiVersions
            | ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::DeleteRecords
            | ApiKey::InitProducerId
            | ApiKey::OffsetForLeaderEpoch
            | ApiKey::AddPartitionsToTxn
            | ApiKey::AddOffsetsToTxn
            | ApiKey::EndTxn
            | ApiKey::WriteTxnMarkers
            | ApiKey::TxnOffsetCommit
            | ApiKey::DescribeConfigs
            | ApiKey::AlterConfigs
            | ApiKey::AlterReplicaLogDirs
            | ApiKey::DescribeLogDirs
            | ApiKey::CreatePartitions
            | ApiKey::DeleteGroups
            | ApiKey::ElectLeaders
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::AlterPartitionReassignments
            | ApiKey::ListPartitionReassignments
            | ApiKey::OffsetDelete
            | ApiKey::DescribeQuorum
            | ApiKey::UpdateFeatures
            | ApiKey::DescribeCluster
            | ApiKey::DescribeProducers
            | ApiKey::UnregisterBroker
            | ApiKey::DescribeTransactions
            | ApiKey::ListTransactions
            | ApiKey::ConsumerGroupHeartbeat
            | ApiKey::ConsumerGroupDescribe
            | ApiKey::ListConfigResources
            | ApiKey::DescribeTopicPartitions
            | ApiKey::ShareGroupHeartbeat
            | ApiKey::ShareGroupDescribe
            | ApiKey::ShareFetch
            | ApiKey::ShareAcknowledge
            | ApiKey::DescribeShareGroupOffsets
            | ApiKey::AlterShareGroupOffsets
            | ApiKey::DeleteShareGroupOffsets => {
                // It sees the effects of everything before it, and is answered after it; and who does not take answers gets no
                // more of them made.
                if !self
                    .until(|| self.is_answered() && self.takes_answers())
                    .await
                {
                    return Err(CloseReason::Stopping);
                }
                self.request_bytes
                    .set(self.request_bytes.get() + request_bytes);
                let asked = handlers::Asked {
                    key,
                    version,
                    correlation_id,
                    door: self.door,
                    asker: handlers::Asker {
                        // A copy: the header's shares the frame, and keeps all of it.
                        client_id: client_id.map_or_else(String::new, |id| id.to_string()),
                        address: self.peer.ip(),
                        share: self.share.clone(),
                    },
                };
                // In memory of its own: the largest handler would be a part of every connection, also of those that ask nothing.
                let serving = Box::pin(handlers::serve(&self.shard, &self.out, asked, body));
                let served = match key {
                    // It only looks, perhaps for long.
                    ApiKey::ListOffsets => self.unless_aborted(serving).await,
                    // It waits for other clients, for minutes perhaps. What the group keeps is a copy, so that the frame
                    // goes with the first look at it; and whoever asked may go, too: what a member of a share group is given
                    // comes back with its session.
                    ApiKey::JoinGroup | ApiKey::SyncGroup | ApiKey::ShareFetch => {
                        drop(in_flight);
                        self.unless_aborted(serving).await
                    }
                    _ => Ok(serving.await),
                };
                self.request_bytes
                    .set(self.request_bytes.get() - request_bytes);
                let failed = served??;
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
}

/// Reads a request body. Bytes behind it are ignored, as Kafka ignores them.
fn decode<M: Message>(body: &mut Reader, version: i16) -> Result<M, WireError> {
    M::decode(body, version)
}
