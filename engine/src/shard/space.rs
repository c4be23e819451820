//! Owns the reserve of disk space: how much has to stay free, how that is watched, and when appends are refused for it.
//! Does not know what is appended, nor who frees what.
//! Invariant: whatever was accepted finds room in its segments, and a start after a crash finds room for its journals: no
//! shard accepts more between two looks than it had claimed, for all to see, before the first of them.

use super::Shard;
use crate::error::PartitionError;
use crate::meta::limits::DISK_RESERVE_BYTES;
use crate::rt::{self, Notify};
use crate::types::limits::{BLOCK_BYTES, DISK_LOOK_BYTES_MAX, DISK_LOOK_BYTES_MIN};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

/// Others may use the disk too, so it is looked at also while nothing is appended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the segments that still need their index are counted: what they need changes slowly.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// A look grants one part in so many, for each shard, of what is not needed.
const GRANT_PARTS: u64 = 16;
/// Checksums and indexes take less than one byte for so many of a segment: 4 and 20 for a block of 4096, and the indexes
/// twice while they are replaced.
const INDEX_SHARE: u64 = 64;
/// Blocks that a partition's directory, identity, checksums, indexes and padded last block may take beyond its bytes.
const PARTITION_BYTES: u64 = 8 * BLOCK_BYTES as u64;
/// A start writes a checkpoint beside the old one, each by way of a temporary file.
const CHECKPOINTS: u64 = 3;
/// What each shard of a node claims of the disks, for all of them to see.
pub struct SpaceBoard {
    claims: Vec<(AtomicU64, AtomicU64)>,
    /// Shards that refuse appends.
    full: AtomicUsize,
}

impl SpaceBoard {
    pub fn new(shards: usize) -> Arc<SpaceBoard> {
        Arc::new(SpaceBoard {
            claims: (0..shards).map(|_| Default::default()).collect(),
            full: AtomicUsize::new(0),
        })
    }

    fn publish(&self, shard: usize, claim: Claim) {
        self.claims[shard].0.store(claim.data, SeqCst);
        self.claims[shard].1.store(claim.journal, SeqCst);
    }

    fn claimed(&self) -> Claim {
        let sum = |of: fn(&(AtomicU64, AtomicU64)) -> &AtomicU64| {
            self.claims.iter().map(|c| of(c).load(SeqCst)).sum()
        };
        Claim {
            data: sum(|c| &c.0),
            journal: sum(|c| &c.1),
        }
    }
}

/// Bytes that have to find room on the file systems of the segments and of the journals.
#[derive(Clone, Copy, Debug)]
struct Claim {
    data: u64,
    journal: u64,
}

/// What a look found where there is too little; bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskRoom {
    pub free: u64,
    /// How much has to stay free.
    pub kept: u64,
    /// Whether appends are refused for it.
    pub full: bool,
}

/// One shard's view of the disk space.
pub struct Space {
    board: Arc<SpaceBoard>,
    room: Cell<DiskRoom>,
    /// Not needed by anybody as of the last look.
    slack: Cell<u64>,
    /// May be appended before the next look has ended.
    left: Cell<u64>,
    /// Largest append that waits for more than that.
    wanted: Cell<u64>,
    /// Below this much left the next look begins.
    low: Cell<u64>,
    looking: Cell<bool>,
    look: Notify,
    /// Whether journals are on a file system of their own; asked once.
    apart: Cell<Option<bool>>,
    /// Bytes of segments whose index is still to be written, and when they were counted.
    unfinished_bytes: Cell<u64>,
    counted: Cell<Option<rt::Mono>>,
    checkpoint_bytes: Cell<u64>,
    /// Partitions whose bytes are on their way to segments.
    moving: Cell<usize>,
    /// Why the last attempt to move bytes to segments failed.
    stuck: RefCell<Option<String>>,
    /// Until the old journals are gone, what they hold comes on top of what this one holds.
    recovering: Cell<bool>,
}

impl Space {
    pub fn new(board: Arc<SpaceBoard>) -> Space {
        Space {
            board,
            room: Cell::default(),
            slack: Cell::new(0),
            left: Cell::new(0),
            wanted: Cell::new(0),
            low: Cell::new(0),
            looking: Cell::new(false),
            look: Notify::new(),
            apart: Cell::new(None),
            unfinished_bytes: Cell::new(0),
            counted: Cell::new(None),
            checkpoint_bytes: Cell::new(0),
            moving: Cell::new(0),
            stuck: RefCell::new(None),
            recovering: Cell::new(true),
        }
    }

