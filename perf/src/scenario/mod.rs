//! Owns the form of a scenario: what one TOML file may say, and that what it says makes sense.
//! Does not know how it is run, nor any broker.
//! Invariant: a scenario that was read can be run; what cannot be is refused with the name of what is wrong.

mod builtin;
mod plan;
mod values;

pub use builtin::{find, names};
pub use plan::{Rates, TopicNames};
pub use values::{Acks, Rate, Size};

use crate::error::PerfError;
use millrace_net::wire::compress::Compression;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A scenario file is read whole; a larger one is a mistake.
pub const FILE_BYTES_MAX: u64 = 64 << 10;
const SECONDS_MAX: f64 = 86_400.0;
const PARTITIONS_MAX: usize = 100_000;
const CONNECTIONS_MAX: usize = 10_000;

/// A scenario, as its file says it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// What it is there for, in one line.
    pub reason: String,
    /// Seconds that count.
    pub duration_seconds: f64,
    /// Seconds before them that do not.
    #[serde(default)]
    pub warm_up_seconds: f64,
    pub topic: Topic,
    pub producers: Option<Producers>,
    /// Readers of what is produced meanwhile.
    pub consumers: Option<Consumers>,
    /// What is there before, and is read from its beginning: beside the producers, or alone.
    pub history: Option<History>,
    /// Connections held beside the load, without a word.
    #[serde(default)]
    pub idle_connections: usize,
    #[serde(default)]
    pub broker: BrokerNeeds,
    #[serde(default)]
    pub disk: DiskNeeds,
}

/// The topic that is produced to.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Topic {
    pub partitions: usize,
    #[serde(default)]
    pub configs: BTreeMap<String, String>,
}

/// Who produces, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Producers {
    /// Each is a connection.
    pub count: usize,
    /// Requests under way on each.
    #[serde(default = "in_flight_default")]
    pub in_flight: usize,
    #[serde(default)]
    pub acks: Acks,
    /// Of each record's value.
    pub record_bytes: Size,
    /// Most bytes of a batch before compression, as a client's `batch.size`.
    pub batch_bytes: Option<Size>,
    /// Records of a batch, instead.
    pub batch_records: Option<usize>,
    /// Time for which a producer gathers records, at a fixed rate: with it and the rate the batch follows.
    pub linger_ms: Option<f64>,
    /// Batches in one request, each for another partition.
    #[serde(default = "one")]
    pub partitions_per_request: usize,
    /// Records have keys: every producer then writes to every partition, in no order.
    #[serde(default)]
    pub keys: bool,
    /// Share of each value that compresses to nothing, 0 to 1.
    #[serde(default)]
    pub compressibility: f64,
    #[serde(default = "codec_default")]
    pub codec: String,
    pub rate: Rate,
    /// Of batches with their headers: ends the run when so much was sent, or the duration is over, whichever is first.
    pub bytes: Option<Size>,
}

/// Who reads what is produced.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Consumers {
    /// Each reads all partitions.
    pub count: usize,
    #[serde(flatten)]
    pub fetching: Fetching,
}

/// How is read.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fetching {
    /// Of each reader; they share the partitions.
    #[serde(default = "one")]
    pub connections: usize,
    /// Most bytes of an answer: Kafka's `fetch.max.bytes`.
    #[serde(default = "answer_default")]
    pub max_bytes: Size,
    /// Most bytes of a partition in an answer: `max.partition.fetch.bytes`.
    #[serde(default = "partition_answer_default")]
    pub partition_max_bytes: Size,
    #[serde(default = "max_wait_default")]
    pub max_wait_ms: i32,
}

/// What is there before a run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct History {
    /// So much is produced first.
    pub bytes: Size,
    #[serde(default = "history_record_default")]
    pub record_bytes: Size,
    #[serde(default = "history_batch_default")]
    pub batch_bytes: Size,
    pub partitions: usize,
    /// The kernel's page cache is dropped before it is read.
    #[serde(default)]
    pub drop_page_cache: bool,
    #[serde(flatten)]
    pub fetching: Fetching,
}

/// What the broker has to be started with. Whoever starts it sees to that.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BrokerNeeds {
    /// Broker settings by Kafka's names.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Every flush takes so much longer, as on a slower disk.
    pub flush_delay_ms: Option<u64>,
}

