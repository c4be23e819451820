//! Owns measuring one scenario against one broker: filling the history, finding the maximum, the run, the ceiling.
//! Does not know how a broker is started, nor how figures are shown.
//! Invariant: a figure that the load generator itself may have limited is a failure, and so is a request that was refused.

use crate::account::Outcome;
use crate::client::{resolve, Client};
use crate::error::PerfError;
use crate::process;
use crate::report;
use crate::run::{self, RunResult, Workload};
use crate::scenario::{Rates, Scenario, TopicNames};
use crate::sink::Sink;
use serde::Serialize;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The generator must be able to show this many times the result at the least, or it may be what was measured.
pub const CEILING_FACTOR_MIN: f64 = 1.3;
/// For how long the maximum is looked for, of which a share is then measured.
const CALIBRATION: Duration = Duration::from_secs(5);
/// What a sink gets to remember of a history; it needs little, as every answer of it is the same.
const SINK_HISTORY_BYTES_MAX: u64 = 2 << 30;
/// Of the warm-up, that of the ceiling: there is no page cache to fill and nothing to compile.
const CEILING_WARM_UP: Duration = Duration::from_millis(300);
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker to measure, as in `kafka=127.0.0.1:9092` or `kafka=127.0.0.1:9092,pid=17`.
#[derive(Clone, Debug, PartialEq)]
pub struct Against {
    pub name: String,
    pub bootstrap: String,
    pub pid: Option<u32>,
}

impl FromStr for Against {
    type Err = String;

