//! What the raft library reads: the log since the last snapshot, the hard state and the members, in memory.
//! Knows nothing of files; whoever changes it has made the change durable first.
//! Keeps the entries contiguous from the one after the snapshot, and their number bounded by compaction.

use super::format::Recovered;
use super::image::Image;
use super::snapshot;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::storage::{GetEntriesContext, RaftState, Storage};
use raft::{Error, Result, StorageError};
use std::sync::Arc;

/// The applied state a snapshot for another node is made from.
#[derive(Debug, Clone)]
pub struct Applied {
    pub index: u64,
    pub term: u64,
    pub members: ConfState,
    pub image: Arc<Image>,
}

/// The raft log in memory.
#[derive(Debug)]
pub struct Store {
    /// The last entry that is in the snapshot and no longer in `entries`.
    snapshot_index: u64,
    snapshot_term: u64,
    entries: Vec<Entry>,
    hard_state: HardState,
    /// The members at `snapshot_index`; later changes are entries.
    members: ConfState,
    applied: Applied,
}

impl Store {
    /// The log of a file; `image` is the one of its snapshot.
    pub fn new(recovered: &mut Recovered, image: Arc<Image>) -> Store {
        let SnapshotMetadata { index, term, .. } = recovered.snapshot;
        let members = recovered.snapshot.get_conf_state().clone();
        Store {
            snapshot_index: index,
            snapshot_term: term,
            entries: std::mem::take(&mut recovered.entries),
            hard_state: recovered.hard_state.clone(),
            applied: Applied {
                index,
                term,
                members: members.clone(),
                image,
            },
            members,
        }
    }

    /// The last term, vote and commit index.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Takes over a durable hard state.
    pub fn set_hard_state(&mut self, state: HardState) {
        assert!(state.term >= self.hard_state.term, "a term never goes back");
        self.hard_state = state;
    }

    /// Takes over a commit index; it need not be durable.
    pub fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = commit;
    }

    /// Takes over durable entries; they replace those from their first index on.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.checked_sub(self.snapshot_index + 1);
        let keep = keep
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n <= self.entries.len());
        let keep = keep.expect("raft appends without gaps, and never below its snapshot");
        self.entries.truncate(keep);
        self.entries.extend_from_slice(entries);
    }

    /// What has been applied last.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Notes what has been applied.
    pub fn set_applied(&mut self, applied: Applied) {
        assert!(
            applied.index >= self.applied.index,
            "applying never goes back"
        );
        self.applied = applied;
    }

    /// The raft description of a snapshot of what has been applied.
    pub fn snapshot_metadata(&self) -> SnapshotMetadata {
        let Applied { index, term, .. } = self.applied;
        let mut metadata = SnapshotMetadata {
            index,
            term,
            ..SnapshotMetadata::default()
        };
        metadata.set_conf_state(self.applied.members.clone());
        metadata
    }

    /// True if the log has nothing beyond what has been applied: then a snapshot can replace all of it.
    pub fn all_applied(&self) -> bool {
        self.last() == self.applied.index
    }

    /// Forgets the log up to what has been applied, after a durable snapshot of that took its place.
    pub fn compact(&mut self) {
        assert!(
            self.all_applied(),
            "entries behind the snapshot would be lost"
        );
        self.entries.clear();
        self.snapshot_index = self.applied.index;
        self.snapshot_term = self.applied.term;
        self.members = self.applied.members.clone();
    }

    /// Takes over a durable snapshot of another node, in place of everything here.
    pub fn install(&mut self, applied: Applied) {
        self.set_applied(applied);
        self.entries.clear();
        self.snapshot_index = self.applied.index;
        self.snapshot_term = self.applied.term;
        self.members = self.applied.members.clone();
        self.hard_state.commit = self.hard_state.commit.max(self.applied.index);
        self.hard_state.term = self.hard_state.term.max(self.applied.term);
    }

    /// The term of an entry that is here.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.snapshot_index {
            return Some(self.snapshot_term);
        }
        let at = index.checked_sub(self.snapshot_index + 1)?;
        self.entries.get(usize::try_from(at).ok()?).map(|e| e.term)
    }

    fn last(&self) -> u64 {
        self.snapshot_index + self.entries.len() as u64
    }
}

impl Storage for Store {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.members.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.snapshot_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(
            low <= high && high <= self.last() + 1,
            "raft asks for what it was told is here"
        );
        let at = |index: u64| (index - self.snapshot_index - 1) as usize;
        let mut entries = self.entries[at(low)..at(high)].to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        let missing = if index < self.snapshot_index {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        };
        self.term_of(index).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.snapshot_index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        if self.applied.index < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut out = Snapshot::default();
        out.set_metadata(self.snapshot_metadata());
        out.data = snapshot::encode(&self.applied.image).into();
        Ok(out)
    }
}
