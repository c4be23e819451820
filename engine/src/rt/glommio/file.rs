//! Owns direct-I/O files on the real runtime.
//! Does not know what is in them.
//! Invariant: the first direct open on each device and thread is of a non-empty, readable file (or the executor
//! mistakes the device for a polled one and later reads fail), and no open depends on the path still being there.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::glommio::io::{DmaFile, OpenOptions as DmaOpenOptions, ReadResult};

use super::super::file::{OpenOptions, BLOCK};
use super::buf::DirectBuf;
use super::{blocking, has_free_thread, io_error};

/// Longest single read. Some kernels hang on direct reads longer than the device's `max_sectors_kb`; longer reads are
/// cut and assembled.
const READ_BYTES_MAX: usize = 1 << 20;

thread_local! {
    /// Devices whose support for polled I/O this thread's executor has probed.
    static PROBED: RefCell<HashSet<u64>> = RefCell::new(HashSet::new());
}

pub(in crate::rt) fn forget_devices() {
    PROBED.with(|p| p.borrow_mut().clear());
}

/// How much longer each flush takes, in milliseconds: 0 but where a slower disk is played.
static FLUSH_DELAY_MS: AtomicU64 = AtomicU64::new(0);

pub(in crate::rt) fn delay_flushes(delay: Duration) {
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    FLUSH_DELAY_MS.store(delay_ms, Ordering::Relaxed);
}

/// What a read gave.
#[derive(Debug, Clone)]
pub(in crate::rt) enum Bytes {
    Direct(ReadResult),
    /// Assembled from several reads; the length that is valid.
    Joined(Rc<DirectBuf>, usize),
}

#[derive(Debug)]
pub(in crate::rt) struct RealFile {
    file: DmaFile,
    device: u64,
}

impl RealFile {
    pub(in crate::rt) async fn open(path: &Path, o: OpenOptions) -> io::Result<RealFile> {
        let owned = path.to_owned();
        // Opened twice: once by path, in a thread, and once through the descriptor. glommio looks the path up again
        // after opening and panics if it is gone; this one stays as long as `held`.
        let (held, device) = blocking(move || open_plain(&owned, o)).await?;
        if !PROBED.with(|p| p.borrow().contains(&device)) {
            let dir = match path.parent() {
                Some(p) if !p.as_os_str().is_empty() => p,
                Some(_) | None => Path::new("."),
            };
            probe(dir, device).await?;
        }
        let mut dma = DmaOpenOptions::new();
        dma.read(o.read).write(o.write);
        if o.direct_sync {
            dma.custom_flags(libc::O_DSYNC);
        }
        let file = dma.dma_open(fd_path(&held)).await.map_err(io_error)?;
        drop(held);
        Ok(RealFile { file, device })
    }

    pub(in crate::rt) async fn read_at(&self, pos: u64, len: usize) -> io::Result<Bytes> {
        if len <= READ_BYTES_MAX {
            let r = self
                .file
                .read_at_aligned(pos, len)
                .await
                .map_err(io_error)?;
            if r.len() == len || pos + r.len() as u64 >= self.size()? {
                return Ok(Bytes::Direct(r));
            }
        }
        // A long read, or (rare) one that came back short before the end of the file.
        let mut out = DirectBuf::with_len(len);
        let mut done = 0;
        while done < len {
            let want = (len - done).min(READ_BYTES_MAX);
            let at = pos + done as u64;
            let r = self
                .file
                .read_at_aligned(at, want)
                .await
                .map_err(io_error)?;
            out[done..done + r.len()].copy_from_slice(&r);
            done += r.len();
            if r.is_empty() || !done.is_multiple_of(BLOCK) {
                break;
            }
        }
        Ok(Bytes::Joined(Rc::new(out), done))
    }

    pub(in crate::rt) async fn write_at(&self, buf: Rc<DirectBuf>, pos: u64) -> io::Result<()> {
        let len = buf.len();
        let shared = DirectBuf::into_shared(buf);
        let n = self.file.write_rc_at(shared, pos).await.map_err(io_error)?;
        match n == len {
            true => Ok(()),
            false => Err(short_write(n, len)),
        }
    }

