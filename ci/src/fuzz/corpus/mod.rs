//! Owns making the corpus: small good inputs of every target, written by our own encoders, and those that were found.
//! Does not know how inputs are tried.
//! Invariant: the same version makes the same files; a file whose name begins with `found-` is nobody's to remove.

mod batches;
mod messages;
mod node;
mod texts;

use super::trial::corpus_dir;
use super::TARGETS;
use std::{fs, io};

/// Prefix of inputs that once failed.
pub const FOUND: &str = "found-";

/// One file of the corpus.
pub struct Made {
    pub target: &'static str,
    pub name: String,
    pub bytes: Vec<u8>,
}

fn made(target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Made {
    Made {
        target,
        name: name.into(),
        bytes: bytes.into(),
    }
}

/// All files but those that were found.
pub fn make() -> Vec<Made> {
    let mut all = messages::make();
    all.append(&mut batches::make());
    all.append(&mut node::make());
    all.append(&mut texts::make());
    all
}

/// Replaces the corpus on disk, but for what was found. Gives the number of files written.
///
/// # Errors
/// Where a folder or file cannot be read, removed or written.
pub fn write() -> io::Result<usize> {
    let all = make();
    for target in TARGETS {
        let dir = corpus_dir().join(target.name);
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(FOUND) {
                fs::remove_file(entry.path())?;
            }
        }
        for file in all.iter().filter(|file| file.target == target.name) {
            fs::write(dir.join(&file.name), &file.bytes)?;
        }
    }
    Ok(all.len())
}
