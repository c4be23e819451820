//! Owns measuring rebalances: many members of one group join, leave and vanish, and how long until all is shared out again.
//! Does not know how a member speaks to its coordinator: each protocol has a file of its own.
//! Invariant: a partition counts as shared out only while exactly one living member believes it has it.

mod board;
mod classic;
mod consumer;
mod member;

use crate::client::{resolve, Client, TopicSpec};
use crate::error::PerfError;
use crate::process::{self, Process, Usage};
use board::Board;
use member::{Ended, Member, Order, MEMBER_STACK_BYTES};
use millrace_net::wire::find_coordinator::FindCoordinatorRequest;
use millrace_net::wire::ErrorCode;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a broker may take until it has coordinators.
const COORDINATOR_TIMEOUT: Duration = Duration::from_secs(60);
const COORDINATOR_PAUSE: Duration = Duration::from_millis(100);

/// How members and coordinator agree on who has what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The members' leader assigns, and everybody stops meanwhile.
    Classic,
    /// The coordinator assigns, and only what moves stops (KIP-848).
    Consumer,
}

/// What a run consists of.
#[derive(Clone, Debug, Serialize)]
pub struct GroupsSpec {
    pub protocol: Protocol,
    pub topic: String,
    pub partitions: usize,
    pub members: usize,
    /// Of the members, those that leave, vanish and come back in turn.
    pub movers: usize,
    /// Of the classic protocol: after how much silence a member counts as gone.
    pub session_timeout_ms: i32,
    pub heartbeat_interval_ms: u64,
    /// A phase that takes longer is a failure.
    pub timeout_seconds: u64,
}

/// What happens to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// All members come at once.
    Join,
    /// Some say goodbye.
    Leave,
    /// As many come again.
    Return,
    /// Some are gone without a word; their session has to run out.
    Vanish,
}

/// From an event until every partition is shared out evenly among those who live.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub event: Event,
    pub members: usize,
    pub seconds: f64,
    /// Partitions nobody had, times how long.
    pub unowned_partition_seconds: f64,
    /// Requests that members sent.
    pub requests: u64,
    pub usage: Option<Usage>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Rebalances {
    pub phases: Vec<Phase>,
    /// How often a member took what another one still had: must be none.
    pub overlaps: u64,
}

/// A member and the way to tell it something.
struct Running {
    orders: Sender<Order>,
    thread: JoinHandle<Result<Ended, PerfError>>,
}

struct Run<'a> {
    spec: &'a GroupsSpec,
    address: SocketAddr,
    group: String,
    board: Arc<Board>,
    /// The oldest first.
    running: Vec<Running>,
    /// Members ever started.
    started: usize,
    broker: Option<Process>,
}

/// Runs all phases against one broker.
pub fn measure(
    spec: &GroupsSpec,
    bootstrap: &str,
    pid: Option<u32>,
) -> Result<Rebalances, PerfError> {
    if spec.movers >= spec.members || spec.members > spec.partitions {
        return Err(PerfError::Usage(
            "there have to be fewer movers than members, and no more members than partitions"
                .into(),
        ));
    }
    process::allow_many_files();
    let mut client = Client::connect(resolve(bootstrap)?, CONNECT_TIMEOUT)?;
    client.negotiate()?;
    client.prepare_topic(&TopicSpec {
        name: spec.topic.clone(),
        partitions: spec.partitions,
        replication: -1,
        configs: Vec::new(),
    })?;
    let group = format!("millrace-perf-{}", crate::report::unix_ms());
    let mut run = Run {
        spec,
        address: coordinator(&mut client, &group)?,
        group,
        board: Arc::new(Board::new(spec.partitions)),
        running: Vec::new(),
        started: 0,
        broker: pid.map(Process::new),
    };
    let phases = run.phases();
    // Also after a failure nobody goes on.
    let ended = run.end();
    let phases = phases?;
    ended?;
    Ok(Rebalances {
        phases,
        overlaps: run.board.overlaps(),
    })
}

