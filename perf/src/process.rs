//! Owns what the kernel says about a process: processor time, memory, bytes read and written.
//! Does not know what the process does.
//! Invariant: a difference is only taken between two samples of the same process.

use crate::error::PerfError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A process at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Of all threads, those that ended included; as coarse as the kernel's ticks (10 ms).
    ticks_ns: u64,
    /// Exact, of each living thread.
    thread_ns: BTreeMap<u32, u64>,
    rss_bytes: u64,
    rss_peak_bytes: u64,
    /// Sent to storage, by whatever way.
    storage_write_bytes: u64,
    storage_read_bytes: u64,
    threads: u64,
}

/// What a process used between two samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub rss_bytes: u64,
    /// Since the process began.
    pub rss_peak_bytes: u64,
    pub storage_write_bytes: u64,
    pub storage_read_bytes: u64,
    pub threads: u64,
}

/// A process at one time, as far as that is had cheaply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Glance {
    /// As coarse as the kernel's ticks.
    pub cpu_ns: u64,
    pub rss_bytes: u64,
}

/// Reads `/proc` about one process.
#[derive(Clone, Debug)]
pub struct Process {
    folder: PathBuf,
}

impl Process {
    pub fn new(pid: u32) -> Process {
        Process {
            folder: PathBuf::from(format!("/proc/{pid}")),
        }
    }

    fn read(&self, name: &str) -> Result<String, PerfError> {
        let path = self.folder.join(name);
        let what = format!("cannot read {}", path.display());
        fs::read_to_string(path).map_err(PerfError::io(what))
    }

    /// What one short file tells: cheap enough to be asked every second beside a measurement.
    pub fn glance(&self) -> Result<Glance, PerfError> {
        let stat = self.read("stat")?;
        // SAFETY: takes a number, returns a number.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page_bytes = u64::try_from(page_bytes).unwrap_or(4_096);
        // Field 24, counted from 1; two are cut off with the name.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let pages = after_name.split_whitespace().nth(21);
        let pages: Option<u64> = pages.and_then(|field| field.parse().ok());
        Ok(Glance {
            cpu_ns: ticks_ns(&stat)?,
            rss_bytes: pages.unwrap_or(0) * page_bytes,
        })
    }

    pub fn sample(&self) -> Result<Sample, PerfError> {
        let status = self.read("status")?;
        let io = self.read("io")?;
        let tasks = self.folder.join("task");
        let what = format!("cannot read {}", tasks.display());
        let mut thread_ns = BTreeMap::new();
        for entry in fs::read_dir(&tasks).map_err(PerfError::io(&what))? {
            let entry = entry.map_err(PerfError::io(&what))?;
            // A thread may end between being listed and being read; its time is then in the ticks only.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let thread = entry.file_name().to_string_lossy().parse();
            let ran_ns = text.split(' ').next().and_then(|word| word.parse().ok());
            if let (Ok(thread), Some(ran_ns)) = (thread, ran_ns) {
                thread_ns.insert(thread, ran_ns);
            }
        }
        Ok(Sample {
            ticks_ns: ticks_ns(&self.read("stat")?)?,
            thread_ns,
            rss_bytes: number_field(&status, "VmRSS")? * 1_024,
            rss_peak_bytes: number_field(&status, "VmHWM")? * 1_024,
            storage_write_bytes: number_field(&io, "write_bytes")?,
            storage_read_bytes: number_field(&io, "read_bytes")?,
            threads: number_field(&status, "Threads")?,
        })
    }
}

impl Sample {
    pub fn usage_since(&self, before: &Sample) -> Usage {
        let since = |now: u64, then: u64| now.saturating_sub(then);
        let none_ended = before
            .thread_ns
            .keys()
            .all(|thread| self.thread_ns.contains_key(thread));
        let cpu_ns: u64 = if none_ended && !self.thread_ns.is_empty() {
            let spent = |(thread, now): (&u32, &u64)| {
                since(*now, before.thread_ns.get(thread).copied().unwrap_or(0))
            };
            self.thread_ns.iter().map(spent).sum()
        } else {
            since(self.ticks_ns, before.ticks_ns)
        };
        Usage {
            cpu_seconds: cpu_ns as f64 / 1e9,
            rss_bytes: self.rss_bytes,
            rss_peak_bytes: self.rss_peak_bytes,
            storage_write_bytes: since(self.storage_write_bytes, before.storage_write_bytes),
            storage_read_bytes: since(self.storage_read_bytes, before.storage_read_bytes),
            threads: self.threads,
        }
    }
}

/// The number after `name:` in a file of the form of `/proc/PID/status`, whatever its unit.
fn number_field(text: &str, name: &str) -> Result<u64, PerfError> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| {
        PerfError::Usage(format!(
            "/proc does not say {name}; is that a kernel thread?"
        ))
    })
}

