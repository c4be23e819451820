//! Owns turning a scenario into the runs it consists of: shapes of batches, rates, readers.
//! Does not know brokers or how a run is driven.
//! Invariant: the same scenario and the same maximum give the same runs.

use super::{Fetching, History, Producers, Rate, Scenario};
use crate::error::PerfError;
use crate::run::{Backfill, BatchSize, Consuming, Producing, ReadFrom, Workload};
use crate::template::BatchShape;
use millrace_net::wire::compress::Compression;
use std::time::Duration;

/// What a producer's batch may hold at the most where only a linger is set: `batch.size` of Kafka's own producer.
const BATCH_BYTES_DEFAULT: usize = 16 << 10;
/// Connections and requests under way that fill the history; as much as a broker takes.
const FILL_CONNECTIONS: usize = 4;
const FILL_IN_FLIGHT: usize = 4;
/// Filling the history takes as long as it takes, but not for ever.
const FILL_TIMEOUT: Duration = Duration::from_secs(3_600);

/// How fast a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rates {
    /// What the scenario says; a share is one of so many requests a second.
    AsMeant { maximum_requests: Option<f64> },
    /// As fast as it is answered, whatever the scenario says.
    Maximum,
}

/// Names of the topics of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicNames {
    pub main: String,
    pub history: String,
}

impl Scenario {
    /// The run that counts.
    pub fn workload(&self, topics: &TopicNames, rates: Rates) -> Result<Workload, PerfError> {
        let producing = match &self.producers {
            Some(producers) => Some(self.producing(producers, rates)?),
            None => None,
        };
        let alone = producing.is_none();
        let (mut topic, mut partitions) = (topics.main.clone(), self.topic.partitions);
        let mut consuming = self
            .consumers
            .as_ref()
            .map(|consumers| reading(ReadFrom::Tail, consumers.count, &consumers.fetching));
        let mut backfill = None;
        if let Some(history) = &self.history {
            let read = reading(ReadFrom::Beginning, 1, &history.fetching);
            if alone {
                (topic, partitions) = (topics.history.clone(), history.partitions);
                consuming = Some(read);
            } else {
                backfill = Some(Backfill {
                    topic: topics.history.clone(),
                    partitions: history.partitions,
                    consuming: read,
                });
            }
        }
        // What is read in a warm-up would be missing at the end.
        let warm_up = if alone { 0.0 } else { self.warm_up_seconds };
        Ok(Workload {
            topic,
            partitions,
            replication: -1,
            topic_configs: pairs(&self.topic.configs),
            producing,
            consuming,
            backfill,
            idle_connections: self.idle_connections,
            warm_up: Duration::from_secs_f64(warm_up),
            duration: Duration::from_secs_f64(self.duration_seconds),
            cpu: None,
            spin: false,
        })
    }

    /// The run before it that fills the history with `bytes`; nothing of it counts.
    pub fn fill(&self, history: &History, topics: &TopicNames, bytes: u64) -> Workload {
        Workload {
            topic: topics.history.clone(),
            partitions: history.partitions,
            replication: -1,
            topic_configs: Vec::new(),
            producing: Some(Producing {
                shape: BatchShape::plain(history.record_bytes.in_memory()),
                batch: BatchSize::Bytes(history.batch_bytes.in_memory()),
                partitions_per_request: 1,
                spread: false,
                connections: FILL_CONNECTIONS,
                in_flight: FILL_IN_FLIGHT,
                acks: -1,
                requests_per_second: None,
                bytes_max: Some(bytes),
            }),
            consuming: None,
            backfill: None,
            idle_connections: 0,
            warm_up: Duration::ZERO,
            duration: FILL_TIMEOUT,
            cpu: None,
            spin: false,
        }
    }

    fn producing(&self, producers: &Producers, rates: Rates) -> Result<Producing, PerfError> {
        let codec = Compression::from_name(&producers.codec).expect("checked when read");
        let shape = BatchShape {
            record_bytes: producers.record_bytes.in_memory(),
            keyed: producers.keys,
            compressibility: producers.compressibility,
            codec,
        };
        let mut partitions_per_request =
            producers.partitions_per_request.min(self.topic.partitions);
        let batch_bytes = producers.batch_bytes.map(super::Size::in_memory);
        let records_per_second = match producers.rate {
            Rate::BytesPerSecond(bytes) => Some(bytes / producers.record_bytes.0 as f64),
            Rate::RecordsPerSecond(records) => Some(records),
            Rate::Maximum | Rate::ShareOfMaximum(_) => None,
        };
        let batch = match (
            producers.linger_ms,
            records_per_second,
            producers.batch_records,
        ) {
            (Some(linger_ms), Some(per_second), _) => {
                let gathered = per_second / producers.count as f64 * linger_ms / 1e3;
                let gathered = (gathered.round() as usize).max(1);
                if producers.keys {
                    partitions_per_request = gathered.min(self.topic.partitions);
                }
                let fits = shape.records_within(batch_bytes.unwrap_or(BATCH_BYTES_DEFAULT))?;
                BatchSize::Records((gathered / partitions_per_request).clamp(1, fits))
            }
            (_, _, Some(records)) => BatchSize::Records(records),
            (_, _, None) => BatchSize::Bytes(batch_bytes.unwrap_or(BATCH_BYTES_DEFAULT)),
        };
        let mut producing = Producing {
            shape,
            batch,
            partitions_per_request,
            spread: producers.keys,
            connections: producers.count,
            in_flight: producers.in_flight,
            acks: producers.acks.code(),
            requests_per_second: None,
            bytes_max: None,
        };
        let Rates::AsMeant { maximum_requests } = rates else {
            return Ok(producing);
        };
        producing.bytes_max = producers.bytes.map(|bytes| bytes.0);
        producing.requests_per_second = match (producers.rate, records_per_second) {
            (Rate::ShareOfMaximum(share), _) => {
                let maximum = maximum_requests.ok_or_else(|| {
                    PerfError::Usage("a share of the maximum needs that maximum".into())
                })?;
                Some(maximum * share)
            }
            (_, Some(per_second)) => {
                let in_request = producing.built_batch()?.records as usize * partitions_per_request;
                Some(per_second / in_request as f64)
            }
            (_, None) => None,
        };
        Ok(producing)
    }
}

