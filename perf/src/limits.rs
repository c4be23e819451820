//! Owns the measuring of the machine itself: what its disk, its flushes and its loopback could do for any broker.
//! Does not know brokers.
//! Invariant: the disk is measured on blocks that were written before, as a recycled journal is.

use crate::account::{Latencies, LatencySummary};
use crate::clock::{self, Nanos};
use crate::error::PerfError;
use crate::{poll, process};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Size of one direct write.
pub const WRITE_BYTES: usize = 512 << 10;
/// So much is written between two flushes.
pub const GROUP_BYTES: usize = 8 << 20;
/// Size of a small durable write.
pub const FLUSH_BYTES: usize = 4 << 10;
/// Size of one send over the loopback.
const SEND_BYTES: usize = 64 << 10;
/// Alignment of direct I/O that suits every device here.
const ALIGN: usize = 4 << 10;

/// What the disk can do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Disk {
    /// Direct writes of [`WRITE_BYTES`] each, [`GROUP_BYTES`] at once, each group followed by a flush.
    pub sequential_mib_per_second: f64,
    pub group_bytes: usize,
    pub write_bytes: usize,
    /// The flush after each group.
    pub group_flush: LatencySummary,
    /// The flush alone, after a direct write of [`FLUSH_BYTES`].
    pub small_flush: LatencySummary,
    /// That write and its flush together.
    pub small_durable_write: LatencySummary,
}

/// What the loopback and one core can do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loopback {
    /// One connection received and checksummed (CRC-32C) on one core, sent from another.
    pub mib_per_second: f64,
    pub receiver_cpu_seconds_per_gib: f64,
}

/// What the machine can do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    pub disk: Disk,
    pub loopback: Loopback,
}

/// Bytes aligned for direct I/O, not compressible.
struct AlignedBytes {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBytes {
    fn new(length: usize) -> AlignedBytes {
        let mut storage = vec![0; length + ALIGN];
        let start = storage.as_ptr().align_offset(ALIGN);
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for word in storage[start..start + length].chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
        }
        AlignedBytes {
            storage,
            start,
            length,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }
}

/// A write as the kernel's native asynchronous I/O takes it (`struct iocb` of linux/aio_abi.h).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    block: u64,
    result: i64,
    result2: i64,
}

const OPCODE_WRITE: u16 = 1;

/// The kernel's native asynchronous I/O: several direct writes under way from one thread.
struct Aio {
    context: libc::c_ulong,
}

impl Aio {
    fn new(depth: usize) -> Result<Aio, PerfError> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: `context` is zero, as demanded, and lives through the call.
        let done =
            unsafe { libc::syscall(libc::SYS_io_setup, depth as libc::c_long, &mut context) };
        if done < 0 {
            return Err(PerfError::io("io_setup")(io::Error::last_os_error()));
        }
        Ok(Aio { context })
    }

    /// Writes `bytes` at `offset` in pieces that are under way together; returns when all are done.
    fn write_all(&self, file: &File, bytes: &[u8], offset: u64) -> Result<(), PerfError> {
        let mut blocks: Vec<ControlBlock> = Vec::new();
        for (index, piece) in bytes.chunks(WRITE_BYTES).enumerate() {
            blocks.push(ControlBlock {
                opcode: OPCODE_WRITE,
                file: file.as_raw_fd() as u32,
                buffer: piece.as_ptr() as u64,
                length: piece.len() as u64,
                offset: (offset + (index * WRITE_BYTES) as u64) as i64,
                data: piece.len() as u64,
                ..ControlBlock::default()
            });
        }
        let mut pointers: Vec<*mut ControlBlock> =
            blocks.iter_mut().map(std::ptr::from_mut).collect();
        let count = pointers.len();
        let mut submitted = 0;
        while submitted < count {
            // SAFETY: the pointers and the bytes they lead to outlive all writes, which are waited for below.
            let done = unsafe {
                let rest = pointers[submitted..].as_mut_ptr();
                libc::syscall(
                    libc::SYS_io_submit,
                    self.context,
                    (count - submitted) as libc::c_long,
                    rest,
                )
            };
            if done <= 0 {
                let error = io::Error::last_os_error();
                self.collect(submitted)?;
                return Err(PerfError::io("io_submit")(error));
            }
            submitted += done as usize;
        }
        self.collect(count)
    }

    /// Waits for `count` writes and checks that each wrote everything.
    fn collect(&self, count: usize) -> Result<(), PerfError> {
        let mut events = vec![Event::default(); count];
        let mut got = 0;
        while got < count {
            // SAFETY: there is room for so many events; no timeout.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    (count - got) as libc::c_long,
                    (count - got) as libc::c_long,
                    events[got..].as_mut_ptr(),
                    std::ptr::null::<libc::timespec>(),
                )
            };
            if done < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                // Writes may still be under way into memory that is about to go.
                panic!("cannot wait for direct writes: {error}");
            }
            got += done as usize;
        }
        match events
            .iter()
            .find(|event| event.result != event.data as i64)
        {
            None => Ok(()),
            Some(event) if event.result < 0 => {
                let error = io::Error::from_raw_os_error(-event.result as i32);
                Err(PerfError::io("direct write")(error))
            }
            Some(event) => Err(PerfError::Usage(format!(
                "a direct write ended after {} bytes",
                event.result
            ))),
        }
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: nothing is under way, and the context is not used again.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

