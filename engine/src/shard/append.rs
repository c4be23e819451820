//! Owns a produce request's way through the shards: grouping by owner, hand-over, waiting.
//! Does not know the wire. Invariant: hand-over happens inside the call, so that the order of calls
//! is the order in the log, also when appends have to wait for room.

use super::Shard;
use crate::api::{Acks, AppendItem, AppendResult};
use crate::error::PartitionError;
use crate::log::append::{Accepted, Clock};
use crate::log::records::all_keyed;
use crate::plant::{self, Plant};
use crate::rt::{self, Class, Mono, OneReceiver, OneSender};
use crate::types::batch::BatchHeader;
use crate::types::PartitionId;
use bytes::Bytes;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// A checked batch on its way to the owner; `index` is its place in the request.
pub struct Handed {
    index: usize,
    partition: PartitionId,
    header: BatchHeader,
    batch: Bytes,
}

/// What the owner did at hand-over: results, and the journal sequence they wait for.
pub struct HandedOver {
    results: Vec<(usize, Result<Accepted, PartitionError>)>,
}

/// Appends that wait for room, in order.
pub struct ParkedAppend {
    /// Counts up, so that the one who waits finds it again.
    number: u64,
    items: Vec<Handed>,
    done: OneSender<HandedOver>,
}

enum Local {
    Done(HandedOver),
    Parked(OneReceiver<HandedOver>, u64, Vec<usize>),
}

type Indexed = Vec<(usize, AppendResult)>;

fn bytes_of(items: &[Handed]) -> u64 {
    items.iter().map(|item| item.batch.len() as u64).sum()
}

pub(super) fn clock_now() -> Clock {
    Clock {
        wall_ms: rt::wall_ms(),
        mono: rt::now(),
    }
}

/// What `f` gives, or `None` once the deadline has passed before that.
async fn until<T>(deadline: Option<Mono>, f: impl Future<Output = T>) -> Option<T> {
    match deadline {
        None => Some(f.await),
        Some(deadline) => rt::timeout(deadline.since(rt::now()), f).await,
    }
}