    fn from_str(text: &str) -> Result<Against, String> {
        let wrong =
            || format!("`{text}` is not of the form NAME=HOST:PORT or NAME=HOST:PORT,pid=N");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (bootstrap, pid) = match rest.split_once(",pid=") {
            Some((bootstrap, pid)) => (bootstrap, Some(pid.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let has_port = bootstrap
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if name.is_empty() || !has_port {
            return Err(wrong());
        }
        Ok(Against {
            name: name.into(),
            bootstrap: bootstrap.into(),
            pid,
        })
    }
}

/// How scenarios are run, beyond what they say themselves.
#[derive(Clone, Debug)]
pub struct Options {
    /// For every topic that is made.
    pub topic_configs: Vec<(String, String)>,
    /// Instead of the scenario's.
    pub duration: Option<Duration>,
    pub warm_up: Option<Duration>,
    pub history_bytes_max: Option<u64>,
    /// How long the generator's ceiling is measured.
    pub ceiling: Duration,
    pub cpu: Option<usize>,
    /// The core of the sink, which should be the broker's.
    pub sink_cpu: Option<usize>,
    pub spin: bool,
    pub keep_topics: bool,
}

/// The same load against a sink that answers at once: what this generator could have shown at the most.
#[derive(Clone, Debug, Serialize)]
pub struct Ceiling {
    /// As fast as it is answered.
    pub maximum: Option<RunResult>,
    /// As the run was, where that is at a rate or reads a history: the least latency, the fastest reading.
    pub same: Option<RunResult>,
}

/// One scenario against one broker.
#[derive(Clone, Debug, Serialize)]
pub struct BrokerRun {
    pub broker: String,
    pub bootstrap: String,
    pub workload: Workload,
    /// The maximum of which a share was measured.
    pub calibration: Option<RunResult>,
    /// Without the reader of the history, where one was beside the others.
    pub baseline: Option<RunResult>,
    pub result: RunResult,
    pub ceiling: Ceiling,
    /// What a reader of the figures must know.
    pub notes: Vec<String>,
    /// Why the figures do not count.
    pub failures: Vec<String>,
}

/// Runs `scenario` against one broker.
pub fn measure(
    name: &str,
    scenario: &Scenario,
    against: &Against,
    options: &Options,
) -> Result<BrokerRun, PerfError> {
    let address = resolve(&against.bootstrap)?;
    let mut scenario = scenario.clone();
    if let (Some(history), Some(max)) = (&mut scenario.history, options.history_bytes_max) {
        history.bytes.0 = history.bytes.0.min(max);
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let stamp = since_1970.map_or(0, |d| d.as_millis());
    let runner = Runner {
        topics: TopicNames {
            main: format!("perf-{name}-{stamp}"),
            history: format!("perf-{name}-{stamp}-history"),
        },
        scenario,
        options,
        address,
        pid: against
            .pid
            .or_else(|| process::listener_on(address))
            .filter(|pid| *pid != std::process::id()),
    };
    let measured = runner.run(against);
    let swept = runner.sweep();
    let mut measured = measured?;
    if let Err(error) = swept {
        measured
            .notes
            .push(format!("the topics could not be deleted: {error}"));
    }
    Ok(measured)
}

struct Runner<'a> {
    topics: TopicNames,
    scenario: Scenario,
    options: &'a Options,
    address: SocketAddr,
    pid: Option<u32>,
}

impl Runner<'_> {
    fn run(&self, against: &Against) -> Result<BrokerRun, PerfError> {
        let mut notes = Vec::new();
        if self.pid.is_none() {
            notes.push("which process the broker is, is not known: nothing about its processor time, memory and disk".into());
        }
        let calibration = self.calibrate()?;
        let produced = calibration.as_ref().and_then(|run| run.produced.as_ref());
        let rates = Rates::AsMeant {
            maximum_requests: produced.map(|outcome| outcome.requests_per_second),
        };
        let workload = self.workload(rates)?;
        let mut baseline = None;
        if let Some(history) = &self.scenario.history {
            let fill = self.scenario.fill(history, &self.topics, history.bytes.0);
            let filled = run::run(&self.placed(fill), self.address, None)?;
            let losses = report::losses(&filled);
            if !losses.is_empty() {
                let why = losses.join("; ");
                return Err(PerfError::Usage(format!(
                    "the history could not be filled: {why}"
                )));
            }
            if history.drop_page_cache {
                notes.extend(process::drop_page_cache().err().map(|error| {
                    format!("the page cache was not dropped, so this is not cold: {error}")
                }));
            }
            if workload.backfill.is_some() {
                let alone = Workload {
                    backfill: None,
                    ..workload.clone()
                };
                baseline = Some(run::run(&alone, self.address, self.pid)?);
            }
        }
        let result = run::run(&workload, self.address, self.pid)?;
        let ceiling = self.ceiling(&workload)?;
        let open_loop = is_open_loop(&workload);
        notes.extend(report::notes(&result, open_loop));
        let mut failures = failures_of(&result, &ceiling);
        for loss in baseline.as_ref().map_or(Vec::new(), report::losses) {
            failures.push(format!("without the reader of the history: {loss}"));
        }
        Ok(BrokerRun {
            broker: against.name.clone(),
            bootstrap: against.bootstrap.clone(),
            workload,
            calibration,
            baseline,
            result,
            ceiling,
            notes,
            failures,
        })
    }

    /// What the scenario says, with what the options say over it.
    fn workload(&self, rates: Rates) -> Result<Workload, PerfError> {
        let mut workload = self.scenario.workload(&self.topics, rates)?;
        if workload.producing.is_some() {
            workload.warm_up = self.options.warm_up.unwrap_or(workload.warm_up);
        }
        workload.duration = self.options.duration.unwrap_or(workload.duration);
        Ok(self.placed(workload))
    }

    fn placed(&self, mut workload: Workload) -> Workload {
        let given = self.options.topic_configs.iter().cloned();
        workload.topic_configs.extend(given);
        workload.cpu = self.options.cpu;
        workload.spin = self.options.spin;
        workload
    }

    /// The maximum of this broker, where the scenario wants a share of it.
    fn calibrate(&self) -> Result<Option<RunResult>, PerfError> {
        let producers = self.scenario.producers.as_ref();
        let shared = producers.is_some_and(|p| p.rate.is_share());
        if !shared {
            return Ok(None);
        }
        let mut workload = self.workload(Rates::Maximum)?;
        workload.consuming = None;
        workload.backfill = None;
        workload.duration = workload.duration.min(CALIBRATION);
        run::run(&workload, self.address, None).map(Some)
    }

    fn ceiling(&self, workload: &Workload) -> Result<Ceiling, PerfError> {
        let mut short = workload.clone();
        short.duration = self.options.ceiling;
        short.warm_up = short.warm_up.min(CEILING_WARM_UP);
        let mut ceiling = Ceiling {
            maximum: None,
            same: None,
        };
        if let Some(producing) = &mut short.clone().producing {
            producing.requests_per_second = None;
            let fastest = Workload {
                producing: Some(producing.clone()),
                backfill: None,
                ..short.clone()
            };
            ceiling.maximum = Some(self.against_sink(&fastest)?);
        }
        if is_open_loop(workload) || self.scenario.history.is_some() {
            ceiling.same = Some(self.against_sink(&short)?);
        }
        Ok(ceiling)
    }

    fn against_sink(&self, workload: &Workload) -> Result<RunResult, PerfError> {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let sink = Sink::start(any_port, self.options.sink_cpu)?;
        if let Some(history) = &self.scenario.history {
            let bytes = history.bytes.0.min(SINK_HISTORY_BYTES_MAX);
            let fill = self.scenario.fill(history, &self.topics, bytes);
            run::run(&self.placed(fill), sink.address, None)?;
        }
        let result = run::run(workload, sink.address, None)?;
        sink.stop()?;
        Ok(result)
    }

    /// Deletes what was made on the broker.
    fn sweep(&self) -> Result<(), PerfError> {
        if self.options.keep_topics {
            return Ok(());
        }
        let mut client = Client::connect(self.address, CLIENT_TIMEOUT)?;
        client.negotiate()?;
        client.delete_topic(&self.topics.main)?;
        client.delete_topic(&self.topics.history)
    }
}

fn is_open_loop(workload: &Workload) -> bool {
    let producing = workload.producing.as_ref();
    producing.is_some_and(|producing| producing.requests_per_second.is_some())
}

/// Why the figures do not count, if they do not.
fn failures_of(result: &RunResult, ceiling: &Ceiling) -> Vec<String> {
    let mut failures = report::losses(result);
    let speed = |outcome: &Option<Outcome>| outcome.as_ref().map_or(0.0, |o| o.mib_per_second);
    // A tail is read as fast as it is produced, so its ceiling is that of producing.
    let produces = result.produced.is_some();
    let alone = |run: &RunResult| if produces { 0.0 } else { speed(&run.consumed) };
    let (most, same) = (&ceiling.maximum, &ceiling.same);
    for (what, got, possible) in [
        (
            "producing",
            speed(&result.produced),
            most.as_ref().map(|run| speed(&run.produced)),
        ),
        ("reading", alone(result), same.as_ref().map(alone)),
        (
            "reading the history",
            speed(&result.backfilled),
            same.as_ref().map(|run| speed(&run.backfilled)),
        ),
    ] {
        let Some(possible) = possible.filter(|_| got > 0.0) else {
            continue;
        };
        if possible < got * CEILING_FACTOR_MIN {
            failures.push(format!(
                "the load generator may be what was measured: {what} came to {got:.0} MiB/s, and against a sink that \
                 answers at once it is {possible:.0}, less than {CEILING_FACTOR_MIN} times that"
            ));
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Account, Carried, Window};
    use crate::clock::Nanos;
    use crate::run::GeneratorUsage;

    fn outcome(mib: u64) -> Option<Outcome> {
        let mut account = Account::new(Window {
            from: Nanos(0),
            to: Nanos(1_000_000_000),
        });
        let carried = Carried {
            bytes: mib << 20,
            records: 1,
        };
        account.answered(Nanos(0), Nanos(1_000), carried);
        Some(account.outcome())
    }

    fn result(produced: Option<u64>, consumed: Option<u64>, backfilled: Option<u64>) -> RunResult {
        RunResult {
            produced: produced.and_then(outcome),
            consumed: consumed.and_then(outcome),
            end_to_end: None,
            end_to_end_curve: Vec::new(),
            end_to_end_series: Vec::new(),
            backfilled: backfilled.and_then(outcome),
            unread: 0,
            empty_fetches: 0,
            batch_bytes: None,
            generator: GeneratorUsage {
                busy_percent: 10.0,
                cpu_seconds: 0.1,
            },
            broker: None,
            broker_series: Vec::new(),
            stalls: None,
        }
    }

    #[test]
    fn a_result_near_the_generators_own_ceiling_is_a_failure() {
        let check = |got: RunResult, maximum, same, said: Option<&str>| {
            let failures = failures_of(&got, &Ceiling { maximum, same });
            assert_eq!(failures.len(), usize::from(said.is_some()), "{failures:?}");
            if let Some(said) = said {
                assert!(failures[0].contains(said), "{failures:?}");
            }
        };
        let produced = |mib| result(Some(mib), None, None);
        check(produced(100), Some(produced(130)), None, None);
        check(produced(100), Some(produced(129)), None, Some("producing"));
        let read = |mib| result(None, Some(mib), None);
        check(read(100), None, Some(read(130)), None);
        check(read(100), None, Some(read(120)), Some("reading"));
        // A tail is read as fast as it is produced, here and there.
        let tail = |mib| result(Some(mib), Some(mib), None);
        check(tail(100), Some(tail(500)), Some(tail(100)), None);
        let beside = |mib| result(Some(10), Some(10), Some(mib));
        let most = Some(produced(500));
        check(beside(100), most.clone(), Some(beside(200)), None);
        check(beside(100), most, Some(beside(120)), Some("history"));
    }

    #[test]
    fn what_was_refused_is_a_failure() {
        let mut refused = result(Some(1), None, None);
        refused.unread = 1;
        let none = Ceiling {
            maximum: None,
            same: None,
        };
        assert_eq!(failures_of(&refused, &none).len(), 1);
    }

    #[test]
    fn brokers_are_named() {
        let read = |text: &str| text.parse::<Against>().ok();
        let expected = |pid| {
            Some(Against {
                name: "kafka".into(),
                bootstrap: "127.0.0.1:9092".into(),
                pid,
            })
        };
        assert_eq!(read("kafka=127.0.0.1:9092"), expected(None));
        assert_eq!(read("kafka=127.0.0.1:9092,pid=17"), expected(Some(17)));
        for wrong in [
            "kafka",
            "=h:1",
            "k=h",
            "k=h:x",
            "k=:1",
            "k=h:1,pid=x",
            "k=h:1,p=1",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