    pub(in crate::rt) async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(io_error)?;
        played_delay().await;
        Ok(())
    }

    /// A thread of the pool does both where one is free: the ring would wake this one in between, only for it to ask for
    /// the flush, and flush by a thread of the kernel anyway.
    pub(in crate::rt) async fn write_synced(
        self: &Rc<Self>,
        buf: Rc<DirectBuf>,
        pos: u64,
    ) -> io::Result<()> {
        if !has_free_thread() {
            self.write_at(buf, pos).await?;
            return self.sync().await;
        }
        let (fd, memory, len) = (self.file.as_raw_fd(), Memory(buf.as_ptr()), buf.len());
        let mut lent = Lent {
            what: ManuallyDrop::new((self.clone(), buf)),
            is_back: false,
        };
        let written = blocking(move || {
            // SAFETY: descriptor and memory are lent until this closure has returned.
            unsafe { write_and_flush(fd, memory, len, pos) }
        });
        let result = written.await;
        lent.is_back = true;
        result?;
        played_delay().await;
        Ok(())
    }

    pub(in crate::rt) async fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.pre_allocate(len, false).await.map_err(io_error)
    }

    pub(in crate::rt) async fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len).await.map_err(io_error)
    }

    pub(in crate::rt) fn device(&self) -> u64 {
        self.device
    }

    /// By descriptor: glommio's own `file_size` asks by path. An fstat needs no I/O, so it runs right here.
    pub(in crate::rt) fn size(&self) -> io::Result<u64> {
        // SAFETY: an all-zero stat is valid, and fstat fills it for a descriptor that `self` keeps open.
        let st = unsafe {
            let mut st: libc::stat64 = std::mem::zeroed();
            if libc::fstat64(self.file.as_raw_fd(), &mut st) != 0 {
                return Err(io::Error::last_os_error());
            }
            st
        };
        Ok(u64::try_from(st.st_size).expect("the kernel reports sizes from zero up"))
    }

    pub(in crate::rt) fn try_lock(&self) -> io::Result<bool> {
        self.set_lock(libc::F_WRLCK)
    }

    pub(in crate::rt) fn try_lock_shared(&self) -> io::Result<bool> {
        self.set_lock(libc::F_RDLCK)
    }

    fn set_lock(&self, kind: libc::c_int) -> io::Result<bool> {
        // SAFETY: an all-zero flock is valid (and l_pid must be zero for OFD locks).
        let mut lock: libc::flock64 = unsafe { std::mem::zeroed() };
        lock.l_type = kind as i16;
        lock.l_whence = libc::SEEK_SET as i16;
        // SAFETY: the descriptor is open and `lock` outlives the call.
        let rc = unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
        if rc == 0 {
            return Ok(true);
        }
        let e = io::Error::last_os_error();
        match e.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Ok(false),
            Some(_) | None => Err(e),
        }
    }

    pub(in crate::rt) async fn close(self) -> io::Result<()> {
        self.file.close().await.map_err(io_error)
    }
}

/// Where a slower disk is played, flushes take longer.
async fn played_delay() {
    let delay_ms = FLUSH_DELAY_MS.load(Ordering::Relaxed);
    if delay_ms > 0 {
        ::glommio::timer::sleep(Duration::from_millis(delay_ms)).await;
    }
}

/// A file and memory that a thread of the pool uses. Whoever waits for that may be dropped meanwhile, as where a shard ends:
/// then they are never given back, for nobody is told when the thread is done with them.
struct Lent {
    what: ManuallyDrop<(Rc<RealFile>, Rc<DirectBuf>)>,
    is_back: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.is_back {
            // SAFETY: nothing uses it behind this.
            unsafe { ManuallyDrop::drop(&mut self.what) };
        }
    }
}

/// The beginning of memory to write.
struct Memory(*const u8);

// SAFETY: only read from, and lent for as long as that takes.
unsafe impl Send for Memory {}

/// # Safety
/// `fd` stays open, and `memory` has `len` bytes that stay as they are, until this returns.
unsafe fn write_and_flush(fd: RawFd, memory: Memory, len: usize, pos: u64) -> io::Result<()> {
    let at = i64::try_from(pos).map_err(io::Error::other)?;
    // SAFETY: the caller's.
    let written = retried(|| unsafe { libc::pwrite64(fd, memory.0.cast(), len, at) })?;
    if written as usize != len {
        return Err(short_write(written as usize, len));
    }
    // SAFETY: the caller's.
    retried(|| unsafe { libc::fdatasync(fd) as isize })?;
    Ok(())
}

/// What a system call gives that a signal may interrupt.
fn retried(call: impl Fn() -> isize) -> io::Result<isize> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn short_write(written: usize, len: usize) -> io::Error {
    let what = format!("{written} of {len} bytes written");
    io::Error::new(io::ErrorKind::WriteZero, what)
}

fn open_plain(path: &Path, o: OpenOptions) -> io::Result<(OwnedFd, u64)> {
    let f = fs::OpenOptions::new()
        .read(o.read)
        .write(o.write)
        .create(o.create)
        .create_new(o.create_new)
        .open(path)?;
    let device = f.metadata()?.dev();
    Ok((f.into(), device))
}

fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Makes this thread's executor probe the device of `dir` now, with a file fit for it.
pub(in crate::rt) async fn warm(dir: &Path) -> io::Result<()> {
    let owned = dir.to_owned();
    let device = blocking(move || fs::metadata(owned).map(|m| m.dev())).await?;
    probe(dir, device).await
}

async fn probe(dir: &Path, device: u64) -> io::Result<()> {
    let owned = dir.to_owned();
    let held = blocking(move || probe_file(&owned)).await?;
    let mut dma = DmaOpenOptions::new();
    let file = dma
        .read(true)
        .dma_open(fd_path(&held))
        .await
        .map_err(io_error)?;
    file.close().await.map_err(io_error)?;
    PROBED.with(|p| p.borrow_mut().insert(device));
    Ok(())
}

/// A file with one block of content and no name, where the file system can do that.
fn probe_file(dir: &Path) -> io::Result<OwnedFd> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let nameless = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(dir);
    let f = match nameless {
        Ok(f) => {
            f.write_all_at(&[0; BLOCK], 0)?;
            f
        }
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!(".probe-{}-{n}.tmp", std::process::id()));
            let mut f = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            let written = f.write_all(&[0; BLOCK]);
            fs::remove_file(&path)?;
            written?;
            f
        }
        Err(e) => return Err(e),
    };
    Ok(f.into())
}
