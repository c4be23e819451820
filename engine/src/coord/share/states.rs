//! Owns the states of share-partitions that are in one partition of their topic: reads, writes and forgets them.
//! Does not know shards, files or clocks, nor what a state means; what it writes goes through [`Append`].
//! Invariant: a state changes only with a record that the log has taken, live and on recovery by the same step.

use super::records::{ShareKey, SnapshotValue, StateBatch, StateRecord, UpdateValue};
use super::runs::Runs;
use super::types::ShareError;
use crate::coord::records::RecordError;
use crate::coord::{Append, Memory};
use crate::types::limits::SHARE_PARTITIONS_PER_COORDINATOR_MAX;
use crate::types::{Offset, PartitionId};
use std::collections::BTreeMap;
use std::rc::Rc;

/// So many updates, and the next record of a partition is all of its state again (Kafka's
/// `share.coordinator.snapshot.update.records.per.snapshot`).
pub const SNAPSHOT_EVERY: u32 = 500;

/// What is known of one share-partition.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    snapshot_epoch: i32,
    state_epoch: i32,
    leader_epoch: i32,
    start: Offset,
    done: i32,
    created_ms: i64,
    batches: Runs<(i8, i16)>,
    updates: u32,
}

impl State {
    fn bytes(&self) -> usize {
        size_of::<State>() + 64 + 64 * self.batches.count()
    }

    fn list(&self) -> Vec<StateBatch> {
        let batch = |(first, last, (state, count)): (Offset, Offset, &(i8, i16))| StateBatch {
            first,
            last,
            state: *state,
            count: *count,
        };
        self.batches.iter().map(batch).collect()
    }

    fn merge(&mut self, start: Offset, done: i32, batches: &[StateBatch]) {
        for batch in batches {
            let what = (batch.state, batch.count);
            self.batches.set(batch.first, batch.last, what);
        }
        if start >= 0 {
            self.start = start;
        }
        self.batches.trim(self.start);
        self.done = done;
    }
}

/// A state as it was kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    pub state_epoch: i32,
    /// -1 where it was never said.
    pub start: Offset,
    pub leader_epoch: i32,
    /// Offsets from start on that are done; -1 where it is not known.
    pub done: i32,
    pub batches: Vec<StateBatch>,
}

/// What becomes of a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    pub state_epoch: i32,
    pub leader_epoch: i32,
    pub start: Offset,
    pub done: i32,
    pub batches: Vec<StateBatch>,
}

/// The states of one partition of their topic.
pub struct ShareStates {
    memory: Rc<Memory>,
    bytes: usize,
    states: BTreeMap<ShareKey, State>,
}

impl ShareStates {
    pub fn new(memory: Rc<Memory>) -> ShareStates {
        ShareStates {
            memory,
            bytes: 0,
            states: BTreeMap::new(),
        }
    }

