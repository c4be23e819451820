//! Owns CPUs, memory and the resource limits (memlock, nofile) of this process.
//! Does not know what is spent against them beyond the needs stated here.
//! Invariant: the only limit it changes is the soft nofile limit, up to the hard one.

use super::Finding;
use crate::config::Config;
use crate::units::{ByteSize, CpuList};
use std::path::Path;

/// Below this the runtime refuses to start a shard (it checks the limit itself).
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Buffers that each shard registers with the kernel: three rings of 1 MiB. Without room for them
/// I/O works through plain buffers, measured 15 to 25 % slower.
const MEMLOCK_PER_SHARD_BYTES: u64 = 3 << 20;

/// Descriptors to start at all: rings, listeners, journals, log files of a few partitions.
const NOFILE_MIN: u64 = 256;

/// Descriptors of one shard's cache of open segments (log, index and time index) and of its own.
const NOFILE_PER_SHARD: u64 = 2_048;

/// Descriptors for connections before a warning is due.
const NOFILE_CONNECTIONS: u64 = 4_096;

/// CPUs this process may run on, ascending; CPU 0 where the kernel does not say.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a cpu_set_t is plain bits, for which all zeros is a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the size given, into a value of that size.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if got != 0 {
        return vec![0];
    }
    // SAFETY: every index is below CPU_SETSIZE, the number of bits in the set.
    let cpus: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .collect();
    if cpus.is_empty() {
        vec![0]
    } else {
        cpus
    }
}

pub fn cpus(config: &Config) -> Finding {
    let value = format!(
        "{} shards on CPUs {}",
        config.shards,
        CpuList(config.cpus.clone())
    );
    if config.shards > config.cpus.len() {
        return Finding::warning(
            "cpus",
            value,
            format!(
                "Several shards share a core: use --shards {} or more --cpus for full speed.",
                config.cpus.len()
            ),
        );
    }
    Finding::fine("cpus", value)
}

pub fn memory(config: &Config) -> Finding {
    let have = memory_bytes();
    let value = format!(
        "budget {} of {}",
        ByteSize(config.memory_bytes).human(),
        ByteSize(have).human()
    );
    if config.memory_bytes > have {
        Finding::stops(
            "memory",
            value,
            format!("Give --memory less than {}.", ByteSize(have).human()),
        )
    } else if config.memory_bytes > have / 10 * 9 {
        Finding::warning(
            "memory",
            value,
            "Leave a tenth for the system, or the kernel may kill the broker.",
        )
    } else {
        Finding::fine("memory", value)
    }
}

/// Memory this process may use, in bytes: the least of the machine's and its control groups'.
pub fn memory_bytes() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| mem_total(&text))
        .unwrap_or(1 << 30);
    // Without control groups only the machine's own memory limits us.
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_files(&groups).into_iter().filter_map(|file| {
        let text = std::fs::read_to_string(file).ok()?;
        text.trim().parse::<u64>().ok()
    });
    limits.fold(total, u64::min)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

/// Files that may hold a memory limit: of this process' group and of every group above it.
fn group_files(cgroup: &str) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, name) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        // Inside a container the path is often relative to a root that is not visible: try upwards.
        for ancestor in Path::new(path.trim_start_matches('/')).ancestors() {
            files.push(Path::new(root).join(ancestor).join(name));
        }
    }
    files
}

/// Soft and hard limit; `u64::MAX` where unlimited.
fn limit(resource: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills in the struct it is given.
    let got = unsafe { libc::getrlimit(resource, &mut limit) };
    if got == 0 {
        (limit.rlim_cur, limit.rlim_max)
    } else {
        (0, 0)
    }
}

/// Whether memlock does not bind this process (CAP_IPC_LOCK, as root has).
fn may_lock_any_memory() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    // Where it cannot be seen, the capability is taken to be missing: at worst the check is too strict.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    effective
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .is_some_and(|b| b & (1 << CAP_IPC_LOCK) != 0)
}

