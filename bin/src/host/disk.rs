//! Owns the questions to a directory's file system, and the measurement of its flushes and bandwidth.
//! Does not know what is stored there.
//! Invariant: probe files are removed again, also when probing fails; nothing else is touched.

use super::Finding;
use crate::units::ByteSize;
use std::alloc::Layout;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 4096;

/// Less than this, beyond what is needed, is soon used up.
const FREE_BYTES_LOW: u64 = 4 << 30;

const FLUSH_FILE_BYTES: u64 = 16 << 20;
const FLUSHES_MAX: usize = 4_000;
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

const BANDWIDTH_FILE_BYTES: u64 = 512 << 20;
const BANDWIDTH_WRITE_BYTES: usize = 1 << 20;
const BANDWIDTH_WRITERS: u64 = 4;
const BANDWIDTH_TIME_MAX: Duration = Duration::from_secs(3);

/// Free space without which a broker takes no produce, and whether one has used the directory before: then it may start all
/// the same, to serve readers and deletions.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub bytes: u64,
    pub used: bool,
}

/// What the directory allows. A directory that does not exist yet is judged by its nearest parent.
pub fn findings(item: &'static str, dir: &Path, room: Room) -> Vec<Finding> {
    let place = match existing(dir) {
        Ok(place) => place,
        Err(error) => {
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "This user may not look there: name a directory of the user's own."
                }
                _ => "Name another directory.",
            };
            return vec![Finding::stops(
                item,
                format!("{}: {error}", dir.display()),
                advice,
            )];
        }
    };
    let shown = if place == dir {
        dir.display().to_string()
    } else {
        format!("{} (to be created)", dir.display())
    };
    if !place.is_dir() {
        let advice = format!("{} is not a directory: name another one.", place.display());
        return vec![Finding::stops(item, shown, advice)];
    }
    let system = FileSystem::of(&place);
    let mut all = vec![match direct_io(dir, &place, &system) {
        Ok(()) if system.volatile() => Finding::warning(
            item,
            format!("{shown} on {}", system.name),
            format!(
                "{} lives in memory: everything stored is lost when the machine stops.",
                system.name
            ),
        ),
        Ok(()) => Finding::fine(
            item,
            format!("{shown} on {}, direct I/O works", system.name),
        ),
        Err(advice) => Finding::stops(item, format!("{shown} on {}", system.name), advice),
    }];
    all.push(free_space(&place, room));
    all
}

