//! Owns how the coordinators that keep the states of share-partitions are run, and the ways to them from any shard.
//! Does not know what a state means.
//! Invariant: whoever wrote a state hears of it when it is durable, whoever reads one sees what is.

use super::coordinator_log::Logged;
use super::slots::{Coordinates, Slot, Slots};
use super::Shard;
use crate::coord::records::RecordError;
use crate::coord::share::records::ShareKey;
use crate::coord::share::states::{Kept, Write};
use crate::coord::share::{ShareError, ShareStates, SHARE_TOPIC};
use crate::coord::{self, Append, GroupError};
use crate::types::batch::BatchHeader;
use crate::types::{Offset, PartitionId};
use std::rc::Rc;
use std::time::Duration;

/// What a record of a state takes beside its batches, and what each of those takes.
const STATE_BYTES: usize = 256;
const BATCH_BYTES: usize = 24;

/// How often states of topics that are gone are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

impl Coordinates for ShareStates {
    const WHAT: &'static str = "share states";
    type Beside = ();
    type Name = ShareKey;

    fn slots(shard: &Shard) -> &Slots<ShareStates> {
        &shard.shares.states
    }

    fn empty(shard: &Shard) -> ShareStates {
        ShareStates::new(shard.groups.memory.clone())
    }

    fn take(&mut self, _header: &BatchHeader, record: Logged) -> Result<(), RecordError> {
        match record {
            Logged::Record { key, value } => self.replay(key, value),
            // No transaction writes here.
            Logged::Marker { .. } => Ok(()),
        }
    }

    fn bytes(&self) -> usize {
        ShareStates::bytes(self)
    }

    fn expires_every(_shard: &Shard) -> Duration {
        EXPIRE_EVERY
    }

    fn expire(shard: &Rc<Shard>, slot: &Rc<Slot<ShareStates>>) {
        shard.forget_share_states(slot);
    }

    fn names(&self) -> Vec<ShareKey> {
        self.keys()
    }

    fn rewrite(
        shard: &Rc<Shard>,
        slot: &Rc<Slot<ShareStates>>,
        names: &[ShareKey],
    ) -> Option<Result<(), GroupError>> {
        let written = shard.in_slot(slot, |states, log| {
            let wall_ms = log.wall_ms;
            states.rewrite(names, wall_ms, log)
        });
        // Nothing but the log refuses there.
        Some(written?.map_err(|_| GroupError::NotAvailable))
    }
}

impl Shard {
    /// The partition of the states' topic that a share-partition belongs to.
    fn share_state_partition(&self, key: &ShareKey) -> Result<PartitionId, ShareError> {
        let image = self.image.borrow();
        let topic = image.topic(SHARE_TOPIC).ok_or(ShareError::NotAvailable)?;
        let index = coord::partition_of(&key.to_string(), topic.partitions.len() as i32);
        Ok(PartitionId::new(topic.id, index))
    }

    /// Runs `f`, which may write so many bytes, where the state of a share-partition is; gives what it gave once that is
    /// durable. `f` gets the wall's milliseconds and the log.
    async fn at_share_state<R: Send + 'static>(
        self: &Rc<Self>,
        key: &ShareKey,
        bytes: usize,
        f: impl FnOnce(&mut ShareStates, i64, &mut dyn Append) -> R + Send + 'static,
    ) -> Result<R, ShareError> {
        let id = self.share_state_partition(key)?;
        let work = move |shard: Rc<Shard>| async move {
            let step = |slot: &Rc<Slot<ShareStates>>| {
                shard.in_slot(slot, |states, log| {
                    let wall_ms = log.wall_ms;
                    f(states, wall_ms, log)
                })
            };
            shard.at_slot::<ShareStates, R>(id, bytes, step).await
        };
        let result = self.at(id.shard(self.shards), work).await;
        Ok(result.unwrap_or(Err(GroupError::NotAvailable))?)
    }

    pub(super) async fn read_share_state(
        self: &Rc<Self>,
        key: &ShareKey,
    ) -> Result<Option<Kept>, ShareError> {
        let of = key.clone();
        self.at_share_state(key, 0, move |states, _, _| states.read(&of))
            .await
    }

    /// See [`ShareStates::initialize`].
    pub(super) async fn begin_share_state(
        self: &Rc<Self>,
        key: &ShareKey,
        start: Offset,
    ) -> Result<i32, ShareError> {
        let of = key.clone();
        let bytes = STATE_BYTES + key.group.len();
        self.at_share_state(key, bytes, move |states, wall_ms, log| {
            states.initialize(&of, start, wall_ms, log)
        })
        .await?
    }

    pub(super) async fn write_share_state(
        self: &Rc<Self>,
        key: &ShareKey,
        write: Write,
    ) -> Result<(), ShareError> {
        let of = key.clone();
        let bytes = STATE_BYTES + key.group.len() + BATCH_BYTES * write.batches.len();
        self.at_share_state(key, bytes, move |states, wall_ms, log| {
            states.write(&of, &write, wall_ms, log)
        })
        .await?
    }

    pub(super) async fn delete_share_state(
        self: &Rc<Self>,
        key: &ShareKey,
    ) -> Result<(), ShareError> {
        let of = [key.clone()];
        let bytes = STATE_BYTES + key.group.len();
        self.at_share_state(key, bytes, move |states, _, log| states.delete(&of, log))
            .await?
    }

    /// States of deleted topics mean nothing any more.
    pub(super) fn forget_share_states(self: &Rc<Self>, slot: &Rc<Slot<ShareStates>>) {
        let image = self.image();
        let gone = |id: PartitionId| image.topic_by_id(id.topic).is_none();
        let forgotten = self.in_slot(slot, |states, log| states.forget_where(gone, log));
        if let Some(Err(error)) = forgotten {
            // The next round tries again.
            tracing::warn!(%error, "share states of deleted topics cannot be forgotten");
        }
    }

    /// See [`Shard::start_slots`].
    pub(super) fn start_share_states(self: &Rc<Self>) {
        self.start_slots::<ShareStates>(SHARE_TOPIC);
    }
}
