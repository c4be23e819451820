//! Owns the mode that measures rebalances of consumer groups.
//! Does not know how members speak.
//! Invariant: a partition with two owners at once spoils the figures, and is said.

use super::values::{at_least_one, duration, some_seconds};
use super::{finish, load::Target, Done};
use crate::error::PerfError;
use crate::groups::{self, GroupsSpec, Protocol};
use crate::poll::pin_to_cpu;
use crate::report::{Report, Table};
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace perf groups --members 500 --partitions 1000\n  millrace perf groups --protocol classic --movers 50 --pid $(pgrep -n millrace)"
)]
pub struct GroupsArgs {
    #[command(flatten)]
    target: Target,
    /// Who shares out the partitions
    #[arg(long, value_enum, default_value = "classic")]
    protocol: Protocol,
    /// Created if it does not exist
    #[arg(long, default_value = "millrace-perf-groups")]
    topic: String,
    /// Partitions of the topic
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one)]
    partitions: usize,
    #[arg(long, default_value_t = 500, value_parser = at_least_one)]
    members: usize,
    /// Members that leave, come back and vanish
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    movers: usize,
    /// Seconds of silence after which a member counts as gone, where members say that
    #[arg(long, default_value_t = 10.0, value_parser = some_seconds)]
    session_timeout: f64,
    /// Seconds between heartbeats, where members say that
    #[arg(long, default_value_t = 3.0, value_parser = some_seconds)]
    heartbeat_interval: f64,
    /// Seconds a phase may take
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// Core that all members share
    #[arg(long)]
    cpu: Option<usize>,
}

pub fn groups(args: GroupsArgs, json: Option<PathBuf>) -> Result<Done, PerfError> {
    if let Some(cpu) = args.cpu {
        // The members' threads inherit it.
        pin_to_cpu(cpu)?;
    }
    let milliseconds = |seconds| duration(seconds).as_millis();
    let spec = GroupsSpec {
        protocol: args.protocol,
        topic: args.topic,
        partitions: args.partitions,
        members: args.members,
        movers: args.movers,
        session_timeout_ms: i32::try_from(milliseconds(args.session_timeout))
            .map_err(|_| PerfError::Usage("--session-timeout is too long".into()))?,
        heartbeat_interval_ms: milliseconds(args.heartbeat_interval) as u64,
        timeout_seconds: args.timeout,
    };
    let measured = groups::measure(&spec, &args.target.bootstrap, args.target.pid)?;
    let mut table = Table::default();
    for phase in &measured.phases {
        let used = phase.usage.as_ref().map_or(String::new(), |usage| {
            format!(", {:.2} s of the broker's CPU", usage.cpu_seconds)
        });
        table.line(
            format!("{:?}, then {} members", phase.event, phase.members),
            format!(
                "{:.2} s, {:.0} partition seconds without an owner, {} requests{used}",
                phase.seconds, phase.unowned_partition_seconds, phase.requests
            ),
        );
    }
    let overlaps = measured.overlaps;
    let done = finish(&Report::new("groups", spec, measured), &table, json)?;
    match overlaps {
        0 => Ok(done),
        _ => Ok(Done::WithFailures(vec![format!(
            "{overlaps} times a member was given what another one still had"
        )])),
    }
}
