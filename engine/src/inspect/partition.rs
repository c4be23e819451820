//! Owns checking one partition's folder against its checkpoint and what the journal adds.
//! Does not know other partitions nor how a journal is read.
//! Invariant: every file in the folder is accounted for: in use, on its way out, or not ours.

use super::segment::{self, Contents, Expected};
use super::verify::Known;
use super::{Finding, Level, Subject, Summary};
use crate::checkpoint::{PartitionState, SegmentState};
use crate::log::compact::swap::NEW;
use crate::log::epochs::EpochHistory;
use crate::log::index::segment_stem;
use crate::rt;
use crate::types::{Offset, PartitionId};
use std::io;
use std::path::{Path, PathBuf};

const IDENTITY_BYTES_MAX: u64 = 4096;
/// Extensions of the files of one segment.
const SEGMENT_FILES: [&str; 4] = ["log", "sum", "index", "timeindex"];

pub struct PartitionCheck<'a> {
    pub id: PartitionId,
    pub dir: &'a Path,
    pub known: &'a mut Known,
    /// The broker was stopped cleanly.
    pub clean: bool,
    /// The checkpoint that has the state, for messages.
    pub checkpoint: PathBuf,
}

impl PartitionCheck<'_> {
    pub async fn run(
        &mut self,
        summary: &mut Summary,
        findings: &mut Vec<Finding>,
    ) -> io::Result<()> {
        self.identity(findings).await?;
        let state = self.known.state.take();
        self.files(state.as_ref(), findings).await?;
        if let Some(state) = &state {
            self.state(state, summary, findings).await?;
        }
        self.known.state = state;
        Ok(())
    }

    /// `partition.metadata` names the topic that the folder belongs to.
    async fn identity(&self, findings: &mut Vec<Finding>) -> io::Result<()> {
        let path = self.dir.join("partition.metadata");
        let wanted = format!("version: 0\ntopic_id: {}\n", self.id.topic);
        let what = match rt::fs::read(&path, IDENTITY_BYTES_MAX).await {
            Ok(bytes) if bytes == wanted.as_bytes() => return Ok(()),
            Ok(bytes) => {
                let differs = bytes
                    .iter()
                    .zip(wanted.as_bytes())
                    .position(|(a, b)| a != b)
                    .unwrap_or(bytes.len().min(wanted.len()));
                (Some(differs as u64), "does not name this topic".to_string())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !self.has_segments().await? {
                    let what = "has no partition.metadata yet, and no segments";
                    let finding = Finding::new(Level::Leftover, self.dir, None, what);
                    findings.push(finding.means("nothing is lost: a crash came before its first"));
                    return Ok(());
                }
                (None, "is missing".to_string())
            }
            Err(error) => (None, format!("cannot be read: {error}")),
        };
        findings.push(
            Finding::new(Level::Damage, &path, what.0, what.1)
                .means("no record is lost; the folder no longer says whose it is")
                .advice("`millrace log repair` writes it again from the metadata")
                .about(Subject::Identity { partition: self.id }),
        );
        Ok(())
    }

    async fn has_segments(&self) -> io::Result<bool> {
        let entries = rt::fs::list_dir(self.dir).await?;
        Ok(entries.iter().any(|entry| base_of(&entry.name).is_some()))
    }

    /// Files that no checkpoint names.
    async fn files(
        &self,
        state: Option<&PartitionState>,
        findings: &mut Vec<Finding>,
    ) -> io::Result<()> {
        for entry in rt::fs::list_dir(self.dir).await? {
            if entry.name == "partition.metadata" {
                continue;
            }
            if entry.is_dir && entry.name == NEW {
                self.new_segments(findings).await?;
                continue;
            }
            let base = base_of(&entry.name);
            let named = |base: Offset| {
                state.is_some_and(|s| s.segments.iter().any(|segment| segment.base == base))
            };
            let (what, means) = match base {
                Some(base) if named(base) => continue,
                Some(base) if self.known.replaced.contains(&base) => (
                    "belongs to a segment that compaction has replaced",
                    "nothing is lost: the next start removes it",
                ),
                Some(_) if self.clean => (
                    "belongs to no segment in use",
                    "it was deleted, and is never served",
                ),
                Some(_) => (
                    "belongs to a segment newer than the last checkpoint, or to a deleted one",
                    "nothing is lost: the journal has what counts of it",
                ),
                None => ("is not a file of this program", "it is never read"),
            };
            let file = self.dir.join(&entry.name);
            findings.push(Finding::new(Level::Leftover, &file, None, what).means(means));
        }
        Ok(())
    }

    /// What compaction wrote: to be put in the place of segments, where that has begun.
    async fn new_segments(&self, findings: &mut Vec<Finding>) -> io::Result<()> {
        let folder = self.dir.join(NEW);
        for entry in rt::fs::list_dir(&folder).await? {
            let stem = entry.name.split_once('.').map_or("", |(stem, _)| stem);
            let begun = |base: &Offset| segment_stem(*base) == stem;
            if self.known.exchanged.iter().any(begun) {
                continue;
            }
            let what = "was written by a compaction that did not come to its end";
            let file = folder.join(&entry.name);
            let finding = Finding::new(Level::Leftover, &file, None, what);
            findings.push(finding.means("it is never read, and removed by the next compaction"));
        }
        Ok(())
    }

    async fn state(
        &mut self,
        state: &PartitionState,
        summary: &mut Summary,
        findings: &mut Vec<Finding>,
    ) -> io::Result<()> {
        let epochs = self.epochs(state, findings);
        let mut due = None;
        for segment in &state.segments {
            self.gap(due, segment, state, findings);
            let gaps_below = &state.cleaned.gaps_below;
            let contents = self
                .segment(segment, &epochs, gaps_below, summary, findings)
                .await?;
            if contents.first_bad.is_none() {
                self.agrees(segment, &contents, findings);
            }
            due = Some(segment.next_offset);
        }
        if due.is_some_and(|end| end != state.resume) {
            let what = format!(
                "{}: the segments end at offset {}, the journal goes on at {}",
                self.known.name,
                due.unwrap_or(0),
                state.resume
            );
            findings.push(self.wrong_state(what));
        }
        let first = state.segments.first().map_or(state.resume, |s| s.base);
        let (log_start, end) = (state.log_start, self.known.added.end);
        if log_start > end.max(state.resume) {
            let name = &self.known.name;
            let what =
                format!("{name}: the log starts at offset {log_start}, behind its end {end}");
            findings.push(self.wrong_state(what));
        }
        if log_start < first && first > 0 && !state.segments.is_empty() {
            let name = &self.known.name;
            let what = format!(
                "{name}: the log starts at offset {log_start}, its first segment at {first}"
            );
            findings.push(self.wrong_state(what));
        }
        let unmet = self
            .known
            .producers
            .iter()
            .filter(|(base, _)| **base >= first.max(state.cleaned.gaps_below))
            .count();
        if unmet > 0 && !findings.iter().any(|f| self.loses_records(f)) {
            let name = &self.known.name;
            let what = format!(
                "{name}: {unmet} batches that idempotent producers are known by are not in the log"
            );
            findings.push(self.wrong_state(what));
        }
        if let Some(from) = state.offline_from {
            let what = format!(
                "{} is offline from offset {from} on: an earlier start found damage",
                self.known.name
            );
            findings.push(
                Finding::new(Level::Damage, &self.checkpoint, None, what)
                    .means(format!("acknowledged records from offset {from} on may be lost"))
                    .advice("put the damaged journal back from a copy, or `millrace log repair --partition TOPIC-N \
                             --accept-loss-from OFFSET`")
                    .about(Subject::Records { partition: self.id, from }),
            );
        }
        Ok(())
    }

    fn loses_records(&self, finding: &Finding) -> bool {
        matches!(finding.subject, Subject::Records { partition, .. } if partition == self.id)
    }

    fn wrong_state(&self, what: String) -> Finding {
        Finding::new(Level::Damage, &self.checkpoint, None, what)
            .means("what the broker knows of its records does not fit them")
            .advice("keep a copy of the data directory, and report this")
            .about(Subject::State { partition: self.id })
    }

    fn epochs(&self, state: &PartitionState, findings: &mut Vec<Finding>) -> EpochHistory {
        match EpochHistory::from_pairs(state.epochs.clone()) {
            Some(epochs) => epochs,
            None => {
                let what = format!("{}: leader epochs do not grow", self.known.name);
                findings.push(self.wrong_state(what));
                EpochHistory::default()
            }
        }
    }

    /// Segments follow each other without a gap, but for one that lies below the log start.
    fn gap(
        &self,
        due: Option<Offset>,
        segment: &SegmentState,
        state: &PartitionState,
        findings: &mut Vec<Finding>,
    ) {
        let Some(due) = due else { return };
        let (base, start) = (
            segment.base,
            state.log_start.max(self.known.added.log_start),
        );
        let gaps_below = state.cleaned.gaps_below;
        if base == due || (base > due && base <= start.max(gaps_below)) {
            return;
        }
        let what = format!(
            "{}: a segment begins at offset {base} where {due} was due",
            self.known.name
        );
        let from = due.min(base);
        let finding = self.wrong_state(what).means(format!(
            "acknowledged records from offset {from} on may be lost"
        ));
        findings.push(finding.about(Subject::Records {
            partition: self.id,
            from,
        }));
    }

    async fn segment(
        &mut self,
        segment: &SegmentState,
        epochs: &EpochHistory,
        gaps_below: &Offset,
        summary: &mut Summary,
        findings: &mut Vec<Finding>,
    ) -> io::Result<Contents> {
        let mut unmoved = Vec::new();
        if self.known.exchanged.contains(&segment.base) {
            let stem = self.dir.join(NEW).join(segment_stem(segment.base));
            for extension in SEGMENT_FILES {
                if rt::fs::exists(&stem.with_extension(extension)).await? {
                    unmoved.push(extension);
                }
            }
        }
        let expected = Expected {
            partition: self.id,
            dir: self.dir,
            base: segment.base,
            bytes: segment.bytes,
            sums: &segment.sums,
            finished: segment.finished,
            clean: self.clean,
            carried: self.known.added.carried.as_ref(),
            epochs,
            gaps_below: *gaps_below,
            next_offset: segment.next_offset,
            unmoved: &unmoved,
        };
        let producers = &mut self.known.producers;
        let mut on_batch = |header: &_| super::verify::producer_seen(producers, header);
        let contents = segment::check(&expected, &mut on_batch, findings).await?;
        summary.segments += 1;
        summary.segment_bytes += segment.bytes;
        summary.batches += contents.batches;
        summary.records += contents.records;
        Ok(contents)
    }

    /// What the checkpoint says of a segment is what its batches say.
    fn agrees(&self, segment: &SegmentState, contents: &Contents, findings: &mut Vec<Finding>) {
        let said = (
            segment.next_offset,
            segment.max_timestamp_ms,
            segment.max_timestamp_offset,
        );
        let found = (
            contents.next_offset,
            contents.max_timestamp_ms,
            contents.max_timestamp_offset,
        );
        // An open segment's timestamps may be of batches behind the checkpoint.
        let same = if segment.closed {
            said == found
        } else {
            said.0 == found.0 && said.1 >= found.1
        };
        if !same {
            let (name, base) = (&self.known.name, segment.base);
            let what = format!(
                "{name}: segment {base} is said to have (end, largest timestamp, its offset) {said:?}, its batches say {found:?}"
            );
            findings.push(self.wrong_state(what));
        }
    }
}

/// Base offset of the segment that a file of this name belongs to.
fn base_of(name: &str) -> Option<Offset> {
    let (stem, extension) = name.split_once('.')?;
    let is_segment = stem.len() == 20 && SEGMENT_FILES.contains(&extension);
    is_segment.then(|| stem.parse().ok()).flatten()
}
