//! Owns the clients: what they share, and their one way of reporting what they learn.
//! Does not know the broker's insides, nor what the fault plan does to it.
//! Invariant: whatever a client is told passes the checks before the model believes it.

pub mod admin;
pub mod consume;
pub mod lookup;
pub mod produce;
pub mod read;
pub mod session;

use super::invariants::{self, Check, Violation};
use super::model::{Acked, Model, Read};
use millrace_engine::rt::sim::{NodeId, Sim};
use millrace_engine::rt::Mono;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use millrace_engine::rt;

/// Where the clients run: the broker's crashes do not touch them.
pub const CLIENTS: NodeId = NodeId(1);

/// Kafka's codes that clients meet here.
pub mod code {
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const CORRUPT_MESSAGE: i16 = 2;
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    pub const REQUEST_TIMED_OUT: i16 = 7;
    pub const BROKER_NOT_AVAILABLE: i16 = 8;
    pub const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub const INVALID_PARTITIONS: i16 = 37;
    pub const NOT_CONTROLLER: i16 = 41;
    pub const OUT_OF_ORDER_SEQUENCE: i16 = 45;
    pub const KAFKA_STORAGE_ERROR: i16 = 56;
    pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
    pub const INVALID_FETCH_SESSION_EPOCH: i16 = 71;

    /// Whether the same request may succeed later.
    pub fn is_retriable(code: i16) -> bool {
        matches!(
            code,
            CORRUPT_MESSAGE
                | NOT_LEADER_OR_FOLLOWER
                | REQUEST_TIMED_OUT
                | BROKER_NOT_AVAILABLE
                | NOT_CONTROLLER
                | OUT_OF_ORDER_SEQUENCE
                | KAFKA_STORAGE_ERROR
        )
    }
}

/// What the clients and whoever drives them have in common.
pub struct Shared {
    pub sim: Sim,
    pub model: RefCell<Model>,
    violation: RefCell<Option<Violation>>,
    under_way: Cell<usize>,
    /// Counts the broker's ends: an answer is of the life that its request was sent in.
    life: Cell<u64>,
    narrate: bool,
}

/// When a request was sent.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub at: Mono,
    life: u64,
}

impl Shared {
    pub fn new(sim: Sim, narrate: bool) -> Rc<Shared> {
        Rc::new(Shared {
            sim,
            model: RefCell::default(),
            violation: RefCell::default(),
            under_way: Cell::new(0),
            life: Cell::new(0),
            narrate,
        })
    }

    /// Starts a client whose end `settled` waits for.
    pub fn start(self: &Rc<Self>, client: impl Future<Output = ()> + 'static) {
        self.under_way.set(self.under_way.get() + 1);
        let shared = self.clone();
        let _runs_by_itself = self.sim.spawn_on(CLIENTS, async move {
            client.await;
            shared.under_way.set(shared.under_way.get() - 1);
        });
    }

    /// Whether every client has come to its end.
    pub fn settled(&self) -> bool {
        self.under_way.get() == 0
    }

    pub fn under_way(&self) -> usize {
        self.under_way.get()
    }

    /// The broker is gone, and what it had not on disk.
    pub fn broker_ended(&self) {
        self.life.set(self.life.get() + 1);
        self.model.borrow_mut().forget_cached();
    }

    pub fn ask(&self) -> Asked {
        Asked {
            at: rt::now(),
            life: self.life.get(),
        }
    }

    /// Keeps the first violation; true where the check passed.
    pub fn demand(&self, check: Check) -> bool {
        match check {
            Ok(()) => true,
            Err(violation) => {
                self.violation.borrow_mut().get_or_insert(violation);
                false
            }
        }
    }

    pub fn violation(&self) -> Option<Violation> {
        self.violation.borrow().clone()
    }

    /// Prints a line of the history that is being shown.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        if self.narrate {
            let ms = self.sim.now().as_nanos() as f64 / 1e6;
            println!("{ms:10.3} ms  {}", line());
        }
    }

    pub fn below(&self, n: u64) -> u64 {
        self.sim.random() % n.max(1)
    }

    /// A pause before trying again: short, and never twice the same.
    pub async fn pause(&self, us_max: u64) {
        rt::sleep(Duration::from_micros(1 + self.below(us_max))).await;
    }

    /// A pause before trying again, longer with each try: what is stuck for minutes is cheap to watch.
    pub async fn back_off(&self, tries: &mut u32) {
        *tries += 1;
        self.pause(4_000 << (*tries).min(9)).await;
    }

    /// Takes in an acknowledgement of what was `asked`.
    pub fn acked(&self, asked: Asked, acked: &Acked) {
        let mut model = self.model.borrow_mut();
        // The topic may be going away: what is said about it is of no use any more.
        if !model.is_certain(acked.place) {
            return;
        }
        // From the memory of a broker that is gone.
        if model.caching(acked.place).is_some() && asked.life != self.life.get() {
            return;
        }
        if self.demand(invariants::check_acked(&model, acked)) {
            model.learn_acked(acked);
        }
    }

    /// Takes in a partition's answer to a fetch.
    pub fn read(&self, read: &Read) {
        let mut model = self.model.borrow_mut();
        if !model.is_certain(read.place) {
            return;
        }
        if self.demand(invariants::check_read(&model, read)) {
            model.learn_read(read);
        }
    }
}