fn reading(from: ReadFrom, readers: usize, fetching: &Fetching) -> Consuming {
    Consuming {
        from,
        readers,
        connections: fetching.connections,
        max_bytes: fetching.max_bytes.in_memory(),
        partition_max_bytes: fetching.partition_max_bytes.in_memory(),
        max_wait_ms: fetching.max_wait_ms,
        check_crc: true,
    }
}

fn pairs(configs: &std::collections::BTreeMap<String, String>) -> Vec<(String, String)> {
    configs
        .iter()
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::parse;

    fn topics() -> TopicNames {
        TopicNames {
            main: "main".into(),
            history: "history".into(),
        }
    }

    fn producing(more: &str, rates: Rates) -> Producing {
        let text = format!(
            "reason = \"r\"\nduration-seconds = 1\n[topic]\npartitions = 16\n[producers]\ncount = 16\n\
             record-bytes = \"1000B\"\n{more}\n"
        );
        let workload = parse(&text, "x").expect("sound").workload(&topics(), rates);
        workload.expect("planned").producing.expect("there")
    }

    #[test]
    fn a_linger_gathers_what_the_rate_brings() {
        let meant = Rates::AsMeant {
            maximum_requests: None,
        };
        // 20 MB/s of 16 producers are 1,250 records a second each, 6 in 5 ms.
        let got = producing("rate = \"20MB/s\"\nlinger-ms = 5", meant);
        assert_eq!(got.batch, BatchSize::Records(6));
        let rate = got.requests_per_second.expect("fixed");
        assert!((rate - 20_000.0 / 6.0).abs() < 1e-6, "{rate}");
        // Keys send them to as many partitions.
        let got = producing("rate = \"20MB/s\"\nlinger-ms = 5\nkeys = true", meant);
        assert_eq!(
            (got.batch, got.partitions_per_request),
            (BatchSize::Records(1), 6)
        );
        // A full batch does not wait for the linger.
        let got = producing(
            "rate = \"20MB/s\"\nlinger-ms = 500\nbatch-bytes = \"16KiB\"",
            meant,
        );
        assert_eq!(got.batch, BatchSize::Records(16));
    }

    #[test]
    fn a_share_is_one_of_the_measured_maximum() {
        let text = "rate = \"50%\"\nbatch-bytes = \"64KiB\"";
        let meant = Rates::AsMeant {
            maximum_requests: Some(1_000.0),
        };
        assert_eq!(producing(text, meant).requests_per_second, Some(500.0));
        assert_eq!(producing(text, Rates::Maximum).requests_per_second, None);
    }

    #[test]
    fn an_amount_ends_what_counts_but_not_the_measuring_of_a_maximum() {
        let text = "rate = \"50%\"\nbatch-bytes = \"64KiB\"\nbytes = \"1MiB\"";
        let meant = Rates::AsMeant {
            maximum_requests: Some(1_000.0),
        };
        assert_eq!(producing(text, meant).bytes_max, Some(1 << 20));
        assert_eq!(producing(text, Rates::Maximum).bytes_max, None);
    }

    #[test]
    fn a_history_is_read_beside_producers_or_alone() {
        let history = "[history]\nbytes = \"1GiB\"\npartitions = 4\n";
        let head =
            "reason = \"r\"\nduration-seconds = 1\nwarm-up-seconds = 2\n[topic]\npartitions = 16\n";
        let meant = Rates::AsMeant {
            maximum_requests: None,
        };
        let alone = parse(&format!("{head}{history}"), "x").expect("sound");
        let alone = alone.workload(&topics(), meant).expect("planned");
        assert_eq!((alone.topic.as_str(), alone.partitions), ("history", 4));
        assert!(alone.consuming.is_some() && alone.backfill.is_none());
        assert_eq!(alone.warm_up, Duration::ZERO);
        let producers = "[producers]\ncount = 1\nrecord-bytes = \"1KiB\"\nbatch-records = 1\nrate = \"maximum\"\n";
        let beside = parse(&format!("{head}{producers}{history}"), "x").expect("sound");
        let beside = beside.workload(&topics(), meant).expect("planned");
        assert_eq!((beside.topic.as_str(), beside.partitions), ("main", 16));
        assert_eq!(beside.backfill.expect("beside").topic, "history");
    }
}
