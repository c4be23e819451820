//! Owns the command line of `millrace-perf` and what it prints.
//! Does not know how anything is measured.
//! Invariant: figures go to standard output and the JSON file; what went wrong goes to standard error.

use clap::{Args, Parser, Subcommand};
use millrace_perf::client::resolve;
use millrace_perf::error::PerfError;
use millrace_perf::report::{self, Report, Table};
use millrace_perf::run::{self, Consuming, Producing, ReadFrom, RunResult, Workload};
use millrace_perf::sink::Sink;
use millrace_perf::startup::{self, End, StartupSpec};
use millrace_perf::units::{parse_bytes, parse_size, show_bytes};
use millrace_perf::{idle, limits, template};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures Kafka brokers over the wire.
///
/// Latencies count from when a request was meant to leave. Every report of producers begins with the same load
/// against a sink that answers at once: what this generator could have shown at most.
#[derive(Parser)]
#[command(name = "millrace-perf", version)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
    /// Also writes the report as JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Mode {
    /// Produces, as fast as it is answered or at a rate
    Produce(ProduceArgs),
    /// Produces one small record at a time on one connection
    Latency(LatencyArgs),
    /// Reads a topic from the beginning, or its tail while it is produced to
    Consume(ConsumeArgs),
    /// Holds connections that say nothing (0: looks at an idle broker)
    Idle(IdleArgs),
    /// Starts a broker and times its first answers
    Startup(StartupArgs),
    /// Measures what this machine's disk and loopback can do at most
    Limits(LimitsArgs),
    /// Serves as a broker that stores nothing
    Sink(SinkArgs),
}

#[derive(Args, Clone)]
struct Target {
    /// The broker
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    bootstrap: String,
    /// Process of the broker, to say what it used
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Args, Clone)]
struct Topic {
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

#[derive(Args, Clone)]
struct Timing {
    /// Seconds that count
    #[arg(long, default_value_t = 10.0, value_parser = some_seconds)]
    duration: f64,
    /// Seconds before them that do not
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    warm_up: f64,
    /// Core that makes the load
    #[arg(long)]
    cpu: Option<usize>,
    /// Asks for events without pause: exact times, and takes all of that core
    #[arg(long)]
    spin: bool,
    /// Core for the sink that shows the generator's ceiling: the one the broker has
    #[arg(long)]
    sink_cpu: Option<usize>,
    /// Seconds to measure the generator's ceiling for; 0 does not
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    ceiling: f64,
}

#[derive(Args)]
struct ProduceArgs {
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
struct Load {
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
struct LatencyArgs {
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
struct ConsumeArgs {
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

#[derive(Args)]
struct IdleArgs {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Seconds to hold them for
    #[arg(long, default_value_t = 10.0, value_parser = some_seconds)]
    duration: f64,
}

#[derive(Args)]
struct StartupArgs {
    /// Where the broker will listen
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    bootstrap: String,
    /// Waits also until a record is acknowledged in this topic
    #[arg(long)]
    topic: Option<String>,
    /// Creates that topic first
    #[arg(long, requires = "topic")]
    create: bool,
    /// Seconds to wait for it
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// How to end it when all is measured
    #[arg(long, value_enum, default_value = "term")]
    end: End,
    /// The command that starts the broker
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct LimitsArgs {
    /// Directory on the disk to measure
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Size of the file to write over
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    file_bytes: u64,
    /// Seconds for each figure
    #[arg(long, default_value_t = 3.0, value_parser = some_seconds)]
    duration: f64,
    /// Core that receives, as the broker does
    #[arg(long)]
    receiver_cpu: Option<usize>,
    /// Core that sends, as the load does
    #[arg(long)]
    sender_cpu: Option<usize>,
}

#[derive(Args)]
struct SinkArgs {
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    listen: String,
    /// Core to serve on
    #[arg(long)]
    cpu: Option<usize>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number of at least 1".into()),
        Ok(number) => Ok(number),
    }
}

/// A day is more than any run needs, and keeps all sums of times small.
const SECONDS_MAX: f64 = 86_400.0;

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!(
            "must be a number of seconds from 0 to {SECONDS_MAX}"
        )),
    }
}

fn some_seconds(text: &str) -> Result<f64, String> {
    seconds(text).and_then(|seconds| {
        if seconds > 0.0 {
            Ok(seconds)
        } else {
            Err("must be above 0".into())
        }
    })
}

fn acks(text: &str) -> Result<i16, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        "all" | "-1" => Ok(-1),
        _ => Err("must be 0, 1 or all".into()),
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_string(), value.to_string()))
}

fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match call(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("millrace-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked; whether nothing was refused or lost.
fn call(cli: Cli) -> Result<bool, PerfError> {
    let json = cli.json;
    match cli.mode {
        Mode::Produce(args) => {
            let producing = producing(&args.load)?;
            let workload = workload(&args.topic, &args.timing, Some(producing), None);
            measure("produce", workload, &args.target, &args.timing, json)
        }
        Mode::Latency(args) => {
            let producing = Producing {
                record_bytes: args.record_size,
                batch_bytes: 0,
                partitions_per_request: 1,
                connections: 1,
                in_flight: 1,
                acks: args.acks,
                requests_per_second: None,
                bytes_max: None,
            };
            let workload = workload(&args.topic, &args.timing, Some(producing), None);
            measure("latency", workload, &args.target, &args.timing, json)
        }
        Mode::Consume(args) => {
            let consuming = Consuming {
                from: if args.tail {
                    ReadFrom::Tail
                } else {
                    ReadFrom::Beginning
                },
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
        Mode::Idle(args) => {
            let address = resolve(&args.target.bootstrap)?;
            let held = idle::hold(
                address,
                args.connections,
                duration(args.duration),
                args.target.pid,
            )?;
            let mut table = Table::default();
            table.line(
                "connections",
                format!("{} made in {:.2} s", held.connections, held.connect_seconds),
            );
            if let (Some(usage), Some(cpu)) = (&held.usage, held.cpu_percent) {
                table.line(
                    "broker",
                    format!("{cpu:.4} % CPU, {} resident", show_bytes(usage.rss_bytes)),
                );
            }
            if let Some(bytes) = held.rss_bytes_per_connection {
                table.line("memory", format!("{bytes:.0} bytes for each connection"));
            }
            finish(&Report::new("idle", (), held), &table, json)
        }
        Mode::Startup(args) => {
            let address = resolve(&args.bootstrap)?;
            let spec = StartupSpec {
                command: args.command,
                bootstrap: args.bootstrap,
                topic: args.topic,
                create: args.create,
                timeout_seconds: args.timeout,
                end: args.end,
            };
            let timed = startup::time(&spec, address)?;
            let mut table = Table::default();
            table.line("process", timed.pid.to_string());
            table.line("accepts after", format!("{:.1} ms", timed.connected_ms));
            table.line("answers after", format!("{:.1} ms", timed.answered_ms));
            if let Some(ms) = timed.acknowledged_ms {
                table.line("acknowledges after", format!("{ms:.1} ms"));
            }
            if let Some(ms) = timed.stop_ms {
                table.line("stops in", format!("{ms:.1} ms"));
            }
            finish(&Report::new("startup", spec, timed), &table, json)
        }
        Mode::Limits(args) => {
            let time = duration(args.duration);
            let measured = limits::Limits {
                disk: limits::disk(&args.dir, args.file_bytes, time)?,
                loopback: limits::loopback(args.receiver_cpu, args.sender_cpu, time)?,
            };
            let mut table = Table::default();
            let disk = &measured.disk;
            table.line(
                "disk, sequential",
                format!("{:.0} MiB/s durable", disk.sequential_mib_per_second),
            );
            table.latency("flush after 8 MiB", &disk.group_flush);
            table.latency("flush after 4 KiB", &disk.small_flush);
            table.latency("write and flush of 4 KiB", &disk.small_durable_write);
            let loopback = &measured.loopback;
            table.line(
                "loopback with CRC-32C",
                format!(
                    "{:.0} MiB/s, {:.2} CPU s per GiB",
                    loopback.mib_per_second, loopback.receiver_cpu_seconds_per_gib
                ),
            );
            finish(&Report::new("limits", (), measured), &table, json)
        }
        Mode::Sink(args) => {
            let sink = Sink::start(resolve(&args.listen)?, args.cpu)?;
            println!("a sink listens on {}; it stores nothing", sink.address);
            sink.join()?;
            Ok(true)
        }
    }
}

fn producing(load: &Load) -> Result<Producing, PerfError> {
    let per_request = load.partitions_per_request as f64;
    let requests_per_second = match (load.rate, load.rate_requests) {
        (Some(mib), _) => {
            let batch = template::batch_within(load.record_size, load.batch_bytes)?;
            Some(mib * f64::from(1 << 20) / (batch.bytes.len() as f64 * per_request))
        }
        (None, requests) => requests,
    };
    if requests_per_second.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err(PerfError::Usage("the rate must be above 0".into()));
    }
    Ok(Producing {
        record_bytes: load.record_size,
        batch_bytes: load.batch_bytes,
        partitions_per_request: load.partitions_per_request,
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
        warm_up: duration(timing.warm_up),
        duration: duration(timing.duration),
        cpu: timing.cpu,
        spin: timing.spin,
    }
}

/// Runs the load against the sink and then against the broker, and reports both.
fn measure(
    mode: &'static str,
    workload: Workload,
    target: &Target,
    timing: &Timing,
    json: Option<PathBuf>,
) -> Result<bool, PerfError> {
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
    let failed = result.has_failures();
    let mut report = Report::new(mode, workload, result);
    report.notes = report::notes(&report.result, open_loop);
    report.ceiling = ceiling;
    Ok(finish(&report, &table, json)? && !failed)
}

fn ceiling(workload: &Workload, timing: &Timing) -> Result<RunResult, PerfError> {
    let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0)), timing.sink_cpu)?;
    let mut workload = workload.clone();
    workload.duration = duration(timing.ceiling);
    workload.warm_up = workload.warm_up.min(Duration::from_millis(500));
    let result = run::run(&workload, sink.address, None)?;
    sink.stop()?;
    Ok(result)
}

fn finish<W: Serialize, R: Serialize>(
    report: &Report<W, R>,
    table: &Table,
    json: Option<PathBuf>,
) -> Result<bool, PerfError> {
    print!("{table}");
    for note in &report.notes {
        println!("note: {note}");
    }
    if let Some(path) = json {
        report.write(&path)?;
    }
    Ok(true)
}
