//! Owns the command line of `millrace perf`: one mode, one subcommand.
//! Does not know how anything is measured.
//! Invariant: figures go to standard output and the JSON file; what spoils them is a failure, said with them.

mod groups;
mod load;
mod machine;
mod scenarios;
mod values;

use crate::error::PerfError;
use crate::report::{Report, Table};
use clap::Subcommand;
use serde::Serialize;
use std::path::PathBuf;

/// Measures Kafka brokers over the wire.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    mode: Mode,
    /// Also writes the report as JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Mode {
    /// Runs scenarios against one broker or several
    Run(scenarios::RunArgs),
    /// Lists the scenarios there are, with their reasons
    Scenarios(scenarios::ListArgs),
    /// Makes an HTML page of a JSON report of scenarios
    Page(scenarios::PageArgs),
    /// Produces, as fast as it is answered or at a rate
    Produce(load::ProduceArgs),
    /// Produces one small record at a time on one connection
    Latency(load::LatencyArgs),
    /// Reads a topic from the beginning, or its tail while it is produced to
    Consume(load::ConsumeArgs),
    /// Lets the members of a large group come and go, and times how long until all is shared out again
    Groups(groups::GroupsArgs),
    /// Holds connections that say nothing (0: looks at an idle broker)
    Idle(machine::IdleArgs),
    /// Starts a broker and times its first answers
    Startup(machine::StartupArgs),
    /// Measures what this machine's disk and loopback can do at most
    Limits(machine::LimitsArgs),
    /// Serves as a broker that stores nothing
    Sink(machine::SinkArgs),
}

/// How a call ended that had figures to show.
#[derive(Debug, PartialEq)]
pub enum Done {
    Well,
    /// The figures do not count, or not all of them.
    WithFailures(Vec<String>),
}

/// Does what was asked.
pub fn run(args: Args) -> Result<Done, PerfError> {
    let json = args.json;
    match args.mode {
        Mode::Run(args) => scenarios::run(&args, json),
        Mode::Scenarios(args) => scenarios::list(&args, json),
        Mode::Page(args) => scenarios::page(&args),
        Mode::Produce(args) => load::produce(args, json),
        Mode::Latency(args) => load::latency(args, json),
        Mode::Consume(args) => load::consume(args, json),
        Mode::Groups(args) => groups::groups(args, json),
        Mode::Idle(args) => machine::idle(args, json),
        Mode::Startup(args) => machine::startup(args, json),
        Mode::Limits(args) => machine::limits(args, json),
        Mode::Sink(args) => machine::sink(args),
    }
}

/// Shows a report and writes it where that was asked for.
fn finish<W: Serialize, R: Serialize>(
    report: &Report<W, R>,
    table: &Table,
    json: Option<PathBuf>,
) -> Result<Done, PerfError> {
    print!("{table}");
    for note in &report.notes {
        println!("note: {note}");
    }
    if let Some(path) = json {
        crate::report::write(report, &path)?;
    }
    Ok(Done::Well)
}
