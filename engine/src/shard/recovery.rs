//! Owns bringing a shard's partitions back from checkpoints and journals of the last generation,
//! whatever the number of shards was then. Does not know how shards agree to serve.
//! Invariant: until the manifest names the new journals, the old ones are left as they were, so
//! that a crash during recovery changes nothing.

use super::{partition_dir, Shard};
use crate::checkpoint::{Checkpoint, PartitionState};
use crate::journal::entry::{CarryOver, EntryHeader, EntryKind, JournalId};
use crate::journal::recover::{Commit, Scan};
use crate::log::append::Clock;
use crate::log::compact::swap::{self, Swap};
use crate::log::damage::is_damage;
use crate::log::restore::{mend_last, remove_left_behind, Replayed};
use crate::log::{Log, Partition};
use crate::manifest::Manifest;
use crate::plant::{self, Plant};
use crate::rt;
use crate::types::{Offset, PartitionId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

/// In the folder of an old journal that is to be kept.
pub(super) const KEPT: &str = "damaged";

/// What one old journal says about the partitions that are now this shard's.
struct Replay {
    states: BTreeMap<PartitionId, PartitionState>,
    /// Partitions whose files were put in order.
    mended: BTreeSet<PartitionId>,
    carried: BTreeMap<PartitionId, CarryOver>,
    log_starts: BTreeMap<PartitionId, Offset>,
    /// Everything that this journal has something about.
    seen: BTreeSet<PartitionId>,
    /// Partitions that provably lost nothing to a damaged commit.
    continued: BTreeSet<PartitionId>,
    entered: u64,
}

/// Where an entry lies in its journal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// No commit before it is missing.
    InChain,
    /// Commits before it are missing, others behind it too.
    AmongDamage,
    /// Commits before it are missing, none behind it.
    BehindDamage,
}

impl Shard {
    /// Brings back what the old manifest's journals hold for this shard. The new journal runs
    /// already; when this returns, everything is durable in it.
    pub(super) async fn recover(self: &Rc<Self>, old: &Manifest) -> io::Result<()> {
        let swaps = self.finish_exchanges().await?;
        for (number, journal) in old.journals.iter().enumerate() {
            if old.journals.len() == self.shards && number != self.index {
                continue; // the same number of shards: every journal is one shard's
            }
            let id = journal
                .journal_id()
                .ok_or_else(|| invalid("the manifest names a journal without an id".into()))?;
            let checkpoint =
                Checkpoint::read(&self.config.data_dir, old.generation, number).await?;
            if checkpoint.journal != id || checkpoint.generation != old.generation {
                return Err(invalid(format!(
                    "checkpoint g{}-s{number} belongs to another journal",
                    old.generation
                )));
            }
            let dir = self.config.journal_root.join(&journal.dir);
            let owned = |id: PartitionId| id.shard(old.journals.len()) == number;
            self.recover_journal(&dir, id, checkpoint, &swaps, old.clean, owned)
                .await?;
        }
        Ok(())
    }

    /// Ends the exchanges of segments that a crash has cut short, or that no checkpoint knows of yet: what they say comes
    /// on top of the checkpoints of before.
    async fn finish_exchanges(&self) -> io::Result<Vec<Swap>> {
        let mut swaps = Vec::new();
        for (file, swap) in swap::under_way(&self.config.data_dir).await? {
            let (id, topic) = {
                let image = self.image.borrow();
                (swap.id, image.topic_by_id(swap.id.topic).cloned())
            };
            match topic {
                Some(topic) if self.is_mine(id) => {
                    let dir = partition_dir(&self.config.data_dir, &topic, id.index);
                    if rt::fs::exists(&dir).await? {
                        swap.finish(&dir).await?;
                    }
                    self.cleaner.note_made(id, file);
                    swaps.push(swap);
                }
                // Of a topic that was deleted.
                None if self.index == 0 => self.cleaner.note_made(id, file),
                Some(_) | None => {}
            }
        }
        Ok(swaps)
    }

