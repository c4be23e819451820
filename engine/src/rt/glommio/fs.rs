//! Owns the real small-file operations; they block and run on the pool of the executor.
//! Does not know which task asked.
//! Invariant: as promised in `rt::fs`.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::fs::{parent, tmp_name, DirEntry, Space};

pub(in crate::rt) fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent(path);
    if parent != path {
        create_dir_all(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => {}
        // Another shard was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(e) => return Err(e),
    }
    sync_dir(parent)
}

pub(in crate::rt) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    File::open(path)?
        .take(max.saturating_add(1))
        .read_to_end(&mut out)?;
    if out.len() as u64 > max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(out)
}

pub(in crate::rt) fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let tmp = tmp_name(path)?;
    let mut f = File::create(&tmp)?;
    f.write_all(content)?;
    f.sync_all()?;
    drop(f);
    fs::rename(&tmp, path)?;
    sync_dir(parent(path))
}

pub(in crate::rt) fn create_missing(files: &[(PathBuf, Vec<u8>)]) -> io::Result<Vec<bool>> {
    let mut created = Vec::with_capacity(files.len());
    for (path, content) in files {
        fs::create_dir_all(parent(path))?;
        created.push(match File::create_new(path) {
            Ok(mut file) => {
                file.write_all(content)?;
                true
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(e),
        });
    }
    Ok(created)
}

pub(in crate::rt) fn list_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let meta = match entry.metadata() {
            Ok(m) => m,
            // Removed since.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        out.push(DirEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_dir: meta.is_dir(),
            len: if meta.is_dir() { 0 } else { meta.len() },
        });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

pub(in crate::rt) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(in crate::rt) fn sync_file_system(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open during the call.
    if unsafe { libc::syncfs(file.as_raw_fd()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub(in crate::rt) fn space(path: &Path) -> io::Result<Space> {
    let device = fs::metadata(path)?.dev();
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statvfs is valid, and the path is a C string.
    let st = unsafe {
        let mut st: libc::statvfs64 = std::mem::zeroed();
        if libc::statvfs64(path.as_ptr(), &mut st) != 0 {
            return Err(io::Error::last_os_error());
        }
        st
    };
    Ok(Space {
        total: st.f_blocks.saturating_mul(st.f_frsize),
        free: st.f_bavail.saturating_mul(st.f_frsize),
        device,
    })
}

/// The directory entry becomes durable before the first byte is written, so a file that is not empty needs no further
/// flush of its directory, whatever happened to the process that created it.
pub(in crate::rt) fn append_sync(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut o = OpenOptions::new();
    let mut f = o.append(true).create(true).open(path)?;
    if f.metadata()?.len() == 0 {
        sync_dir(parent(path))?;
    }
    f.write_all(content)?;
    f.sync_data()
}

pub(in crate::rt) fn truncate_sync(path: &Path, len: u64) -> io::Result<()> {
    let f = OpenOptions::new().write(true).open(path)?;
    f.set_len(len)?;
    f.sync_data()
}
