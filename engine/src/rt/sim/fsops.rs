//! Owns the simulated small-file and directory operations.
//! Does not know what the files mean.
//! Invariant: each takes the same steps as the real one, with a delay before every step, so that a crash can fall
//! between any two.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::super::file::OpenOptions;
use super::super::fs::{parent, tmp_name, DirEntry, Space};
use super::core::Core;
use super::disk::{Disk, Entry, FaultOp};
use super::{NodeId, SimFile};

fn errno(n: i32) -> io::Error {
    io::Error::from_raw_os_error(n)
}

impl Core {
    /// One step: its delay, then its effect, unless the node crashed meanwhile.
    async fn step<T>(self: &Rc<Self>, f: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let node = self.node();
        let life = self.with_disk(node, |d| d.life);
        self.disk_delay(self.cfg.metadata).await;
        self.step_at(node, life, f)
    }

    fn step_at<T>(
        &self,
        node: NodeId,
        life: u32,
        f: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        self.with_disk(node, |d| {
            if d.life == life {
                f(d)
            } else {
                Err(errno(libc::EIO))
            }
        })
    }

    /// Writes all of `content` at `off`, as one write under way.
    async fn step_write(
        self: &Rc<Self>,
        path: &Path,
        off: Option<u64>,
        content: &[u8],
    ) -> io::Result<()> {
        let node = self.node();
        let (life, ino, ticket) = self.with_disk(node, |d| {
            let ino = d.file(path)?;
            let off = off.unwrap_or_else(|| d.len(ino));
            io::Result::Ok((d.life, ino, d.begin_write(ino, off, content)))
        })?;
        self.disk_delay(self.cfg.write).await;
        let random = self.chance_ppm(self.cfg.write_error_ppm);
        self.step_at(node, life, |d| {
            match (d.fault(FaultOp::Write, ino), random) {
                (Some(e), _) => {
                    d.abort_write(self, ino, ticket);
                    Err(e)
                }
                (None, true) => {
                    d.abort_write(self, ino, ticket);
                    Err(errno(libc::EIO))
                }
                (None, false) => d.end_write(ino, ticket, false),
            }
        })
    }

    async fn step_sync(self: &Rc<Self>, path: &Path) -> io::Result<()> {
        let o = OpenOptions::new().write(true);
        SimFile::open(self.clone(), path, o).await?.sync().await
    }

    pub(in crate::rt) async fn fs_create_dir_all(self: Rc<Self>, path: &Path) -> io::Result<()> {
        self.create_dirs(path, true).await
    }

    async fn create_dirs(self: &Rc<Self>, path: &Path, durably: bool) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = path;
        loop {
            match self.step(|d| d.lookup(at)).await? {
                Some(Entry::Dir(_)) => break,
                Some(Entry::File(_)) => return Err(errno(libc::EEXIST)),
                None => missing.push(at.to_owned()),
            }
            at = parent(at);
        }
        for dir in missing.into_iter().rev() {
            match self.step(|d| d.create_dir(&dir)).await {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
            if durably {
                self.step(|d| d.sync_dir(parent(&dir))).await?;
            }
        }
        Ok(())
    }

    pub(in crate::rt) async fn fs_create_missing(
        self: Rc<Self>,
        files: &[(PathBuf, Vec<u8>)],
    ) -> io::Result<Vec<bool>> {
        let mut created = Vec::with_capacity(files.len());
        for (path, content) in files {
            self.create_dirs(parent(path), false).await?;
            let new = self.step(|d| match d.lookup(path)? {
                Some(_) => Ok(false),
                None => d.create_file(path).map(|_| true),
            });
            let new = new.await?;
            if new {
                self.step_write(path, Some(0), content).await?;
            }
            created.push(new);
        }
        Ok(created)
    }

