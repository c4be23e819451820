//! Owns `verify`: everything a stopped node has on disk, checked without changing any of it.
//! Does not know who reads the findings.
//! Invariant: what it finds whole is what a start would accept and serve.

use super::journals::{Added, JournalCheck};
use super::partition::PartitionCheck;
use super::{Directories, Finding, Level, Subject, Summary};
use crate::checkpoint::{Checkpoint, PartitionState};
use crate::log::compact::swap::{self, Swap, SWAPS};
use crate::log::producers::StoredBatch;
use crate::manifest::Manifest;
use crate::meta::offline::{self, Offline};
use crate::meta::Image;
use crate::rt;
use crate::types::batch::BatchHeader;
use crate::types::{Offset, PartitionId};
use hashbrown::HashMap;
use std::io;
use std::path::PathBuf;

/// Batches that the checkpoint knows idempotent producers by, by base offset, until they are met.
pub type Unmet = HashMap<Offset, (i64, StoredBatch)>;

/// What checkpoint and journal say of a partition.
#[derive(Default)]
pub struct Known {
    pub name: String,
    pub state: Option<PartitionState>,
    /// Number of the checkpoint that has it.
    pub number: usize,
    pub added: Added,
    pub producers: Unmet,
    /// Bases of segments that compaction is putting in the place of others.
    pub exchanged: Vec<Offset>,
    /// Bases of those others.
    pub replaced: Vec<Offset>,
}

impl Known {
    fn of(state: PartitionState, number: usize) -> Known {
        let mut producers = Unmet::new();
        for (id, batches) in &state.producers {
            producers.extend(batches.iter().map(|b| (b.base_offset, (*id, *b))));
        }
        Known {
            name: String::new(),
            added: Added {
                end: state.resume,
                log_start: state.log_start,
                ..Added::default()
            },
            number,
            producers,
            exchanged: Vec::new(),
            replaced: Vec::new(),
            state: Some(state),
        }
    }

    pub fn producer_seen(&mut self, header: &BatchHeader) {
        producer_seen(&mut self.producers, header);
    }
}

/// A batch of the log: no longer looked for where it is what the checkpoint says.
pub fn producer_seen(unmet: &mut Unmet, header: &BatchHeader) {
    let met = unmet.get(&header.base_offset).is_some_and(|(id, b)| {
        // A marker has no sequence, and is known by that of its producer's last batch.
        let ends = header.base_sequence < 0 || b.last_sequence == header.last_sequence();
        *id == header.producer_id
            && b.epoch == header.producer_epoch
            && b.first_sequence == header.base_sequence
            && ends
            && b.last_offset == header.last_offset()
    });
    if met {
        unmet.remove(&header.base_offset);
    }
}

/// Checks everything below the directories of a stopped node; `say` gets the findings as they come.
///
/// # Errors
/// Where a folder cannot be listed at all.
pub async fn verify(dirs: &Directories, say: &mut dyn FnMut(&Finding)) -> io::Result<Summary> {
    let mut verifier = Verifier {
        dirs,
        findings: Vec::new(),
        summary: Summary::default(),
        known: HashMap::new(),
        generation: 0,
        say,
    };
    verifier.run().await?;
    Ok(verifier.summary)
}

struct Verifier<'a> {
    dirs: &'a Directories,
    findings: Vec<Finding>,
    summary: Summary,
    known: HashMap<PartitionId, Known>,
    generation: u64,
    say: &'a mut dyn FnMut(&Finding),
}

