//! Owns the processes that histories run in, and what parent and worker say to each other.
//! Does not know what a history does.
//! Invariant: a history that takes its process down (a panic, an abort) is a violation of that seed and of no other.
//!
//! A worker reads lines `SEED PLANT KEEP MS` (`-` for none, all and no limit) and answers each with one line of JSON.

use super::history::History;
use super::invariants::{liveness, Violation};
use super::plants;
use super::run::run;
use serde_json::{json, Value};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::Mutex;
use std::time::Duration;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Order {
    pub seed: u64,
    pub plant: Option<String>,
    /// Which steps; None for all.
    pub keep: Option<Vec<bool>>,
    /// How long it may take.
    pub limit: Option<Duration>,
}

/// What a history that was given up is said to have broken.
const TOO_SLOW: &str = "it took too long";

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub violation: Option<Violation>,
    pub starts: u64,
    pub crashes: u64,
    pub deaths: u64,
    pub laps: u64,
    pub acked: u64,
    pub looked_up: u64,
    pub refusals: u64,
    pub reads_disk: u64,
    pub virtual_ms: u64,
}

/// A violation that an assertion of the engine found, by its message.
pub fn of_panic(message: &str, place: &str) -> Violation {
    let what = format!("{message} ({place})");
    if liveness::is_stuck(message) {
        return liveness::of_panic(message);
    }
    // The messages of `Log::check_order`.
    let of_order = ["log start", "high watermark", "durable"];
    if place.contains("log/mod.rs") && of_order.iter().any(|o| message.starts_with(o)) {
        return Violation::new("the order of the durable points", what);
    }
    Violation::new("the engine's own assertions", what)
}

/// The worker's side: until its input ends.
pub fn serve() -> io::Result<()> {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().map(|s| s.to_string());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let place = info
            .location()
            .map(|l| format!("{}:{}", l.file(), l.line()));
        // A panic with neither text nor place is a violation all the same.
        let found = of_panic(&text.unwrap_or_default(), &place.unwrap_or_default());
        println!(
            "{}",
            json!({"invariant": found.invariant, "what": found.what})
        );
        std::process::exit(101);
    }));
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let [seed, plant, keep, limit] = words[..] else {
            return Err(io::Error::other("an order has four words"));
        };
        let _limited = match limit {
            "-" => None,
            ms => Some(Limited::new(ms.parse().map_err(io::Error::other)?)),
        };
        let seed = seed.parse().map_err(io::Error::other)?;
        plants::choose(Some(plant).filter(|p| *p != "-")).map_err(io::Error::other)?;
        let history = History::generate(seed);
        let keep = match keep {
            "-" => vec![true; history.steps.len()],
            bits => bits.bytes().map(|b| b == b'1').collect(),
        };
        let outcome = run(&history, &keep, false);
        let mut out = json!({
            "starts": outcome.counts.starts,
            "crashes": outcome.counts.crashes,
            "deaths": outcome.counts.deaths,
            "laps": outcome.counts.laps,
            "reads_disk": outcome.counts.reads_disk,
            "acked": outcome.acked,
            "looked_up": outcome.looked_up,
            "refusals": outcome.refusals,
            "virtual_ms": outcome.virtual_ms,
        });
        if let Some(violation) = outcome.violation {
            out["invariant"] = violation.invariant.into();
            out["what"] = violation.what.into();
        }
        println!("{out}");
        io::stdout().flush()?;
    }
    Ok(())
}

/// Ends the process where it is not dropped in time.
struct Limited {
    /// Closed by the drop.
    _done: Sender<()>,
}

impl Limited {
    fn new(ms: u64) -> Limited {
        let (_done, done) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            if done.recv_timeout(Duration::from_millis(ms)) == Err(RecvTimeoutError::Timeout) {
                println!("{}", json!({"invariant": TOO_SLOW, "what": ""}));
                std::process::exit(102);
            }
        });
        Limited { _done }
    }
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: u32,
}

/// Histories that one process runs: what was under way at a simulated crash stays in its memory, some MiB for each.
const ASKED_MAX: u32 = 100;

/// The parent's side of one worker; the process is started when needed, and again where a history took it down.
#[derive(Default)]
pub struct Worker(Option<Process>);

impl Worker {
    pub fn ask(&mut self, order: &Order) -> io::Result<Report> {
        if self.0.as_ref().is_some_and(|p| p.asked == ASKED_MAX) {
            self.end();
        }
        let process = match self.0.as_mut() {
            Some(process) => process,
            None => self.0.insert(Process::start()?),
        };
        process.asked += 1;
        let keep = order.keep.as_ref().map_or("-".to_string(), |keep| {
            keep.iter().map(|k| if *k { '1' } else { '0' }).collect()
        });
        let plant = order.plant.as_deref().unwrap_or("-");
        let limit = order
            .limit
            .map_or("-".to_string(), |limit| limit.as_millis().to_string());
        writeln!(process.input, "{} {plant} {keep} {limit}", order.seed)?;
        process.input.flush()?;
        let mut line = String::new();
        process.output.read_line(&mut line)?;
        let answer: Value = match serde_json::from_str(&line) {
            Ok(answer) => answer,
            Err(_) => {
                let status = process.child.wait()?;
                let what = format!("the process ended ({status})");
                json!({"invariant": "the engine's own assertions", "what": what})
            }
        };
        let report = Report::of(order.seed, &answer);
        if report.starts == 0 {
            // It said its last words.
            process.child.wait()?;
            self.0 = None;
        }
        Ok(report)
    }

    fn end(&mut self) {
        if let Some(Process {
            mut child, input, ..
        }) = self.0.take()
        {
            drop(input);
            if let Err(error) = child.wait() {
                eprintln!("a worker does not end: {error}");
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

impl Process {
    fn start() -> io::Result<Process> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Process {
            child,
            input,
            output,
            asked: 0,
        })
    }
}

impl Report {
    fn of(seed: u64, answer: &Value) -> Report {
        let text = |key: &str| answer[key].as_str().unwrap_or("").to_string();
        let count = |key: &str| answer[key].as_u64().unwrap_or(0);
        let violation = answer["invariant"].as_str().map(|invariant| Violation {
            invariant: invariant.to_string(),
            what: text("what"),
        });
        Report {
            seed,
            violation,
            starts: count("starts"),
            crashes: count("crashes"),
            deaths: count("deaths"),
            laps: count("laps"),
            acked: count("acked"),
            looked_up: count("looked_up"),
            refusals: count("refusals"),
            reads_disk: count("reads_disk"),
            virtual_ms: count("virtual_ms"),
        }
    }
}

/// Runs the seeds `from..from + seeds` in `jobs` processes. `each` sees every report, in any order, and says whether
/// later seeds are still wanted.
pub fn run_seeds(
    from: u64,
    seeds: u64,
    jobs: usize,
    plant: Option<&str>,
    each: impl Fn(Report) -> bool + Sync,
) -> io::Result<()> {
    let next = AtomicU64::new(from);
    let end = AtomicU64::new(from.saturating_add(seeds));
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                let mut worker = Worker::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let order = Order {
                        seed,
                        plant: plant.map(str::to_string),
                        keep: None,
                        limit: None,
                    };
                    match worker.ask(&order) {
                        Ok(report) => {
                            if !each(report) {
                                end.fetch_min(seed, Ordering::Relaxed);
                            }
                        }
                        Err(error) => {
                            *failed.lock().expect("nothing panics with it") = Some(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    match failed.into_inner().expect("nothing panics with it") {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
