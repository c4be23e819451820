//! Owns small-file and directory operations.
//! Does not know what the files mean.
//! Invariant: what is documented as durable is flushed, directory entries included, before the future completes.

use std::io;
use std::path::{Path, PathBuf};

use super::{glommio, sim, task};

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name inside the directory; bytes that are not UTF-8 appear as U+FFFD.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    /// What an ordinary user may still allocate.
    pub free: u64,
    /// Tells file systems apart.
    pub device: u64,
}

/// Runs the simulated operation or, off the shard thread, the real one.
macro_rules! dispatch {
    (|$core:ident| $sim:expr, |$($arg:ident),*| $real:expr) => {
        match sim::current() {
            Some($core) => $sim,
            None => {
                $(let $arg = $arg.to_owned();)*
                task::blocking(move || $real).await
            }
        }
    };
}

/// Creates `path` and its missing parents. What it created is durable.
pub async fn create_dir_all(path: &Path) -> io::Result<()> {
    dispatch!(|core| core.fs_create_dir_all(path).await, |path| {
        glommio::fs::create_dir_all(&path)
    })
}

/// The whole content.
///
/// # Errors
/// `FileTooLarge` when it is longer than `max` bytes.
pub async fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    dispatch!(|core| core.fs_read(path, max).await, |path| {
        glommio::fs::read(&path, max)
    })
}

/// Replaces the content of `path`, durably and atomically: after a crash it is the old or the new one. Goes by a file
/// `<name>.tmp` beside it, so one writer at a time; a crash may leave that file behind.
pub async fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    dispatch!(
        |core| core.fs_write_atomic(path, content).await,
        |path, content| { glommio::fs::write_atomic(&path, &content) }
    )
}

/// Creates each of the files that is missing, with its missing parents, and says of each whether it did. Not durable:
/// after a crash before a [`sync_file_system`], any part of it may be there.
pub async fn create_missing(files: &[(PathBuf, Vec<u8>)]) -> io::Result<Vec<bool>> {
    dispatch!(|core| core.fs_create_missing(files).await, |files| {
        glommio::fs::create_missing(&files)
    })
}

/// Renames; durable after [`sync_dir`] of both directories.
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    dispatch!(|core| core.fs_rename(from, to).await, |from, to| {
        std::fs::rename(from, to)
    })
}

/// Removes a file; durable after [`sync_dir`].
pub async fn remove_file(path: &Path) -> io::Result<()> {
    dispatch!(|core| core.fs_remove_file(path).await, |path| {
        std::fs::remove_file(path)
    })
}

/// Removes a directory and everything in it; durable after [`sync_dir`] of its parent.
pub async fn remove_dir_all(path: &Path) -> io::Result<()> {
    dispatch!(|core| core.fs_remove_dir_all(path).await, |path| {
        std::fs::remove_dir_all(path)
    })
}

/// The entries of a directory, sorted by name.
pub async fn list_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    dispatch!(|core| core.fs_list_dir(path).await, |path| {
        glommio::fs::list_dir(&path)
    })
}

/// Whether something has this name.
pub async fn exists(path: &Path) -> io::Result<bool> {
    dispatch!(|core| core.fs_exists(path).await, |path| path.try_exists())
}

/// Makes the entries of a directory durable: files created in it, renamed into or out of it, removed from it.
pub async fn sync_dir(path: &Path) -> io::Result<()> {
    dispatch!(|core| core.fs_sync_dir(path).await, |path| {
        glommio::fs::sync_dir(&path)
    })
}

/// Makes everything durable that was written to the file system of `path` before this call, names included: cheaper than
/// a sync of each of many files. Waits for other processes' unwritten bytes too. Some file systems (xfs) do not flush the
/// device's cache for blocks that were only overwritten: sync one file afterwards.
pub async fn sync_file_system(path: &Path) -> io::Result<()> {
    dispatch!(|core| core.fs_sync_file_system(path).await, |path| {
        glommio::fs::sync_file_system(&path)
    })
}

/// How large the file system of `path` is, and what is left of it.
pub async fn space(path: &Path) -> io::Result<Space> {
    dispatch!(|core| core.fs_space(path).await, |path| {
        glommio::fs::space(&path)
    })
}

/// Appends to a small log, creating it (and its directory entry, durably) if missing. Durable when it completes; after a
/// crash before that any part of `content` may be there.
pub async fn append_sync(path: &Path, content: &[u8]) -> io::Result<()> {
    dispatch!(
        |core| core.fs_append_sync(path, content).await,
        |path, content| { glommio::fs::append_sync(&path, &content) }
    )
}

/// Sets the length of an existing file, durably.
pub async fn truncate_sync(path: &Path, len: u64) -> io::Result<()> {
    dispatch!(|core| core.fs_truncate_sync(path, len).await, |path| {
        glommio::fs::truncate_sync(&path, len)
    })
}

/// The directory that holds `path`; `.` for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        Some(_) | None => Path::new("."),
    }
}

/// The name by which [`write_atomic`] writes.
pub(super) fn tmp_name(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut name = name.to_owned();
    name.push(".tmp");
    Ok(path.with_file_name(name))
}
