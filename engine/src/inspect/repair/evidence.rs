//! Owns keeping what a repair replaces: copies and moves below `repair-evidence/`, one folder a repair.
//! Does not know what is repaired. Invariant: a file is changed only after its copy is durable.

use crate::rt::{self, DirectBuf, File, OpenOptions};
use crate::types::limits::{BLOCK_BYTES, IO_BYTES_MAX};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const ROOT: &str = "repair-evidence";

pub struct Evidence {
    data_dir: PathBuf,
    folder: PathBuf,
}

impl Evidence {
    /// A new, empty folder, named by the time.
    pub async fn begin(data_dir: &Path) -> io::Result<Evidence> {
        let root = data_dir.join(ROOT);
        let mut at = rt::wall_ms();
        while rt::fs::exists(&root.join(at.to_string())).await? {
            at += 1;
        }
        let folder = root.join(at.to_string());
        rt::fs::create_dir_all(&folder).await?;
        Ok(Evidence {
            data_dir: data_dir.to_path_buf(),
            folder,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where `file` is kept: the same path, below the folder.
    async fn place(&self, file: &Path) -> io::Result<PathBuf> {
        let to = match file.strip_prefix(&self.data_dir) {
            Ok(below) => self.folder.join(below),
            // Journals on another device: told apart by their folder.
            Err(_elsewhere) => {
                let parts: Vec<_> = file.iter().collect();
                let last = parts.iter().skip(parts.len().saturating_sub(2));
                self.folder.join("journal").join(last.collect::<PathBuf>())
            }
        };
        if let Some(parent) = to.parent() {
            rt::fs::create_dir_all(parent).await?;
        }
        Ok(to)
    }

    /// Copies a file, durably; one that is not there has nothing to keep.
    pub async fn copy(&self, file: &Path) -> io::Result<()> {
        let from = match File::open(file, OpenOptions::new().read(true)).await {
            Ok(from) => from,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let to_path = self.place(file).await?;
        if rt::fs::exists(&to_path).await? {
            return from.close().await; // the first copy is the original
        }
        let options = OpenOptions::new().read(true).write(true).create(true);
        let to = File::open(&to_path, options).await?;
        let mut position = 0;
        loop {
            let bytes = from.read_at(position, IO_BYTES_MAX).await?;
            if bytes.is_empty() {
                break;
            }
            let mut buf = DirectBuf::with_len(bytes.len().next_multiple_of(BLOCK_BYTES));
            buf[..bytes.len()].copy_from_slice(&bytes);
            buf[bytes.len()..].fill(0);
            to.write_at(Rc::new(buf), position).await?;
            position += bytes.len() as u64;
            if bytes.len() < IO_BYTES_MAX {
                break;
            }
        }
        to.truncate(position).await?;
        to.sync().await?;
        if let Some(parent) = to_path.parent() {
            rt::fs::sync_dir(parent).await?;
        }
        to.close().await?;
        from.close().await
    }

    /// Copies every file of a folder.
    pub async fn copy_all(&self, dir: &Path) -> io::Result<()> {
        let entries = match rt::fs::list_dir(dir).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries.iter().filter(|e| !e.is_dir) {
            self.copy(&dir.join(&entry.name)).await?;
        }
        Ok(())
    }

    /// Moves a folder here; false where it is on another file system and stays.
    pub async fn take(&self, dir: &Path) -> io::Result<bool> {
        let to = self.place(dir).await?;
        match rt::fs::rename(dir, &to).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Ok(false),
            Err(error) => return Err(error),
        }
        if let Some(parent) = to.parent() {
            rt::fs::sync_dir(parent).await?;
        }
        if let Some(parent) = dir.parent() {
            rt::fs::sync_dir(parent).await?;
        }
        Ok(true)
    }
}