/// Where the broker's data has to be. Whoever starts it sees to that.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskNeeds {
    /// On a loop device of its own.
    pub file_system: Option<FileSystem>,
    pub size: Option<Size>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    Ext4,
    Xfs,
}

fn one() -> usize {
    1
}

fn in_flight_default() -> usize {
    // What Kafka's own producer has.
    5
}

fn codec_default() -> String {
    Compression::None.name().into()
}

fn answer_default() -> Size {
    Size(50 << 20)
}

fn partition_answer_default() -> Size {
    Size(1 << 20)
}

fn max_wait_default() -> i32 {
    500
}

fn history_record_default() -> Size {
    Size(1 << 10)
}

fn history_batch_default() -> Size {
    Size(64 << 10)
}

/// Reads a scenario. `origin` names it in errors.
pub fn parse(text: &str, origin: &str) -> Result<Scenario, PerfError> {
    let failed = |why: String| PerfError::Scenario {
        origin: origin.to_string(),
        why,
    };
    let scenario: Scenario =
        toml::from_str(text).map_err(|error| failed(error.to_string().trim_end().to_string()))?;
    scenario.check().map_err(failed)?;
    Ok(scenario)
}

/// Refuses with `why` unless it `holds`.
fn demand(holds: bool, why: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(why.to_string())
    }
}

impl Scenario {
    fn check(&self) -> Result<(), String> {
        let one_line = !self.reason.trim().is_empty() && !self.reason.contains('\n');
        demand(one_line, "reason: say in one line what it is there for")?;
        let seconds = |seconds: f64| (0.0..=SECONDS_MAX).contains(&seconds);
        demand(
            seconds(self.duration_seconds) && self.duration_seconds > 0.0,
            "duration-seconds: must be above 0 and at most a day",
        )?;
        demand(
            seconds(self.warm_up_seconds),
            "warm-up-seconds: must be from 0 to a day",
        )?;
        demand(
            (1..=PARTITIONS_MAX).contains(&self.topic.partitions),
            "topic.partitions: must be from 1 to 100000",
        )?;
        demand(
            self.idle_connections <= CONNECTIONS_MAX,
            "idle-connections: must be at most 10000",
        )?;
        demand(
            self.producers.is_some() || self.history.is_some(),
            "it has neither [producers] nor [history], so nothing would happen",
        )?;
        demand(
            self.consumers.is_none() || self.producers.is_some(),
            "consumers: they read what is produced meanwhile, and there are no [producers]",
        )?;
        if let Some(producers) = &self.producers {
            producers
                .check()
                .map_err(|why| format!("producers.{why}"))?;
        }
        if let Some(consumers) = &self.consumers {
            demand(
                (1..=CONNECTIONS_MAX).contains(&consumers.count),
                "consumers.count: must be from 1 to 10000",
            )?;
            consumers
                .fetching
                .check()
                .map_err(|why| format!("consumers.{why}"))?;
        }
        if let Some(history) = &self.history {
            demand(
                (1..=PARTITIONS_MAX).contains(&history.partitions),
                "history.partitions: must be from 1 to 100000",
            )?;
            demand(history.bytes.0 > 0, "history.bytes: must be above 0")?;
            history
                .fetching
                .check()
                .map_err(|why| format!("history.{why}"))?;
        }
        Ok(())
    }

    /// What a person must have done before it can be run as it is meant; nothing where any broker will do.
    pub fn needs(&self) -> Vec<String> {
        let mut needs: Vec<String> = Vec::new();
        for (name, value) in &self.broker.settings {
            needs.push(format!("a broker with {name}={value}"));
        }
        if let Some(ms) = self.broker.flush_delay_ms {
            needs.push(format!(
                "a broker each of whose flushes takes {ms} ms longer (`serve --debug-flush-delay-ms {ms}`)"
            ));
        }
        if let Some(file_system) = self.disk.file_system {
            needs.push(format!("the data on {file_system:?} on a loop device"));
        }
        needs
    }
}