impl Verifier<'_> {
    async fn run(&mut self) -> io::Result<()> {
        let manifest = self.manifest().await?;
        let meta = self.metadata(manifest.is_some()).await;
        self.tell();
        let image = meta.as_ref().map(|m| &m.image);
        let mut checkpoints = true;
        if let Some(manifest) = &manifest {
            self.summary.clean = manifest.clean;
            self.generation = manifest.generation;
            checkpoints = self.journals(manifest, image).await?;
            self.tell();
        }
        if let Some(image) = image {
            self.name_all(image);
        }
        let judged = manifest.is_some() && checkpoints;
        self.topics(image, judged).await?;
        self.tell();
        Ok(())
    }

    /// Counts and passes on what was found since the last time.
    fn tell(&mut self) {
        for finding in self.findings.drain(..) {
            match finding.level {
                Level::TornTail => self.summary.torn_tails += 1,
                Level::Leftover => self.summary.leftovers += 1,
                Level::Damage => self.summary.damages += 1,
            }
            (self.say)(&finding);
        }
    }

    async fn manifest(&mut self) -> io::Result<Option<Manifest>> {
        let path = self.dirs.data.join("manifest.json");
        let (what, means) = match Manifest::read(&self.dirs.data).await {
            Ok(Some(manifest)) => return Ok(Some(manifest)),
            Ok(None) => {
                let topics = list(&self.dirs.data.join("topics")).await?;
                if !topics.iter().any(|e| e.is_dir) {
                    return Ok(None);
                }
                ("is missing".to_string(), "which journals count is not known, so the broker refuses to start")
            }
            Err(error) => (
                strip(&error, &path),
                "which journals count is not known, so the broker refuses to start; records are not touched by this",
            ),
        };
        self.findings.push(
            Finding::new(Level::Damage, &path, None, what)
                .means(means)
                .advice("put it back from a copy")
                .about(Subject::Manifest),
        );
        Ok(None)
    }

    async fn metadata(&mut self, used: bool) -> Option<Offline> {
        let path = self.dirs.data.join("meta").join("metadata");
        let what = match offline::read(&self.dirs.data).await {
            Ok(Some(meta)) => {
                if let Some((at, bytes)) = meta.torn {
                    let what = format!("a write of {bytes} bytes was cut short by a crash");
                    self.findings.push(
                        Finding::new(Level::TornTail, &path, Some(at), what)
                            .means("nothing is lost: it was never acknowledged"),
                    );
                }
                return Some(meta);
            }
            Ok(None) if !used => return None,
            Ok(None) => "is missing".to_string(),
            Err(error) => error.to_string(),
        };
        self.findings.push(
            Finding::new(Level::Damage, &path, None, what)
                .means("topics and settings cannot be read, so the broker refuses to start; records are not touched by this")
                .advice("put it back from a copy")
                .about(Subject::Metadata),
        );
        None
    }

    /// Checkpoints, and the journals where a start would read them. False where one is damaged.
    async fn journals(&mut self, manifest: &Manifest, image: Option<&Image>) -> io::Result<bool> {
        let mut sound = true;
        let swaps = self.exchanges().await?;
        for (number, journal) in manifest.journals.iter().enumerate() {
            let path = self.checkpoint_path(manifest.generation, number);
            let read = Checkpoint::read(&self.dirs.data, manifest.generation, number).await;
            let checkpoint = match read {
                Ok(c) if Some(c.journal) == journal.journal_id() => c,
                Ok(_) => {
                    self.bad_checkpoint(path, number, "belongs to another journal".into());
                    sound = false;
                    continue;
                }
                Err(error) => {
                    let what = strip(&error, &path);
                    self.bad_checkpoint(path, number, what);
                    sound = false;
                    continue;
                }
            };
            for state in &checkpoint.partitions {
                let mut state = state.clone();
                let (mut exchanged, mut replaced) = (Vec::new(), Vec::new());
                let id = state.id;
                for swap in swaps.iter().filter(|s| s.id == id) {
                    swap.apply(&mut state);
                    exchanged.push(swap.new.base);
                    replaced.extend(&swap.old[1..]);
                }
                let known = Known {
                    exchanged,
                    replaced,
                    ..Known::of(state.clone(), number)
                };
                if self.known.insert(state.id, known).is_some() {
                    let what = format!("partition {} is in two checkpoints", state.id);
                    self.bad_checkpoint(path.clone(), number, what);
                }
            }
            let dir = self.dirs.journals.join(&journal.dir);
            if manifest.clean {
                continue; // nothing in it is needed, and no start reads it
            }
            if !rt::fs::exists(&dir).await? {
                self.findings.push(
                    Finding::new(Level::Damage, &dir, None, "is missing")
                        .means("acknowledged records may be lost; the broker refuses to start")
                        .advice("put the journal back")
                        .about(Subject::Journal { number }),
                );
                continue;
            }
            let Some(image) = image else { continue };
            self.name_all(image);
            let name = |id: PartitionId| topic_has(image, id).then(|| name_of(image, id));
            let owned: Vec<PartitionId> = image
                .partitions()
                .filter(|id| id.shard(manifest.journals.len()) == number)
                .collect();
            let mut check = JournalCheck {
                number,
                dir: &dir,
                checkpoint: &checkpoint,
                known: &mut self.known,
                name: &name,
                owned: &owned,
            };
            self.summary.commits += check.run(&mut self.findings).await?;
            self.summary.journals += 1;
        }
        self.unnamed(manifest).await?;
        Ok(sound)
    }

    /// Exchanges of segments that are under way: the next start ends them.
    async fn exchanges(&mut self) -> io::Result<Vec<Swap>> {
        match swap::under_way(&self.dirs.data).await {
            Ok(found) => Ok(found.into_iter().map(|(_, swap)| swap).collect()),
            Err(error) => {
                let folder = self.dirs.data.join(SWAPS);
                let what = strip(&error, &folder);
                self.findings.push(
                    Finding::new(Level::Damage, &folder, None, what)
                        .means("which segments of a compacted partition count is not known, so the broker refuses to start")
                        .advice("put the file back from a copy"),
                );
                Ok(Vec::new())
            }
        }
    }

    /// Journals and checkpoints of other generations.
    async fn unnamed(&mut self, manifest: &Manifest) -> io::Result<()> {
        for entry in list(&self.dirs.journals).await? {
            if manifest.journals.iter().any(|j| j.dir == entry.name) {
                continue;
            }
            let (what, means) = if entry.name.ends_with(".damaged") {
                (
                    "is a damaged journal of an earlier start",
                    "it is kept as evidence and never read",
                )
            } else {
                ("is no journal that counts", "it is never read")
            };
            let file = self.dirs.journals.join(&entry.name);
            self.findings
                .push(Finding::new(Level::Leftover, &file, None, what).means(means));
        }
        let folder = self.dirs.data.join("checkpoints");
        for entry in list(&folder).await? {
            let ours = (0..manifest.journals.len())
                .any(|n| entry.name == format!("g{}-s{n}", manifest.generation));
            if !ours {
                self.findings.push(
                    Finding::new(
                        Level::Leftover,
                        &folder.join(&entry.name),
                        None,
                        "is no checkpoint that counts",
                    )
                    .means("it is never read"),
                );
            }
        }
        Ok(())
    }

    fn checkpoint_path(&self, generation: u64, number: usize) -> PathBuf {
        self.dirs
            .data
            .join("checkpoints")
            .join(format!("g{generation}-s{number}"))
    }

    fn bad_checkpoint(&mut self, path: PathBuf, number: usize, what: String) {
        self.findings.push(
            Finding::new(Level::Damage, &path, None, what)
                .means("what its partitions consist of is not known, so the broker refuses to start; records are not touched by this")
                .advice("put it back from a copy")
                .about(Subject::Checkpoint { number }),
        );
    }

    fn name_all(&mut self, image: &Image) {
        for (id, known) in &mut self.known {
            known.name = name_of(image, *id);
        }
    }

    /// Every folder below `topics`. `judged`: manifest and checkpoints could be read.
    async fn topics(&mut self, image: Option<&Image>, judged: bool) -> io::Result<()> {
        let root = self.dirs.data.join("topics");
        let Some(image) = image else { return Ok(()) };
        let mut met = Vec::new();
        for entry in list(&root).await? {
            let dir = root.join(&entry.name);
            let id = entry
                .is_dir
                .then(|| partition_of(image, &entry.name))
                .flatten();
            let Some(id) = id else {
                let what = if entry.name.ends_with("-delete") {
                    "is a deleted partition"
                } else {
                    "is no partition of a topic"
                };
                self.findings.push(
                    Finding::new(Level::Leftover, &dir, None, what).means("it is never served"),
                );
                continue;
            };
            met.push(id);
            if !judged {
                continue;
            }
            let known = self.known.entry(id).or_default();
            known.name = entry.name.clone();
            let number = known.number;
            let checkpoint = self.checkpoint_path(self.generation, number);
            let known = self.known.get_mut(&id).expect("just entered");
            let mut check = PartitionCheck {
                id,
                dir: &dir,
                known,
                clean: self.summary.clean,
                checkpoint,
            };
            check.run(&mut self.summary, &mut self.findings).await?;
            self.summary.partitions += 1;
            self.tell();
        }
        self.missing(image, &met);
        Ok(())
    }

    /// Partitions with segments whose folder is not there.
    fn missing(&mut self, image: &Image, met: &[PartitionId]) {
        for (id, known) in &self.known {
            let Some(state) = &known.state else { continue };
            if state.segments.is_empty() || met.contains(id) || !topic_has(image, *id) {
                continue;
            }
            let dir = self.dirs.data.join("topics").join(name_of(image, *id));
            let from = state.log_start;
            self.findings.push(
                Finding::new(Level::Damage, &dir, None, "is missing")
                    .means(format!(
                        "acknowledged records from offset {from} on may be lost"
                    ))
                    .advice("put the folder back from a copy")
                    .about(Subject::Records {
                        partition: *id,
                        from,
                    }),
            );
        }
    }
}

