//! Owns simulated open files: the delays and faults around a disk's operations.
//! Does not know what is in the files.
//! Invariant: a write takes effect when it completes; cancelled or caught by a crash, any part of it may have.

use std::io;
use std::path::Path;
use std::rc::Rc;

use super::super::file::{DirectBuf, OpenOptions};
use super::core::{current, Core};
use super::disk::{Disk, Entry, FaultOp, Ino};
use super::NodeId;

fn errno(n: i32) -> io::Error {
    io::Error::from_raw_os_error(n)
}

#[derive(Debug)]
pub(in crate::rt) struct SimFile {
    node: NodeId,
    ino: Ino,
    handle: u64,
    life: u32,
    o: OpenOptions,
}

impl SimFile {
    pub(in crate::rt) async fn open(
        core: Rc<Core>,
        path: &Path,
        o: OpenOptions,
    ) -> io::Result<SimFile> {
        let node = core.node();
        core.disk_delay(core.cfg.metadata).await;
        let creates = o.create || o.create_new;
        if !o.write && (creates || !o.read) {
            return Err(errno(libc::EINVAL));
        }
        core.with_disk(node, |d| {
            let ino = match d.lookup(path)? {
                Some(Entry::Dir(_)) => return Err(errno(libc::EISDIR)),
                Some(Entry::File(_)) if o.create_new => return Err(errno(libc::EEXIST)),
                Some(Entry::File(f)) => f,
                None if o.create || o.create_new => d.create_file(path)?,
                None => return Err(errno(libc::ENOENT)),
            };
            Ok(SimFile {
                node,
                ino,
                handle: d.opened(ino),
                life: d.life,
                o,
            })
        })
    }

    fn core(&self) -> Rc<Core> {
        current().expect("a simulated file is used inside its simulation")
    }

    /// Runs `f` on the disk, unless it has crashed since this file was opened.
    fn with<T>(&self, core: &Core, f: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        core.with_disk(self.node, |d| {
            if d.life == self.life {
                f(d)
            } else {
                Err(errno(libc::EBADF))
            }
        })
    }

    pub(in crate::rt) async fn read_at(&self, pos: u64, len: usize) -> io::Result<Rc<[u8]>> {
        let core = self.core();
        core.disk_delay(core.cfg.read).await;
        if !self.o.read {
            return Err(errno(libc::EBADF));
        }
        let random = core.chance_ppm(core.cfg.read_error_ppm);
        self.with(&core, |d| match d.fault(FaultOp::Read, self.ino) {
            Some(e) => Err(e),
            None if random => Err(errno(libc::EIO)),
            None => Ok(Rc::from(d.read(self.ino, pos, len))),
        })
    }

    pub(in crate::rt) async fn write_at(&self, buf: Rc<DirectBuf>, pos: u64) -> io::Result<()> {
        let core = self.core();
        if !self.o.write {
            return Err(errno(libc::EBADF));
        }
        let ticket = self.with(&core, |d| Ok(d.begin_write(self.ino, pos, &buf)))?;
        let mut under_way = UnderWay {
            file: self,
            core: core.clone(),
            ticket: Some(ticket),
        };
        core.disk_delay(core.cfg.write).await;
        let random = core.chance_ppm(core.cfg.write_error_ppm);
        self.with(&core, |d| {
            let error = match d.fault(FaultOp::Write, self.ino) {
                Some(e) => Some(e),
                None if random => Some(errno(libc::EIO)),
                None => None,
            };
            under_way.ticket = None;
            core.note(pos ^ ticket.rotate_left(32));
            match error {
                None => d.end_write(self.ino, ticket, self.o.direct_sync),
                Some(e) => {
                    d.abort_write(&core, self.ino, ticket);
                    Err(e)
                }
            }
        })
    }

    pub(in crate::rt) async fn sync(&self) -> io::Result<()> {
        let core = self.core();
        let point = self.with(&core, |d| Ok(d.sync_point()))?;
        core.disk_delay(core.cfg.sync).await;
        let random = core.chance_ppm(core.cfg.sync_error_ppm);
        self.with(&core, |d| {
            let error = match d.fault(FaultOp::Sync, self.ino) {
                Some(e) => Some(e),
                None if random => Some(errno(libc::EIO)),
                None => None,
            };
            core.note(point ^ 0x5f5f);
            match error {
                None => {
                    d.sync(self.ino, point);
                    Ok(())
                }
                Some(e) => {
                    d.sync_failed(&core, self.ino, point);
                    Err(e)
                }
            }
        })
    }

    pub(in crate::rt) async fn allocate(&self, len: u64) -> io::Result<()> {
        let core = self.core();
        core.disk_delay(core.cfg.metadata).await;
        if len == 0 {
            return Err(errno(libc::EINVAL));
        }
        self.with(&core, |d| {
            if len > d.len(self.ino) {
                d.set_len(self.ino, len)?;
            }
            Ok(())
        })
    }

    pub(in crate::rt) async fn truncate(&self, len: u64) -> io::Result<()> {
        let core = self.core();
        core.disk_delay(core.cfg.metadata).await;
        self.with(&core, |d| d.set_len(self.ino, len))
    }

    pub(in crate::rt) fn size(&self) -> io::Result<u64> {
        self.with(&self.core(), |d| Ok(d.len(self.ino)))
    }

    pub(in crate::rt) fn try_lock(&self) -> io::Result<bool> {
        self.with(&self.core(), |d| Ok(d.try_lock(self.ino, self.handle)))
    }

    pub(in crate::rt) fn try_lock_shared(&self) -> io::Result<bool> {
        self.with(&self.core(), |d| {
            Ok(d.try_lock_shared(self.ino, self.handle))
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        // Without a current simulation its end is near, and nobody looks at the handle count again.
        let Some(core) = current() else { return };
        core.with_disk(self.node, |d| {
            if d.life == self.life {
                d.closed(self.ino, self.handle);
            }
        });
    }
}

/// A write between submission and completion.
struct UnderWay<'a> {
    file: &'a SimFile,
    core: Rc<Core>,
    ticket: Option<u64>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        self.core.with_disk(self.file.node, |d| {
            if d.life == self.file.life {
                d.abort_write(&self.core, self.file.ino, ticket);
            }
        });
    }
}