/// Measures the disk under `folder`, from `cpu`, with a file of `file_bytes` that is removed again. Where it is asked from
/// matters: the interrupts of a disk may all come to one core, and another waits longer for its answers.
pub fn disk(
    folder: &Path,
    file_bytes: u64,
    cpu: Option<usize>,
    duration: Duration,
) -> Result<Disk, PerfError> {
    let path = folder.join(format!(".millrace-perf-{}", std::process::id()));
    let what = format!("cannot measure the disk with {}", path.display());
    let groups = (file_bytes / GROUP_BYTES as u64).max(1);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .map_err(PerfError::io(&what))?;
    let measured = std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            cpu.map_or(Ok(()), poll::pin_to_cpu)?;
            disk_in(&file, groups, duration, &what)
        });
        measuring.join().expect("measuring the disk does not panic")
    });
    std::fs::remove_file(&path).map_err(PerfError::io(what))?;
    measured
}

fn disk_in(file: &File, groups: u64, duration: Duration, what: &str) -> Result<Disk, PerfError> {
    let bytes = AlignedBytes::new(GROUP_BYTES);
    let aio = Aio::new(GROUP_BYTES / WRITE_BYTES)?;
    let at = |group: u64| (group % groups) * GROUP_BYTES as u64;
    for group in 0..groups {
        aio.write_all(file, bytes.bytes(), at(group))?;
    }
    file.sync_all().map_err(PerfError::io(what))?;

    let mut group_flush = Latencies::default();
    let started = clock::now();
    let end = started.after(duration);
    let (mut group, mut now) = (0, started);
    while now < end {
        aio.write_all(file, bytes.bytes(), at(group))?;
        let written = clock::now();
        file.sync_data().map_err(PerfError::io(what))?;
        now = clock::now();
        group_flush.record(written, now);
        group += 1;
    }
    let sequential =
        (group * GROUP_BYTES as u64) as f64 / f64::from(1 << 20) / elapsed(started, now);

    let (mut small_flush, mut small_durable_write) = (Latencies::default(), Latencies::default());
    let small = &bytes.bytes()[..FLUSH_BYTES];
    let end = clock::now().after(duration);
    let blocks = groups * (GROUP_BYTES / FLUSH_BYTES) as u64;
    let mut block = 0;
    loop {
        let before = clock::now();
        if before >= end {
            break;
        }
        let offset = (block % blocks) * FLUSH_BYTES as u64;
        file.write_all_at(small, offset)
            .map_err(PerfError::io(what))?;
        let written = clock::now();
        file.sync_data().map_err(PerfError::io(what))?;
        let flushed = clock::now();
        small_flush.record(written, flushed);
        small_durable_write.record(before, flushed);
        block += 1;
    }
    Ok(Disk {
        sequential_mib_per_second: sequential,
        group_bytes: GROUP_BYTES,
        write_bytes: WRITE_BYTES,
        group_flush: group_flush.summary(),
        small_flush: small_flush.summary(),
        small_durable_write: small_durable_write.summary(),
    })
}

fn elapsed(from: Nanos, to: Nanos) -> f64 {
    to.since(from).max(1) as f64 / 1e9
}

/// Measures receiving and checksumming on `receiver_cpu` what `sender_cpu` sends.
pub fn loopback(
    receiver_cpu: Option<usize>,
    sender_cpu: Option<usize>,
    duration: Duration,
) -> Result<Loopback, PerfError> {
    let what = "cannot measure the loopback";
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(PerfError::io(what))?;
    let address = listener.local_addr().map_err(PerfError::io(what))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<(), PerfError> {
            sender_cpu.map_or(Ok(()), poll::pin_to_cpu)?;
            let mut stream = TcpStream::connect(address).map_err(PerfError::io(what))?;
            let bytes = AlignedBytes::new(SEND_BYTES);
            while !stop.load(Ordering::Relaxed) {
                stream
                    .write_all(bytes.bytes())
                    .map_err(PerfError::io(what))?;
            }
            Ok(())
        });
        let receiver = scope.spawn(|| -> Result<Loopback, PerfError> {
            receiver_cpu.map_or(Ok(()), poll::pin_to_cpu)?;
            let (mut stream, _) = listener.accept().map_err(PerfError::io(what))?;
            let result = receive(&mut stream, duration, what);
            stop.store(true, Ordering::Relaxed);
            // The sender may be waiting for room; it must see the flag.
            let mut rest = vec![0; SEND_BYTES];
            while stream.read(&mut rest).map_err(PerfError::io(what))? > 0 {}
            result
        });
        let measured = receiver.join().expect("the receiver does not panic");
        let sent = sender.join().expect("the sender does not panic");
        measured.and_then(|measured| sent.map(|()| measured))
    })
}

fn receive(stream: &mut TcpStream, duration: Duration, what: &str) -> Result<Loopback, PerfError> {
    let mut buffer = vec![0; SEND_BYTES];
    let mut total = 0u64;
    let started = clock::now();
    let cpu_before = process::own_thread_cpu_seconds();
    let end = started.after(duration);
    let mut checksums = 0;
    let mut now = started;
    while now < end {
        stream
            .read_exact(&mut buffer)
            .map_err(PerfError::io(what))?;
        checksums ^= millrace_engine::types::batch::crc32c(&buffer);
        total += buffer.len() as u64;
        now = clock::now();
    }
    std::hint::black_box(checksums);
    let cpu_seconds = process::own_thread_cpu_seconds() - cpu_before;
    let mib = total as f64 / f64::from(1 << 20);
    Ok(Loopback {
        mib_per_second: mib / elapsed(started, now),
        receiver_cpu_seconds_per_gib: cpu_seconds / (mib / 1_024.0).max(f64::MIN_POSITIVE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_measured() {
        let measured = loopback(None, None, Duration::from_millis(20)).expect("measures");
        assert!(measured.mib_per_second > 0.0 && measured.receiver_cpu_seconds_per_gib > 0.0);
    }
}
