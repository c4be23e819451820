//! Owns the modes about scenarios: running them, listing them, making a page of their report.
//! Does not know what a scenario may say.
//! Invariant: what one broker's run fails with ends that run only, and the whole fails in the end.

use super::load::Cores;
use super::values::{duration, name_and_value, seconds, some_seconds};
use super::Done;
use crate::error::PerfError;
use crate::measure::{measure, Against, BrokerRun, Options};
use crate::report::{self, Machine, Table, FORMAT};
use crate::scenario::{self, Scenario};
use crate::units::parse_bytes;
use crate::{html, units};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A report of scenarios is at the most this large: an hour of three brokers is a tenth of it.
const REPORT_BYTES_MAX: u64 = 1 << 30;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace perf run one-record max-throughput\n  \
    millrace perf run fixed-20mb --against millrace=127.0.0.1:9092 --against kafka=127.0.0.1:9192 --html report.html\n  \
    millrace perf run ./my-scenario.toml --json report.json"
)]
pub struct RunArgs {
    /// Names, as `millrace perf scenarios` lists them, or paths of TOML files
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// A broker and what to call it; repeat it to compare [default: millrace=127.0.0.1:9092]
    #[arg(long, value_name = "NAME=HOST:PORT[,pid=N]")]
    against: Vec<Against>,
    /// Also writes a page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Setting of every topic, beside the scenario's
    #[arg(long = "topic-config", value_name = "NAME=VALUE", value_parser = name_and_value)]
    topic_configs: Vec<(String, String)>,
    /// Seconds that count, instead of the scenario's
    #[arg(long, value_parser = some_seconds)]
    duration: Option<f64>,
    /// Seconds before them, instead of the scenario's
    #[arg(long, value_parser = seconds)]
    warm_up: Option<f64>,
    /// Produces no larger history than this before it is read
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    history_max: Option<u64>,
    /// Seconds to measure the generator's own ceiling for
    #[arg(long, default_value_t = 2.0, value_parser = some_seconds)]
    ceiling: f64,
    #[command(flatten)]
    cores: Cores,
    /// Leaves the topics that were made
    #[arg(long)]
    keep_topics: bool,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  millrace perf scenarios\n  millrace perf scenarios one-record --json one-record.json"
)]
pub struct ListArgs {
    /// Only these: names or paths
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  millrace perf page report.json --html report.html")]
pub struct PageArgs {
    /// As `millrace perf run --json` or `perf/compare --json` wrote it
    report: PathBuf,
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
}

/// A scenario and its name.
#[derive(Serialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    scenario: Scenario,
}

/// What came of one scenario.
#[derive(Serialize)]
struct Measured {
    name: String,
    reason: String,
    scenario: Scenario,
    runs: Vec<BrokerRun>,
    /// Runs that came to nothing.
    errors: Vec<RunError>,
}

#[derive(Serialize)]
struct RunError {
    broker: String,
    error: String,
}

#[derive(Serialize)]
struct ScenarioReport {
    format: u32,
    tool: &'static str,
    version: &'static str,
    mode: &'static str,
    unix_ms: u64,
    machine: Machine,
    scenarios: Vec<Measured>,
}

