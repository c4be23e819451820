//! Owns the list of metric families and their rendering as Prometheus (OpenMetrics) text.
//! Does not know where a shard takes its numbers from.
//! Invariant: every sample of a shard carries its label `shard`, and a family is rendered once.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// One family: its name without `_total`, what it says, and its kind.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MetricType,
    /// Name of the second label, where samples of one shard differ by one.
    pub label: Option<&'static str>,
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal $([$label:literal])? $help:literal;)*) => {
        $(pub static $id: Family = Family {
            name: $name, help: $help, kind: MetricType::$kind, label: families!(@label $($label)?),
        };)*
        /// Every family a shard may have samples of, in the order they are rendered.
        static FAMILIES: &[&Family] = &[$(&$id),*];
    };
    (@label) => { None };
    (@label $label:literal) => { Some($label) };
}

families! {
    REQUESTS = Counter "millrace_requests" ["api"] "Requests answered";
    REQUEST_ERRORS = Counter "millrace_request_errors" ["api"] "Requests whose answer held an error";
    REQUEST_SECONDS = Histogram "millrace_request_seconds" ["api"] "Time from reading a request to handing its answer to the kernel";
    RECEIVED_BYTES = Counter "millrace_received_bytes" "Bytes read from clients";
    SENT_BYTES = Counter "millrace_sent_bytes" "Bytes written to clients";
    CONNECTIONS = Gauge "millrace_connections" "Open client connections";
    CONNECTIONS_ACCEPTED = Counter "millrace_connections_accepted" "Client connections accepted";
    CONNECTIONS_REFUSED = Counter "millrace_connections_refused" "Client connections refused at a limit";
    CONNECTIONS_MOVED = Counter "millrace_connections_moved" "Client connections that moved here from another shard";
    CONNECTIONS_FAILED = Counter "millrace_connections_failed" "Client connections closed because of an error";
    JOURNAL_COMMITS = Counter "millrace_journal_commits" "Commits sealed by the journal";
    JOURNAL_GROUPS = Counter "millrace_journal_groups" "Groups of commits written and flushed together";
    JOURNAL_BYTES = Counter "millrace_journal_bytes" "Bytes written to the journal, padding included";
    JOURNAL_FILE_BYTES = Gauge "millrace_journal_file_bytes" "Size of the journal's files";
    JOURNAL_COMMIT_BYTES = Histogram "millrace_journal_commit_bytes" "Size of one commit";
    FLUSH_SECONDS = Histogram "millrace_flush_seconds" "Time of one flush of the journal's device";
    CACHE_HITS = Counter "millrace_cache_hits" "Reads served from memory";
    CACHE_MISSES = Counter "millrace_cache_misses" "Reads that went to the disk";
    CACHE_BYTES = Gauge "millrace_cache_bytes" "Bytes of recent records held in memory";
    CACHE_BYTES_MAX = Gauge "millrace_cache_limit_bytes" "Limit of the recent records held in memory";
    READ_BYTES = Counter "millrace_read_bytes" "Bytes of record batches read for clients";
    APPENDS_REFUSED = Counter "millrace_appends_refused" "Batches that were not appended";
    PARTITIONS = Gauge "millrace_partitions" "Partitions in memory";
    BACKLOG_BYTES = Gauge "millrace_backlog_bytes" "Bytes appended that no commit has taken yet";
    REQUEST_BYTES = Gauge "millrace_request_memory_bytes" "Memory of requests under way";
    REQUEST_BYTES_MAX = Gauge "millrace_request_memory_limit_bytes" "Limit of the memory of requests under way";
    RESPONSE_BYTES = Gauge "millrace_response_memory_bytes" "Memory of responses that clients have not taken";
    RESPONSE_BYTES_MAX = Gauge "millrace_response_memory_limit_bytes" "Limit of the memory of responses";
    MEMORY_USED = Gauge "millrace_memory_used_bytes" "Memory in use by records, appends, requests and responses";
    DISK_FREE = Gauge "millrace_disk_free_bytes" "Free space of the disk at the last look";
    DISK_KEPT = Gauge "millrace_disk_kept_bytes" "Free space below which produces are refused";
    DISK_FULL = Gauge "millrace_disk_full" "Whether produces are refused because the disk is full";
    REQUESTS_CROSSED = Counter "millrace_requests_crossed" ["api"] "Requests for partitions of other shards than the one they came to";
    CROSS_SHARD_CALLS = Counter "millrace_cross_shard_calls" "Calls made to other shards";
    SCRUBBED_BYTES = Counter "millrace_scrubbed_bytes" "Bytes of finished segments that the scrubber read and checked";
    COMPACTION_PASSES = Counter "millrace_compaction_passes" "Compactions of a partition that went through";
    COMPACTION_FAILURES = Counter "millrace_compaction_failures" "Compactions of a partition that failed; the log says why";
    COMPACTION_MOVED_BYTES = Counter "millrace_compaction_moved_bytes" "Bytes that compaction read and wrote";
    COMPACTION_FREED_BYTES = Counter "millrace_compaction_freed_bytes" "Bytes by which compaction made segments smaller";
    COMPACTION_REMOVED_RECORDS = Counter "millrace_compaction_removed_records" "Records that compaction left out";
    COMPACTION_UNREADABLE_BATCHES = Counter "millrace_compaction_unreadable_batches" "Batches that compaction kept whole because their records cannot be read, each time it met them";
    SCRUB_DAMAGED_BLOCKS = Counter "millrace_scrub_damaged_blocks" "Blocks that the scrubber found damaged";
    STALLS = Counter "millrace_stalls" "Times the shard ran too long without yielding";
}

