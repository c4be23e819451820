//! Owns the transactional ids of one partition of the transactions' topic: who has which, and how far a transaction is.
//! Does not know shards, files or clocks, nor how markers are sent; what it writes goes through [`Append`].
//! Invariant: hard state changes only with a record that the log has taken, live and on recovery by the same step.

use super::super::batch::{parts, KeyValue};
use super::super::coordinator::{Append, Memory};
use super::super::records::RecordError;
use super::records::{decode_key, encode_key, TxnValue};
use super::types::{
    AddPartitions, DescribedTxn, InitProducer, ListedTxn, Producer, TopicPartitions, TxnError,
    TxnOf, TxnState,
};
use crate::types::limits::{
    GROUP_TEXT_BYTES_MAX, TXN_IDS_PER_COORDINATOR_MAX, TXN_PARTITIONS_BYTES_MAX, TXN_PARTITIONS_MAX,
};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The settings of transactions, by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnConfig {
    /// `transaction.max.timeout.ms`
    pub timeout_max_ms: i32,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
}

/// The level of `transaction.version` that all brokers work by: each end of a transaction bumps the epoch.
pub const BUMPING_VERSION: i16 = 2;

/// When something that the log did not take is tried again.
const AGAIN_MS: u64 = 1_000;

/// What a step has around it.
pub struct TxnCtx<'a> {
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// Wall-clock milliseconds.
    pub wall_ms: i64,
    pub log: &'a mut dyn Append,
    /// A producer id that nobody has, for steps that may need one.
    pub spare_id: Option<i64>,
}

/// What a step came to that may need a producer id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Done(Producer),
    /// Nothing was done: it is to be asked again with an id to spare.
    NeedsProducerId,
}

/// A transaction that is decided: its markers go to all these partitions, and then it is complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// The producer is as the markers name it.
    pub of: TxnOf,
    pub commit: bool,
    pub version: i16,
    pub partitions: TopicPartitions,
}

/// What is known of one transactional id.
#[derive(Clone, Debug)]
pub(super) struct Txn {
    pub value: TxnValue,
    /// The epoch that the producer had before, if it may still name that; not in the log, as in Kafka.
    pub last_epoch: i16,
    /// When it is aborted, on the monotonic clock, where it is ongoing.
    deadline_ms: Option<u64>,
}

impl Txn {
    fn bytes(&self) -> usize {
        size_of::<Txn>() + 64 + partitions_bytes(&self.value.partitions)
    }
}

fn partitions_bytes(partitions: &TopicPartitions) -> usize {
    let one = |(topic, indexes): (&String, &BTreeSet<i32>)| topic.len() + 8 + 4 * indexes.len();
    partitions.iter().map(one).sum()
}

/// The transactional ids of one partition.
pub struct TxnCoordinator {
    config: TxnConfig,
    memory: Rc<Memory>,
    bytes: usize,
    txns: BTreeMap<String, Txn>,
    /// When a transaction is aborted; an entry for each that is ongoing.
    timers: BTreeSet<(u64, String)>,
    /// Decided since they were last taken from here.
    prepared: BTreeSet<String>,
}

impl TxnCoordinator {
    pub fn new(config: TxnConfig, memory: Rc<Memory>) -> TxnCoordinator {
        TxnCoordinator {
            config,
            memory,
            bytes: 0,
            txns: BTreeMap::new(),
            timers: BTreeSet::new(),
            prepared: BTreeSet::new(),
        }
    }

    pub fn configure(&mut self, config: TxnConfig) {
        self.config = config;
    }

    // Recovery -------------------------------------------------------------------------------------------------------