/// Whether the metadata has this partition.
pub fn topic_has(image: &Image, id: PartitionId) -> bool {
    let count = image
        .topic_by_id(id.topic)
        .map_or(0, |t| t.partitions.len());
    usize::try_from(id.index).is_ok_and(|index| index < count)
}

/// `<topic>-<partition>`, or the id of a topic that is no more.
pub fn name_of(image: &Image, id: PartitionId) -> String {
    match image.topic_by_id(id.topic) {
        Some(topic) => format!("{}-{}", topic.name, id.index),
        None => format!("{}-{}", id.topic, id.index),
    }
}

/// The partition that a folder name stands for.
pub fn partition_of(image: &Image, name: &str) -> Option<PartitionId> {
    let (topic, index) = name.rsplit_once('-')?;
    let topic = image.topic(topic)?;
    let number: i32 = index.parse().ok()?;
    let id = PartitionId::new(topic.id, number);
    (topic_has(image, id) && number.to_string() == index).then_some(id)
}

async fn list(dir: &std::path::Path) -> io::Result<Vec<rt::fs::DirEntry>> {
    match rt::fs::list_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The message without the path, which is told apart.
fn strip(error: &io::Error, path: &std::path::Path) -> String {
    let text = error.to_string();
    let prefix = format!("{}: ", path.display());
    text.strip_prefix(&prefix).unwrap_or(&text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::batch::build;

    fn header(attributes: i16, sequence: i32) -> BatchHeader {
        let b = build::batch(3, b"abc", 7, Some((40, 2, sequence)));
        let b = build::with_attributes(b, attributes);
        let mut header = BatchHeader::parse(&b).unwrap();
        header.base_offset = 100;
        header
    }

    fn of_checkpoint(first_sequence: i32, last_sequence: i32) -> Unmet {
        let stored = StoredBatch {
            epoch: 2,
            first_sequence,
            last_sequence,
            base_offset: 100,
            last_offset: 102,
            timestamp_ms: 7,
        };
        Unmet::from([(100, (40, stored))])
    }

    fn is_met(first: i32, last: i32, header: &BatchHeader) -> bool {
        let mut unmet = of_checkpoint(first, last);
        producer_seen(&mut unmet, header);
        unmet.is_empty()
    }

    #[test]
    fn a_batch_that_the_checkpoint_knows_is_met_by_no_other() {
        let batch = header(0, 5);
        assert!(is_met(5, 7, &batch));
        assert!(!is_met(4, 7, &batch), "another first sequence");
        assert!(!is_met(5, 8, &batch), "another last sequence");
        type Change = fn(&mut BatchHeader);
        let changes: [(Change, &str); 4] = [
            (|h| h.producer_id = 41, "another producer"),
            (|h| h.producer_epoch = 3, "another epoch"),
            (|h| h.base_offset = 101, "elsewhere"),
            (|h| h.last_offset_delta = 3, "it ends behind"),
        ];
        for (change, what) in changes {
            let mut other = batch;
            change(&mut other);
            assert!(!is_met(5, 7, &other), "{what}");
        }
    }

    #[test]
    fn a_marker_is_met_whatever_sequence_its_producer_is_at() {
        let marker = header(0b11_0000, -1);
        assert!(is_met(-1, 7, &marker));
        assert!(is_met(-1, -1, &marker));
        assert!(!is_met(5, 7, &marker), "that was a batch with records");
    }
}