/// Where the group's coordinator is, once there is one: asking makes some brokers create the topic it needs.
fn coordinator(client: &mut Client, group: &str) -> Result<SocketAddr, PerfError> {
    let deadline = Instant::now() + COORDINATOR_TIMEOUT;
    loop {
        let answer = client.call(&FindCoordinatorRequest {
            coordinator_keys: vec![group.to_string().into()],
            ..Default::default()
        })?;
        let found = answer.coordinators.first();
        let found = found.ok_or_else(|| PerfError::Usage("no coordinator was named".into()))?;
        if found.error_code == ErrorCode::None.code() {
            return resolve(&format!("{}:{}", found.host.as_str(), found.port));
        }
        if Instant::now() >= deadline {
            return Err(PerfError::Refused {
                what: "finding the group's coordinator".into(),
                code: found.error_code,
            });
        }
        std::thread::sleep(COORDINATOR_PAUSE);
    }
}

impl Run<'_> {
    fn phases(&mut self) -> Result<Vec<Phase>, PerfError> {
        let (all, some) = (self.spec.members, self.spec.movers);
        Ok(vec![
            self.phase(Event::Join, |run| run.start(all))?,
            self.phase(Event::Leave, |run| run.order(some, Order::Leave))?,
            self.phase(Event::Return, |run| run.start(some))?,
            self.phase(Event::Vanish, |run| run.order(some, Order::Vanish))?,
        ])
    }

    fn phase(
        &mut self,
        event: Event,
        begin: impl FnOnce(&mut Self) -> Result<(), PerfError>,
    ) -> Result<Phase, PerfError> {
        let sample = |run: &Self| run.broker.as_ref().map(Process::sample).transpose();
        let before = sample(self)?;
        self.board.begin();
        let began = Instant::now();
        begin(self)?;
        let deadline = began + Duration::from_secs(self.spec.timeout_seconds);
        let Some(done) = self.board.wait_shared(self.running.len(), deadline) else {
            self.check()?;
            let what = format!("{event:?}: {}", self.board.describe(self.running.len()));
            return Err(PerfError::TimedOut(what));
        };
        let after = sample(self)?;
        Ok(Phase {
            event,
            members: self.running.len(),
            seconds: done.at.duration_since(began).as_secs_f64(),
            unowned_partition_seconds: done.unowned_partition_seconds,
            requests: done.requests,
            usage: after.zip(before).map(|(a, b)| a.usage_since(&b)),
        })
    }

    fn start(&mut self, count: usize) -> Result<(), PerfError> {
        for _ in 0..count {
            let number = self.started;
            self.started += 1;
            let (orders, listener) = mpsc::channel();
            let member = Member {
                number,
                address: self.address,
                group: self.group.clone(),
                topic: self.spec.topic.clone(),
                partitions: self.spec.partitions,
                session_timeout_ms: self.spec.session_timeout_ms,
                heartbeat_interval: Duration::from_millis(self.spec.heartbeat_interval_ms),
                board: Arc::clone(&self.board),
                orders: listener,
            };
            let protocol = self.spec.protocol;
            self.board.arrive(number);
            let thread = std::thread::Builder::new()
                .stack_size(MEMBER_STACK_BYTES)
                .spawn(move || match protocol {
                    Protocol::Classic => classic::run(member),
                    Protocol::Consumer => consumer::run(member),
                })
                .map_err(PerfError::io("cannot start a member's thread"))?;
            self.running.push(Running { orders, thread });
        }
        Ok(())
    }

    /// Tells the oldest members to go.
    fn order(&mut self, count: usize, order: Order) -> Result<(), PerfError> {
        let going: Vec<Running> = self.running.drain(..count).collect();
        for member in &going {
            // One that is gone already says why when it is joined.
            let _gone = member.orders.send(order);
        }
        for member in going {
            joined(member)?;
        }
        Ok(())
    }

    /// Fails with the reason of a member that has given up.
    fn check(&mut self) -> Result<(), PerfError> {
        while let Some(at) = self.running.iter().position(|m| m.thread.is_finished()) {
            joined(self.running.swap_remove(at))?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), PerfError> {
        let all = self.running.len();
        self.order(all, Order::Vanish)
    }
}

fn joined(member: Running) -> Result<Ended, PerfError> {
    match member.thread.join() {
        Ok(result) => result,
        Err(_) => Err(PerfError::Usage("a member's thread panicked".into())),
    }
}
