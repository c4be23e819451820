//! Owns the manifest: which journals hold what is acknowledged, replaced atomically.
//! Does not know what the journals contain.
//! Invariant: the journals that a manifest names are the only ones that count.

use crate::journal::entry::JournalId;
use crate::rt;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
const BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JournalRef {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Folder below the journal directory.
    pub dir: String,
}

impl JournalRef {
    pub fn journal_id(&self) -> Option<JournalId> {
        u128::from_str_radix(&self.id, 16).ok().map(JournalId)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub generation: u64,
    /// Everything was flushed to segments when the broker stopped: the journals are empty.
    pub clean: bool,
    /// One per shard, in the order of the shards.
    pub journals: Vec<JournalRef>,
    /// The last change of the metadata that was durable when this was written; 0 where that was not recorded yet.
    #[serde(default)]
    pub metadata: u64,
}

impl Manifest {
    pub fn new(generation: u64, clean: bool, journals: Vec<JournalRef>) -> Manifest {
        Manifest {
            format: FORMAT,
            generation,
            clean,
            journals,
            metadata: 0,
        }
    }

    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("manifest.json")
    }

    /// The manifest of a data directory; None in a new one.
    pub async fn read(data_dir: &Path) -> io::Result<Option<Manifest>> {
        let path = Manifest::path(data_dir);
        let bytes = match rt::fs::read(&path, BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Manifest::decode(&bytes).map(Some).map_err(|why| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {why}", path.display()),
            )
        })
    }

    pub async fn write(&self, data_dir: &Path) -> io::Result<()> {
        rt::fs::write_atomic(&Manifest::path(data_dir), &self.encode()).await
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = serde_json::to_vec_pretty(self).expect("plain data serialises");
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(format!("\ncrc32 {crc:08x}\n").as_bytes());
        out
    }

    /// What such bytes say, or why they say nothing.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| "is not text: the file is damaged".to_string())?;
        let (json, crc) = text
            .rsplit_once("\ncrc32 ")
            .ok_or("has no checksum: the file is damaged")?;
        let crc = u32::from_str_radix(crc.trim_end(), 16)
            .map_err(|_| "has no checksum: the file is damaged")?;
        if crc != crc32fast::hash(json.as_bytes()) {
            return Err("checksum does not match: the file is damaged".into());
        }
        let format = serde_json::from_str::<serde_json::Value>(json)
            .ok()
            .and_then(|v| v["format"].as_u64());
        if format != Some(u64::from(FORMAT)) {
            let found = format.map_or("unknown".to_string(), |f| f.to_string());
            return Err(format!(
                "format {found} is not known to this version ({FORMAT}): use the newer millrace"
            ));
        }
        serde_json::from_str(json).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_round_trips_and_damage_is_seen() {
        let journals = vec![JournalRef {
            id: format!("{:032x}", 5u128),
            dir: "g1-s0".into(),
        }];
        let manifest = Manifest::new(7, false, journals);
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(&manifest));
        for at in 0..bytes.len() - 1 {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Manifest::decode(&bad).is_err(), "byte {at}");
        }
        let newer = Manifest {
            format: 2,
            ..manifest
        }
        .encode();
        assert!(Manifest::decode(&newer).unwrap_err().contains("newer"));
    }
}