pub fn memlock(shards: usize) -> Finding {
    judge_memlock(limit(libc::RLIMIT_MEMLOCK).0, may_lock_any_memory(), shards)
}

fn judge_memlock(have: u64, unbound: bool, shards: usize) -> Finding {
    let want = MEMLOCK_PER_SHARD_BYTES * shards as u64;
    let raise = format!(
        "Raise it to {}: `ulimit -l {}`, `memlock` in /etc/security/limits.conf, LimitMEMLOCK= under systemd, or \
         `--ulimit memlock=-1` in Docker.",
        ByteSize(want).human(),
        want >> 10
    );
    let value = if have == libc::RLIM_INFINITY {
        "unlimited".to_string()
    } else {
        ByteSize(have).human()
    };
    if unbound {
        Finding::fine("memlock", format!("{value} (does not bind this user)"))
    } else if have < MEMLOCK_BYTES_MIN {
        Finding::stops("memlock", value, raise)
    } else if have < want {
        Finding::warning(
            "memlock",
            value,
            format!("I/O buffers cannot be registered, which costs speed. {raise}"),
        )
    } else {
        Finding::fine("memlock", value)
    }
}

pub fn nofile(shards: usize) -> Finding {
    // `serve` raises the soft limit to the hard one, so the hard one is what counts.
    judge_nofile(limit(libc::RLIMIT_NOFILE).1, shards)
}

fn judge_nofile(hard: u64, shards: usize) -> Finding {
    let want = NOFILE_PER_SHARD * shards as u64 + NOFILE_CONNECTIONS;
    let raise = format!(
        "Raise the hard limit to {want}: `nofile` in /etc/security/limits.conf, LimitNOFILE= under systemd, or \
         `--ulimit nofile={want}` in Docker."
    );
    let value = if hard == libc::RLIM_INFINITY {
        "unlimited".to_string()
    } else {
        hard.to_string()
    };
    if hard < NOFILE_MIN {
        Finding::stops("nofile", value, raise)
    } else if hard < want {
        Finding::warning(
            "nofile",
            value,
            format!("Few connections and open segments fit. {raise}"),
        )
    } else {
        Finding::fine("nofile", value)
    }
}

/// Raises the soft limit of open files to the hard one; gives the limit then in force.
pub fn raise_nofile() -> u64 {
    let (soft, hard) = limit(libc::RLIMIT_NOFILE);
    let wanted = libc::rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: the kernel reads the struct it is given.
    if soft < hard && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } == 0 {
        hard
    } else {
        soft
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn memlock_is_judged_by_what_the_shards_register() {
        assert_eq!(judge_memlock(8 << 20, false, 2).verdict, Verdict::Fine);
        assert_eq!(judge_memlock(8 << 20, false, 3).verdict, Verdict::Warning);
        assert_eq!(judge_memlock(64 << 10, false, 1).verdict, Verdict::Stops);
        assert_eq!(judge_memlock(64 << 10, true, 8).verdict, Verdict::Fine);
        assert_eq!(
            judge_memlock(libc::RLIM_INFINITY, false, 64).verdict,
            Verdict::Fine
        );
    }

    #[test]
    fn nofile_is_judged_by_the_hard_limit() {
        assert_eq!(judge_nofile(128, 1).verdict, Verdict::Stops);
        assert_eq!(judge_nofile(1_024, 1).verdict, Verdict::Warning);
        assert_eq!(judge_nofile(1 << 20, 8).verdict, Verdict::Fine);
    }

    #[test]
    fn group_limits_are_looked_up_along_the_path() {
        let v2: Vec<String> = group_files("0::/a/b\n")
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        assert_eq!(
            v2,
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(group_files("4:cpu,memory:/x\n").len(), 2);
        assert_eq!(group_files("3:cpuset:/x\n").len(), 0);
        assert_eq!(
            mem_total("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            Some(2 << 20)
        );
    }

    #[test]
    fn this_process_runs_somewhere() {
        assert!(!allowed_cpus().is_empty());
        assert!(memory_bytes() > 0);
    }
}