    async fn recover_journal(
        self: &Rc<Self>,
        dir: &std::path::Path,
        id: JournalId,
        checkpoint: Checkpoint,
        swaps: &[Swap],
        clean: bool,
        owned: impl Fn(PartitionId) -> bool,
    ) -> io::Result<()> {
        let (generation, replay_from) = (checkpoint.generation, checkpoint.replay_from);
        let offline = checkpoint
            .partitions
            .iter()
            .filter(|s| s.offline_from.is_some());
        let offline: BTreeSet<PartitionId> = offline.map(|s| s.id).collect();
        let mine = checkpoint
            .partitions
            .into_iter()
            .filter(|s| self.is_mine(s.id));
        let mut states: BTreeMap<PartitionId, PartitionState> = mine.map(|s| (s.id, s)).collect();
        for swap in swaps {
            if let Some(state) = states.get_mut(&swap.id) {
                swap.apply(state);
            }
        }
        if clean {
            for state in states.values() {
                self.enter(state)?;
                let partition = self.partition(state.id).map_err(io::Error::other)?;
                partition
                    .log
                    .borrow_mut()
                    .raise_log_start(state.log_start, rt::now());
            }
            return Ok(());
        }
        if !rt::fs::exists(dir).await? {
            let reason = format!(
                "journal {} is missing: without it acknowledged records may be lost; put it back",
                dir.display()
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        let scan = Scan::read(dir, id, generation, replay_from).await?;
        let mut replay = Replay {
            seen: states.keys().copied().collect(),
            log_starts: states.values().map(|s| (s.id, s.log_start)).collect(),
            states,
            mended: BTreeSet::new(),
            carried: BTreeMap::new(),
            continued: BTreeSet::new(),
            entered: 0,
        };
        for index in (0..scan.commits()).filter(|index| !scan.has_only_batches(*index)) {
            self.collect_carried(&scan.commit(index).await?, &mut replay);
        }
        for index in 0..scan.commits_beyond() {
            self.collect_log_starts(&scan.commit_beyond(index).await?, &mut replay);
        }
        for state in replay.states.values_mut() {
            let start = replay.log_starts.get(&state.id).copied().unwrap_or(0);
            // What lies wholly below a durable log start may be unlinked already.
            state.segments.retain(|s| s.next_offset > start);
            self.enter(state)?;
        }
        for index in 0..scan.commits() {
            let commit = scan.commit(index).await?;
            for (entry, payload) in commit.entries() {
                self.replay_entry(&entry, payload, Found::InChain, &mut replay)
                    .await?;
            }
        }
        if scan.damaged() {
            // All that a partition has may be in what is damaged.
            replay
                .seen
                .extend(self.all_mine().into_iter().filter(|id| owned(*id)));
            self.report_damage(dir, &scan, &mut replay).await?;
        }
        if !plant::active(Plant::RecoveryNotFlushed) {
            let entered = self.journal.wait_all_durable().await;
            entered.map_err(io::Error::other)?;
        }
        for (id, start) in &replay.log_starts {
            let partition = self.partition(*id).map_err(io::Error::other)?;
            partition
                .log
                .borrow_mut()
                .raise_log_start(*start, rt::now());
        }
        let is_new = |(id, partition): (&PartitionId, &Rc<Partition>)| {
            owned(*id) && !offline.contains(id) && partition.log.borrow().offline_from.is_some()
        };
        if scan.damaged() || self.partitions.borrow().iter().any(is_new) {
            // Of whatever shard, whoever retires the journal sees that it is evidence, and what a repair would work from.
            if let Err(error) = rt::fs::write_atomic(&dir.join(KEPT), b"").await {
                tracing::warn!(journal = %dir.display(), %error, "the damaged journal cannot be marked, and may be removed");
            }
        }
        if replay.entered > 0 {
            tracing::info!(journal = %dir.display(), entries = replay.entered, "entered again from the journal");
        }
        scan.close().await
    }

    fn all_mine(&self) -> Vec<PartitionId> {
        let image = self.image.borrow();
        image
            .partitions()
            .filter(|id| id.shard(self.shards) == self.index)
            .collect()
    }

    fn is_mine(&self, id: PartitionId) -> bool {
        let image = self.image.borrow();
        let exists = image
            .topic_by_id(id.topic)
            .is_some_and(|t| id.index >= 0 && (id.index as usize) < t.partitions.len());
        exists && id.shard(self.shards) == self.index
    }

    /// Makes the partition that a checkpoint describes.
    fn enter(&self, state: &PartitionState) -> io::Result<()> {
        let topic = self
            .image
            .borrow()
            .topic_by_id(state.id.topic)
            .expect("checked by is_mine")
            .clone();
        let dir = partition_dir(&self.config.data_dir, &topic, state.id.index);
        let log = Log::restore(state, rt::now())?;
        let (journal, removals) = (self.journal.clone(), self.removals.clone());
        let partition = Partition::new(state.id, topic, dir, journal, removals, log);
        if self
            .partitions
            .borrow_mut()
            .insert(state.id, partition)
            .is_some()
        {
            return Err(invalid(format!(
                "partition {} is in two checkpoints",
                state.id
            )));
        }
        Ok(())
    }

    fn collect_log_starts(&self, commit: &Commit, replay: &mut Replay) {
        for (entry, _) in commit.entries() {
            let forgets = plant::active(Plant::LogStartLowered);
            if entry.kind == EntryKind::LogStart && self.is_mine(entry.partition) && !forgets {
                let start = replay.log_starts.entry(entry.partition).or_insert(0);
                *start = (*start).max(entry.base_offset);
            }
        }
    }

    fn collect_carried(&self, commit: &Commit, replay: &mut Replay) {
        self.collect_log_starts(commit, replay);
        for (entry, payload) in commit.entries() {
            if entry.kind == EntryKind::CarryOver && self.is_mine(entry.partition) {
                let Some(carried) = CarryOver::decode(payload) else {
                    continue;
                };
                // Only the first one after the checkpoint has the block as the checkpoint saw it
                // or longer; later ones only add bytes behind it.
                replay.carried.insert(entry.partition, carried);
            }
        }
    }

    async fn replay_entry(
        self: &Rc<Self>,
        entry: &EntryHeader,
        payload: &[u8],
        found: Found,
        replay: &mut Replay,
    ) -> io::Result<()> {
        let id = entry.partition;
        if !self.is_mine(id) {
            return Ok(());
        }
        replay.seen.insert(id);
        match entry.kind {
            EntryKind::CarryOver => self.mend(id, replay).await,
            // Collected before anything was entered.
            EntryKind::LogStart => Ok(()),
            EntryKind::Truncate => Err(invalid(format!(
                "partition {id}: truncation entries are not known to this version"
            ))),
            EntryKind::Append => self.replay_append(entry, payload, found, replay).await,
        }
    }

    async fn replay_append(
        self: &Rc<Self>,
        entry: &EntryHeader,
        payload: &[u8],
        found: Found,
        replay: &mut Replay,
    ) -> io::Result<()> {
        let id = entry.partition;
        let partition = self.partition(id).map_err(io::Error::other)?;
        let known_below = replay.states.get(&id).map_or(0, |s| s.durable);
        if partition.log.borrow().next_offset > entry.base_offset {
            return Ok(());
        }
        self.mend(id, replay).await?;
        while self.journal.backlog_bytes() > self.config.backlog_bytes_max {
            self.journal.progressed.notified().await;
            if self.journal.failed() {
                return Err(io::Error::other("the new journal failed"));
            }
        }
        let clock = Clock {
            wall_ms: rt::wall_ms(),
            mono: rt::now(),
        };
        match partition.replay_append(entry, payload, known_below, clock)? {
            Replayed::Entered => {
                replay.entered += 1;
                self.mark_dirty(&partition);
                if found == Found::BehindDamage {
                    replay.continued.insert(id);
                }
            }
            Replayed::Known => {}
            Replayed::Gap if found != Found::InChain => {}
            Replayed::Gap => {
                let end = partition.log.borrow().next_offset;
                tracing::error!(partition = %id, end, found = entry.base_offset, "the journal skips acknowledged offsets");
                partition.log.borrow_mut().offline_from.get_or_insert(end);
            }
        }
        rt::yield_if_needed().await;
        Ok(())
    }

    /// Puts a partition's files into the state its checkpoint saw, before anything is added.
    async fn mend(&self, id: PartitionId, replay: &mut Replay) -> io::Result<()> {
        if !replay.mended.insert(id) {
            return Ok(());
        }
        let partition = self.partition(id).map_err(io::Error::other)?;
        let fresh = partition.state();
        let state = replay.states.get(&id).unwrap_or(&fresh);
        remove_left_behind(&partition.dir, state).await?;
        match mend_last(&partition.dir, state, replay.carried.get(&id)).await {
            Ok(sums) => partition.log.borrow_mut().close_mended(sums),
            Err(error) if is_damage(&error) => {
                let from = partition.log.borrow_mut().close_damaged();
                tracing::error!(
                    partition = %partition.dir.display(), from, %error,
                    "offline: the newest segment is damaged; stop, then `millrace log verify` and `millrace log repair`"
                );
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Acknowledged commits are missing: keeps what provably lost nothing, takes the rest offline.
    async fn report_damage(
        self: &Rc<Self>,
        dir: &std::path::Path,
        scan: &Scan,
        replay: &mut Replay,
    ) -> io::Result<()> {
        tracing::error!(
            journal = %dir.display(),
            end = scan.end,
            durable = scan.durable,
            "acknowledged commits are damaged; nothing is cut, partitions that may have lost records stay offline"
        );
        for index in 0..scan.commits_beyond() {
            let commit = scan.commit_beyond(index).await?;
            let found = if scan.is_behind_all_damage(index) {
                Found::BehindDamage
            } else {
                Found::AmongDamage
            };
            for (entry, payload) in commit.entries() {
                self.replay_entry(&entry, payload, found, replay).await?;
            }
        }
        for id in replay.seen.difference(&replay.continued) {
            let partition = self.partition(*id).map_err(io::Error::other)?;
            let mut log = partition.log.borrow_mut();
            let end = log.next_offset;
            tracing::error!(partition = %partition.dir.display(), from = end, "offline: records from here on may be lost");
            log.offline_from.get_or_insert(end);
        }
        let kept = dir.with_extension("damaged");
        tracing::error!(journal = %dir.display(), kept = %kept.display(), "the damaged journal is kept");
        Ok(())
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