pub fn run(args: &RunArgs, json: Option<PathBuf>) -> Result<Done, PerfError> {
    let found = args.scenarios.iter().map(|name| scenario::find(name));
    let found: Vec<(String, Scenario)> = found.collect::<Result<_, _>>()?;
    let brokers = if args.against.is_empty() {
        let usual = "millrace=127.0.0.1:9092".parse();
        vec![usual.expect("is of that form")]
    } else {
        args.against.clone()
    };
    let options = Options {
        topic_configs: args.topic_configs.clone(),
        duration: args.duration.map(duration),
        warm_up: args.warm_up.map(duration),
        history_bytes_max: args.history_max,
        ceiling: duration(args.ceiling),
        cpu: args.cores.cpu,
        sink_cpu: args.cores.sink_cpu,
        spin: args.cores.spin,
        keep_topics: args.keep_topics,
    };
    let mut failures = Vec::new();
    let mut measured = Vec::new();
    for (name, scenario) in found {
        println!("{name}: {}", scenario.reason);
        for need in scenario.needs() {
            println!("  needs {need}");
        }
        let mut one = Measured {
            name,
            reason: scenario.reason.clone(),
            scenario,
            runs: Vec::new(),
            errors: Vec::new(),
        };
        for broker in &brokers {
            let at = format!("{} against {}", one.name, broker.name);
            match measure(&one.name, &one.scenario, broker, &options) {
                Ok(run) => {
                    print!("{}", table(&run));
                    failures.extend(run.failures.iter().map(|why| format!("{at}: {why}")));
                    one.runs.push(run);
                }
                Err(error) => {
                    failures.push(format!("{at}: {error}"));
                    one.errors.push(RunError {
                        broker: broker.name.clone(),
                        error: error.to_string(),
                    });
                }
            }
        }
        measured.push(one);
    }
    let report = ScenarioReport {
        format: FORMAT,
        tool: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        mode: "run",
        unix_ms: report::unix_ms(),
        machine: Machine::probe(),
        scenarios: measured,
    };
    if let Some(path) = json {
        report::write(&report, &path)?;
    }
    if let Some(path) = &args.html {
        write_page(&report::to_json(&report)?, path)?;
    }
    Ok(if failures.is_empty() {
        Done::Well
    } else {
        Done::WithFailures(failures)
    })
}

fn table(run: &BrokerRun) -> Table {
    let mut table = Table::default();
    let name = &run.broker;
    if let Some(baseline) = &run.baseline {
        table.run(&format!("{name}, without the backfill: "), baseline);
    }
    table.run(&format!("{name}: "), &run.result);
    for (what, ceiling) in [
        ("ceiling", &run.ceiling.maximum),
        ("ceiling at this rate", &run.ceiling.same),
    ] {
        if let Some(ceiling) = ceiling {
            table.run(&format!("{what}: "), ceiling);
        }
    }
    for note in &run.notes {
        table.line(format!("{name}: note"), note);
    }
    table
}

pub fn list(args: &ListArgs, json: Option<PathBuf>) -> Result<Done, PerfError> {
    let names: Vec<String> = if args.scenarios.is_empty() {
        scenario::names().map(String::from).collect()
    } else {
        args.scenarios.clone()
    };
    let found = names.iter().map(|name| scenario::find(name));
    let found: Vec<Named> = found
        .map(|found| found.map(|(name, scenario)| Named { name, scenario }))
        .collect::<Result<_, _>>()?;
    let mut table = Table::default();
    for named in &found {
        table.line(&named.name, &named.scenario.reason);
    }
    print!("{table}");
    if let Some(path) = json {
        report::write(&found, &path)?;
    }
    Ok(Done::Well)
}

pub fn page(args: &PageArgs) -> Result<Done, PerfError> {
    let shown = args.report.display();
    let what = || format!("cannot read {shown}");
    let size = std::fs::metadata(&args.report)
        .map_err(PerfError::io(what()))?
        .len();
    if size > REPORT_BYTES_MAX {
        let most = units::show_bytes(REPORT_BYTES_MAX);
        return Err(PerfError::Usage(format!("{shown} is larger than {most}")));
    }
    let json = std::fs::read_to_string(&args.report).map_err(PerfError::io(what()))?;
    let value: serde_json::Value = serde_json::from_str(&json)
        .map_err(|error| PerfError::Usage(format!("{shown} is no JSON: {error}")))?;
    if value["format"] != FORMAT || !value["scenarios"].is_array() {
        return Err(PerfError::Usage(format!(
            "{shown} is no report of scenarios of format {FORMAT}"
        )));
    }
    write_page(&json, &args.html)?;
    Ok(Done::Well)
}

fn write_page(json: &str, path: &Path) -> Result<(), PerfError> {
    let what = format!("cannot write {}", path.display());
    std::fs::write(path, html::page(json)).map_err(PerfError::io(what))
}
