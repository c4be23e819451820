//! Owns the face of direct-I/O files: open, read, write, sync, lock.
//! Does not know what is in them, nor (beyond one match each) which runtime serves them.
//! Invariant: reads and writes are whole blocks at block positions, and a write that is not whole is an error.

use std::io;
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;

use super::glommio::file::{Bytes, RealFile};
use super::sim::{self, SimFile};

pub use super::glommio::buf::DirectBuf;

/// Unit of direct I/O, in bytes.
pub const BLOCK: usize = 4096;

/// How to open a file. Creating one does not make its directory entry durable: see `fs::sync_dir`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// Create it if it is missing (needs `write`).
    pub create: bool,
    /// Create it; an existing file is an error (needs `write`).
    pub create_new: bool,
    /// O_DSYNC: a completed write is durable.
    pub direct_sync: bool,
}

impl OpenOptions {
    /// Nothing allowed yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// Allows reading.
    pub fn read(mut self, on: bool) -> Self {
        self.read = on;
        self
    }
    /// Allows writing.
    pub fn write(mut self, on: bool) -> Self {
        self.write = on;
        self
    }
    /// Creates a missing file.
    pub fn create(mut self, on: bool) -> Self {
        self.create = on;
        self
    }
    /// Creates the file, which must not exist.
    pub fn create_new(mut self, on: bool) -> Self {
        self.create_new = on;
        self
    }
    /// Makes each completed write durable.
    pub fn direct_sync(mut self, on: bool) -> Self {
        self.direct_sync = on;
        self
    }
}

/// The bytes a read gave. Clones share the memory.
#[derive(Debug, Clone)]
pub struct ReadBuf(ReadKind);

#[derive(Debug, Clone)]
enum ReadKind {
    Real(Bytes),
    Sim(Rc<[u8]>),
}

impl Deref for ReadBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            ReadKind::Real(Bytes::Direct(r)) => r,
            ReadKind::Real(Bytes::Joined(b, len)) => &b[..*len],
            ReadKind::Sim(b) => b,
        }
    }
}

impl AsRef<[u8]> for ReadBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// An open file. Clones share the descriptor, which closes when the last one is dropped or closed.
#[derive(Debug, Clone)]
pub struct File(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Real(Rc<RealFile>),
    Sim(Rc<SimFile>),
}

impl File {
    /// Opens `path` for direct I/O.
    ///
    /// # Errors
    /// As open(2). Of two openers with `create_new` one gets `AlreadyExists`.
    pub async fn open(path: &Path, o: OpenOptions) -> io::Result<File> {
        Ok(File(match sim::current() {
            Some(core) => Kind::Sim(Rc::new(SimFile::open(core, path, o).await?)),
            None => Kind::Real(Rc::new(RealFile::open(path, o).await?)),
        }))
    }

    /// Reads up to `len` bytes at `pos`, both multiples of [`BLOCK`]; fewer only at the end of the file.
    pub async fn read_at(&self, pos: u64, len: usize) -> io::Result<ReadBuf> {
        assert!(pos.is_multiple_of(BLOCK as u64), "unaligned position {pos}");
        assert!(
            len > 0 && len.is_multiple_of(BLOCK),
            "unaligned length {len}"
        );
        Ok(ReadBuf(match &self.0 {
            Kind::Real(f) => ReadKind::Real(f.read_at(pos, len).await?),
            Kind::Sim(f) => ReadKind::Sim(f.read_at(pos, len).await?),
        }))
    }

    /// Writes the whole buffer (a multiple of [`BLOCK`]) at `pos` (likewise). Durable only after [`sync`](Self::sync).
    /// When the future is dropped before it completes, the write may still happen, whole, in part or not at all.
    ///
    /// # Errors
    /// `WriteZero` if only a part was written; then, as after any error, what is on disk is unspecified.
    pub async fn write_at(&self, buf: Rc<DirectBuf>, pos: u64) -> io::Result<()> {
        assert_aligned(&buf, pos);
        match &self.0 {
            Kind::Real(f) => f.write_at(buf, pos).await,
            Kind::Sim(f) => f.write_at(buf, pos).await,
        }
    }

    /// Writes as [`write_at`](Self::write_at) does and makes it durable as [`sync`](Self::sync) does, in less time than
    /// those two take one after the other. Occupies one of the shard's few threads for blocking work: for small writes.
    ///
    /// # Errors
    /// Those of both.
    pub async fn write_synced(&self, buf: Rc<DirectBuf>, pos: u64) -> io::Result<()> {
        assert_aligned(&buf, pos);
        match &self.0 {
            Kind::Real(f) => f.write_synced(buf, pos).await,
            Kind::Sim(f) => {
                f.write_at(buf, pos).await?;
                f.sync().await
            }
        }
    }

    /// fdatasync: makes durable what was written before this call. After an error nothing unsynced can be trusted, not
    /// even if a later sync succeeds.
    pub async fn sync(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Real(f) => f.sync().await,
            Kind::Sim(f) => f.sync().await,
        }
    }

    /// Reserves space for `len` bytes (at least one) from the start, and makes the file at least that long. New bytes
    /// read as zeros.
    ///
    /// # Errors
    /// `StorageFull` when there is no room.
    pub async fn allocate(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Kind::Real(f) => f.allocate(len).await,
            Kind::Sim(f) => f.allocate(len).await,
        }
    }

    /// Sets the length, shorter or longer; new bytes read as zeros. Durable after [`sync`](Self::sync).
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Kind::Real(f) => f.truncate(len).await,
            Kind::Sim(f) => f.truncate(len).await,
        }
    }

    /// Length in bytes.
    pub async fn size(&self) -> io::Result<u64> {
        match &self.0 {
            Kind::Real(f) => f.size(),
            Kind::Sim(f) => f.size(),
        }
    }

    /// Which device the file is on: a number that files on one file system share.
    pub fn device(&self) -> u64 {
        match &self.0 {
            Kind::Real(f) => f.device(),
            Kind::Sim(_) => 0,
        }
    }

    /// Locks the file exclusively through this descriptor, until it closes. False when another descriptor (of any
    /// process) has the lock.
    pub async fn try_lock(&self) -> io::Result<bool> {
        match &self.0 {
            Kind::Real(f) => f.try_lock(),
            Kind::Sim(f) => f.try_lock(),
        }
    }

    /// The same beside others that only look. False when another descriptor has the lock for itself.
    pub async fn try_lock_shared(&self) -> io::Result<bool> {
        match &self.0 {
            Kind::Real(f) => f.try_lock_shared(),
            Kind::Sim(f) => f.try_lock_shared(),
        }
    }

    /// Closes the descriptor if this is the last clone, and reports what the kernel says.
    pub async fn close(self) -> io::Result<()> {
        match self.0 {
            Kind::Real(f) => match Rc::try_unwrap(f) {
                Ok(f) => f.close().await,
                Err(_shared) => Ok(()),
            },
            Kind::Sim(f) => {
                drop(f);
                Ok(())
            }
        }
    }
}

fn assert_aligned(buf: &DirectBuf, pos: u64) {
    assert!(pos.is_multiple_of(BLOCK as u64), "unaligned position {pos}");
    let len = buf.len();
    assert!(len.is_multiple_of(BLOCK), "unaligned length {len}");
}
