//! The metadata of a node that is not running, read without changing anything.
//! Knows nothing of what is looked for in it.
//! Keeps to the decoders and the state machine of the live node: what it shows is what a start would show.

use super::command::Command;
use super::config::Overrides;
use super::error::MetaError;
use super::image::Image;
use super::{format, limits, machine, snapshot};
use crate::rt;
use raft::eraftpb::EntryType;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The metadata as the next start will find it.
#[derive(Debug)]
pub struct Offline {
    pub file: PathBuf,
    pub node_id: i32,
    pub image: Image,
    /// Where an unfinished write begins that a start cuts off, and its bytes.
    pub torn: Option<(u64, u64)>,
    pub bytes: u64,
}

/// Reads `<data_dir>/meta/metadata`; `None` where there is no such file.
///
/// # Errors
/// What would keep a start from reading it.
pub async fn read(data_dir: &Path) -> Result<Option<Offline>, MetaError> {
    let file = data_dir.join("meta").join("metadata");
    let bytes = match rt::fs::read(&file, limits::FILE_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(MetaError::Io {
                what: format!("cannot read {}", file.display()),
                cause: error.to_string(),
            })
        }
    };
    decode(&bytes, file).map(Some)
}

fn decode(bytes: &[u8], file: PathBuf) -> Result<Offline, MetaError> {
    let name = file.display().to_string();
    // Where the header is too short for a node, `recover` says so.
    let node_id = format::stored_node(bytes).unwrap_or(0);
    let recovered = format::recover(bytes, &name, node_id)?;
    let text = &bytes[recovered.image.clone()];
    let mut image =
        snapshot::decode(text, node_id, Arc::new(Overrides::new())).map_err(|cause| {
            MetaError::Snapshot {
                file: name.clone(),
                cause,
            }
        })?;
    for entry in &recovered.entries {
        if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
            let command =
                Command::decode(&entry.data).map_err(|cause| MetaError::UnknownCommand {
                    index: entry.index,
                    cause,
                })?;
            // Refused when it was proposed, and refused now: it changed nothing either time.
            let _same_verdict = machine::apply(&mut image, &command);
        }
        image.version = entry.index;
    }
    let (len, valid) = (bytes.len() as u64, recovered.tail.len);
    Ok(Offline {
        file,
        node_id,
        image,
        torn: (len > valid).then(|| (valid, len - valid)),
        bytes: len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_metadata_are_an_error() {
        for len in [0, 1, 15, 16, 20, 43, 44, 4096] {
            for fill in [0u8, 0xff, b'M'] {
                assert!(
                    decode(&vec![fill; len], "x".into()).is_err(),
                    "{len} of {fill}"
                );
            }
        }
    }
}