/// User and system time out of `/proc/PID/stat`, in nanoseconds.
fn ticks_ns(stat: &str) -> Result<u64, PerfError> {
    // The second field is the program's name in parentheses and may hold spaces and parentheses itself.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
    let fields: Vec<&str> = after_name.unwrap_or("").split_whitespace().collect();
    // Fields 14 and 15, counted from 1; the first two are cut off.
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
    };
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => {
            // SAFETY: takes a number, returns a number.
            let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
            let per_second = u64::try_from(per_second).unwrap_or(0).max(1);
            Ok((user + system) * (1_000_000_000 / per_second))
        }
        (_, _) => Err(PerfError::Usage(
            "/proc/PID/stat has an unknown form".into(),
        )),
    }
}

/// Processor time that the calling thread has used, in seconds.
pub fn own_thread_cpu_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call. This clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Raises the number of files this process may open to what the system allows it.
pub fn allow_many_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives through both calls. Failure leaves the limit as it was, and opening says so then.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Drops the kernel's page cache, of the whole machine; needs root.
pub fn drop_page_cache() -> Result<(), PerfError> {
    let path = "/proc/sys/vm/drop_caches";
    // Pages that are not written yet cannot be dropped.
    // SAFETY: takes nothing, returns nothing.
    unsafe { libc::sync() };
    fs::write(path, "3").map_err(PerfError::io(format!("cannot write {path}")))
}

/// The process of this machine that listens on the port of `address`, if that is on this machine and can be told.
pub fn listener_on(address: SocketAddr) -> Option<u32> {
    if !address.ip().is_loopback() {
        return None;
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let tables = tables.into_iter().filter_map(Result::ok);
    let inodes: Vec<String> = tables
        .flat_map(|table| listening_inodes(&table, address.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?;
    let mut ids =
        processes.filter_map(|entry| entry.ok()?.file_name().to_string_lossy().parse().ok());
    ids.find(|pid: &u32| {
        // Those of other users cannot be looked into.
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        let mut targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        targets.any(|target| {
            inodes
                .iter()
                .any(|inode| target.as_os_str() == inode.as_str())
        })
    })
}

/// Inodes of sockets that listen on `port`, in a table as `/proc/net/tcp` has it.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (local.ends_with(&wanted) && *state == LISTEN).then(|| inode.to_string())
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_do_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0";
        // SAFETY: as above.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
        assert_eq!(
            ticks_ns(stat).expect("reads"),
            300 * (1_000_000_000 / per_second)
        );
        assert!(ticks_ns("42 (a) S 1").is_err());
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "VmRSSX:\t 1 kB\nVmRSS:\t  20 kB\nwrite_bytes: 7\ncancelled_write_bytes: 8\n";
        assert_eq!(number_field(text, "VmRSS").expect("there"), 20);
        assert_eq!(number_field(text, "write_bytes").expect("there"), 7);
        assert!(number_field(text, "VmHWM").is_err());
    }

    #[test]
    fn threads_that_ended_make_it_count_in_ticks() {
        let sample = |ticks_ns, threads: &[(u32, u64)]| Sample {
            ticks_ns,
            thread_ns: threads.iter().copied().collect(),
            ..Sample::default()
        };
        let before = sample(1_000_000_000, &[(1, 100), (2, 500)]);
        let grown = sample(2_000_000_000, &[(1, 1_100), (2, 600), (3, 900)]);
        assert_eq!(grown.usage_since(&before).cpu_seconds, 2_000.0 / 1e9);
        let ended = sample(2_000_000_000, &[(1, 1_100), (3, 900)]);
        assert_eq!(ended.usage_since(&before).cpu_seconds, 1.0);
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        assert_eq!(listener_on(address), Some(std::process::id()));
        drop(listener);
        assert_eq!(listener_on(address), None);
        assert_eq!(
            listener_on("192.0.2.1:9092".parse().expect("an address")),
            None
        );
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::new(std::process::id());
        let sample = process.sample().expect("reads");
        let usage = sample.usage_since(&sample);
        assert_eq!(usage.cpu_seconds, 0.0);
        assert!(
            usage.rss_bytes > 0 && usage.rss_peak_bytes >= usage.rss_bytes && usage.threads > 0
        );
        let glance = process.glance().expect("reads");
        let (seen, exact) = (glance.rss_bytes as f64, usage.rss_bytes as f64);
        assert!(
            (0.2..5.0).contains(&(seen / exact)),
            "{seen} is not {exact}"
        );
        assert!(Process::new(u32::MAX).sample().is_err());
    }
}
