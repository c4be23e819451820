//! Owns the form in which figures leave: JSON, and a table for people.
//! Does not know how they were measured.
//! Invariant: whatever the table shows is in the JSON too, with its unit in its name.

use crate::account::{LatencySummary, Outcome};
use crate::error::PerfError;
use crate::run::RunResult;
use crate::units::{show_bytes, show_us};
use millrace_net::wire::error_code;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Changes whenever a field changes its meaning or goes away.
pub const FORMAT: u32 = 2;
/// Above this the load thread may be what was measured.
const BUSY_PERCENT_NOTED: f64 = 90.0;

/// Where the figures were taken.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub kernel: String,
    pub cpu_model: String,
    pub cpus: usize,
    pub memory_bytes: u64,
}

impl Machine {
    /// What can be found out; fields that cannot are empty.
    pub fn probe() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value
                .map(|(_, value)| value.trim().to_string())
                .unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 = memory
            .split(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        Machine {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
            cpu_model: field(&read("/proc/cpuinfo"), "model name"),
            // Those of the machine, not those this thread may run on.
            cpus: read("/proc/cpuinfo")
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            memory_bytes: memory_kib << 10,
        }
    }
}

/// Everything about one call of the program.
#[derive(Clone, Debug, Serialize)]
pub struct Report<W: Serialize, R: Serialize> {
    pub format: u32,
    pub tool: &'static str,
    pub version: &'static str,
    pub mode: &'static str,
    pub unix_ms: u64,
    pub machine: Machine,
    pub workload: W,
    pub result: R,
    /// The same workload against the generator's own sink: what this generator could have shown at most.
    pub ceiling: Option<RunResult>,
    /// What a reader of the figures must know.
    pub notes: Vec<String>,
}

impl<W: Serialize, R: Serialize> Report<W, R> {
    pub fn new(mode: &'static str, workload: W, result: R) -> Self {
        Report {
            format: FORMAT,
            tool: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            mode,
            unix_ms: unix_ms(),
            machine: Machine::probe(),
            workload,
            result,
            ceiling: None,
            notes: Vec::new(),
        }
    }
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |d| d.as_millis() as u64)
}

/// A report as JSON.
pub fn to_json(report: &impl Serialize) -> Result<String, PerfError> {
    let text = serde_json::to_string_pretty(report);
    text.map_err(|error| PerfError::io("cannot make JSON of the report")(error.into()))
}

/// Writes a report to `path` as JSON.
pub fn write(report: &impl Serialize, path: &Path) -> Result<(), PerfError> {
    let what = format!("cannot write {}", path.display());
    fs::write(path, to_json(report)? + "\n").map_err(PerfError::io(what))
}

/// What a reader of the figures of `result` must know.
pub fn notes(result: &RunResult, open_loop: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if result.generator.busy_percent > BUSY_PERCENT_NOTED {
        notes.push(format!(
            "the load thread was busy {:.0} % of the time: it may be what limits",
            result.generator.busy_percent
        ));
    }
    if let Some(stalls) = result.stalls.filter(|stalls| stalls.count > 0) {
        notes.push(format!(
            "the machine stood still for {:.2} s in {} pauses, the longest of {:.2} s: latency and rate are not the broker's alone",
            stalls.seconds, stalls.count, stalls.longest_seconds
        ));
    }
    if result.produced.is_some() && !open_loop {
        notes.push("no rate was set: latency is that of a closed loop with full queues, from the actual time of sending".into());
    }
    for (name, outcome) in outcomes(result).filter(|(_, outcome)| outcome.unsent > 0) {
        notes.push(format!(
            "{name}: the rate was not reached, {} requests never left; their wait is in the latency",
            outcome.unsent
        ));
    }
    notes
}

/// What was refused or lost; without it the figures count.
pub fn losses(result: &RunResult) -> Vec<String> {
    let mut losses = Vec::new();
    for (name, outcome) in outcomes(result) {
        for (code, count) in &outcome.errors {
            losses.push(format!(
                "{name}: {count} partitions refused with {}",
                error_code::describe(*code)
            ));
        }
        if outcome.requests == 0 {
            losses.push(format!(
                "{name}: nothing was answered in the time that counts"
            ));
        }
        if outcome.unanswered > 0 {
            losses.push(format!(
                "{name}: {} requests were never answered",
                outcome.unanswered
            ));
        }
    }
    if result.unread > 0 {
        losses.push(format!(
            "{} batches were acknowledged but not read in time",
            result.unread
        ));
    }
    losses
}

fn outcomes(result: &RunResult) -> impl Iterator<Item = (&'static str, &Outcome)> {
    let all = [
        ("produce", &result.produced),
        ("fetch", &result.consumed),
        ("fetch of the history", &result.backfilled),
    ];
    all.into_iter()
        .filter_map(|(name, outcome)| Some((name, outcome.as_ref()?)))
}

/// Lines of `name  value`, aligned.
#[derive(Default)]
pub struct Table {
    lines: Vec<(String, String)>,
}

impl Table {
    pub fn line(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.lines.push((name.into(), value.into()));
    }