/// The directory itself or the nearest parent that exists.
pub fn existing(dir: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    for place in absolute.ancestors() {
        match place.metadata() {
            Ok(_) if place == absolute => return Ok(dir.to_path_buf()),
            Ok(_) => return Ok(place.to_path_buf()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn free_space(place: &Path, room: Room) -> Finding {
    match free_bytes(place) {
        Ok(free) => judge_free(free, place, room),
        Err(error) => Finding::warning("free space", error.to_string(), "Check by hand with `df`."),
    }
}

fn judge_free(free: u64, place: &Path, room: Room) -> Finding {
    let value = ByteSize(free).human();
    let wanted = ByteSize(room.bytes).human();
    if free < room.bytes && room.used {
        let advice = format!(
            "Produces are refused until about {wanted} are free; reading and deleting work."
        );
        return Finding::warning("free space", value, advice);
    }
    if free < room.bytes {
        let advice = format!(
            "Free at least {wanted} on {}; fewer --shards, less --memory or a smaller --disk-reserve need less.",
            place.display()
        );
        return Finding::stops("free space", value, advice);
    }
    if free - room.bytes < FREE_BYTES_LOW {
        return Finding::warning(
            "free space",
            value,
            "Room is short: set retention.bytes on topics, or add space.",
        );
    }
    Finding::fine("free space", value)
}

fn path_c(path: &Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Bytes that this user may still write.
fn free_bytes(place: &Path) -> io::Result<u64> {
    let path = path_c(place)?;
    // SAFETY: a statvfs is plain numbers, for which all zeros is a valid value.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends in NUL and outlives the call; the kernel fills in `stat`.
    if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Type of the file system that holds a path.
struct FileSystem {
    name: String,
}

impl FileSystem {
    fn of(place: &Path) -> FileSystem {
        let full = place.canonicalize().unwrap_or_else(|_| place.to_path_buf());
        // Without the list of mounts the file system is unknown, which is what is said then.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        FileSystem {
            name: file_system_at(&mounts, &full)
                .unwrap_or_else(|| "an unknown file system".to_string()),
        }
    }

    fn volatile(&self) -> bool {
        matches!(self.name.as_str(), "tmpfs" | "ramfs")
    }
}

/// Type of the longest mount point that holds `path`; a later mount hides an earlier one.
fn file_system_at(mountinfo: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else {
            continue;
        };
        let point = point.replace("\\040", " ");
        if path.starts_with(&point) && best.as_ref().is_none_or(|(len, _)| point.len() >= *len) {
            best = Some((point.len(), kind.to_string()));
        }
    }
    best.map(|(_, kind)| kind)
}

/// A file that is removed when this is dropped.
struct Probe {
    path: PathBuf,
    file: File,
}

impl Probe {
    fn create(dir: &Path) -> io::Result<Probe> {
        let path = dir.join(format!(".millrace-probe-{}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        if file
            .as_ref()
            .is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL))
        {
            // Some file systems create the file before they refuse O_DIRECT. It is ours: we just made it.
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Probe { file: file?, path })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Memory aligned for direct I/O, filled with zeros.
struct Aligned {
    at: *mut u8,
    layout: Layout,
}

impl Aligned {
    fn zeroed(len: usize) -> Aligned {
        let layout = Layout::from_size_align(len, BLOCK_BYTES).expect("a block-aligned layout");
        assert!(len > 0);
        // SAFETY: the layout has a size above zero.
        let at = unsafe { std::alloc::alloc_zeroed(layout) };
        if at.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        Aligned { at, layout }
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: `at` points to `layout.size()` initialised bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.at, self.layout.size()) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout and freed only here.
        unsafe { std::alloc::dealloc(self.at, self.layout) };
    }
}

/// Writes one aligned block as the journal does; the error is what to change.
fn direct_io(dir: &Path, place: &Path, system: &FileSystem) -> Result<(), String> {
    let attempt = || -> io::Result<()> {
        let probe = Probe::create(place)?;
        let block = Aligned::zeroed(BLOCK_BYTES);
        probe.file.write_all_at(block.as_slice(), 0)?;
        probe.file.sync_data()
    };
    attempt().map_err(|error| advise_direct(&error, dir, place, &system.name))
}

fn advise_direct(error: &io::Error, dir: &Path, place: &Path, system: &str) -> String {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => format!(
            "{system} does not take direct I/O (O_DIRECT), without which an acknowledgement cannot mean durable: put \
             --data-dir on ext4 or xfs on a local disk."
        ),
        Some(libc::EACCES | libc::EPERM) if dir != place => format!(
            "This user may not create {0}: create it for the user (`sudo install -d -o $(id -un) {0}`) or name another \
             directory.",
            dir.display()
        ),
        Some(libc::EACCES | libc::EPERM) => format!(
            "This user may not write to {}: give it to the user (`sudo chown $(id -un) {0}`) or name another directory.",
            place.display()
        ),
        Some(libc::EROFS) => format!("{} is read-only: mount it writable or name another directory.", place.display()),
        Some(libc::ENOSPC | libc::EDQUOT) => format!("No space is left on {}: free some.", place.display()),
        _ => format!("Writing a probe file to {} fails ({error}): check the disk and `dmesg`.", place.display()),
    }
}

/// What a device does, measured through its file system.
pub struct Measured {
    /// Latency of one 4 KiB direct write plus fdatasync into blocks written before.
    pub flush_p50: Duration,
    pub flush_p99: Duration,
    pub flushes: usize,
    /// Sequential direct writes of 1 MiB, four at a time, one flush at the end.
    pub write_bytes_per_second: f64,
}

/// Measures for at most about six seconds, writing at most 528 MiB and a quarter of the free space.
pub fn measure(dir: &Path) -> io::Result<Measured> {
    let place = existing(dir)?;
    let room = free_bytes(&place)? / 4;
    let mut latencies = flush_latencies(&place, FLUSH_FILE_BYTES.min(room))?;
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    Ok(Measured {
        flush_p50: at(0.50),
        flush_p99: at(0.99),
        flushes: latencies.len(),
        write_bytes_per_second: bandwidth(&place, BANDWIDTH_FILE_BYTES.min(room))?,
    })
}

/// At least one latency. The file is written once before, as a recycled journal file is.
fn flush_latencies(place: &Path, file_bytes: u64) -> io::Result<Vec<Duration>> {
    let blocks = (file_bytes / BLOCK_BYTES as u64).max(1);
    let probe = Probe::create(place)?;
    let chunk = Aligned::zeroed(BANDWIDTH_WRITE_BYTES);
    let mut written = 0;
    while written < blocks * BLOCK_BYTES as u64 {
        let len = (blocks * BLOCK_BYTES as u64 - written).min(chunk.as_slice().len() as u64);
        probe
            .file
            .write_all_at(&chunk.as_slice()[..len as usize], written)?;
        written += len;
    }
    probe.file.sync_all()?;
    let started = Instant::now();
    let mut latencies = Vec::with_capacity(FLUSHES_MAX);
    while latencies.is_empty()
        || (latencies.len() < FLUSHES_MAX && started.elapsed() < FLUSH_TIME_MAX)
    {
        let begun = Instant::now();
        let block = latencies.len() as u64 % blocks;
        probe
            .file
            .write_all_at(&chunk.as_slice()[..BLOCK_BYTES], block * BLOCK_BYTES as u64)?;
        probe.file.sync_data()?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// Bytes per second of new data, as segments are written.
fn bandwidth(place: &Path, file_bytes: u64) -> io::Result<f64> {
    let probe = Probe::create(place)?;
    let writes = (file_bytes / BANDWIDTH_WRITE_BYTES as u64).max(1);
    let started = Instant::now();
    let file = &probe.file;
    let done: Vec<io::Result<u64>> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..BANDWIDTH_WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let chunk = Aligned::zeroed(BANDWIDTH_WRITE_BYTES);
                    let mut done = 0;
                    for n in (writer..writes).step_by(BANDWIDTH_WRITERS as usize) {
                        if started.elapsed() > BANDWIDTH_TIME_MAX {
                            break;
                        }
                        file.write_all_at(chunk.as_slice(), n * BANDWIDTH_WRITE_BYTES as u64)?;
                        done += BANDWIDTH_WRITE_BYTES as u64;
                    }
                    Ok(done)
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|w| w.join().expect("a writer does not panic"))
            .collect()
    });
    let mut bytes = 0;
    for part in done {
        bytes += part?;
    }
    probe.file.sync_data()?;
    Ok(bytes as f64 / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn the_longest_mount_point_wins() {
        let mounts =
            "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:3 / /tmp rw shared:1 - tmpfs tmpfs rw\n";
        assert_eq!(
            file_system_at(mounts, Path::new("/tmp/x")).as_deref(),
            Some("tmpfs")
        );
        assert_eq!(
            file_system_at(mounts, Path::new("/tmpx")).as_deref(),
            Some("ext4")
        );
    }

    const NO_ROOM: Room = Room {
        bytes: 0,
        used: false,
    };

    #[test]
    fn too_little_room_stops_only_a_new_broker() {
        let check = |free, used, expected| {
            let room = Room {
                bytes: 1 << 30,
                used,
            };
            let found = judge_free(free, Path::new("/x"), room);
            assert_eq!(found.verdict, expected, "{found:?}");
        };
        check((1 << 30) - 1, false, Verdict::Stops);
        check((1 << 30) - 1, true, Verdict::Warning);
        check(1 << 30, false, Verdict::Warning);
        check(6 << 30, false, Verdict::Fine);
    }

    #[test]
    fn a_directory_to_be_created_is_judged_by_its_parent_and_left_alone() {
        let dir = std::env::temp_dir().join(format!("millrace-disk-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let wanted = dir.join("a/b");
        let found = findings("data directory", &wanted, NO_ROOM);
        assert!(
            found[0].value.contains("to be created"),
            "{}",
            found[0].value
        );
        assert!(!wanted.exists());
        assert_eq!(
            std::fs::read_dir(&dir).unwrap().count(),
            0,
            "a probe was left behind"
        );
        std::fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn a_file_in_the_way_stops() {
        let path = std::env::temp_dir().join(format!("millrace-file-{}", std::process::id()));
        std::fs::write(&path, "x").unwrap();
        assert_eq!(
            findings("data directory", &path, NO_ROOM)[0].verdict,
            Verdict::Stops
        );
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_advice_names_the_reason() {
        let advise = |code| {
            advise_direct(
                &io::Error::from_raw_os_error(code),
                Path::new("/x"),
                Path::new("/x"),
                "tmpfs",
            )
        };
        assert!(advise(libc::EINVAL).contains("tmpfs does not take direct I/O"));
        assert!(advise(libc::EACCES).contains("chown"));
        assert!(advise(libc::EROFS).contains("read-only"));
    }
}
