//! Owns `repair`: mending what can be made again, and giving up what the operator names.
//! Does not know the command line; the caller holds the lock of the data directory.
//! Invariant: of acknowledged records only those go that the operator gave up, and what goes is kept.

mod cut;
mod evidence;

use super::verify::{name_of, partition_of};
use super::{verify, Directories, Finding, Level, Subject, Summary};
use crate::api::{Broker, EngineConfig, Mailboxes};
use crate::checkpoint::{Checkpoint, SegmentState};
use crate::log::index::segment_stem;
use crate::log::segment::{SegmentFiles, UnsavedSums};
use crate::manifest::Manifest;
use crate::meta::offline::{self, Offline};
use crate::meta::Image;
use crate::rt;
use crate::types::{Offset, PartitionId};
use evidence::Evidence;
use hashbrown::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Records of one partition that the operator gives up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcceptLoss {
    /// `<topic>-<partition>`.
    pub partition: String,
    pub from: Offset,
}

#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Nothing was changed.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What a repair did, and how the directory is now.
#[derive(Debug)]
pub struct Repaired {
    pub done: Vec<String>,
    /// Where what was replaced is kept; None where nothing was.
    pub evidence: Option<PathBuf>,
    /// Damage that is left.
    pub left: Vec<Finding>,
    pub summary: Summary,
}

/// Repairs a stopped node.
///
/// # Errors
/// What it must not touch, or could not.
pub async fn repair(dirs: &Directories, accept: &[AcceptLoss]) -> Result<Repaired, RepairError> {
    let (damage, summary) = look(dirs).await?;
    if damage.is_empty() && accept.is_empty() {
        return Ok(Repaired {
            done: Vec::new(),
            evidence: None,
            left: Vec::new(),
            summary,
        });
    }
    refuse_hopeless(&damage)?;
    let meta = offline::read(&dirs.data)
        .await
        .map_err(io::Error::other)?
        .ok_or_else(|| RepairError::Refused("there is no metadata".to_string()))?;
    let accepted = accepted(&meta.image, accept, &damage)?;
    let mut repair = Repair {
        dirs,
        meta,
        evidence: Evidence::begin(&dirs.data).await?,
        done: Vec::new(),
    };
    if !accepted.is_empty() {
        repair.give_up(&accepted, summary.clean).await?;
    }
    // Cuts make new files: what is still there is to be made again.
    let (damage, _) = look(dirs).await?;
    // Index files are made from blocks, whose checksums have to fit by then.
    let (index, others): (Vec<&Finding>, Vec<&Finding>) = damage
        .iter()
        .filter(|f| provable(f, &damage))
        .partition(|f| matches!(f.subject, Subject::Index { .. }));
    for finding in others.into_iter().chain(index) {
        repair.derive(finding).await?;
    }
    let (left, summary) = look(dirs).await?;
    Ok(Repaired {
        done: repair.done,
        evidence: Some(repair.evidence.folder().to_path_buf()),
        left,
        summary,
    })
}

async fn look(dirs: &Directories) -> io::Result<(Vec<Finding>, Summary)> {
    let mut damage = Vec::new();
    let summary = verify(dirs, &mut |finding| {
        if finding.level == Level::Damage {
            damage.push(finding.clone());
        }
    })
    .await?;
    Ok((damage, summary))
}

/// Whether what a finding is about can be made again: only from batches that are all whole, or new
/// checksums would vouch for damaged ones.
fn provable(finding: &Finding, damage: &[Finding]) -> bool {
    let of = match finding.subject {
        Subject::Sums { partition, .. }
        | Subject::Index { partition, .. }
        | Subject::Padding { partition, .. } => partition,
        Subject::Identity { .. } => return true,
        Subject::Records { .. }
        | Subject::State { .. }
        | Subject::Journal { .. }
        | Subject::Checkpoint { .. }
        | Subject::Manifest
        | Subject::Metadata
        | Subject::None => return false,
    };
    let damaged =
        |f: &Finding| matches!(f.subject, Subject::Records { partition, .. } if partition == of);
    !damage.iter().any(damaged)
}

/// Without these nothing can be told about the rest.
fn refuse_hopeless(damage: &[Finding]) -> Result<(), RepairError> {
    let hopeless = damage.iter().find(|f| match f.subject {
        Subject::Manifest
        | Subject::Metadata
        | Subject::Checkpoint { .. }
        | Subject::State { .. } => true,
        Subject::Records { .. }
        | Subject::Sums { .. }
        | Subject::Index { .. }
        | Subject::Identity { .. }
        | Subject::Padding { .. }
        | Subject::Journal { .. }
        | Subject::None => false,
    });
    match hopeless {
        Some(finding) => Err(RepairError::Refused(format!(
            "{}: {}. This cannot be mended from what else is there: {}",
            finding.file.display(),
            finding.what,
            finding.advice
        ))),
        None => Ok(()),
    }
}

