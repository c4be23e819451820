//! Owns the list of bugs that the simulator plants on purpose, one at a time, to show that it would see them.
//! Does not know what a bug does: each is one line where the engine would go wrong.
//! Invariant: without the feature `plants` every hook is a constant false and leaves nothing in the binary.

/// A deliberate bug, by what the engine does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// Answers a produce before its commit is flushed.
    AcknowledgeBeforeFlush,
    /// Rewrites a padded block without its bytes in the journal.
    ForgetCarryOver,
    /// Gives a journal file back before its bytes are in segments.
    ReuseJournalFileEarly,
    /// Takes commits for a chain that do not follow each other.
    IgnoreEntrySequence,
    /// Believes commit bodies without their checksum.
    SkipCrcOnRecovery,
    /// Forgets idempotent producers where a segment is rolled.
    DropProducersAtRoll,
    /// Gives out a high watermark that is not durable yet.
    ServeBeyondHighWatermark,
    /// Takes the first bad commit for the end, whatever lies behind it.
    TruncateAtFirstBad,
    /// A group of commits waits for a file with commits of its own unwritten.
    PlacedCommitsWait,
    /// Appends use up the files kept for what the freeing of files has to commit.
    AppendsUseExtraFiles,
    /// Takes a group of commits for durable before those that began earlier.
    GroupsOvertake,
    /// Does not sync the directory of a new segment.
    ForgetFileNameSync,
    /// Writes the checkpoint of segments that were not synced.
    CheckpointBeforeSegmentSync,
    /// Forgets raised log starts that are only in the journal.
    LogStartLowered,
    /// Answers a duplicate before its original is durable.
    DuplicateAnsweredEarly,
    /// Serves segment blocks without their checksum.
    SkipBlockChecksum,
    /// Serves from new journals that are not flushed, and retires the old ones.
    RecoveryNotFlushed,
    /// Answers DeleteRecords before the new log start is durable.
    LogStartNotAwaited,
    /// Forgets the producers' state that is only in the journal.
    ReplayForgetsProducers,
    /// Takes an old manifest for the newest, and what is newer for leftovers.
    TrustOldManifest,
    /// Acknowledges from memory, however far the disk is behind.
    CachingUnbounded,
    /// Looks up times one batch too far.
    TimeLookupOffByOne,
    /// Sessions forget a partition that they have just told of.
    SessionForgetsPartition,
    /// Retention by size deletes one segment more than is due.
    RetentionTakesOneMore,
    /// Compaction looks at what may still be aborted.
    CompactUnstable,
    /// Records that were aborted take the place of those before them.
    AbortedHideOthers,
    /// Readers are told of aborted transactions whose markers compaction took.
    AbortedOutlivesMarker,
    /// Exchanges segments without a word that would survive a crash.
    ExchangeUnannounced,
    /// Exchanges segments that no checkpoint names yet.
    ExchangeUnnamed,
    /// Forgets an exchange before a checkpoint names the new segment.
    ExchangeForgottenEarly,
    /// Compaction leaves out the last record of a key, not the ones before.
    CompactKeepsFirst,
}

impl Plant {
    pub const ALL: &'static [Plant] = &[
        Plant::AcknowledgeBeforeFlush,
        Plant::ForgetCarryOver,
        Plant::ReuseJournalFileEarly,
        Plant::IgnoreEntrySequence,
        Plant::SkipCrcOnRecovery,
        Plant::DropProducersAtRoll,
        Plant::ServeBeyondHighWatermark,
        Plant::TruncateAtFirstBad,
        Plant::PlacedCommitsWait,
        Plant::AppendsUseExtraFiles,
        Plant::GroupsOvertake,
        Plant::ForgetFileNameSync,
        Plant::CheckpointBeforeSegmentSync,
        Plant::LogStartLowered,
        Plant::DuplicateAnsweredEarly,
        Plant::SkipBlockChecksum,
        Plant::RecoveryNotFlushed,
        Plant::LogStartNotAwaited,
        Plant::ReplayForgetsProducers,
        Plant::TrustOldManifest,
        Plant::CachingUnbounded,
        Plant::TimeLookupOffByOne,
        Plant::SessionForgetsPartition,
        Plant::RetentionTakesOneMore,
    ];

    /// Those of compaction, which the engine's own tests have to see: the simulator's histories compact nothing.
    pub const COMPACTION: &'static [Plant] = &[
        Plant::CompactUnstable,
        Plant::AbortedHideOthers,
        Plant::AbortedOutlivesMarker,
        Plant::ExchangeUnannounced,
        Plant::ExchangeUnnamed,
        Plant::ExchangeForgottenEarly,
        Plant::CompactKeepsFirst,
    ];
}

#[cfg(feature = "plants")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Plant>> = const { std::cell::Cell::new(None) };
}

/// Whether the engine of this thread has this bug.
#[cfg(feature = "plants")]
pub fn active(plant: Plant) -> bool {
    ACTIVE.with(|active| active.get() == Some(plant))
}

/// Whether the engine of this thread has this bug: never, in this build.
#[cfg(not(feature = "plants"))]
#[inline(always)]
pub const fn active(_: Plant) -> bool {
    false
}

/// Gives the engine of this thread a bug, or none.
#[cfg(feature = "plants")]
pub fn set(plant: Option<Plant>) {
    ACTIVE.with(|active| active.set(plant));
}