    /// Takes one record of the log.
    ///
    /// # Errors
    /// It is none that Kafka writes there; nothing changed.
    pub fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        now_ms: u64,
        wall_ms: i64,
    ) -> Result<(), RecordError> {
        let Some(id) = decode_key(key)? else {
            return Ok(());
        };
        let value = value.map(TxnValue::decode).transpose()?;
        // What time it had left when it was begun, less what has passed since by the wall's clock.
        let left_ms = value.as_ref().map_or(0, |value| {
            let passed_ms = wall_ms.saturating_sub(value.started_ms).max(0);
            (i64::from(value.timeout_ms) - passed_ms).clamp(0, i64::from(i32::MAX)) as u64
        });
        self.apply(&id, value, -1, now_ms + left_ms);
        Ok(())
    }

    /// Takes what a record says, live and on recovery alike.
    fn apply(&mut self, id: &str, value: Option<TxnValue>, last_epoch: i16, deadline_ms: u64) {
        let before = self.txns.remove(id);
        let weight = |txn: &Txn| id.len() + txn.bytes();
        let mut bytes = self.bytes - before.as_ref().map_or(0, weight);
        if let Some(timer) = before.and_then(|txn| txn.deadline_ms) {
            self.timers.remove(&(timer, id.to_string()));
        }
        self.prepared.remove(id);
        if let Some(value) = value {
            let deadline_ms = (value.state == TxnState::Ongoing).then_some(deadline_ms);
            if let Some(timer) = deadline_ms {
                self.timers.insert((timer, id.to_string()));
            }
            if value.state.is_prepared() {
                self.prepared.insert(id.to_string());
            }
            let txn = Txn {
                value,
                last_epoch,
                deadline_ms,
            };
            bytes += weight(&txn);
            self.txns.insert(id.to_string(), txn);
        }
        self.memory.replace(self.bytes, bytes);
        self.bytes = bytes;
    }

    /// Writes what becomes of an id, and has it so.
    pub(super) fn write(
        &mut self,
        id: &str,
        value: TxnValue,
        last_epoch: i16,
        ctx: &mut TxnCtx,
    ) -> Result<(), TxnError> {
        let before = self.txns.get(id);
        let deadline_ms = before.and_then(|txn| txn.deadline_ms);
        let deadline_ms = deadline_ms.unwrap_or(ctx.now_ms + value.timeout_ms.max(0) as u64);
        ctx.log.append(&[record(id, &value)])?;
        self.apply(id, Some(value), last_epoch, deadline_ms);
        Ok(())
    }

    // Producers ------------------------------------------------------------------------------------------------------

    /// InitProducerId: a new epoch for whoever asks, so that all who asked before are fenced.
    pub fn init(&mut self, asked: &InitProducer, ctx: &mut TxnCtx) -> Result<Step, TxnError> {
        let id = &asked.transactional_id;
        if id.is_empty() || id.len() > GROUP_TEXT_BYTES_MAX {
            return Err(TxnError::InvalidRequest);
        }
        if !(1..=self.config.timeout_max_ms).contains(&asked.timeout_ms) {
            return Err(TxnError::InvalidTimeout);
        }
        let Some(txn) = self.txns.get(id) else {
            return self.first(asked, ctx);
        };
        let (now, last_epoch) = (txn.value.producer, txn.last_epoch);
        let previous = txn.value.previous_producer_id;
        let known = |p: &Producer| {
            p.id == now.id || (p.id == previous && is_exhausted(p.epoch) && now.epoch == 0)
        };
        if !asked.expected.as_ref().is_none_or(known) {
            return Err(TxnError::ProducerFenced);
        }
        match txn.value.state {
            TxnState::PrepareCommit | TxnState::PrepareAbort => {
                return Err(TxnError::ConcurrentTransactions)
            }
            TxnState::Ongoing => {
                // Who is not the last to have asked may not end what the last has begun.
                if asked.expected.is_some_and(|p| p.epoch != now.epoch) {
                    return Err(TxnError::ProducerFenced);
                }
                self.fence(id, ctx)?;
                // With that the epoch is nobody's: the client asks again when the transaction is over.
                return Err(TxnError::ConcurrentTransactions);
            }
            TxnState::Empty
            | TxnState::CompleteCommit
            | TxnState::CompleteAbort
            | TxnState::Dead
            | TxnState::PrepareEpochFence => {}
        }
        let (producer, last_epoch) = match asked.expected {
            // A retry of what was answered already.
            Some(p) if p.epoch != now.epoch && p.epoch == last_epoch => (now, last_epoch),
            Some(p) if p.epoch != now.epoch => return Err(TxnError::ProducerFenced),
            expected => {
                let next = match is_exhausted(now.epoch) {
                    false => Producer {
                        id: now.id,
                        epoch: now.epoch + 1,
                    },
                    true => match ctx.spare_id {
                        Some(id) => Producer { id, epoch: 0 },
                        None => return Ok(Step::NeedsProducerId),
                    },
                };
                (next, expected.map_or(-1, |p| p.epoch))
            }
        };
        let value = begun(asked, producer, now.id, ctx);
        self.write(id, value, last_epoch, ctx)?;
        Ok(Step::Done(producer))
    }

    fn first(&mut self, asked: &InitProducer, ctx: &mut TxnCtx) -> Result<Step, TxnError> {
        if self.txns.len() >= TXN_IDS_PER_COORDINATOR_MAX || self.memory.is_full() {
            return Err(TxnError::NotAvailable);
        }
        let Some(id) = ctx.spare_id else {
            return Ok(Step::NeedsProducerId);
        };
        let producer = Producer { id, epoch: 0 };
        let value = begun(asked, producer, id, ctx);
        self.write(&asked.transactional_id, value, -1, ctx)?;
        Ok(Step::Done(producer))
    }

    /// Aborts an ongoing transaction, with an epoch that its producer does not have.
    fn fence(&mut self, id: &str, ctx: &mut TxnCtx) -> Result<(), TxnError> {
        let txn = self
            .txns
            .get(id)
            .ok_or(TxnError::InvalidProducerIdMapping)?;
        assert_eq!(txn.value.state, TxnState::Ongoing);
        let before = txn.value.producer;
        // Two, as in Kafka: after one, its producer could take its own retried end for the one that was.
        let epoch = before.epoch.saturating_add(2);
        let value = TxnValue {
            producer: Producer {
                id: before.id,
                epoch,
            },
            previous_producer_id: before.id,
            state: TxnState::PrepareAbort,
            updated_ms: ctx.wall_ms,
            client_version: BUMPING_VERSION,
            ..txn.value.clone()
        };
        self.write(id, value, epoch.saturating_sub(1), ctx)
    }

    // Partitions -----------------------------------------------------------------------------------------------------

    /// AddPartitionsToTxn; begins the transaction with the first partition.
    pub fn add(&mut self, asked: &AddPartitions, ctx: &mut TxnCtx) -> Result<(), TxnError> {
        let value = &self.of_producer(&asked.of)?.value;
        let known = |(topic, indexes): (&String, &BTreeSet<i32>)| {
            let known = value.partitions.get(topic);
            known.is_some_and(|known| indexes.is_subset(known))
        };
        let started_ms = match value.state {
            TxnState::Ongoing if asked.partitions.iter().all(known) => return Ok(()),
            TxnState::Ongoing => value.started_ms,
            TxnState::Empty
            | TxnState::CompleteCommit
            | TxnState::CompleteAbort
            | TxnState::Dead
            | TxnState::PrepareEpochFence => ctx.wall_ms,
            TxnState::PrepareCommit | TxnState::PrepareAbort => {
                return Err(TxnError::ConcurrentTransactions)
            }
        };
        let mut partitions = value.partitions.clone();
        for (topic, indexes) in &asked.partitions {
            partitions.entry(topic.clone()).or_default().extend(indexes);
        }
        let count: usize = partitions.values().map(BTreeSet::len).sum();
        if count > TXN_PARTITIONS_MAX || partitions_bytes(&partitions) > TXN_PARTITIONS_BYTES_MAX {
            return Err(TxnError::TooManyPartitions);
        }
        if self.memory.is_full() {
            return Err(TxnError::NotAvailable);
        }
        let value = TxnValue {
            previous_producer_id: value.producer.id,
            state: TxnState::Ongoing,
            partitions,
            updated_ms: ctx.wall_ms,
            started_ms,
            client_version: asked.version,
            ..value.clone()
        };
        let last_epoch = self.txns[&asked.of.transactional_id].last_epoch;
        self.write(&asked.of.transactional_id, value, last_epoch, ctx)
    }

    /// Which of these partitions are not in the transaction.
    ///
    /// # Errors
    /// There is no such transaction, or it is about to end.
    pub fn missing(
        &self,
        of: &TxnOf,
        asked: &TopicPartitions,
    ) -> Result<TopicPartitions, TxnError> {
        let value = &self.of_producer(of)?.value;
        if value.state.is_prepared() {
            return Err(TxnError::ConcurrentTransactions);
        }
        let rest = |(topic, indexes): (&String, &BTreeSet<i32>)| {
            let none = BTreeSet::new();
            let known = value.partitions.get(topic).unwrap_or(&none);
            let rest: BTreeSet<i32> = indexes.difference(known).copied().collect();
            (!rest.is_empty()).then(|| (topic.clone(), rest))
        };
        Ok(asked.iter().filter_map(rest).collect())
    }

    /// The id's transaction, where the producer is its own.
    fn of_producer(&self, of: &TxnOf) -> Result<&Txn, TxnError> {
        let txn = self.named(of)?;
        let value = &txn.value;
        if value.is_next(of.producer) {
            return Err(TxnError::ConcurrentTransactions);
        }
        if of.producer.id != value.producer.id {
            return Err(TxnError::InvalidProducerIdMapping);
        }
        if of.producer.epoch != value.producer.epoch {
            return Err(TxnError::ProducerFenced);
        }
        Ok(txn)
    }

    pub(super) fn named(&self, of: &TxnOf) -> Result<&Txn, TxnError> {
        if of.transactional_id.is_empty() {
            return Err(TxnError::InvalidRequest);
        }
        let txn = self.txns.get(&of.transactional_id);
        txn.ok_or(TxnError::InvalidProducerIdMapping)
    }

    // Markers --------------------------------------------------------------------------------------------------------

    /// Transactions that were decided since this was last asked, and after recovery all that were not complete.
    pub fn take_prepared(&mut self) -> Vec<Prepared> {
        let ids = std::mem::take(&mut self.prepared);
        let one = |id: String| {
            let value = &self.txns.get(&id)?.value;
            Some(Prepared {
                of: TxnOf {
                    transactional_id: id,
                    producer: value.producer,
                },
                commit: value.state == TxnState::PrepareCommit,
                version: value.client_version,
                partitions: value.partitions.clone(),
            })
        };
        ids.into_iter().filter_map(one).collect()
    }

    /// All its markers are written.
    ///
    /// # Errors
    /// The log refuses: it is to be said again.
    pub fn complete(&mut self, prepared: &Prepared, ctx: &mut TxnCtx) -> Result<(), TxnError> {
        let of = &prepared.of;
        let Some(txn) = self.txns.get(&of.transactional_id) else {
            return Ok(());
        };
        let value = &txn.value;
        let state = match value.state {
            TxnState::PrepareCommit => TxnState::CompleteCommit,
            TxnState::PrepareAbort => TxnState::CompleteAbort,
            TxnState::Empty
            | TxnState::Ongoing
            | TxnState::CompleteCommit
            | TxnState::CompleteAbort
            | TxnState::Dead
            | TxnState::PrepareEpochFence => return Ok(()),
        };
        if value.producer != of.producer {
            return Ok(());
        }
        let producer = match value.next_producer_id {
            0.. => Producer {
                id: value.next_producer_id,
                epoch: 0,
            },
            ..0 => value.producer,
        };
        let last_epoch = txn.last_epoch;
        let value = TxnValue {
            producer,
            previous_producer_id: value.producer.id,
            next_producer_id: -1,
            state,
            partitions: TopicPartitions::new(),
            updated_ms: ctx.wall_ms,
            ..value.clone()
        };
        self.write(&of.transactional_id, value, last_epoch, ctx)
    }

    // Time -----------------------------------------------------------------------------------------------------------

    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Aborts what took too long by now.
    pub fn tick(&mut self, ctx: &mut TxnCtx) {
        while let Some((deadline_ms, id)) = self.timers.first().cloned() {
            if deadline_ms > ctx.now_ms {
                return;
            }
            match self.fence(&id, ctx) {
                Ok(()) => tracing::info!(id, "a transaction took too long and is aborted"),
                Err(error) => {
                    tracing::warn!(id, %error, "a transaction that took too long cannot be aborted");
                    let again_ms = ctx.now_ms + AGAIN_MS;
                    self.timers.remove(&(deadline_ms, id.clone()));
                    self.timers.insert((again_ms, id.clone()));
                    let txn = self.txns.get_mut(&id).expect("it has a timer");
                    txn.deadline_ms = Some(again_ms);
                }
            }
        }
    }

    /// Forgets ids that nobody has used for as long as they are kept.
    pub fn expire(&mut self, ctx: &mut TxnCtx) {
        let over = |txn: &Txn| {
            let idle_ms = ctx.wall_ms.saturating_sub(txn.value.updated_ms);
            let open = txn.value.state == TxnState::Ongoing || txn.value.state.is_prepared();
            !open && idle_ms >= self.config.id_expiration_ms
        };
        let old = self.txns.iter().filter(|(_, txn)| over(txn));
        let old: Vec<String> = old.map(|(id, _)| id.clone()).collect();
        let gone = |id: &String| KeyValue {
            key: encode_key(id),
            value: None,
        };
        let records: Vec<KeyValue> = old.iter().map(gone).collect();
        let mut left = &old[..];
        for part in parts(&records) {
            let (some, more) = left.split_at(part.len());
            left = more;
            if let Err(error) = ctx.log.append(part) {
                // The next round tries again.
                tracing::warn!(%error, "old transactional ids cannot be forgotten");
                return;
            }
            some.iter().for_each(|id| self.apply(id, None, -1, 0));
        }
    }

    // Rewriting ------------------------------------------------------------------------------------------------------

    pub fn ids(&self) -> Vec<String> {
        self.txns.keys().cloned().collect()
    }

    /// What its ids take in memory, which is about what they take in the log once each is written once; bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes what is known of these ids once more. When that was done for all there were, and is durable, nothing that
    /// was written before it began is needed.
    ///
    /// # Errors
    /// The log refuses; what was written does no harm.
    pub fn rewrite(&self, ids: &[String], ctx: &mut TxnCtx) -> Result<(), TxnError> {
        let known = |id: &String| self.txns.get(id).map(|txn| record(id, &txn.value));
        for id in ids {
            if let Some(record) = known(id) {
                ctx.log.append(&[record])?;
            }
        }
        Ok(())
    }

    // Admin ----------------------------------------------------------------------------------------------------------

    pub fn list(&self) -> Vec<ListedTxn> {
        let one = |(id, txn): (&String, &Txn)| ListedTxn {
            transactional_id: id.clone(),
            producer_id: txn.value.producer.id,
            state: txn.value.state,
            started_ms: txn.value.started_ms,
        };
        self.txns.iter().map(one).collect()
    }

    pub fn describe(&self, id: &str) -> Result<DescribedTxn, TxnError> {
        if id.is_empty() {
            return Err(TxnError::InvalidRequest);
        }
        let value = &self.txns.get(id).ok_or(TxnError::NotFound)?.value;
        Ok(DescribedTxn {
            state: value.state,
            producer: value.producer,
            timeout_ms: value.timeout_ms,
            started_ms: value.started_ms,
            partitions: value.partitions.clone(),
        })
    }
}

/// Whether the next epoch of a producer is one that only the coordinator may use, to fence the one before.
pub(super) fn is_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

fn record(id: &str, value: &TxnValue) -> KeyValue {
    KeyValue {
        key: encode_key(id),
        value: Some(value.encode()),
    }
}

/// An id whose producer has begun nothing yet.
fn begun(
    asked: &InitProducer,
    producer: Producer,
    previous_producer_id: i64,
    ctx: &TxnCtx,
) -> TxnValue {
    TxnValue {
        producer,
        previous_producer_id,
        next_producer_id: -1,
        timeout_ms: asked.timeout_ms,
        state: TxnState::Empty,
        partitions: TopicPartitions::new(),
        updated_ms: ctx.wall_ms,
        started_ms: -1,
        client_version: 0,
    }
}

impl Drop for TxnCoordinator {
    fn drop(&mut self) {
        self.memory.replace(self.bytes, 0);
    }
}
