//! Owns incremental fetch sessions (KIP-227): what each client asked for before, so that it need not repeat it.
//! Does not know partitions' contents, sockets or clocks (the caller gives `now`).
//! Invariant: sessions and the partitions they remember stay within their bounds; whoever finds no room is served
//! without a session, which every client understands.

use super::called::{Called, Kept, ID_VERSION_MIN};
use crate::wire::fetch::{FetchPartition, FetchRequest};
use crate::wire::ErrorCode;
use hashbrown::{Equivalent, HashMap};
use millrace_engine::api::meta::limits::TOPIC_NAME_LEN_MAX;
use millrace_engine::api::{plant, Plant};
use millrace_engine::rt::{self, Mono};
use std::time::Duration;

/// A session unused for this long may be evicted for a new one.
const EVICT_AFTER: Duration = Duration::from_secs(120);

/// Epoch of a request that begins a session, and of one that ends it or has none.
const EPOCH_INITIAL: i32 = 0;
const EPOCH_FINAL: i32 = -1;

/// What a session remembers of one partition. Offsets and bytes are as the client last said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remembered {
    topic: Kept,
    pub(crate) asked: FetchPartition,
    /// What the client was last told; -1 before that and after an error.
    high_watermark: i64,
    log_start: i64,
}

impl Remembered {
    pub(crate) fn topic(&self) -> Called<'_> {
        self.topic.called()
    }
}

/// One session. `Send`, so that it can move with its connection.
#[derive(Debug)]
pub(crate) struct Session {
    id: i32,
    /// Whether its topics go by id: that is settled when it begins.
    by_id: bool,
    /// Epoch that the next request must carry.
    epoch: i32,
    last_used: Mono,
    /// Partitions in the order in which they are served; those that had data go to the end.
    order: Vec<u32>,
    slots: Vec<Option<Remembered>>,
    free: Vec<u32>,
    index: HashMap<Key, u32>,
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Key(Kept, i32);

#[derive(Hash)]
struct KeyRef<'a>(Called<'a>, i32);

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.0 == key.0.called() && self.1 == key.1
    }
}

/// What a fetch request amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Answer everything in the request; no session.
    Sessionless,
    /// Answer everything in the session, which has just begun.
    Full(i32),
    /// Answer what has news.
    Incremental(i32),
    /// Answer nothing but this error.
    Refused(ErrorCode),
}

/// Sessions of one shard.
#[derive(Debug)]
pub(crate) struct SessionCache {
    shard: usize,
    shards: usize,
    sessions_max: usize,
    partitions_max: usize,
    partitions: usize,
    sessions: HashMap<i32, Session>,
}

impl SessionCache {
    pub(crate) fn new(
        shard: usize,
        shards: usize,
        sessions_max: usize,
        partitions_max: usize,
    ) -> SessionCache {
        assert!(shard < shards);
        SessionCache {
            shard,
            shards,
            sessions_max,
            partitions_max,
            partitions: 0,
            sessions: HashMap::new(),
        }
    }

    /// Decides what a request (of version 7 or later) asks for and remembers what it says.
    pub(crate) fn begin(&mut self, request: &FetchRequest, version: i16, now: Mono) -> Plan {
        match request.session_epoch {
            EPOCH_FINAL => {
                self.remove(request.session_id);
                Plan::Sessionless
            }
            EPOCH_INITIAL => {
                self.remove(request.session_id);
                self.open(request, version, now)
                    .map_or(Plan::Sessionless, Plan::Full)
            }
            epoch => self.continue_session(request, version, epoch, now),
        }
    }