    /// Takes one record of the log.
    ///
    /// # Errors
    /// It is none that Kafka writes there; nothing changed.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        if let Some((key, record)) = StateRecord::decode(key, value)? {
            self.apply(&key, &record);
        }
        Ok(())
    }

    /// Takes what a record says, live and on recovery alike.
    fn apply(&mut self, key: &ShareKey, record: &StateRecord) {
        let before = self.states.remove(key);
        let weight = |state: &State| key.group.len() + state.bytes();
        let mut bytes = self.bytes - before.as_ref().map_or(0, weight);
        let now = match record {
            StateRecord::Snapshot(None) => None,
            StateRecord::Snapshot(Some(value)) => {
                let mut state = State {
                    snapshot_epoch: value.snapshot_epoch,
                    state_epoch: value.state_epoch,
                    leader_epoch: value.leader_epoch,
                    start: value.start,
                    done: value.done,
                    created_ms: value.created_ms,
                    batches: Runs::default(),
                    updates: 0,
                };
                state.merge(value.start, value.done, &value.batches);
                Some(state)
            }
            // Of a snapshot that another one has replaced.
            StateRecord::Update(value) => before.map(|mut state| {
                if state.snapshot_epoch == value.snapshot_epoch {
                    state.updates += 1;
                    state.leader_epoch = value.leader_epoch;
                    state.merge(value.start, value.done, &value.batches);
                }
                state
            }),
        };
        if let Some(state) = now {
            bytes += weight(&state);
            self.states.insert(key.clone(), state);
        }
        self.memory.replace(self.bytes, bytes);
        self.bytes = bytes;
    }

    fn put(
        &mut self,
        key: &ShareKey,
        record: StateRecord,
        log: &mut dyn Append,
    ) -> Result<(), ShareError> {
        log.append(&[record.encode(key)])?;
        self.apply(key, &record);
        Ok(())
    }

    /// What is kept of a partition.
    pub fn read(&self, key: &ShareKey) -> Option<Kept> {
        self.states.get(key).map(|state| Kept {
            state_epoch: state.state_epoch,
            start: state.start,
            leader_epoch: state.leader_epoch,
            done: state.done,
            batches: state.list(),
        })
    }

    /// A state that begins anew at an offset (-1: wherever the first who reads decides). Gives its epoch, one above that
    /// of any before it.
    pub fn initialize(
        &mut self,
        key: &ShareKey,
        start: Offset,
        wall_ms: i64,
        log: &mut dyn Append,
    ) -> Result<i32, ShareError> {
        let before = self.states.get(key);
        let full = self.states.len() >= SHARE_PARTITIONS_PER_COORDINATOR_MAX;
        if before.is_none() && (full || self.memory.is_full()) {
            return Err(ShareError::NotAvailable);
        }
        let state_epoch = before.map_or(0, |state| state.state_epoch.wrapping_add(1).max(0));
        let value = SnapshotValue {
            snapshot_epoch: before.map_or(0, |state| state.snapshot_epoch.wrapping_add(1)),
            state_epoch,
            leader_epoch: -1,
            start,
            done: 0,
            created_ms: wall_ms,
            written_ms: wall_ms,
            batches: Vec::new(),
        };
        self.put(key, StateRecord::Snapshot(Some(value)), log)?;
        Ok(state_epoch)
    }

    /// Keeps what has changed.
    ///
    /// # Errors
    /// The state was made anew or is gone; or the log refuses.
    pub fn write(
        &mut self,
        key: &ShareKey,
        write: &Write,
        wall_ms: i64,
        log: &mut dyn Append,
    ) -> Result<(), ShareError> {
        let state = self.states.get(key).ok_or(ShareError::FencedStateEpoch)?;
        if state.state_epoch != write.state_epoch {
            return Err(ShareError::FencedStateEpoch);
        }
        let update = UpdateValue {
            snapshot_epoch: state.snapshot_epoch,
            leader_epoch: write.leader_epoch,
            start: write.start,
            done: write.done,
            batches: write.batches.clone(),
        };
        if state.updates < SNAPSHOT_EVERY {
            return self.put(key, StateRecord::Update(update), log);
        }
        let mut state = state.clone();
        state.leader_epoch = write.leader_epoch;
        state.merge(write.start, write.done, &write.batches);
        let record = snapshot_of(&state, wall_ms);
        self.put(key, record, log)
    }

    /// Forgets states.
    pub fn delete(&mut self, keys: &[ShareKey], log: &mut dyn Append) -> Result<(), ShareError> {
        for key in keys {
            if self.states.contains_key(key) {
                self.put(key, StateRecord::Snapshot(None), log)?;
            }
        }
        Ok(())
    }

    /// Forgets the states of topics that are gone.
    pub fn forget_where(
        &mut self,
        gone: impl Fn(PartitionId) -> bool,
        log: &mut dyn Append,
    ) -> Result<(), ShareError> {
        let keys = self.states.keys().filter(|key| gone(key.partition));
        let keys: Vec<ShareKey> = keys.cloned().collect();
        self.delete(&keys, log)
    }

    // Rewriting ------------------------------------------------------------------------------------------------------

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn keys(&self) -> Vec<ShareKey> {
        self.states.keys().cloned().collect()
    }

    /// Writes these states once more. When that was done for all there are, and is durable, nothing that was written before
    /// it began is needed.
    pub fn rewrite(
        &mut self,
        keys: &[ShareKey],
        wall_ms: i64,
        log: &mut dyn Append,
    ) -> Result<(), ShareError> {
        for key in keys {
            if let Some(state) = self.states.get(key) {
                let record = snapshot_of(state, wall_ms);
                self.put(key, record, log)?;
            }
        }
        Ok(())
    }
}

fn snapshot_of(state: &State, wall_ms: i64) -> StateRecord {
    StateRecord::Snapshot(Some(SnapshotValue {
        snapshot_epoch: state.snapshot_epoch.wrapping_add(1),
        state_epoch: state.state_epoch,
        leader_epoch: state.leader_epoch,
        start: state.start,
        done: state.done,
        created_ms: state.created_ms,
        written_ms: wall_ms,
        batches: state.list(),
    }))
}

impl Drop for ShareStates {
    fn drop(&mut self) {
        self.memory.replace(self.bytes, 0);
    }
}