static SHARD_UP: Family = Family {
    name: "millrace_shard_up",
    help: "Whether the shard answered",
    kind: MetricType::Gauge,
    label: None,
};

/// A histogram's content. Buckets are not cumulative: (upper bound, observations), ascending; the
/// last bound is `f64::MAX`. Unit as the family says.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    pub sum: f64,
    pub count: u64,
    pub buckets: Vec<(f64, u64)>,
}

#[derive(Clone, Debug)]
enum Reading {
    Count(u64),
    Level(f64),
    Spread(Spread),
}

/// One value of one family.
#[derive(Clone, Debug)]
pub struct Sample {
    family: &'static Family,
    label: Option<String>,
    reading: Reading,
}

impl Sample {
    pub fn count(family: &'static Family, count: u64) -> Sample {
        Sample {
            family,
            label: None,
            reading: Reading::Count(count),
        }
        .checked()
    }

    pub fn count_of(family: &'static Family, label: impl Into<String>, count: u64) -> Sample {
        Sample {
            family,
            label: Some(label.into()),
            reading: Reading::Count(count),
        }
        .checked()
    }

    pub fn level(family: &'static Family, level: f64) -> Sample {
        Sample {
            family,
            label: None,
            reading: Reading::Level(level),
        }
        .checked()
    }

    pub fn spread(family: &'static Family, spread: Spread) -> Sample {
        Sample {
            family,
            label: None,
            reading: Reading::Spread(spread),
        }
        .checked()
    }

    pub fn spread_of(family: &'static Family, label: impl Into<String>, spread: Spread) -> Sample {
        Sample {
            family,
            label: Some(label.into()),
            reading: Reading::Spread(spread),
        }
        .checked()
    }

    /// The value of a gauge of this family.
    pub fn level_of(&self, family: &'static Family) -> Option<f64> {
        match self.reading {
            Reading::Level(level) if std::ptr::eq(self.family, family) => Some(level),
            Reading::Level(_) | Reading::Count(_) | Reading::Spread(_) => None,
        }
    }

    fn checked(self) -> Sample {
        let fits = match self.reading {
            Reading::Count(_) => matches!(self.family.kind, MetricType::Counter),
            Reading::Level(_) => matches!(self.family.kind, MetricType::Gauge),
            Reading::Spread(_) => matches!(self.family.kind, MetricType::Histogram),
        };
        assert!(
            fits && self.label.is_some() == self.family.label.is_some(),
            "{} is misused",
            self.family.name
        );
        self
    }

    fn encode(&self, shard: usize, family: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let mut labels = vec![("shard", shard.to_string())];
        if let (Some(name), Some(value)) = (self.family.label, &self.label) {
            labels.push((name, value.clone()));
        }
        let mut encoder = family.encode_family(&labels)?;
        match &self.reading {
            Reading::Count(count) => {
                encoder.encode_counter::<[(&str, &str); 0], u64, f64>(count, None)
            }
            Reading::Level(level) => encoder.encode_gauge(level),
            Reading::Spread(s) => {
                encoder.encode_histogram::<[(&str, &str); 0]>(s.sum, s.count, &s.buckets, None)
            }
        }
    }
}

/// What every shard said; None where one did not answer. Rendered as one collector.
#[derive(Debug)]
struct Scrape(Vec<Option<Vec<Sample>>>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut up =
            encoder.encode_descriptor(SHARD_UP.name, SHARD_UP.help, None, SHARD_UP.kind)?;
        for (shard, answer) in self.0.iter().enumerate() {
            up.encode_family(&[("shard", shard.to_string())])?
                .encode_gauge(&i64::from(answer.is_some()))?;
        }
        for family in FAMILIES {
            let samples: Vec<(usize, &Sample)> = self
                .0
                .iter()
                .enumerate()
                .flat_map(|(shard, answer)| {
                    answer.iter().flatten().map(move |sample| (shard, sample))
                })
                .filter(|(_, sample)| std::ptr::eq(sample.family, *family))
                .collect();
            if samples.is_empty() {
                continue;
            }
            let mut out = encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for (shard, sample) in samples {
                sample.encode(shard, &mut out)?;
            }
        }
        process(&mut encoder)
    }
}

/// The process' own figures, under the names that Prometheus' client libraries use.
fn process(encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let mut level = |name: &str, help: &str, value: f64| {
        encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&value)
    };
    if let Some(bytes) = resident_bytes() {
        level(
            "process_resident_memory_bytes",
            "Resident memory",
            bytes as f64,
        )?;
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        level(
            "process_open_fds",
            "Open file descriptors",
            open.count() as f64,
        )?;
    }
    encoder
        .encode_descriptor(
            "process_cpu_seconds",
            "User and system time",
            None,
            MetricType::Counter,
        )?
        .encode_counter::<[(&str, &str); 0], f64, f64>(&cpu_seconds(), None)
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

/// CPU time used by all threads of this process, in seconds.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills in the struct it is given.
    if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) } != 0 {
        return 0.0;
    }
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The text of one scrape.
pub fn render(answers: &[Option<Vec<Sample>>]) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(answers.to_vec())));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
