//! Owns the inspection of a data directory whose broker does not run: verify, dump, repair.
//! Does not know how findings are shown.
//! Invariant: nothing but `repair` changes a file, and it keeps what it replaces.

pub mod dump;
mod index;
mod journals;
mod partition;
pub mod repair;
pub(crate) mod segment;
pub mod verify;
pub(crate) mod walk;

use crate::types::{Offset, PartitionId};
use std::path::{Path, PathBuf};

pub use verify::verify;

/// The directories of a node.
#[derive(Clone, Debug)]
pub struct Directories {
    pub data: PathBuf,
    pub journals: PathBuf,
}

impl Directories {
    /// `journal_dir` where the journals are not below the data directory.
    pub fn new(data: PathBuf, journal_dir: Option<PathBuf>) -> Directories {
        let journals = journal_dir.unwrap_or_else(|| data.join("journal"));
        Directories { data, journals }
    }
}

/// How a finding is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// A write that a crash cut short. It was never acknowledged.
    TornTail,
    /// Something that no start reads: on its way out, or not ours.
    Leftover,
    /// Bytes that are not what was written.
    Damage,
}

/// What a finding is about, for what acts on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Records from `from` on cannot all be trusted.
    Records {
        partition: PartitionId,
        from: Offset,
    },
    /// Block checksums that do not fit blocks whose batches are whole.
    Sums {
        partition: PartitionId,
        base: Offset,
    },
    /// Index files of a segment whose batches are whole.
    Index {
        partition: PartitionId,
        base: Offset,
    },
    /// `partition.metadata`.
    Identity {
        partition: PartitionId,
    },
    /// Bytes behind the last record of a block that is not full.
    Padding {
        partition: PartitionId,
        base: Offset,
    },
    /// What a checkpoint says of a partition does not fit its batches.
    State {
        partition: PartitionId,
    },
    /// Acknowledged commits of a journal.
    Journal {
        number: usize,
    },
    Checkpoint {
        number: usize,
    },
    Manifest,
    Metadata,
    /// Nothing that could be acted on.
    None,
}

/// One thing to report: where, what, what it means for acknowledged records, what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub level: Level,
    pub file: PathBuf,
    pub byte: Option<u64>,
    pub what: String,
    pub means: String,
    pub advice: String,
    pub subject: Subject,
}

impl Finding {
    fn new(level: Level, file: &Path, byte: Option<u64>, what: impl Into<String>) -> Finding {
        Finding {
            level,
            file: file.to_path_buf(),
            byte,
            what: what.into(),
            means: String::new(),
            advice: String::new(),
            subject: Subject::None,
        }
    }

    fn means(mut self, means: impl Into<String>) -> Finding {
        self.means = means.into();
        self
    }

    fn advice(mut self, advice: impl Into<String>) -> Finding {
        self.advice = advice.into();
        self
    }

    fn about(mut self, subject: Subject) -> Finding {
        self.subject = subject;
        self
    }
}

/// What was looked at.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Summary {
    pub partitions: u64,
    pub segments: u64,
    pub batches: u64,
    pub records: u64,
    pub segment_bytes: u64,
    pub journals: u64,
    pub commits: u64,
    pub torn_tails: u64,
    pub leftovers: u64,
    pub damages: u64,
    /// Whether the broker was stopped cleanly; false after a crash.
    pub clean: bool,
}
