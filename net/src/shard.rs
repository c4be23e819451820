//! Owns what the connections of one shard share: the engine's face, settings, counters, fetch sessions, and the list
//! of the connections themselves.
//! Does not know sockets or requests.
//! Invariant: a connection is in the list exactly as long as its task runs.

use crate::config::NetConfig;
use crate::conn::{CloseReason, Conn};
use crate::cores::Faces;
use crate::handlers::fetch_session::SessionCache;
use crate::ledger::{FrameLedger, Relief};
use crate::metrics::ShardMetrics;
use crate::shared::NetShared;
use crate::wire::ApiKey;
use millrace_engine::api::{Broker, Image};
use millrace_engine::rt;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// Refused key and version pairs remembered so that each is logged once.
const REFUSALS_MAX: usize = 128;

pub(crate) struct ShardNet {
    pub(crate) index: usize,
    pub(crate) shards: usize,
    pub(crate) broker: Broker,
    pub(crate) config: Arc<NetConfig>,
    pub(crate) shared: Arc<NetShared>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) sessions: RefCell<SessionCache>,
    /// Share sessions of all connections here; each connection has its own.
    pub(crate) share_sessions: Cell<usize>,
    pub(crate) frames: FrameLedger,
    unread_relief: Relief,
    pub(crate) stopping: Cell<bool>,
    /// Notified when the broker begins to stop.
    pub(crate) stop: rt::Notify,
    /// Notified whenever a connection leaves the list.
    pub(crate) left: rt::Notify,
    /// Fetches that wait for records are to be answered: others wait for the memory of their requests.
    pub(crate) hurry: rt::Notify,
    /// In order of arrival, so that walks over it are the same for the same history.
    conns: RefCell<BTreeMap<u64, Rc<Conn>>>,
    next_id: Cell<u64>,
    refusals: RefCell<HashSet<(i16, i16)>>,
}

impl ShardNet {
    pub(crate) fn new(
        broker: Broker,
        config: Arc<NetConfig>,
        shared: Arc<NetShared>,
    ) -> Rc<ShardNet> {
        let index = broker.shard();
        let shards = broker.shards();
        let sessions = SessionCache::new(
            index,
            shards,
            config.fetch_sessions_max.div_ceil(shards),
            config.fetch_session_partitions_max.div_ceil(shards),
        );
        let frames = FrameLedger::new(&broker, config.request_bytes_max);
        Rc::new(ShardNet {
            index,
            shards,
            broker,
            frames,
            unread_relief: Relief::new(),
            metrics: shared.metrics(index),
            config,
            shared,
            sessions: RefCell::new(sessions),
            share_sessions: Cell::new(0),
            stopping: Cell::new(false),
            stop: rt::Notify::new(),
            left: rt::Notify::new(),
            hurry: rt::Notify::new(),
            conns: RefCell::default(),
            next_id: Cell::new(0),
            refusals: RefCell::default(),
        })
    }

    /// The brokers of an image as clients see them.
    pub(crate) fn faces<'a>(&'a self, image: &'a Image) -> Faces<'a> {
        Faces::new(&self.config, self.shards, image)
    }

    /// Counts a request if any of its partitions lives on another shard.
    pub(crate) fn note_owners(&self, key: ApiKey, mut owners: impl Iterator<Item = usize>) {
        if owners.any(|owner| owner != self.index) {
            self.metrics.crossed(key);
        }
    }

    pub(crate) fn register(&self, conn: Rc<Conn>) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.conns.borrow_mut().insert(id, conn);
        self.metrics.opened();
        id
    }

    pub(crate) fn deregister(&self, id: u64) {
        let left = self.conns.borrow_mut().remove(&id);
        assert!(left.is_some(), "a connection leaves once");
        self.metrics.closed();
        self.left.notify_all();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.conns.borrow().is_empty()
    }

    /// Calls `f` for every connection. They may close meanwhile.
    pub(crate) fn for_each(&self, f: impl Fn(&Conn)) {
        let conns: Vec<Rc<Conn>> = self.conns.borrow().values().cloned().collect();
        for conn in conns {
            f(&conn);
        }
    }

    /// Has connections whose unfinished frames come slowly give back the memory that other requests wait for, and fetches
    /// that wait for records be answered without.
    pub(crate) fn relieve_requests(&self, now: rt::Mono) {
        if self.frames.relief.is_due(now) {
            self.hurry.notify_all();
            self.for_each(|conn| conn.check_unfinished(now));
        }
    }

    /// Has connections that take nothing of their responses give back the memory that other responses need.
    pub(crate) fn relieve_responses(&self, now: rt::Mono) {
        if self.unread_relief.is_due(now) {
            self.for_each(|conn| conn.check_unread(now));
        }
    }

    /// Begins to stop: connections read no more requests and close once they have answered what they have.
    pub(crate) fn begin_stop(&self) {
        self.stopping.set(true);
        self.stop.notify_all();
        self.for_each(Conn::nudge);
    }

    pub(crate) fn abort_all(&self) {
        self.for_each(|conn| conn.abort(CloseReason::SlowEnd));
    }

    /// Whether this key and version are refused for the first time.
    pub(crate) fn first_refusal(&self, key: i16, version: i16) -> bool {
        let mut refusals = self.refusals.borrow_mut();
        refusals.len() < REFUSALS_MAX && refusals.insert((key, version))
    }
}