    pub fn room(&self) -> DiskRoom {
        self.room.get()
    }

    /// Takes note of how an attempt to move bytes to segments ended.
    pub fn note_moved(&self, moved: &io::Result<()>) {
        *self.stuck.borrow_mut() = moved.as_ref().err().map(|error| error.to_string());
    }

    /// Takes `bytes` out of what may be appended. False where that is too little: then the next look is on its way, and its
    /// end is told like the journal's progress. While the disk is full everything may pass, to be refused.
    pub fn take(&self, bytes: u64) -> bool {
        if self.room.get().full {
            return true;
        }
        let Some(left) = self.left.get().checked_sub(bytes) else {
            self.wanted.set(self.wanted.get().max(bytes));
            self.look.notify_all();
            return false;
        };
        self.left.set(left);
        if left < self.low.get() && !self.looking.get() {
            self.look.notify_all();
        }
        true
    }

    /// The bytes of so many partitions begin to move to segments. Gives how far each file may be allocated ahead of what is
    /// written to it, so that all together take no more than a part of what nobody needs; bytes.
    pub fn begin_moving(&self, partitions: usize) -> u64 {
        self.moving.set(partitions);
        let shards = self.board.claims.len() as u64;
        let share = self.slack.get() / (4 * shards * partitions.max(1) as u64);
        share / BLOCK_BYTES as u64 * BLOCK_BYTES as u64
    }

    pub fn end_moving(&self) {
        self.moving.set(0);
    }

    pub fn note_checkpoint(&self, bytes: u64) {
        self.checkpoint_bytes.set(bytes);
    }

    /// Bytes of the disk that nobody needs.
    pub fn spare(&self) -> u64 {
        self.slack.get()
    }

    /// The old journals are gone.
    pub fn recovered(&self) {
        self.recovering.set(false);
        self.look.notify_all();
    }

    /// A part of what nobody needs, to have at hand until the next look.
    fn share(&self) -> u64 {
        let share = self.slack.get() / (GRANT_PARTS * self.board.claims.len() as u64);
        share.clamp(DISK_LOOK_BYTES_MIN, DISK_LOOK_BYTES_MAX)
    }
}

impl Shard {
    /// Why appends are refused, while they are: there is too little room on the disk, or there is none in the journal and
    /// none comes, because segments cannot be written.
    pub(super) fn refusal(&self) -> Option<PartitionError> {
        let DiskRoom { free, kept, full } = self.space.room.get();
        if full {
            return Some(PartitionError::DiskFull { free, kept });
        }
        let stuck = self.space.stuck.borrow();
        let why = stuck.as_ref().filter(|_| !self.journal_has_room())?;
        Some(PartitionError::Storage(why.clone()))
    }

    pub(super) fn journal_has_room(&self) -> bool {
        !self.journal.is_full() && self.journal.backlog_bytes() <= self.config.backlog_bytes_max
    }

    /// Looks at the disk again and again. Runs while the shard lives.
    pub(super) async fn run_space(self: Rc<Self>) {
        while !self.stopping.get() {
            let asked = self.space.look.notified();
            self.look_at_space().await;
            let _asked_or_late = rt::timeout(LOOK_EVERY, asked).await;
        }
    }