    fn continue_session(
        &mut self,
        request: &FetchRequest,
        version: i16,
        epoch: i32,
        now: Mono,
    ) -> Plan {
        let Some(session) = self.sessions.get_mut(&request.session_id) else {
            return Plan::Refused(ErrorCode::FetchSessionIdNotFound);
        };
        if session.epoch != epoch {
            return Plan::Refused(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != (version >= ID_VERSION_MIN) {
            return Plan::Refused(ErrorCode::FetchSessionTopicIdError);
        }
        if !names_fit(request) {
            self.remove(request.session_id);
            return Plan::Refused(ErrorCode::FetchSessionIdNotFound);
        }
        let before = session.order.len();
        session.update(request, version);
        session.epoch = next_epoch(epoch);
        session.last_used = now;
        let after = session.order.len();
        self.partitions = self.partitions + after - before;
        if after == 0 {
            self.remove(request.session_id);
            return Plan::Sessionless;
        }
        if self.partitions > self.partitions_max && after > before {
            // No room to remember what was added: the client starts anew and gets no session then.
            self.remove(request.session_id);
            return Plan::Refused(ErrorCode::FetchSessionIdNotFound);
        }
        Plan::Incremental(request.session_id)
    }

    fn open(&mut self, request: &FetchRequest, version: i16, now: Mono) -> Option<i32> {
        let partitions: usize = request
            .topics
            .iter()
            .map(|topic| topic.partitions.len())
            .sum();
        if partitions == 0 || !names_fit(request) || !self.make_room(partitions, now) {
            return None;
        }
        let id = self.free_id();
        let mut session = Session {
            id,
            by_id: version >= ID_VERSION_MIN,
            epoch: next_epoch(EPOCH_INITIAL),
            last_used: now,
            order: Vec::with_capacity(partitions),
            slots: Vec::with_capacity(partitions),
            free: Vec::new(),
            index: HashMap::with_capacity(partitions),
        };
        session.update(request, version);
        self.partitions += session.order.len();
        self.sessions.insert(id, session);
        Some(id)
    }

    fn make_room(&mut self, partitions: usize, now: Mono) -> bool {
        if self.sessions.len() >= self.sessions_max {
            let oldest = self
                .sessions
                .values()
                .min_by_key(|session| (session.last_used, session.id));
            let Some(oldest) = oldest.filter(|session| now.since(session.last_used) > EVICT_AFTER)
            else {
                return false;
            };
            let id = oldest.id;
            self.remove(id);
        }
        self.partitions + partitions <= self.partitions_max
    }

    /// An id that nobody has: the remainder by the number of shards tells the shards apart, the rest is random, so
    /// that a client from before a restart does not find somebody else's session.
    fn free_id(&self) -> i32 {
        let range = i32::MAX as u64 / self.shards as u64 - 1;
        loop {
            let id = (rt::random_u64() % range * self.shards as u64 + self.shard as u64 + 1) as i32;
            if !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn remove(&mut self, id: i32) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.partitions -= session.order.len();
        Some(session)
    }

    /// Takes in a session that comes with its connection; its id, or `None` where there is no room.
    pub(crate) fn adopt(&mut self, session: Session, now: Mono) -> Option<i32> {
        let id = session.id;
        if self.sessions.contains_key(&id) || !self.make_room(session.order.len(), now) {
            return None;
        }
        self.partitions += session.order.len();
        self.sessions.insert(id, session);
        Some(id)
    }

    /// The partitions of a session in the order in which they are to be served, each with its slot.
    pub(crate) fn partitions(&self, id: i32) -> impl Iterator<Item = (u32, &Remembered)> {
        let session = self.sessions.get(&id);
        session.into_iter().flat_map(|session| {
            session.order.iter().map(|slot| {
                (
                    *slot,
                    session.slots[*slot as usize]
                        .as_ref()
                        .expect("ordered slots are used"),
                )
            })
        })
    }

    /// Notes what the client is about to be told of the partition in `slot` and says whether that is news. `told` is
    /// the high watermark and log start, or `None` for an error, which is always told.
    pub(crate) fn tell(&mut self, id: i32, slot: u32, told: Option<(i64, i64)>) -> bool {
        let remembered = self
            .sessions
            .get_mut(&id)
            .and_then(|s| s.slots.get_mut(slot as usize))
            .and_then(Option::as_mut);
        // The session ended, or forgot the partition, while the fetch was under way.
        let Some(remembered) = remembered else {
            return true;
        };
        let (high_watermark, log_start) = told.unwrap_or((-1, -1));
        let news = told.is_none()
            || remembered.high_watermark != high_watermark
            || remembered.log_start != log_start;
        remembered.high_watermark = high_watermark;
        remembered.log_start = log_start;
        news
    }

    /// Moves the partitions that `had_data` to the end, so that the others come first next time.
    pub(crate) fn rotate(&mut self, id: i32, had_data: impl Fn(u32) -> bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let (with, without): (Vec<u32>, Vec<u32>) =
                session.order.iter().partition(|slot| had_data(**slot));
            let forgotten = usize::from(plant::active(Plant::SessionForgetsPartition));
            session.order = without;
            session.order.extend(with.into_iter().skip(forgotten));
        }
    }
}

impl Session {
    fn update(&mut self, request: &FetchRequest, version: i16) {
        self.forget(request, version);
        for topic in &request.topics {
            let called = Called::of(&topic.topic, &topic.topic_id, version);
            let mut kept: Option<Kept> = None;
            for asked in &topic.partitions {
                if let Some(slot) = self.index.get(&KeyRef(called, asked.partition)) {
                    let remembered = self.slots[*slot as usize]
                        .as_mut()
                        .expect("indexed slots are used");
                    remembered.asked = asked.clone();
                    continue;
                }
                let kept = kept.get_or_insert_with(|| Kept::from(called)).clone();
                self.remember(kept, asked.clone());
            }
        }
    }

    fn remember(&mut self, topic: Kept, asked: FetchPartition) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.index.insert(Key(topic.clone(), asked.partition), slot);
        self.order.push(slot);
        self.slots[slot as usize] = Some(Remembered {
            topic,
            asked,
            high_watermark: -1,
            log_start: -1,
        });
    }

    fn forget(&mut self, request: &FetchRequest, version: i16) {
        let mut freed = Vec::new();
        for topic in &request.forgotten_topics_data {
            let called = Called::of(&topic.topic, &topic.topic_id, version);
            for partition in &topic.partitions {
                if let Some(slot) = self.index.remove(&KeyRef(called, *partition)) {
                    self.slots[slot as usize] = None;
                    freed.push(slot);
                }
            }
        }
        if !freed.is_empty() {
            // Once for all of them: it goes through the whole session.
            self.order
                .retain(|slot| self.slots[*slot as usize].is_some());
            self.free.append(&mut freed);
        }
    }
}

/// Sessions are bounded by their partitions, so that no name may be longer than those that topics have.
fn names_fit(request: &FetchRequest) -> bool {
    let names = request.topics.iter().map(|topic| topic.topic.len());
    names.max().unwrap_or(0) <= TOPIC_NAME_LEN_MAX
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX {
        1
    } else {
        epoch + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fetch::{FetchTopic, ForgottenTopic};
    use crate::wire::Str;
    use millrace_engine::rt::sim::{Sim, SimConfig};
    use uuid::Uuid;

    fn request(id: i32, epoch: i32, partitions: &[(&'static str, i32, i64)]) -> FetchRequest {
        let mut request = FetchRequest {
            session_id: id,
            session_epoch: epoch,
            ..Default::default()
        };
        for (topic, partition, offset) in partitions {
            request.topics.push(FetchTopic {
                topic: (*topic).into(),
                partitions: vec![FetchPartition {
                    partition: *partition,
                    fetch_offset: *offset,
                    ..Default::default()
                }],
                ..Default::default()
            });
        }
        request
    }

    /// Any version in which topics go by name.
    const BY_NAME: i16 = 12;

    fn asked(cache: &SessionCache, id: i32) -> Vec<(String, i32, i64)> {
        cache
            .partitions(id)
            .map(|(_, p)| {
                let topic = match p.topic() {
                    Called::Name(name) => name.to_string(),
                    Called::Id(id) => id.0[15].to_string(),
                };
                (topic, p.asked.partition, p.asked.fetch_offset)
            })
            .collect()
    }

    fn in_sim(f: impl FnOnce() + 'static) {
        Sim::new(7, SimConfig::default()).block_on(async move { f() });
    }

    fn opened(cache: &mut SessionCache, partitions: &[(&'static str, i32, i64)], now: Mono) -> i32 {
        match cache.begin(&request(0, 0, partitions), BY_NAME, now) {
            Plan::Full(id) => id,
            other => panic!("no session: {other:?}"),
        }
    }

    #[test]
    fn no_name_in_a_session_is_longer_than_those_of_topics() {
        in_sim(|| {
            let mut cache = SessionCache::new(0, 1, 10, 100);
            let long: &'static str = Box::leak("x".repeat(TOPIC_NAME_LEN_MAX + 1).into_boxed_str());
            let plan = cache.begin(&request(0, 0, &[(long, 0, 0)]), BY_NAME, Mono(0));
            assert_eq!(plan, Plan::Sessionless);
            let id = opened(&mut cache, &[("a", 0, 0)], Mono(0));
            let plan = cache.begin(&request(id, 1, &[(long, 0, 0)]), BY_NAME, Mono(0));
            assert_eq!(plan, Plan::Refused(ErrorCode::FetchSessionIdNotFound));
            assert_eq!(asked(&cache, id), []);
        });
    }

    #[test]
    fn what_is_forgotten_together_leaves_the_rest_in_order_and_its_place_to_others() {
        in_sim(|| {
            let mut cache = SessionCache::new(0, 1, 10, 1_000);
            let many: Vec<_> = (0..100).map(|n| ("a", n, 0)).collect();
            let id = opened(&mut cache, &many, Mono(0));
            let mut next = request(id, 1, &[("b", 0, 1)]);
            next.forgotten_topics_data.push(ForgottenTopic {
                topic: "a".into(),
                partitions: (0..100).filter(|n| n % 10 != 0).collect(),
                ..Default::default()
            });
            cache.begin(&next, BY_NAME, Mono(0));
            let mut left: Vec<_> = (0..100)
                .step_by(10)
                .map(|n| ("a".to_string(), n, 0))
                .collect();
            left.push(("b".to_string(), 0, 1));
            assert_eq!(asked(&cache, id), left);
            assert_eq!(cache.sessions[&id].slots.len(), 100);
        });
    }

    #[test]
    fn a_session_remembers_updates_and_forgets() {
        in_sim(|| {
            let mut cache = SessionCache::new(0, 2, 10, 100);
            let id = opened(
                &mut cache,
                &[("a", 0, 5), ("a", 1, 6), ("b", 0, 7)],
                Mono(0),
            );
            assert!(id > 0);
            let mut second = request(id, 1, &[("a", 1, 60), ("c", 0, 8)]);
            second.forgotten_topics_data.push(ForgottenTopic {
                topic: "b".into(),
                partitions: vec![0, 9],
                ..Default::default()
            });
            assert_eq!(
                cache.begin(&second, BY_NAME, Mono(1)),
                Plan::Incremental(id)
            );
            assert_eq!(
                asked(&cache, id),
                [("a".into(), 0, 5), ("a".into(), 1, 60), ("c".into(), 0, 8)]
            );
            assert_eq!(cache.partitions, 3);
        });
    }

    /// The same request with ids for names: the last byte of an id is the name's first.
    fn by_id(mut request: FetchRequest) -> FetchRequest {
        let id = |name: &Str| Uuid::from_u128(name.as_bytes()[0].into());
        for topic in &mut request.topics {
            topic.topic_id = id(&topic.topic);
            topic.topic = Str::default();
        }
        for topic in &mut request.forgotten_topics_data {
            topic.topic_id = id(&topic.topic);
            topic.topic = Str::default();
        }
        request
    }

    #[test]
    fn a_session_by_id_tells_topics_apart_that_have_no_names() {
        in_sim(|| {
            let mut cache = SessionCache::new(0, 2, 10, 100);
            let first = by_id(request(0, 0, &[("a", 0, 5), ("a", 1, 6), ("b", 0, 7)]));
            let Plan::Full(id) = cache.begin(&first, 13, Mono(0)) else {
                panic!("no session")
            };
            let mut second = request(id, 1, &[("b", 0, 70), ("c", 0, 8)]);
            second.forgotten_topics_data.push(ForgottenTopic {
                topic: "a".into(),
                partitions: vec![1],
                ..Default::default()
            });
            let second = by_id(second);
            assert_eq!(
                cache.begin(&second, 12, Mono(1)),
                Plan::Refused(ErrorCode::FetchSessionTopicIdError)
            );
            assert_eq!(cache.begin(&second, 18, Mono(1)), Plan::Incremental(id));
            let (a, b, c) = ("97".to_string(), "98".to_string(), "99".to_string());
            assert_eq!(asked(&cache, id), [(a, 0, 5), (b, 0, 70), (c, 0, 8)]);
            let named = opened(&mut cache, &[("a", 0, 5)], Mono(0));
            assert_eq!(
                cache.begin(&by_id(request(named, 1, &[])), 13, Mono(1)),
                Plan::Refused(ErrorCode::FetchSessionTopicIdError)
            );
        });
    }

    #[test]
    fn wrong_ids_and_epochs_have_their_own_errors() {
        in_sim(|| {
            let mut cache = SessionCache::new(1, 2, 10, 100);
            let id = opened(&mut cache, &[("a", 0, 5)], Mono(0));
            let refused = |error| Plan::Refused(error);
            assert_eq!(
                cache.begin(&request(id + 2, 1, &[]), BY_NAME, Mono(0)),
                refused(ErrorCode::FetchSessionIdNotFound)
            );
            assert_eq!(
                cache.begin(&request(id, 2, &[]), BY_NAME, Mono(0)),
                refused(ErrorCode::InvalidFetchSessionEpoch)
            );
            assert_eq!(
                cache.begin(&request(id, 1, &[]), BY_NAME, Mono(0)),
                Plan::Incremental(id)
            );
            assert_eq!(
                cache.begin(&request(id, 1, &[]), BY_NAME, Mono(0)),
                refused(ErrorCode::InvalidFetchSessionEpoch)
            );
            assert_eq!(
                cache.begin(&request(id, -1, &[("a", 0, 5)]), BY_NAME, Mono(0)),
                Plan::Sessionless
            );
            assert_eq!(
                cache.begin(&request(id, 2, &[]), BY_NAME, Mono(0)),
                refused(ErrorCode::FetchSessionIdNotFound)
            );
            assert_eq!(cache.partitions, 0);
        });
    }

    #[test]
    fn beginning_anew_replaces_the_session_and_epochs_wrap_to_one() {
        in_sim(|| {
            let mut cache = SessionCache::new(0, 1, 1, 100);
            let first = opened(&mut cache, &[("a", 0, 5)], Mono(0));
            let Plan::Full(second) =
                cache.begin(&request(first, 0, &[("b", 0, 1)]), BY_NAME, Mono(0))
            else {
                panic!("the only slot was not freed")
            };
            assert_eq!(asked(&cache, second), [("b".into(), 0, 1)]);
            cache.sessions.get_mut(&second).unwrap().epoch = i32::MAX;
            assert_eq!(
                cache.begin(&request(second, i32::MAX, &[]), BY_NAME, Mono(0)),
                Plan::Incremental(second)
            );
            assert_eq!(
                cache.begin(&request(second, 1, &[]), BY_NAME, Mono(0)),
                Plan::Incremental(second)
            );
        });
    }

    #[test]
    fn only_news_is_told() {
        in_sim(|| {
            let mut cache = SessionCache::new(0, 1, 10, 100);
            let id = opened(&mut cache, &[("a", 0, 5)], Mono(0));
            let (slot, _) = cache.partitions(id).next().unwrap();
            assert!(cache.tell(id, slot, Some((5, 0))), "the first answer");
            assert!(!cache.tell(id, slot, Some((5, 0))), "nothing new");
            assert!(cache.tell(id, slot, Some((6, 0))), "high watermark");
            assert!(cache.tell(id, slot, Some((6, 2))), "log start");
            assert!(cache.tell(id, slot, None), "an error");
            assert!(cache.tell(id, slot, None), "the same error again");
            assert!(cache.tell(id, slot, Some((6, 2))), "after an error");
            assert!(
                cache.tell(id + 1, slot, Some((6, 2))),
                "a session that is gone"
            );
        });
    }

    #[test]
    fn partitions_with_data_go_to_the_end() {
        in_sim(|| {
            let mut cache = SessionCache::new(0, 1, 10, 100);
            let id = opened(
                &mut cache,
                &[("a", 0, 0), ("a", 1, 0), ("a", 2, 0)],
                Mono(0),
            );
            cache.rotate(id, |slot| slot == 0);
            let order: Vec<i32> = asked(&cache, id).iter().map(|p| p.1).collect();
            assert_eq!(order, [1, 2, 0]);
        });
    }

    #[test]
    fn slots_and_partitions_are_bounded_and_idle_sessions_give_way() {
        in_sim(|| {
            let mut cache = SessionCache::new(0, 1, 2, 3);
            let a = opened(&mut cache, &[("a", 0, 0)], Mono(0));
            let b = opened(&mut cache, &[("b", 0, 0)], Mono(1));
            assert_eq!(
                cache.begin(&request(0, 0, &[("c", 0, 0)]), BY_NAME, Mono(2)),
                Plan::Sessionless
            );
            let later = Mono(2) + EVICT_AFTER;
            assert_eq!(
                cache.begin(&request(b, 1, &[]), BY_NAME, later),
                Plan::Incremental(b)
            );
            let c = opened(&mut cache, &[("c", 0, 0)], later);
            assert!(!cache.sessions.contains_key(&a) && cache.sessions.contains_key(&c));
            // One partition is left in all; two more do not fit.
            assert_eq!(
                cache.begin(&request(b, 2, &[("b", 1, 0), ("b", 2, 0)]), BY_NAME, later),
                Plan::Refused(ErrorCode::FetchSessionIdNotFound)
            );
            assert_eq!(cache.partitions, 1);
        });
    }

    #[test]
    fn a_session_moves_with_its_connection() {
        in_sim(|| {
            let mut here = SessionCache::new(0, 2, 10, 100);
            let mut there = SessionCache::new(1, 2, 10, 100);
            let id = opened(&mut here, &[("a", 0, 5)], Mono(0));
            let session = here.remove(id).unwrap();
            assert_eq!(there.adopt(session, Mono(1)), Some(id));
            assert_eq!(
                there.begin(&request(id, 1, &[]), BY_NAME, Mono(1)),
                Plan::Incremental(id)
            );
            let own = opened(&mut there, &[("a", 0, 5)], Mono(0));
            assert_ne!(own % 2, id % 2, "ids of two shards never meet");
        });
    }
}
