//! Owns one run from its description to its figures: topic, connections, load thread, samples of the broker.
//! Does not know how figures are shown.
//! Invariant: the broker is sampled over exactly the window whose answers are counted.

use crate::account::{Account, CurvePoint, LatencySummary, Outcome, Window};
use crate::client::{self, Client, Leaders, TopicSpec};
use crate::clock;
use crate::consumer::{Consumer, Looked, Position};
use crate::driver::{self, Load};
use crate::error::PerfError;
use crate::idle;
use crate::link;
use crate::pace::Pace;
use crate::poll;
use crate::process::{self, Process, Usage};
use crate::producer::{Allowance, Producer};
use crate::series::Second;
use crate::stalls::Stalls;
use crate::template::{self, BatchShape, BuiltBatch, FetchTemplate, FetchWishes, Template};
use millrace_net::wire::list_offsets::timestamp;
use serde::Serialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

/// Between the last connection being made and the first request: whatever that stirred up settles.
const SETTLE: Duration = Duration::from_millis(20);
/// How long the broker may take for the questions before the load.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PRODUCE_TIMEOUT_MS: i32 = 30_000;

/// What producers do.
#[derive(Clone, Debug, Serialize)]
pub struct Producing {
    #[serde(flatten)]
    pub shape: BatchShape,
    pub batch: BatchSize,
    pub partitions_per_request: usize,
    /// Every connection writes to every partition, in an order of its own: what keys do. Otherwise they share them.
    pub spread: bool,
    /// To each broker that leads partitions.
    pub connections: usize,
    pub in_flight: usize,
    pub acks: i16,
    /// Of all connections together; as fast as answers come if `None`.
    pub requests_per_second: Option<f64>,
    /// Ends the run after so much.
    pub bytes_max: Option<u64>,
}

/// How much a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchSize {
    /// As much as fits so many bytes before compression, one record at the least.
    Bytes(usize),
    Records(usize),
}

impl Producing {
    /// The batch that every request carries for each of its partitions.
    pub fn built_batch(&self) -> Result<BuiltBatch, PerfError> {
        match self.batch {
            BatchSize::Bytes(bytes) => self.shape.batch_within(bytes),
            BatchSize::Records(records) => self.shape.batch(records),
        }
    }
}

/// Where readers start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadFrom {
    /// And read until the end that was there when the run began.
    Beginning,
    /// And read what comes.
    Tail,
}

/// What consumers do.
#[derive(Clone, Debug, Serialize)]
pub struct Consuming {
    pub from: ReadFrom,
    /// Each reads all partitions.
    pub readers: usize,
    /// Of each reader, to each broker; they share the partitions.
    pub connections: usize,
    pub max_bytes: usize,
    pub partition_max_bytes: usize,
    pub max_wait_ms: i32,
    pub check_crc: bool,
}

/// Reading what is there beside the rest of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Backfill {
    pub topic: String,
    pub partitions: usize,
    pub consuming: Consuming,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Workload {
    pub topic: String,
    pub partitions: usize,
    pub replication: i16,
    pub topic_configs: Vec<(String, String)>,
    pub producing: Option<Producing>,
    pub consuming: Option<Consuming>,
    /// Begins with the window; when all is read, the window ends.
    pub backfill: Option<Backfill>,
    /// Connections held beside the load, without a word.
    pub idle_connections: usize,
    #[serde(rename = "warm_up_seconds", serialize_with = "seconds")]
    pub warm_up: Duration,
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// The core that makes the load.
    pub cpu: Option<usize>,
    pub spin: bool,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// What the load generator itself used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GeneratorUsage {
    /// Share of the run in which the load thread did not wait; near 100 it is the load that was measured.
    pub busy_percent: f64,
    pub cpu_seconds: f64,
}

/// What the broker used in the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BrokerUsage {
    #[serde(flatten)]
    pub usage: Usage,
    pub cpu_percent: f64,
    /// For each GiB of batches produced or consumed; absent where nothing was.
    pub cpu_seconds_per_gib: Option<f64>,
    /// Bytes sent to storage for each byte of batches produced; absent where nothing was.
    pub storage_bytes_per_byte: Option<f64>,
}