    pub fn latency(&mut self, name: &str, latency: &LatencySummary) {
        let shown = [
            ("p50", latency.p50_us),
            ("p90", latency.p90_us),
            ("p99", latency.p99_us),
            ("p99.9", latency.p99_9_us),
            ("p99.99", latency.p99_99_us),
            ("max", latency.max_us),
        ];
        let shown = shown.map(|(name, us)| format!("{name} {}", show_us(us)));
        self.line(name, shown.join(", "));
    }

    fn outcome(&mut self, name: &str, outcome: &Outcome) {
        let value = format!(
            "{:.1} MiB/s, {:.0} requests/s, {:.0} records/s over {:.1} s",
            outcome.mib_per_second,
            outcome.requests_per_second,
            outcome.records_per_second,
            outcome.seconds
        );
        self.line(name, value);
    }

    /// All figures of a run, names beginning with `prefix`.
    pub fn run(&mut self, prefix: &str, result: &RunResult) {
        if let Some(outcome) = &result.produced {
            self.outcome(&format!("{prefix}produce"), outcome);
            self.latency(&format!("{prefix}produce latency"), &outcome.latency);
        }
        if let Some(outcome) = &result.consumed {
            self.outcome(&format!("{prefix}fetch"), outcome);
            // That of a tail's fetches is how long they waited for records.
            if result.end_to_end.is_none() {
                self.latency(&format!("{prefix}fetch latency"), &outcome.latency);
            }
        }
        if let Some(latency) = &result.end_to_end {
            self.latency(&format!("{prefix}end to end"), latency);
        }
        if let Some(outcome) = &result.backfilled {
            self.outcome(&format!("{prefix}history read"), outcome);
        }
        if let Some(broker) = &result.broker {
            let per_gib = broker
                .cpu_seconds_per_gib
                .map(|s| format!(", {s:.2} CPU s per GiB"));
            self.line(
                format!("{prefix}broker"),
                format!(
                    "{:.1} % CPU{}, {} resident (peak {}), {} to storage",
                    broker.cpu_percent,
                    per_gib.unwrap_or_default(),
                    show_bytes(broker.usage.rss_bytes),
                    show_bytes(broker.usage.rss_peak_bytes),
                    show_bytes(broker.usage.storage_write_bytes)
                ),
            );
        }
        self.line(
            format!("{prefix}generator"),
            format!("busy {:.0} %", result.generator.busy_percent),
        );
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self
            .lines
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        for (name, value) in &self.lines {
            writeln!(f, "{name:width$}  {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Account, Carried, Window};
    use crate::clock::Nanos;
    use crate::run::GeneratorUsage;

    fn result() -> RunResult {
        let mut account = Account::new(Window {
            from: Nanos(0),
            to: Nanos(1_000_000_000),
        });
        account.answered(
            Nanos(0),
            Nanos(2_000_000),
            Carried {
                bytes: 5 << 20,
                records: 7,
            },
        );
        account.refused(6);
        RunResult {
            produced: Some(account.outcome()),
            consumed: None,
            end_to_end: None,
            end_to_end_curve: Vec::new(),
            end_to_end_series: Vec::new(),
            backfilled: None,
            unread: 0,
            empty_fetches: 0,
            batch_bytes: Some(64),
            generator: GeneratorUsage {
                busy_percent: 95.0,
                cpu_seconds: 0.5,
            },
            broker: None,
            broker_series: Vec::new(),
            stalls: None,
        }
    }

    #[test]
    fn the_json_has_the_names_that_scripts_read() {
        let mut report = Report::new("produce", "anything", result());
        report.ceiling = Some(result());
        let json = serde_json::to_value(&report).expect("serializes");
        assert_eq!(json["format"], FORMAT);
        assert_eq!(json["mode"], "produce");
        let produced = &json["result"]["produced"];
        assert_eq!(produced["mib_per_second"], 5.0);
        assert_eq!(produced["records"], 7);
        assert_eq!(produced["errors"]["6"], 1);
        let latency = produced["latency"].as_object().expect("an object");
        let names: Vec<&str> = latency.keys().map(String::as_str).collect();
        let expected = [
            "max_us",
            "mean_us",
            "p50_us",
            "p90_us",
            "p99_99_us",
            "p99_9_us",
            "p99_us",
            "samples",
        ];
        assert_eq!(names, expected);
        assert_eq!(json["ceiling"]["produced"]["bytes"], 5 << 20);
        assert!(json["result"]["broker"].is_null());
        assert!(json["machine"]["cpus"].as_u64() > Some(0));
    }

    #[test]
    fn what_spoils_figures_is_said() {
        let said = [notes(&result(), false), losses(&result())]
            .concat()
            .join("\n");
        for part in [
            "busy 95 %",
            "closed loop",
            "1 partitions refused with NOT_LEADER_OR_FOLLOWER",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        let mut clean = result();
        clean.generator.busy_percent = 10.0;
        clean.produced.as_mut().expect("there").errors.clear();
        assert_eq!(notes(&clean, true), Vec::<String>::new());
        assert_eq!(losses(&clean), Vec::<String>::new());
        clean.produced.as_mut().expect("there").requests = 0;
        assert_eq!(losses(&clean).len(), 1);
    }

    #[test]
    fn the_table_is_aligned() {
        let mut table = Table::default();
        table.line("a", "1");
        table.line("long", "2");
        assert_eq!(table.to_string(), "a     1\nlong  2\n");
    }
}