impl Shard {
    /// See `Broker::append`.
    pub fn append(
        self: &Rc<Self>,
        items: Vec<AppendItem>,
        acks: Acks,
        limit: Option<Duration>,
    ) -> impl Future<Output = Vec<AppendResult>> + 'static {
        let deadline = limit.map(|limit| rt::now() + limit);
        let total = items.len();
        let mut failed: Indexed = Vec::new();
        let mut by_owner: Vec<Vec<Handed>> = Vec::new();
        by_owner.resize_with(self.shards, Vec::new);
        for (index, item) in items.into_iter().enumerate() {
            match BatchHeader::check_from_client(&item.batch) {
                Ok(header) => {
                    let AppendItem { partition, batch } = item;
                    by_owner[partition.shard(self.shards)].push(Handed {
                        index,
                        partition,
                        header,
                        batch,
                    });
                }
                Err(error) => failed.push((index, Err(PartitionError::from_batch(error)))),
            }
        }
        let mut local = None;
        let mut remote = Vec::new();
        for (owner, items) in by_owner.into_iter().enumerate() {
            if items.is_empty() {
                continue;
            }
            if owner == self.index {
                local = Some(self.hand_over(items, acks));
                continue;
            }
            let indexes: Vec<usize> = items.iter().map(|i| i.index).collect();
            let receiver = self.calls.call::<Indexed>(owner, move |shard, reply| {
                let handed = shard.hand_over(items, acks);
                let shard = shard.clone();
                rt::spawn(Class::Network, async move {
                    reply.send(shard.settle(handed, acks, deadline).await)
                });
            });
            remote.push((receiver, indexes));
        }
        let shard = self.clone();
        async move {
            let mut results: Vec<Option<AppendResult>> = (0..total).map(|_| None).collect();
            let mut put = |list: Indexed| list.into_iter().for_each(|(i, r)| results[i] = Some(r));
            put(failed);
            if let Some(local) = local {
                put(shard.settle(local, acks, deadline).await);
            }
            for (receiver, indexes) in remote {
                let list = receiver.await;
                let gone = || {
                    indexes
                        .iter()
                        .map(|i| (*i, Err(PartitionError::Stopping)))
                        .collect()
                };
                put(list.unwrap_or_else(gone));
            }
            results
                .into_iter()
                .map(|r| r.expect("every item was handed over or refused"))
                .collect()
        }
    }

    /// See `Broker::all_keyed`.
    pub async fn all_keyed(&self, batch: &[u8]) -> bool {
        if BatchHeader::check_from_client(batch).is_err() {
            return true;
        }
        let _turn = self.searches.acquire(1).await;
        // A client may compress garbage, or far more than is looked into.
        all_keyed(batch).await.unwrap_or(false)
    }

    fn hand_over(self: &Rc<Self>, items: Vec<Handed>, acks: Acks) -> Local {
        let behind_others = !self.parked_appends.borrow().is_empty();
        // What is refused needs no room.
        let has_room = || {
            self.refusal().is_some()
                || (self.journal_has_room() && self.space.take(bytes_of(&items)))
        };
        if behind_others || !has_room() {
            let (done, receiver) = rt::oneshot();
            let indexes = items.iter().map(|i| i.index).collect();
            let mut parked = self.parked_appends.borrow_mut();
            let number = parked.back().map_or(0, |(last, _)| last.number + 1);
            let append = ParkedAppend {
                number,
                items,
                done,
            };
            parked.push_back((append, acks));
            drop(parked);
            self.append_parked.notify_all();
            return Local::Parked(receiver, number, indexes);
        }
        Local::Done(self.append_now(items, acks))
    }

    fn append_now(self: &Rc<Self>, items: Vec<Handed>, acks: Acks) -> HandedOver {
        let clock = clock_now();
        if items.len() > 1 {
            let known = self.partitions.borrow();
            let asked = items.iter().filter_map(|item| known.get(&item.partition));
            asked.for_each(|partition| partition.bring_near());
        }
        // The batches are let go of together, afterwards: each time is a barrier, as in `Partition::append`.
        let results = items
            .iter()
            .map(|item| {
                let result = self.append_one(item, acks, clock);
                if let Err(error) = &result {
                    self.count_refused(error);
                }
                (item.index, result)
            })
            .collect();
        HandedOver { results }
    }

    /// Appends a batch that the broker itself built to a partition of this shard, where it has taken the room for it
    /// already; gives where it is, and the journal sequence with which it is durable.
    pub(super) fn append_own(
        self: &Rc<Self>,
        partition: PartitionId,
        batch: Bytes,
    ) -> Result<Accepted, PartitionError> {
        let header =
            BatchHeader::check_from_coordinator(&batch).map_err(PartitionError::from_batch)?;
        let own = Handed {
            index: 0,
            partition,
            header,
            batch,
        };
        self.append_one(&own, Acks::All, clock_now())
    }

    fn append_one(
        self: &Rc<Self>,
        item: &Handed,
        acks: Acks,
        clock: Clock,
    ) -> Result<Accepted, PartitionError> {
        if self.stopping.get() {
            return Err(PartitionError::Stopping);
        }
        let partition = self.partition(item.partition)?;
        let need = partition.topic.borrow().config.min_insync_replicas as usize;
        let alone = acks == Acks::All && need > 1;
        let passing = alone.then_some(PartitionError::NotEnoughReplicas { have: 1, need });
        if let Some(refusal) = self.refusal().or(passing) {
            partition.note_refused(&item.header, clock);
            return Err(refusal);
        }
        let accepted = partition.append(item.header, &item.batch, clock)?;
        self.mark_dirty(&partition);
        Ok(accepted)
    }

    /// Takes a parked append back out, so that it holds no memory for nobody.
    fn give_up(&self, number: u64) {
        let mut parked = self.parked_appends.borrow_mut();
        let found = parked.iter().position(|(p, _)| p.number == number);
        // Taking it in and telling so are one step, and the telling is looked at before the time.
        let at = found.expect("what nobody has told of is still parked");
        let given_up = parked.remove(at);
        drop(parked);
        for item in given_up.into_iter().flat_map(|(append, _)| append.items) {
            // Where the partition is gone, so is what it knew of producers.
            if let Ok(partition) = self.partition(item.partition) {
                partition.note_refused(&item.header, clock_now());
            }
        }
    }

    /// Waits for the room that parked appends need; the error where it does not come or not in time.
    async fn handed(
        &self,
        local: Local,
        deadline: Option<Mono>,
    ) -> Result<HandedOver, (PartitionError, Vec<usize>)> {
        let (receiver, number, indexes) = match local {
            Local::Done(handed) => return Ok(handed),
            Local::Parked(receiver, number, indexes) => (receiver, number, indexes),
        };
        let handed = match until(deadline, receiver).await {
            Some(handed) => handed,
            None => {
                self.give_up(number);
                return Err((PartitionError::TimedOut, indexes));
            }
        };
        handed.ok_or((PartitionError::Stopping, indexes))
    }

    async fn settle(&self, local: Local, acks: Acks, deadline: Option<Mono>) -> Indexed {
        let handed = match self.handed(local, deadline).await {
            Ok(handed) => handed,
            Err((error, indexes)) => {
                return indexes
                    .into_iter()
                    .map(|i| (i, Err(error.clone())))
                    .collect()
            }
        };
        let early = plant::active(Plant::AcknowledgeBeforeFlush);
        let waits = |a: &Accepted| acks != Acks::None && !a.cached && !early;
        let last = handed
            .results
            .iter()
            .filter_map(|(_, r)| r.as_ref().ok())
            .filter(|a| waits(a))
            .map(|a| a.sequence)
            .max();
        let failure = match last {
            Some(sequence) => match until(deadline, self.journal.wait_durable(sequence)).await {
                Some(durable) => durable.err().map(PartitionError::Storage),
                None => Some(PartitionError::TimedOut),
            },
            None => None,
        };
        let durable = self.journal.durable_sequence();
        let finish = |result: Result<Accepted, PartitionError>| match (result, &failure) {
            // The time that others take is not held against an item that is durable.
            (Ok(accepted), Some(PartitionError::TimedOut)) if accepted.sequence <= durable => {
                Ok(accepted.appended)
            }
            (Ok(accepted), Some(failure)) if waits(&accepted) => Err(failure.clone()),
            (Ok(accepted), _) => Ok(accepted.appended),
            (Err(error), _) => Err(error),
        };
        handed
            .results
            .into_iter()
            .map(|(i, r)| (i, finish(r)))
            .collect()
    }

    /// Takes parked appends in once the journal has caught up. Runs while the shard lives.
    pub(super) async fn run_parked(self: Rc<Self>) {
        loop {
            let room = self.journal.backlog_bytes() <= self.config.backlog_bytes_max / 2;
            let room = room && !self.journal.is_full();
            let refused = self.journal.failed() || self.refusal().is_some();
            let first = self
                .parked_appends
                .borrow()
                .front()
                .map(|(p, _)| bytes_of(&p.items));
            let Some(bytes) = first else {
                self.append_parked.notified().await;
                continue;
            };
            if refused || (room && self.space.take(bytes)) {
                let next = self.parked_appends.borrow_mut().pop_front();
                if let Some((parked, acks)) = next {
                    let handed = self.append_now(parked.items, acks);
                    // Its connection may have ended; the records are in the log all the same.
                    let _given_up = parked.done.send(handed);
                }
            } else {
                self.journal.progressed.notified().await;
            }
        }
    }
}
