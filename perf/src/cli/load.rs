//! Owns the modes that make one load as their flags say: produce, latency, consume.
//! Does not know scenarios.
//! Invariant: every figure of producers comes with what this generator could have shown at most.

use super::values::{acks, at_least_one, duration, name_and_value, seconds, some_seconds};
use super::{finish, Done};
use crate::client::resolve;
use crate::error::PerfError;
use crate::report::{self, Report, Table};
use crate::run::{self, BatchSize, Consuming, Producing, ReadFrom, RunResult, Workload};
use crate::sink::Sink;
use crate::template::BatchShape;
use crate::units::{parse_bytes, parse_size};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Clone)]
pub struct Target {
    /// The broker
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    pub(super) bootstrap: String,
    /// Process of the broker, to say what it used
    #[arg(long)]
    pub(super) pid: Option<u32>,
}

#[derive(Args, Clone)]
pub struct Topic {
    /// Created if it does not exist
    #[arg(long, default_value = "millrace-perf")]
    topic: String,
    /// Partitions to use; a topic made for this run has so many
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    partitions: usize,
    /// Replicas of a topic made for this run [default: the broker's]
    #[arg(long, default_value_t = -1, hide_default_value = true)]
    replication: i16,
    /// Setting of a topic made for this run
    #[arg(long = "topic-config", value_name = "NAME=VALUE", value_parser = name_and_value)]
    topic_configs: Vec<(String, String)>,
}

/// Where load and sink run.
#[derive(Args, Clone)]
pub struct Cores {
    /// Core that makes the load
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Asks for events without pause: exact times, and takes all of that core
    #[arg(long)]
    pub spin: bool,
    /// Core for the sink that shows the generator's ceiling: the one the broker has
    #[arg(long)]
    pub sink_cpu: Option<usize>,
}

#[derive(Args, Clone)]
pub struct Timing {
    /// Seconds that count
    #[arg(long, default_value_t = 10.0, value_parser = some_seconds)]
    duration: f64,
    /// Seconds before them that do not
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    warm_up: f64,
    #[command(flatten)]
    cores: Cores,
    /// Seconds to measure the generator's ceiling for; 0 does not
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    ceiling: f64,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace perf produce --partitions 16 --batch-bytes 64KiB\n  millrace perf produce --rate 100 --pid $(pgrep -n millrace)"
)]
pub struct ProduceArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    topic: Topic,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    load: Load,
}

#[derive(Args, Clone)]
pub struct Load {
    /// Bytes of each record's value
    #[arg(long, default_value = "1KiB", value_parser = parse_size)]
    record_size: usize,
    /// Most bytes of a batch; it holds one record at the least
    #[arg(long, default_value = "64KiB", value_parser = parse_size)]
    batch_bytes: usize,
    /// Batches in one request, each for another partition
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    partitions_per_request: usize,
    /// Connections to each broker that leads partitions
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    connections: usize,
    /// Requests under way on each connection
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    in_flight: usize,
    /// Who must have a record: 0 nobody, 1 the leader, all
    #[arg(long, default_value = "all", value_parser = acks)]
    acks: i16,
    /// MiB of batches a second, open loop [default: as fast as it is answered]
    #[arg(long, value_name = "MIB", conflicts_with = "rate_requests")]
    rate: Option<f64>,
    /// Requests a second, open loop
    #[arg(long, value_name = "N")]
    rate_requests: Option<f64>,
    /// Ends after so many bytes of batches
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    bytes: Option<u64>,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  millrace perf latency --bootstrap 127.0.0.1:9092")]
pub struct LatencyArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    topic: Topic,
    #[command(flatten)]
    timing: Timing,
    /// Bytes of each record's value
    #[arg(long, default_value = "100", value_parser = parse_size)]
    record_size: usize,
    /// Who must have a record: 0 nobody, 1 the leader, all
    #[arg(long, default_value = "all", value_parser = acks)]
    acks: i16,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace perf consume --topic mine --partitions 16\n  millrace perf consume --tail --rate 100"
)]
pub struct ConsumeArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    topic: Topic,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    load: Load,
    /// Reads what comes while producing with the options above, instead of what is there
    #[arg(long)]
    tail: bool,
    /// Connections that read, to each broker
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    readers: usize,
    /// Most bytes of an answer
    #[arg(long, default_value = "4MiB", value_parser = parse_size)]
    max_bytes: usize,
    /// Most bytes of a partition in an answer
    #[arg(long, default_value = "1MiB", value_parser = parse_size)]
    partition_max_bytes: usize,
    /// Milliseconds a fetch waits for records
    #[arg(long, default_value_t = 500)]
    max_wait_ms: i32,
    /// Does not check the checksums of what was read
    #[arg(long)]
    no_crc: bool,
}

