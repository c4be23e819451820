//! Owns checking one journal by the recovery rule, and following what it would add to partitions.
//! Does not know segments. Never writes and takes no lock.
//! Invariant: judges a journal as recovery does: a torn tail is fine, a missing acknowledged commit never is.

use super::verify::Known;
use super::{Finding, Level, Subject};
use crate::checkpoint::Checkpoint;
use crate::journal::entry::{CarryOver, EntryHeader, EntryKind};
use crate::journal::recover::{Commit, Scan};
use crate::types::batch::BatchHeader;
use crate::types::{Offset, PartitionId};
use hashbrown::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// What a journal adds to one partition.
#[derive(Default, Debug)]
pub struct Added {
    pub carried: Option<CarryOver>,
    /// Offset behind the last record, after replay.
    pub end: Offset,
    pub log_start: Offset,
    pub batches: u64,
}

pub struct JournalCheck<'a> {
    pub number: usize,
    pub dir: &'a Path,
    pub checkpoint: &'a Checkpoint,
    pub known: &'a mut HashMap<PartitionId, Known>,
    /// `<topic>-<partition>`, where the metadata has this partition.
    pub name: &'a dyn Fn(PartitionId) -> Option<String>,
    /// All partitions of the shard that wrote this journal.
    pub owned: &'a [PartitionId],
}

/// Where a commit is, for messages.
struct Place {
    file: PathBuf,
    byte: u64,
    sequence: u64,
}

