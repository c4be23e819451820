//! Owns cutting one partition of a stopped node where the operator said.
//! Does not know what is damaged. Changes segments first and gives the state for the checkpoint.
//! Invariant: everything below the cut stays byte for byte, and all that goes is kept as evidence.

use super::evidence::Evidence;
use crate::checkpoint::{PartitionState, SegmentState};
use crate::log::epochs::EpochHistory;
use crate::log::index::segment_stem;
use crate::log::newest::Newest;
use crate::log::segment::{remove_files, Scan, SegmentFiles};
use crate::types::Offset;
use std::io;
use std::path::Path;

/// Extensions of the files of a segment.
pub const SEGMENT_FILES: [&str; 4] = ["log", "sum", "index", "timeindex"];

/// Cuts the log so that it ends at or below `from`, at a batch's boundary; gives where.
pub async fn cut(
    dir: &Path,
    state: &mut PartitionState,
    from: Offset,
    evidence: &Evidence,
) -> io::Result<Offset> {
    state.offline_from = None;
    if from >= state.resume {
        forget_behind(state, from);
        return Ok(state.resume);
    }
    let kept = state.segments.iter().filter(|s| s.base <= from).count();
    for segment in state.segments.split_off(kept) {
        keep(dir, segment.base, evidence).await?;
        remove_files(dir, segment.base).await?;
    }
    let mut end = state.segments.last().map_or(from, |s| s.next_offset);
    if let Some(last) = state.segments.last_mut().filter(|s| s.next_offset > from) {
        keep(dir, last.base, evidence).await?;
        shorten(dir, last, from, state.cleaned.gaps_below).await?;
        end = last.next_offset;
        if last.bytes == 0 {
            let base = last.base;
            state.segments.pop();
            remove_files(dir, base).await?;
        }
    }
    // What the log start passed is gone anyhow.
    let end = end.max(state.log_start);
    state.resume = end;
    state.cleaned.below = state.cleaned.below.min(end);
    state.cleaned.gaps_below = state.cleaned.gaps_below.min(end);
    state.durable = end;
    // Entries of the journal that were written before are void from here on.
    state.truncation += 1;
    let epochs = EpochHistory::from_pairs(std::mem::take(&mut state.epochs));
    let mut epochs = epochs
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "leader epochs do not grow"))?;
    epochs.truncate_to(end);
    state.epochs = epochs.pairs().to_vec();
    forget_behind(state, end);
    Ok(end)
}

/// What producers wrote from `end` on is lost: nothing is a repetition of it, and no transaction of it is open or aborted.
fn forget_behind(state: &mut PartitionState, end: Offset) {
    for (_, batches) in &mut state.producers {
        batches.retain(|b| b.last_offset < end);
    }
    state.producers.retain(|(_, batches)| !batches.is_empty());
    state.transactions.retain(|span| span.first < end);
    for span in &mut state.transactions {
        if span.last >= end {
            // Its marker is lost: readers of committed records wait here until its producer ends another one.
            span.last = -1;
        }
    }
}

async fn keep(dir: &Path, base: Offset, evidence: &Evidence) -> io::Result<()> {
    for extension in SEGMENT_FILES {
        let file = dir.join(segment_stem(base)).with_extension(extension);
        evidence.copy(&file).await?;
    }
    Ok(())
}

/// Lets a segment end before the batch that holds `from`.
async fn shorten(
    dir: &Path,
    segment: &mut SegmentState,
    from: Offset,
    gaps_below: Offset,
) -> io::Result<()> {
    let files = SegmentFiles::with_new_sums(dir, segment.base, segment.bytes).await?;
    let mut scan = Scan::new(&files, 0, segment.bytes);
    let mut newest = Newest::none(segment.base);
    let mut shorter = SegmentState {
        bytes: 0,
        next_offset: segment.base,
        max_timestamp_ms: -1,
        max_timestamp_offset: segment.base,
        closed: true,
        finished: true,
        ..segment.clone()
    };
    while shorter.next_offset < from {
        let Some((position, header)) = scan.next().await? else {
            break;
        };
        let gap = (shorter.next_offset..=gaps_below).contains(&header.base_offset);
        if !(gap || header.base_offset == shorter.next_offset) || header.next_offset() > from {
            break;
        }
        shorter.bytes = position + header.size as u64;
        shorter.next_offset = header.next_offset();
        newest.note(&header);
        shorter.max_timestamp_ms = newest.timestamp_ms;
        shorter.max_timestamp_offset = newest.batch;
    }
    drop(scan);
    files.cut(shorter.bytes).await?;
    files.renew_index(shorter.bytes).await?;
    shorter.sums = files.unsaved_sums();
    *segment = shorter;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::producers::StoredBatch;
    use crate::log::transactions::TxnSpan;
    use crate::log::Log;

    #[test]
    fn nothing_behind_the_cut_is_remembered() {
        let batch = |last_offset| StoredBatch {
            epoch: 0,
            first_sequence: 0,
            last_sequence: 0,
            base_offset: last_offset,
            last_offset,
            timestamp_ms: 0,
        };
        let span = |producer_id, first, last| TxnSpan {
            producer_id,
            epoch: 0,
            first,
            last,
        };
        let mut state = PartitionState {
            producers: vec![(1, vec![batch(8), batch(12)]), (2, vec![batch(11)])],
            transactions: vec![
                span(3, 2, 5),
                span(4, 6, 15),
                span(5, 11, 14),
                span(6, 7, -1),
                span(7, 13, -1),
            ],
            ..state_of_nothing()
        };
        forget_behind(&mut state, 10);
        assert_eq!(state.producers, [(1, vec![batch(8)])]);
        assert_eq!(
            state.transactions,
            [span(3, 2, 5), span(4, 6, -1), span(6, 7, -1)]
        );
    }

    fn state_of_nothing() -> PartitionState {
        use crate::types::{PartitionId, TopicId};
        let log = Log::empty();
        PartitionState {
            id: PartitionId::new(TopicId::NIL, 0),
            log_start: 0,
            durable: 0,
            truncation: 0,
            offline_from: None,
            cleaned: log.cleaned,
            epochs: Vec::new(),
            producers: Vec::new(),
            transactions: Vec::new(),
            segments: Vec::new(),
            resume: 0,
        }
    }
}