impl Producers {
    fn check(&self) -> Result<(), String> {
        demand(
            (1..=CONNECTIONS_MAX).contains(&self.count),
            "count: must be from 1 to 10000",
        )?;
        demand(self.in_flight > 0, "in-flight: must be at least 1")?;
        demand(
            self.partitions_per_request > 0,
            "partitions-per-request: must be at least 1",
        )?;
        demand(self.record_bytes.0 > 0, "record-bytes: must be above 0")?;
        demand(
            self.bytes.is_none_or(|bytes| bytes.0 > 0),
            "bytes: must be above 0",
        )?;
        demand(
            (0.0..=1.0).contains(&self.compressibility),
            "compressibility: must be from 0 to 1",
        )?;
        demand(
            Compression::from_name(&self.codec).is_some(),
            "codec: must be none, gzip, snappy, lz4 or zstd",
        )?;
        demand(
            self.batch_bytes.is_none() || self.batch_records.is_none(),
            "batch-records: not together with batch-bytes",
        )?;
        demand(
            self.batch_records != Some(0),
            "batch-records: must be at least 1",
        )?;
        match (self.linger_ms, self.rate) {
            (None, _) => demand(
                self.batch_bytes.is_some() || self.batch_records.is_some(),
                "batch-bytes: say this or batch-records, or linger-ms at a fixed rate",
            ),
            (Some(ms), Rate::BytesPerSecond(_) | Rate::RecordsPerSecond(_)) => {
                demand(ms >= 0.0, "linger-ms: must be at least 0")?;
                demand(
                    self.batch_records.is_none(),
                    "linger-ms: the batch follows from it and the rate, not from batch-records",
                )
            }
            (Some(_), Rate::Maximum | Rate::ShareOfMaximum(_)) => Err(
                "linger-ms: only at a fixed rate; at the maximum batches are full before".into(),
            ),
        }
    }
}

impl Fetching {
    fn check(&self) -> Result<(), String> {
        demand(self.connections > 0, "connections: must be at least 1")?;
        demand(self.max_bytes.0 > 0, "max-bytes: must be above 0")?;
        demand(
            self.partition_max_bytes.0 > 0,
            "partition-max-bytes: must be above 0",
        )?;
        demand(self.max_wait_ms >= 0, "max-wait-ms: must be at least 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "reason = \"r\"\nduration-seconds = 1\n[topic]\npartitions = 4\n\
        [producers]\ncount = 2\nrecord-bytes = \"1KiB\"\nbatch-bytes = \"16KiB\"\nrate = \"maximum\"\n";

    #[test]
    fn a_sound_one_is_read() {
        let scenario = parse(SOUND, "x").expect("sound");
        let producers = scenario.producers.expect("there");
        assert_eq!((producers.count, producers.in_flight), (2, 5));
        assert_eq!(producers.record_bytes.0, 1_024);
        assert_eq!(producers.acks, Acks::All);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, said) in [
            ("reason = \"r\"\n", "", "reason"),
            (
                "duration-seconds = 1",
                "duration-seconds = 0",
                "duration-seconds",
            ),
            ("count = 2", "cuont = 2", "cuont"),
            ("count = 2", "count = 0", "producers.count"),
            ("count = 2", "count = 2\nbytes = \"0B\"", "producers.bytes"),
            ("\"1KiB\"", "\"1KB\"", "1KB"),
            ("\"1KiB\"", "1024", "string"),
            ("\"maximum\"", "\"fast\"", "fast"),
            ("batch-bytes = \"16KiB\"\n", "", "batch-bytes"),
            ("batch-bytes", "linger-ms = 5\nbatch-bytes", "linger-ms"),
            ("count = 2", "count = 2\ncodec = \"rar\"", "codec"),
            ("count = 2", "count = 2\nacks = \"some\"", "acks"),
            (
                "[producers]",
                "[consumers]\ncount = 1\nfetch-max = 1\n[producers]",
                "fetch-max",
            ),
        ] {
            assert!(SOUND.contains(from));
            let error = parse(&SOUND.replacen(from, to, 1), "the.toml").expect_err(to);
            let error = error.to_string();
            assert!(
                error.contains(said) && error.contains("the.toml"),
                "{said} in {error}"
            );
        }
        let nothing = "reason = \"r\"\nduration-seconds = 1\n[topic]\npartitions = 4\n";
        let error = parse(nothing, "x").expect_err("nothing").to_string();
        assert!(error.contains("neither"), "{error}");
    }
}