impl JournalCheck<'_> {
    /// Checks the journal; gives the number of commits that recovery would replay.
    pub async fn run(&mut self, findings: &mut Vec<Finding>) -> io::Result<u64> {
        let (id, generation) = (self.checkpoint.journal, self.checkpoint.generation);
        let scan = Scan::look(self.dir, id, generation, self.checkpoint.replay_from).await?;
        let mut seen: HashSet<PartitionId> =
            self.checkpoint.partitions.iter().map(|p| p.id).collect();
        for index in 0..scan.commits() {
            let commit = scan.commit(index).await?;
            let (file, byte) = scan.place(index);
            let place = Place {
                file: file.to_path_buf(),
                byte,
                sequence: self.checkpoint.replay_from + index as u64,
            };
            self.commit(&commit, &place, &mut seen, findings);
        }
        if scan.damaged() {
            self.damaged(&scan, seen, findings).await?;
        } else if let Some((file, byte)) = scan.stopped_at() {
            let what = format!(
                "the write of commit {} was cut short by a crash",
                scan.end + 1
            );
            findings.push(
                Finding::new(Level::TornTail, file, Some(byte), what)
                    .means("nothing is lost: it was never acknowledged"),
            );
        }
        let commits = scan.commits() as u64;
        scan.close().await?;
        Ok(commits)
    }

    fn commit(
        &mut self,
        commit: &Commit,
        place: &Place,
        seen: &mut HashSet<PartitionId>,
        findings: &mut Vec<Finding>,
    ) {
        let Some(entries) = commit.checked_entries() else {
            findings.push(self.entry_damage(place, "its entries do not add up".to_string()));
            return;
        };
        for (entry, payload) in entries {
            let Some(known) = self.known(entry.partition) else {
                continue; // of a deleted topic
            };
            seen.insert(entry.partition);
            match entry.kind {
                EntryKind::CarryOver => {
                    if let Some(carried) = CarryOver::decode(payload) {
                        known.added.carried = Some(carried);
                    }
                }
                EntryKind::LogStart => {
                    known.added.log_start = known.added.log_start.max(entry.base_offset);
                }
                EntryKind::Truncate => {
                    let what = "has a truncation, which this version does not write".to_string();
                    findings.push(self.entry_damage(place, what));
                }
                EntryKind::Append => {
                    if let Err(what) = append(known, &entry, payload) {
                        let partition = entry.partition;
                        let from = known.added.end;
                        let finding = self.entry_damage(place, what);
                        findings.push(finding.about(Subject::Records { partition, from }));
                    }
                }
            }
        }
    }

    /// What is known of a partition that the metadata has.
    fn known(&mut self, id: PartitionId) -> Option<&mut Known> {
        let name = (self.name)(id)?;
        let known = self.known.entry(id).or_default();
        known.name = name;
        Some(known)
    }

    fn entry_damage(&self, place: &Place, what: String) -> Finding {
        let what = format!("commit {}: {what}", place.sequence);
        Finding::new(Level::Damage, &place.file, Some(place.byte), what)
            .means("acknowledged records may be lost")
            .advice("keep a copy of the whole data directory before anything else is tried")
            .about(Subject::Journal {
                number: self.number,
            })
    }

    /// Acknowledged commits are missing: which partitions that concerns is decided as recovery does.
    async fn damaged(
        &mut self,
        scan: &Scan,
        mut seen: HashSet<PartitionId>,
        findings: &mut Vec<Finding>,
    ) -> io::Result<()> {
        // All that a partition has may be in what is damaged.
        seen.extend(self.owned);
        let mut continued = HashSet::new();
        for index in 0..scan.commits_beyond() {
            let commit = scan.commit_beyond(index).await?;
            for (entry, payload) in commit.checked_entries().unwrap_or_default() {
                let Some(known) = self.known(entry.partition) else {
                    continue;
                };
                seen.insert(entry.partition);
                let before = known.added.end;
                let goes_on = entry.kind == EntryKind::Append
                    && append(known, &entry, payload).is_ok()
                    && known.added.end > before;
                if goes_on && scan.is_behind_all_damage(index) {
                    continued.insert(entry.partition);
                }
            }
        }
        let (file, byte) = scan
            .stopped_at()
            .or_else(|| scan.chain_end())
            .unwrap_or((self.dir, 0));
        let mut lost: Vec<PartitionId> = seen
            .difference(&continued)
            .copied()
            .filter(|id| (self.name)(*id).is_some())
            .collect();
        lost.sort_unstable();
        let what = format!(
            "commits {} to {} were acknowledged and are damaged or missing",
            scan.end + 1,
            scan.durable
        );
        findings.push(
            Finding::new(Level::Damage, file, Some(byte), what)
                .means(format!(
                    "records of {} partitions of this journal may be lost, those of {} provably are not",
                    lost.len(),
                    continued.len()
                ))
                .advice("put the file back from a copy; else start the broker: it takes the partitions concerned \
                         offline and keeps the journal, and `millrace log repair` brings them back without what is lost")
                .about(Subject::Journal { number: self.number }),
        );
        for partition in lost {
            let from = self.known.get(&partition).map_or(0, |k| k.added.end);
            let name = (self.name)(partition).unwrap_or_default();
            let what = format!(
                "{name} has records from offset {from} on that only these commits had, if any"
            );
            findings.push(
                Finding::new(Level::Damage, file, Some(byte), what)
                    .means(format!(
                        "acknowledged records from offset {from} on may be lost"
                    ))
                    .about(Subject::Records { partition, from }),
            );
        }
        Ok(())
    }
}

/// Follows the replay of one append; an error is what is wrong with it.
fn append(known: &mut Known, entry: &EntryHeader, payload: &[u8]) -> Result<(), String> {
    let truncation = known.state.as_ref().map_or(0, |s| s.truncation);
    if entry.truncation != truncation {
        return Ok(());
    }
    let header = BatchHeader::parse(payload)
        .map_err(|e| format!("the batch of offset {} : {e}", entry.base_offset))?;
    if header.size != payload.len() || !header.crc_matches(payload) {
        let at = entry.base_offset;
        return Err(format!(
            "the batch of offset {at} does not match its CRC-32C"
        ));
    }
    if header.base_offset != entry.base_offset || header.leader_epoch != entry.leader_epoch {
        let (its, ours) = (header.base_offset, entry.base_offset);
        return Err(format!(
            "a batch says offset {its} where its entry says {ours}, or another leader epoch"
        ));
    }
    known.producer_seen(&header);
    if header.next_offset() <= known.added.end {
        return Ok(());
    }
    if header.base_offset != known.added.end {
        let (found, end) = (header.base_offset, known.added.end);
        return Err(format!(
            "the journal goes on at offset {found} where {end} was due"
        ));
    }
    known.added.end = header.next_offset();
    known.added.batches += 1;
    Ok(())
}
