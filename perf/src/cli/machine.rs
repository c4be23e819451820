//! Owns the modes around a load: idling, starting, the machine's limits, the sink.
//! Does not know how any of it is measured.
//! Invariant: none of them makes a load, so none has a ceiling of the generator.

use super::values::{duration, some_seconds};
use super::{finish, load::Target, Done};
use crate::client::resolve;
use crate::error::PerfError;
use crate::report::{Report, Table};
use crate::sink::Sink;
use crate::startup::{self, End, StartupSpec};
use crate::units::{parse_bytes, show_bytes};
use crate::{idle, limits};
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace perf idle --connections 1000 --pid $(pgrep -n millrace)"
)]
pub struct IdleArgs {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Seconds to hold them for
    #[arg(long, default_value_t = 10.0, value_parser = some_seconds)]
    duration: f64,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace perf startup --topic first --create -- millrace serve --data-dir /tmp/fresh"
)]
pub struct StartupArgs {
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
#[command(
    after_help = "Examples:\n  millrace perf limits --dir /srv/millrace --receiver-cpu 0 --sender-cpu 1"
)]
pub struct LimitsArgs {
    /// Directory on the disk to measure
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Size of the file to write over
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    file_bytes: u64,
    /// Seconds for each figure
    #[arg(long, default_value_t = 3.0, value_parser = some_seconds)]
    duration: f64,
    /// Core that receives and writes, as the broker does
    #[arg(long)]
    receiver_cpu: Option<usize>,
    /// Core that sends, as the load does
    #[arg(long)]
    sender_cpu: Option<usize>,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  millrace perf sink --listen 127.0.0.1:9092")]
pub struct SinkArgs {
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    listen: String,
    /// Core to serve on
    #[arg(long)]
    cpu: Option<usize>,
}

pub fn idle(args: IdleArgs, json: Option<PathBuf>) -> Result<Done, PerfError> {
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

pub fn startup(args: StartupArgs, json: Option<PathBuf>) -> Result<Done, PerfError> {
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

pub fn limits(args: LimitsArgs, json: Option<PathBuf>) -> Result<Done, PerfError> {
    let time = duration(args.duration);
    let measured = limits::Limits {
        disk: limits::disk(&args.dir, args.file_bytes, args.receiver_cpu, time)?,
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

pub fn sink(args: SinkArgs) -> Result<Done, PerfError> {
    let sink = Sink::start(resolve(&args.listen)?, args.cpu)?;
    println!("a sink listens on {}; it stores nothing", sink.address);
    sink.join()?;
    Ok(Done::Well)
}