    /// Compares what is free with what everybody has claimed, and decides.
    pub(super) async fn look_at_space(&self) {
        let space = &self.space;
        space.looking.set(true);
        self.count_unfinished().await;
        // The claim comes before the look, so that of two shards that look at once one sees the other's; and what it covers
        // is still in the journal or already missing from what is free, whenever that is asked.
        let (had, share, wanted) = (space.left.get(), space.share(), space.wanted.take());
        let target = had.max(share + wanted);
        space.board.publish(self.index, self.claim(target));
        let claimed = space.board.claimed();
        let (slack, room) = match self.find_room(claimed).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "cannot see how much of the disk is free");
                (None, DiskRoom::default())
            }
        };
        space.looking.set(false);
        let was_full = space.room.get().full;
        if slack.is_none() && target > DISK_LOOK_BYTES_MIN + wanted {
            // Less may do.
            space.slack.set(0);
            space.left.set(space.left.get().min(DISK_LOOK_BYTES_MIN));
            space.wanted.set(wanted.max(space.wanted.get()));
            space.look.notify_all();
            return;
        }
        let full = match slack {
            None => true,
            // What one shard finds holds for all.
            Some(slack) => space.board.full.load(SeqCst) > 0 && slack < self.resume_bytes(),
        };
        let more = if full { self.resume_bytes() } else { 0 };
        let kept = room.kept.saturating_add(more);
        space.room.set(DiskRoom { full, kept, ..room });
        if full {
            space.left.set(0);
        } else {
            space.left.set(space.left.get() + (target - had));
            space.low.set(target / 2);
        }
        self.tell_room(was_full);
        // None is nothing to give away.
        let slack = slack.unwrap_or(0);
        space.slack.set(slack);
        self.journal
            .ring()
            .allow_growth(slack >= self.growth_bytes());
        // Appends that waited for this look again.
        self.journal.progressed.notify_all();
    }

    /// What this shard has to find room for, with `more` bytes appended.
    fn claim(&self, more: u64) -> Claim {
        let ring = self.journal.ring();
        let held = ring.held_bytes() + self.journal.backlog_bytes() as u64 + more;
        let partitions = self.dirty.borrow().len() + self.space.moving.get();
        let indexes = (held + self.space.unfinished_bytes.get()) / INDEX_SHARE;
        let checkpoints = self.space.checkpoint_bytes.get() * CHECKPOINTS;
        let metadata = if self.index == 0 {
            DISK_RESERVE_BYTES
        } else {
            0
        };
        Claim {
            data: held + partitions as u64 * PARTITION_BYTES + indexes + checkpoints + metadata,
            journal: self.config.journal_reserve_bytes(),
        }
    }

    /// Bytes that nobody needs, None where there are too few; and the figures of the file system that is shorter of room.
    async fn find_room(&self, claimed: Claim) -> io::Result<(Option<u64>, DiskRoom)> {
        let config = &self.config;
        let data = rt::fs::space(&config.data_dir).await?;
        let found = |free: u64, kept: u64| {
            let full = false;
            (free.checked_sub(kept), DiskRoom { free, kept, full })
        };
        let kept = claimed.data.saturating_add(config.disk_reserve_bytes);
        if self.space.apart.get() == Some(false) {
            return Ok(found(data.free, kept.saturating_add(claimed.journal)));
        }
        let journal = rt::fs::space(&config.journal_root).await?;
        if journal.device == data.device {
            self.space.apart.set(Some(false));
            return Ok(found(data.free, kept.saturating_add(claimed.journal)));
        }
        let both = [found(data.free, kept), found(journal.free, claimed.journal)];
        Ok(both
            .into_iter()
            .min_by_key(|(slack, _)| *slack)
            .expect("there are two"))
    }

    /// More than is kept has to be free before produces are accepted again, or they would be refused again at once.
    fn resume_bytes(&self) -> u64 {
        let least = 2 * DISK_LOOK_BYTES_MIN * self.shards as u64;
        (self.config.disk_reserve_bytes / 4).max(least)
    }

    /// Room for every ring to grow to its bound, however many begin to before the next look; and enough besides for produces
    /// to go on after everything was deleted, but for what is still in each ring's last file.
    fn growth_bytes(&self) -> u64 {
        let config = &self.config;
        let files = config.journal_files_max as u64 + 1;
        let all = self.shards as u64 * files * config.journal_file_bytes;
        let all = if self.space.recovering.get() {
            2 * all
        } else {
            all
        };
        all + self.resume_bytes()
    }

    /// The first shard that finds the disk full says so, and the last one that finds room again.
    fn tell_room(&self, was_full: bool) {
        let DiskRoom { free, kept, full } = self.space.room.get();
        let all = &self.space.board.full;
        if full && !was_full && all.fetch_add(1, SeqCst) == 0 {
            tracing::warn!(
                free,
                kept,
                "the disk is full: produces are refused (KAFKA_STORAGE_ERROR) until there is room; reads go on; delete \
                 records or topics, lower their retention, or add space"
            );
        }
        if was_full && !full && all.fetch_sub(1, SeqCst) == 1 {
            tracing::info!(free, kept, "the disk has room again: produces are accepted");
        }
    }

    async fn count_unfinished(&self) {
        let now = rt::now();
        let counted = self.space.counted.get();
        if counted.is_some_and(|at| now - at < COUNT_EVERY) {
            return;
        }
        let partitions: Vec<_> = self.partitions.borrow().values().cloned().collect();
        let mut bytes = 0;
        for partition in partitions {
            {
                let log = partition.log.borrow();
                let open = log.segments.iter().rev().take_while(|s| !s.finished);
                bytes += open.map(|s| s.bytes).sum::<u64>();
            }
            rt::yield_if_needed().await;
        }
        self.space.unfinished_bytes.set(bytes);
        self.space.counted.set(Some(now));
    }
}