/// The partitions that the operator named, and from where; each must cover what is damaged.
fn accepted(
    image: &Image,
    accept: &[AcceptLoss],
    damage: &[Finding],
) -> Result<HashMap<PartitionId, Offset>, RepairError> {
    let mut out = HashMap::new();
    for one in accept {
        let name = &one.partition;
        let Some(id) = partition_of(image, name) else {
            return Err(RepairError::Refused(format!(
                "there is no partition {name}"
            )));
        };
        let damaged = damage.iter().filter_map(|f| match f.subject {
            Subject::Records { partition, from } if partition == id => Some(from),
            _ => None,
        });
        match damaged.min() {
            None => {
                let what = format!("{name} has no damaged records: nothing is given up there");
                return Err(RepairError::Refused(what));
            }
            Some(first) if one.from > first => {
                let what =
                    format!("{name} is damaged from offset {first} on: give at most {first}");
                return Err(RepairError::Refused(what));
            }
            Some(_) => {}
        }
        out.insert(id, one.from);
    }
    Ok(out)
}

struct Repair<'a> {
    dirs: &'a Directories,
    meta: Offline,
    evidence: Evidence,
    done: Vec<String>,
}

impl Repair<'_> {
    fn dir(&self, id: PartitionId) -> PathBuf {
        let name = name_of(&self.meta.image, id);
        self.dirs.data.join("topics").join(name)
    }

    /// Cuts what was given up. After a crash a recovery follows, by the code of every start, so that
    /// what the journals hold of other partitions reaches their segments.
    async fn give_up(
        &mut self,
        accepted: &HashMap<PartitionId, Offset>,
        clean: bool,
    ) -> io::Result<()> {
        let data = &self.dirs.data;
        self.evidence.copy(&data.join("manifest.json")).await?;
        self.evidence.copy_all(&data.join("checkpoints")).await?;
        if clean {
            return self.cut_all(accepted, true).await;
        }
        let manifest = self.manifest().await?;
        for journal in &manifest.journals {
            let dir = self.dirs.journals.join(&journal.dir);
            self.evidence.copy_all(&dir).await?;
        }
        self.cut_all(accepted, false).await?;
        self.recover().await?;
        self.done
            .push("recovered from the journals, as a start does".to_string());
        self.cut_all(accepted, true).await?;
        self.take_damaged_journals().await
    }

    async fn manifest(&self) -> io::Result<Manifest> {
        let manifest = Manifest::read(&self.dirs.data).await?;
        manifest.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "manifest.json is missing"))
    }

    /// Edits the checkpoints of the partitions given up. `last`: no recovery follows.
    async fn cut_all(
        &mut self,
        accepted: &HashMap<PartitionId, Offset>,
        last: bool,
    ) -> io::Result<()> {
        let manifest = self.manifest().await?;
        for number in 0..manifest.journals.len() {
            let mut checkpoint =
                Checkpoint::read(&self.dirs.data, manifest.generation, number).await?;
            let mut changed = false;
            for state in &mut checkpoint.partitions {
                let Some(from) = accepted.get(&state.id) else {
                    continue;
                };
                if *from >= state.resume && !last {
                    continue; // only the journal is concerned: recovery comes first
                }
                let before = state.clone();
                let dir = self
                    .dirs
                    .data
                    .join("topics")
                    .join(name_of(&self.meta.image, state.id));
                let end = cut::cut(&dir, state, *from, &self.evidence).await?;
                if *state != before {
                    changed = true;
                    let name = name_of(&self.meta.image, state.id);
                    let lost = (before.resume - end).max(0);
                    self.done.push(format!(
                        "{name} ends at offset {end} now; {lost} records were given up that were in segments"
                    ));
                }
            }
            if changed {
                checkpoint.write(&self.dirs.data, number).await?;
            }
        }
        Ok(())
    }

    /// One start and clean stop of the engine, without clients.
    async fn recover(&self) -> io::Result<()> {
        let mut config = EngineConfig::new(self.dirs.data.clone());
        config.journal_dir = Some(self.dirs.journals.clone());
        config.node_id = self.meta.node_id;
        if let Some(node) = self.meta.image.broker(self.meta.node_id) {
            config.advertised_host = node.host.clone();
            config.advertised_port = node.port;
        }
        // Nothing but recovery is to happen.
        config.retention_check = Some(Duration::from_secs(24 * 3600));
        config.scrub_bytes_per_second = 0;
        let broker = Broker::start(config, 0, Mailboxes::new(1))
            .await
            .map_err(io::Error::other)?;
        broker.close().await
    }

    async fn take_damaged_journals(&mut self) -> io::Result<()> {
        for entry in rt::fs::list_dir(&self.dirs.journals).await? {
            if entry.is_dir && entry.name.ends_with(".damaged") {
                let dir = self.dirs.journals.join(&entry.name);
                if self.evidence.take(&dir).await? {
                    self.done
                        .push(format!("kept {} as evidence", dir.display()));
                }
            }
        }
        Ok(())
    }

    /// Makes again what the batches say.
    async fn derive(&mut self, finding: &Finding) -> io::Result<()> {
        match &finding.subject {
            Subject::Sums { partition, base } => {
                let dir = self.dir(*partition);
                let bytes = self.segment(*partition, *base).await?.bytes;
                self.evidence.copy(&file_of(&dir, *base, "sum")).await?;
                let files = SegmentFiles::with_new_sums(&dir, *base, bytes).await?;
                files.write_all_sums().await?;
                files.sync().await?;
                self.all_sums_saved(*partition, *base).await?;
                self.note(finding, "made again from the batches");
            }
            Subject::Index { partition, base } => {
                let dir = self.dir(*partition);
                let segment = self.segment(*partition, *base).await?;
                for extension in ["index", "timeindex"] {
                    self.evidence.copy(&file_of(&dir, *base, extension)).await?;
                }
                let (bytes, sums) = (segment.bytes, &segment.sums);
                let files = SegmentFiles::open(&dir, *base, bytes, sums, false).await?;
                files.renew_index(bytes).await?;
                self.note(finding, "made again from the batches");
            }
            Subject::Padding { partition, base } => {
                let dir = self.dir(*partition);
                let segment = self.segment(*partition, *base).await?;
                self.evidence.copy(&file_of(&dir, *base, "log")).await?;
                let (bytes, sums) = (segment.bytes, &segment.sums);
                let files = SegmentFiles::open(&dir, *base, bytes, sums, false).await?;
                let sound = files.cut(bytes).await?;
                self.all_sums_saved(*partition, *base).await?;
                self.note(
                    finding,
                    match sound {
                        true => "cut off behind the last record",
                        false => "cut off behind the last record, whose block is damaged",
                    },
                );
            }
            Subject::Identity { partition } => {
                self.evidence.copy(&finding.file).await?;
                let text = format!("version: 0\ntopic_id: {}\n", partition.topic);
                rt::fs::write_atomic(&finding.file, text.as_bytes()).await?;
                self.note(finding, "written again");
            }
            Subject::Records { .. }
            | Subject::State { .. }
            | Subject::Journal { .. }
            | Subject::Checkpoint { .. }
            | Subject::Manifest
            | Subject::Metadata
            | Subject::None => {}
        }
        Ok(())
    }

    fn note(&mut self, finding: &Finding, what: &str) {
        self.done
            .push(format!("{}: {what}", finding.file.display()));
    }

    /// What a checkpoint says of a segment.
    async fn segment(&self, id: PartitionId, base: Offset) -> io::Result<SegmentState> {
        let mut found = None;
        self.edit(id, base, |segment| found = Some(segment.clone()))
            .await?;
        found.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no checkpoint has segment {base}"),
            )
        })
    }

    /// The checksum file was made anew: the checkpoint need not keep any.
    async fn all_sums_saved(&self, id: PartitionId, base: Offset) -> io::Result<()> {
        self.edit(id, base, |segment| {
            segment.sums = UnsavedSums::none(segment.bytes)
        })
        .await
    }

    /// Shows a segment's state to `change`, and writes the checkpoint where that changed it.
    async fn edit(
        &self,
        id: PartitionId,
        base: Offset,
        mut change: impl FnMut(&mut SegmentState),
    ) -> io::Result<()> {
        let manifest = self.manifest().await?;
        for number in 0..manifest.journals.len() {
            let mut checkpoint =
                Checkpoint::read(&self.dirs.data, manifest.generation, number).await?;
            let before = checkpoint.clone();
            let mut states = checkpoint.partitions.iter_mut().filter(|s| s.id == id);
            let segments = states.next().map(|s| s.segments.iter_mut());
            let mut segments = segments.into_iter().flatten();
            if let Some(segment) = segments.find(|s| s.base == base) {
                change(segment);
                if checkpoint != before {
                    checkpoint.write(&self.dirs.data, number).await?;
                }
                return Ok(());
            }
        }
        Ok(())
    }
}

fn file_of(dir: &Path, base: Offset, extension: &str) -> PathBuf {
    dir.join(segment_stem(base)).with_extension(extension)
}