/// The broker in one second of the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BrokerSecond {
    pub at_seconds: f64,
    pub cpu_percent: f64,
    pub rss_bytes: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct RunResult {
    pub produced: Option<Outcome>,
    pub consumed: Option<Outcome>,
    /// From the intended time of sending to the batch being in a reader's hands.
    pub end_to_end: Option<LatencySummary>,
    pub end_to_end_curve: Vec<CurvePoint>,
    pub end_to_end_series: Vec<Second>,
    /// Reading what was there beside the rest.
    pub backfilled: Option<Outcome>,
    /// Batches acknowledged but never read.
    pub unread: u64,
    /// Fetches that brought nothing.
    pub empty_fetches: u64,
    /// Size of one batch as it was sent.
    pub batch_bytes: Option<u64>,
    pub generator: GeneratorUsage,
    pub broker: Option<BrokerUsage>,
    pub broker_series: Vec<BrokerSecond>,
    /// Of the machine, in the window; absent where no process was sampled.
    pub stalls: Option<Stalls>,
}

/// Runs `workload` against the broker at `bootstrap`, sampling process `pid` if given.
pub fn run(
    workload: &Workload,
    bootstrap: SocketAddr,
    pid: Option<u32>,
) -> Result<RunResult, PerfError> {
    process::allow_many_files();
    let broker = pid.map(Process::new);
    let mut client = Client::connect(bootstrap, CONNECT_TIMEOUT)?;
    client.negotiate()?;
    client.check_load_versions()?;
    let leaders = if workload.producing.is_some() {
        client.prepare_topic(&TopicSpec {
            name: workload.topic.clone(),
            partitions: workload.partitions,
            replication: workload.replication,
            configs: workload.topic_configs.clone(),
        })?
    } else {
        client.leaders(&workload.topic, workload.partitions)?
    };
    // Asked also where nobody reads: it shows that every leader acts as one.
    let latest = client::offsets_of(&leaders, &workload.topic, timestamp::LATEST)?;
    let mut targets = Targets {
        positions: match &workload.consuming {
            Some(consuming) => find_positions(&workload.topic, consuming, &leaders, &latest)?,
            None => Vec::new(),
        },
        leaders,
        backfill: None,
    };
    if let Some(backfill) = &workload.backfill {
        let leaders = client.leaders(&backfill.topic, backfill.partitions)?;
        let latest = client::offsets_of(&leaders, &backfill.topic, timestamp::LATEST)?;
        let positions = find_positions(&backfill.topic, &backfill.consuming, &leaders, &latest)?;
        targets.backfill = Some((leaders, positions));
    }
    let held = idle::connect(bootstrap, workload.idle_connections)?;

    let (window_sender, window_receiver) = mpsc::channel();
    let (done_sender, done_receiver) = mpsc::channel();
    let described = workload.clone();
    let load_thread = std::thread::Builder::new()
        .name("load".into())
        .spawn(move || {
            let result = load(&described, &targets, &window_sender);
            // Whoever waits has gone away only where this run was given up.
            done_sender.send(()).ok();
            result
        });
    let load_thread = load_thread.map_err(PerfError::io("cannot start a thread"))?;
    // Without a window the thread has failed and says so when joined.
    let usage = match (broker, window_receiver.recv()) {
        (Some(broker), Ok(window)) => Some(sample_over(&broker, window, &done_receiver)?),
        (_, _) => None,
    };
    let (mut result, window) = match load_thread.join() {
        Ok(result) => result?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    drop(held);
    if let Some((usage, series, stalls)) = usage {
        result.broker = Some(per_byte(usage, window, &result));
        result.broker_series = series;
        result.stalls = Some(stalls);
    }
    Ok(result)
}

/// Where a run's connections go.
struct Targets {
    leaders: Leaders,
    positions: Vec<Position>,
    backfill: Option<(Leaders, Vec<Position>)>,
}

/// Between two looks at the broker within the window.
const LOOK: Duration = Duration::from_secs(1);

/// Takes a sample where the window begins and one where it ends or the run is over, and looks at it each second between.
fn sample_over(
    broker: &Process,
    window: Window,
    done: &mpsc::Receiver<()>,
) -> Result<(Usage, Vec<BrokerSecond>, Stalls), PerfError> {
    // Whether the run goes on. What the machine does before the window does not count.
    let mut goes_on = Stalls::default().wait_until(window.from, done);
    let mut stalls = Stalls::default();
    let before = broker.sample()?;
    let mut series = Vec::new();
    let mut last = (clock::now(), broker.glance()?);
    while goes_on && last.0.after(LOOK) < window.to {
        goes_on = stalls.wait_until(last.0.after(LOOK), done);
        let now = (clock::now(), broker.glance()?);
        let spent_ns = now.1.cpu_ns.saturating_sub(last.1.cpu_ns);
        series.push(BrokerSecond {
            at_seconds: now.0.since(window.from) as f64 / 1e9,
            cpu_percent: 100.0 * spent_ns as f64 / now.0.since(last.0).max(1) as f64,
            rss_bytes: now.1.rss_bytes,
        });
        last = now;
    }
    if goes_on {
        stalls.wait_until(window.to, done);
    }
    Ok((broker.sample()?.usage_since(&before), series, stalls))
}

fn per_byte(usage: Usage, window: Window, result: &RunResult) -> BrokerUsage {
    let bytes =
        |outcome: &Option<Outcome>| outcome.as_ref().map_or(0, |outcome| outcome.bytes) as f64;
    let (produced, consumed) = (bytes(&result.produced), bytes(&result.consumed));
    let consumed = consumed + bytes(&result.backfilled);
    let per = |amount: f64, of: f64| (of > 0.0).then(|| amount / of);
    BrokerUsage {
        cpu_percent: 100.0 * usage.cpu_seconds / window.seconds().max(1e-9),
        cpu_seconds_per_gib: per(
            usage.cpu_seconds,
            (produced + consumed) / f64::from(1 << 30),
        ),
        storage_bytes_per_byte: per(usage.storage_write_bytes as f64, produced),
        usage,
    }
}

fn find_positions(
    topic: &str,
    consuming: &Consuming,
    leaders: &Leaders,
    latest: &HashMap<i32, i64>,
) -> Result<Vec<Position>, PerfError> {
    let earliest = client::offsets_of(leaders, topic, timestamp::EARLIEST)?;
    let position = |&partition: &i32| match consuming.from {
        ReadFrom::Beginning => Position {
            partition,
            next_offset: earliest[&partition],
            end_offset: Some(latest[&partition]),
        },
        ReadFrom::Tail => Position {
            partition,
            next_offset: latest[&partition],
            end_offset: None,
        },
    };
    Ok(leaders.values().flatten().map(position).collect())
}

/// What the load thread does: connects, says when the window is, runs.
fn load(
    workload: &Workload,
    targets: &Targets,
    window_sender: &mpsc::Sender<Window>,
) -> Result<(RunResult, Window), PerfError> {
    match workload.cpu {
        Some(cpu) => poll::pin_to_cpu(cpu)?,
        None => poll::exact_timers(),
    }
    let mut batch_bytes = None;
    let mut producers = match &workload.producing {
        Some(producing) => {
            let batch = producing.built_batch()?;
            batch_bytes = Some(batch.bytes.len() as u64);
            connect_producers(&workload.topic, producing, &batch, &targets.leaders)?
        }
        None => Vec::new(),
    };
    let consumers = match &workload.consuming {
        Some(consuming) => {
            let (positions, leaders) = (&targets.positions, &targets.leaders);
            connect_consumers(&workload.topic, consuming, positions, leaders)?
        }
        None => Vec::new(),
    };
    let backfill = match (&workload.backfill, &targets.backfill) {
        (Some(backfill), Some((leaders, positions))) => {
            connect_consumers(&backfill.topic, &backfill.consuming, positions, leaders)?
        }
        (_, _) => Vec::new(),
    };
    let start = clock::now().after(SETTLE);
    let from = start.after(workload.warm_up);
    let window = Window {
        from,
        to: from.after(workload.duration),
    };
    let producing = workload.producing.as_ref();
    let connections = producers.len();
    if let Some(rate) = producing.and_then(|producing| producing.requests_per_second) {
        for (index, producer) in producers.iter_mut().enumerate() {
            producer.set_pace(Pace::shared(start, rate, index, connections));
        }
    }
    // Whoever waits for the window has gone away only where nobody samples.
    window_sender.send(window).ok();
    let cpu_before = process::own_thread_cpu_seconds();
    let load = Load {
        producers,
        consumers,
        backfill,
        start,
        window,
        allowance: Allowance(producing.and_then(|producing| producing.bytes_max)),
        spin: workload.spin,
    };
    let driven = driver::drive(load)?;
    let cpu_seconds = process::own_thread_cpu_seconds() - cpu_before;
    let window = Window {
        to: driven.produced.window.to.min(driven.consumed.window.to),
        ..window
    };
    let ended = window.to;
    let end_to_end = driven.end_to_end.map(|both| {
        let summary = both.latencies.summary();
        (summary, both.latencies.curve(), both.series.finish(ended))
    });
    let (end_to_end, curve, series) = match end_to_end {
        Some((summary, curve, series)) => (Some(summary), curve, series),
        None => (None, Vec::new(), Vec::new()),
    };
    let outcome = |is_part: bool, account: Account| is_part.then(|| account.outcome());
    let result = RunResult {
        produced: outcome(workload.producing.is_some(), driven.produced),
        consumed: outcome(workload.consuming.is_some(), driven.consumed),
        end_to_end,
        end_to_end_curve: curve,
        end_to_end_series: series,
        backfilled: outcome(workload.backfill.is_some(), driven.backfilled),
        unread: driven.unread,
        empty_fetches: driven.empty_answers,
        batch_bytes,
        generator: GeneratorUsage {
            busy_percent: 100.0 * driven.busy,
            cpu_seconds,
        },
        broker: None,
        broker_series: Vec::new(),
        stalls: None,
    };
    Ok((result, window))
}

fn connect_producers(
    topic: &str,
    producing: &Producing,
    batch: &template::BuiltBatch,
    leaders: &Leaders,
) -> Result<Vec<Producer>, PerfError> {
    let mut producers = Vec::new();
    for (&address, partitions) in leaders {
        let in_requests = |partitions: &[i32]| -> Result<Vec<Rc<Template>>, PerfError> {
            let requests = partitions.chunks(producing.partitions_per_request);
            let template = |partitions| {
                Template::produce(topic, partitions, batch, producing.acks, PRODUCE_TIMEOUT_MS)
            };
            requests.map(|own| template(own).map(Rc::new)).collect()
        };
        let own: Vec<(Rc<[Rc<Template>]>, usize)> = if producing.spread {
            let orders = (0..producing.connections.min(ORDERS_MAX)).map(|order| {
                let mut partitions = partitions.clone();
                template::shuffle(&mut partitions, order as u64);
                in_requests(&partitions).map(Rc::from)
            });
            let orders: Vec<Rc<[Rc<Template>]>> = orders.collect::<Result<_, _>>()?;
            spread_over(&orders, producing.connections)
        } else {
            let shared = shares(&in_requests(partitions)?, producing.connections);
            shared.into_iter().map(|own| (Rc::from(own), 0)).collect()
        };
        for (templates, first) in own {
            let stream = link::connect(address)?;
            producers.push(Producer::new(
                stream,
                templates,
                first,
                producing.in_flight,
                producing.acks != 0,
            ));
        }
    }
    Ok(producers)
}

/// Different orders in which connections that write to every partition do so. More would only take memory.
const ORDERS_MAX: usize = 4;

/// For each connection an order and where in it to begin, far from where the others of that order do.
fn spread_over(
    orders: &[Rc<[Rc<Template>]>],
    connections: usize,
) -> Vec<(Rc<[Rc<Template>]>, usize)> {
    let one = |connection: usize| {
        let templates = Rc::clone(&orders[connection % orders.len()]);
        let first = connection * templates.len() / connections;
        (templates, first)
    };
    (0..connections).map(one).collect()
}

fn connect_consumers(
    topic: &str,
    consuming: &Consuming,
    positions: &[Position],
    leaders: &Leaders,
) -> Result<Vec<Consumer>, PerfError> {
    let wishes = FetchWishes {
        max_wait_ms: consuming.max_wait_ms,
        min_bytes: 1,
        max_bytes: i32::try_from(consuming.max_bytes).unwrap_or(i32::MAX),
        partition_max_bytes: i32::try_from(consuming.partition_max_bytes).unwrap_or(i32::MAX),
    };
    let mut consumers = Vec::new();
    let connect = |own| -> Result<(), PerfError> {
        for (&address, partitions) in leaders {
            let connections = consuming.connections.min(partitions.len());
            for share in shares(partitions, connections) {
                let find = |partition: &i32| {
                    let mut all = positions.iter();
                    all.find(|p| p.partition == *partition).copied()
                };
                let own_positions: Vec<Position> = share.iter().filter_map(find).collect();
                assert_eq!(
                    own_positions.len(),
                    share.len(),
                    "every partition has a position"
                );
                let template = FetchTemplate::new(topic, &share, wishes)?;
                consumers.push(Consumer::new(
                    link::connect(address)?,
                    template,
                    own_positions,
                    consuming.max_bytes,
                    consuming.check_crc,
                    Looked {
                        own,
                        readers: consuming.readers,
                    },
                ));
            }
        }
        Ok(())
    };
    (0..consuming.readers).try_for_each(connect)?;
    Ok(consumers)
}

/// Deals `items` to `hands`; where there are more hands than items, several hold the same.
fn shares<T: Clone>(items: &[T], hands: usize) -> Vec<Vec<T>> {
    assert!(!items.is_empty());
    (0..hands)
        .map(|hand| {
            let own: Vec<T> = items.iter().skip(hand).step_by(hands).cloned().collect();
            if own.is_empty() {
                vec![items[hand % items.len()].clone()]
            } else {
                own
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_dealt_once_and_nobody_goes_empty() {
        assert_eq!(shares(&[1, 2, 3, 4, 5], 2), [vec![1, 3, 5], vec![2, 4]]);
        assert_eq!(
            shares(&[1, 2], 5),
            [vec![1], vec![2], vec![1], vec![2], vec![1]]
        );
    }
}