    pub(in crate::rt) async fn fs_read(
        self: Rc<Self>,
        path: &Path,
        max: u64,
    ) -> io::Result<Vec<u8>> {
        self.disk_delay(self.cfg.read).await;
        let random = self.chance_ppm(self.cfg.read_error_ppm);
        self.step(|d| {
            let ino = d.file(path)?;
            if let Some(e) = d.fault(FaultOp::Read, ino) {
                return Err(e);
            }
            if random {
                return Err(errno(libc::EIO));
            }
            let len = d.len(ino);
            if len > max {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(d.read(ino, 0, len as usize))
        })
        .await
    }

    pub(in crate::rt) async fn fs_write_atomic(
        self: Rc<Self>,
        path: &Path,
        content: &[u8],
    ) -> io::Result<()> {
        let tmp = tmp_name(path)?;
        self.step(|d| match d.lookup(&tmp)? {
            Some(Entry::File(f)) => d.set_len(f, 0),
            Some(Entry::Dir(_)) => Err(errno(libc::EISDIR)),
            None => d.create_file(&tmp).map(|_| ()),
        })
        .await?;
        self.step_write(&tmp, Some(0), content).await?;
        self.step_sync(&tmp).await?;
        self.step(|d| d.rename(&tmp, path)).await?;
        self.step(|d| d.sync_dir(parent(path))).await
    }

    pub(in crate::rt) async fn fs_rename(self: Rc<Self>, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|d| d.rename(from, to)).await
    }

    pub(in crate::rt) async fn fs_remove_file(self: Rc<Self>, path: &Path) -> io::Result<()> {
        self.step(|d| d.remove_file(path)).await
    }

    pub(in crate::rt) async fn fs_remove_dir_all(self: Rc<Self>, path: &Path) -> io::Result<()> {
        self.step(|d| d.remove_dir_all(path)).await
    }

    pub(in crate::rt) async fn fs_list_dir(
        self: Rc<Self>,
        path: &Path,
    ) -> io::Result<Vec<DirEntry>> {
        let entries = self.step(|d| d.list(path)).await?;
        let entries = entries.into_iter().map(|(name, e, len)| DirEntry {
            name: name.to_string_lossy().into_owned(),
            is_dir: matches!(e, Entry::Dir(_)),
            len,
        });
        Ok(entries.collect())
    }

    pub(in crate::rt) async fn fs_exists(self: Rc<Self>, path: &Path) -> io::Result<bool> {
        self.step(|d| Ok(d.lookup(path)?.is_some())).await
    }

    pub(in crate::rt) async fn fs_sync_dir(self: Rc<Self>, path: &Path) -> io::Result<()> {
        self.step(|d| d.sync_dir(path)).await
    }

    pub(in crate::rt) async fn fs_sync_file_system(self: Rc<Self>, path: &Path) -> io::Result<()> {
        let node = self.node();
        let (life, point) = self.with_disk(node, |d| (d.life, d.sync_point()));
        self.disk_delay(self.cfg.sync).await;
        let random = self.chance_ppm(self.cfg.sync_error_ppm);
        self.step_at(node, life, |d| {
            d.dir(path)?;
            d.sync_all(&self, point, random)
        })
    }

    pub(in crate::rt) async fn fs_space(self: Rc<Self>, path: &Path) -> io::Result<Space> {
        self.step(|d| match d.lookup(path)? {
            Some(_) => Ok(d.space()),
            None => Err(errno(libc::ENOENT)),
        })
        .await
    }

    pub(in crate::rt) async fn fs_append_sync(
        self: Rc<Self>,
        path: &Path,
        content: &[u8],
    ) -> io::Result<()> {
        let empty = self
            .step(|d| match d.lookup(path)? {
                Some(Entry::File(f)) => Ok(d.len(f) == 0),
                Some(Entry::Dir(_)) => Err(errno(libc::EISDIR)),
                None => d.create_file(path).map(|_| true),
            })
            .await?;
        if empty {
            self.step(|d| d.sync_dir(parent(path))).await?;
        }
        self.step_write(path, None, content).await?;
        self.step_sync(path).await
    }

    pub(in crate::rt) async fn fs_truncate_sync(
        self: Rc<Self>,
        path: &Path,
        len: u64,
    ) -> io::Result<()> {
        self.step(|d| {
            let ino = d.file(path)?;
            d.set_len(ino, len)
        })
        .await?;
        self.step_sync(path).await
    }
}
