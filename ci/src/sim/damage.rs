//! Owns damage at rest: which file, which block, and what becomes of it.
//! Does not know what the bytes mean, only what kind of file they are in.
//! Invariant: damage can be undone, exactly.

use super::history::{Harm, Target};
use super::seeds::Rng;
use millrace_engine::rt::sim::SimDisk;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const BLOCK: usize = 4096;

/// Files as they were at some time, for blocks that go stale.
pub type Memory = BTreeMap<PathBuf, Vec<u8>>;

/// Damage that was done.
pub struct Done {
    pub what: String,
    path: PathBuf,
    before: Vec<u8>,
}

impl Done {
    /// Puts the file back. Only for a broker that is down.
    pub fn undo(&self, disk: &SimDisk) {
        disk.write_raw(&self.path, &self.before);
    }
}

/// The content of all files.
pub fn remember(disk: &SimDisk) -> Memory {
    let content = |path: PathBuf| disk.read_raw(&path).map(|bytes| (path, bytes));
    disk.files().into_iter().filter_map(content).collect()
}

fn is_target(path: &Path, target: Target) -> bool {
    let text = path.to_string_lossy();
    let extension = path.extension().map(|e| e.to_string_lossy().into_owned());
    let is = |e: &str| extension.as_deref() == Some(e);
    let topic = text.starts_with("/data/topics/") && !text.contains("-delete");
    match target {
        Target::Log => topic && is("log"),
        Target::Sum => topic && is("sum"),
        Target::Index => topic && (is("index") || is("timeindex")),
        Target::Journal => is("journal"),
        Target::Checkpoint => text.starts_with("/data/checkpoints/"),
        Target::Manifest => text.ends_with("manifest.json"),
        Target::Meta => text.starts_with("/data/meta/"),
    }
}

/// Damages some file of the kind; None where there is none with anything in it. A `live` broker has its files open, so
/// there only bits are flipped.
pub fn inflict(
    disk: &SimDisk,
    target: Target,
    harm: Harm,
    choice: u64,
    live: bool,
    memory: &Memory,
) -> Option<Done> {
    let mut rng = Rng::new(choice);
    let mut files: Vec<(PathBuf, Vec<u8>)> = remember(disk).into_iter().collect();
    files.retain(|(path, bytes)| is_target(path, target) && bytes.iter().any(|b| *b != 0));
    if files.is_empty() {
        return None;
    }
    let (path, before) = files.swap_remove(rng.below(files.len() as u64) as usize);
    if let (Harm::Old, Some(old)) = (harm, memory.get(&path)) {
        if *old != before {
            disk.write_raw(&path, old);
            let what = format!("{harm:?}: {}", path.display());
            return Some(Done { what, path, before });
        }
    }
    let used: Vec<usize> = (0..before.len().div_ceil(BLOCK))
        .filter(|n| block(&before, *n).iter().any(|b| *b != 0))
        .collect();
    let mut after = before.clone();
    let from = used[rng.below(used.len() as u64) as usize];
    let replaced = match harm {
        Harm::Bit | Harm::Old => None,
        _ if live => None,
        Harm::Stale => {
            let old = memory.get(&path);
            let differ = |n: &&usize| {
                old.is_some_and(|old| {
                    let was = block(old, **n);
                    was.len() == block(&before, **n).len() && was != block(&before, **n)
                })
            };
            let stale: Vec<&usize> = used.iter().filter(differ).collect();
            (!stale.is_empty()).then(|| {
                let n = *stale[rng.below(stale.len() as u64) as usize];
                (n, block(old.expect("it differs"), n).to_vec())
            })
        }
        Harm::Misdirected => {
            let to = used[rng.below(used.len() as u64) as usize];
            let fits = to != from && block(&before, to).len() == block(&before, from).len();
            (fits && block(&before, to) != block(&before, from))
                .then(|| (to, block(&before, from).to_vec()))
        }
    };
    let what = match replaced {
        Some((n, bytes)) => {
            after[n * BLOCK..n * BLOCK + bytes.len()].copy_from_slice(&bytes);
            disk.write_raw(&path, &after);
            format!("{harm:?}: block {n} of {}", path.display())
        }
        None => {
            let start = from * BLOCK;
            let len = block(&before, from).len() as u64;
            let filled = block(&before, from).iter().rposition(|b| *b != 0);
            let len = filled.map_or(len, |last| last as u64 + 1);
            let byte = start as u64 + rng.below(len);
            let bit = rng.below(8) as u8;
            disk.flip_bit(&path, byte, bit);
            format!("bit {bit} of byte {byte} of {}", path.display())
        }
    };
    Some(Done { what, path, before })
}

fn block(bytes: &[u8], n: usize) -> &[u8] {
    let start = (n * BLOCK).min(bytes.len());
    &bytes[start..(start + BLOCK).min(bytes.len())]
}