pub fn produce(args: ProduceArgs, json: Option<PathBuf>) -> Result<Done, PerfError> {
    let producing = producing(&args.load)?;
    let workload = workload(&args.topic, &args.timing, Some(producing), None);
    measure("produce", workload, &args.target, &args.timing, json)
}

pub fn latency(args: LatencyArgs, json: Option<PathBuf>) -> Result<Done, PerfError> {
    let producing = Producing {
        shape: BatchShape::plain(args.record_size),
        batch: BatchSize::Records(1),
        partitions_per_request: 1,
        spread: false,
        connections: 1,
        in_flight: 1,
        acks: args.acks,
        requests_per_second: None,
        bytes_max: None,
    };
    let workload = workload(&args.topic, &args.timing, Some(producing), None);
    measure("latency", workload, &args.target, &args.timing, json)
}

pub fn consume(args: ConsumeArgs, json: Option<PathBuf>) -> Result<Done, PerfError> {
    let consuming = Consuming {
        from: if args.tail {
            ReadFrom::Tail
        } else {
            ReadFrom::Beginning
        },
        readers: 1,
        connections: args.readers,
        max_bytes: args.max_bytes,
        partition_max_bytes: args.partition_max_bytes,
        max_wait_ms: args.max_wait_ms,
        check_crc: !args.no_crc,
    };
    let producing = if args.tail {
        Some(producing(&args.load)?)
    } else {
        None
    };
    let mut workload = workload(&args.topic, &args.timing, producing, Some(consuming));
    if !args.tail {
        // What is read in a warm-up would be missing at the end.
        workload.warm_up = Duration::ZERO;
    }
    measure("consume", workload, &args.target, &args.timing, json)
}

fn producing(load: &Load) -> Result<Producing, PerfError> {
    let per_request = load.partitions_per_request as f64;
    let requests_per_second = match (load.rate, load.rate_requests) {
        (Some(mib), _) => {
            let shape = BatchShape::plain(load.record_size);
            let batch = shape.batch_within(load.batch_bytes)?;
            Some(mib * f64::from(1 << 20) / (batch.bytes.len() as f64 * per_request))
        }
        (None, requests) => requests,
    };
    if requests_per_second.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err(PerfError::Usage("the rate must be above 0".into()));
    }
    Ok(Producing {
        shape: BatchShape::plain(load.record_size),
        batch: BatchSize::Bytes(load.batch_bytes),
        partitions_per_request: load.partitions_per_request,
        spread: false,
        connections: load.connections,
        in_flight: load.in_flight,
        acks: load.acks,
        requests_per_second,
        bytes_max: load.bytes,
    })
}

fn workload(
    topic: &Topic,
    timing: &Timing,
    producing: Option<Producing>,
    consuming: Option<Consuming>,
) -> Workload {
    Workload {
        topic: topic.topic.clone(),
        partitions: topic.partitions,
        replication: topic.replication,
        topic_configs: topic.topic_configs.clone(),
        producing,
        consuming,
        backfill: None,
        idle_connections: 0,
        warm_up: duration(timing.warm_up),
        duration: duration(timing.duration),
        cpu: timing.cores.cpu,
        spin: timing.cores.spin,
    }
}

/// Runs the load against the sink and then against the broker, and reports both.
fn measure(
    mode: &'static str,
    workload: Workload,
    target: &Target,
    timing: &Timing,
    json: Option<PathBuf>,
) -> Result<Done, PerfError> {
    let address = resolve(&target.bootstrap)?;
    let ceiling = if timing.ceiling > 0.0 && workload.producing.is_some() {
        Some(ceiling(&workload, timing)?)
    } else {
        None
    };
    let open_loop = workload
        .producing
        .as_ref()
        .is_some_and(|p| p.requests_per_second.is_some());
    let result = run::run(&workload, address, target.pid)?;
    let mut table = Table::default();
    table.run("", &result);
    if let Some(ceiling) = &ceiling {
        table.run("ceiling: ", ceiling);
    }
    let losses = report::losses(&result);
    let mut report = Report::new(mode, workload, result);
    report.notes = report::notes(&report.result, open_loop);
    report.notes.extend(losses.iter().cloned());
    report.ceiling = ceiling;
    finish(&report, &table, json)?;
    Ok(if losses.is_empty() {
        Done::Well
    } else {
        Done::WithFailures(losses)
    })
}

fn ceiling(workload: &Workload, timing: &Timing) -> Result<RunResult, PerfError> {
    let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0)), timing.cores.sink_cpu)?;
    let mut workload = workload.clone();
    workload.duration = duration(timing.ceiling);
    workload.warm_up = workload.warm_up.min(Duration::from_millis(500));
    let result = run::run(&workload, sink.address, None)?;
    sink.stop()?;
    Ok(result)
}
