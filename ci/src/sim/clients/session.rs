//! Owns consumers with a fetch session: all partitions of a topic at once, and only what changed goes over the wire.
//! Does not know how the broker remembers sessions.
//! Invariant: what a session was told last is what an answer is taken for; after any doubt it begins anew.

use super::super::invariants::sessions;
use super::super::model::Place;
use super::super::wire::{Conn, Lost};
use super::consume::{earliest, judge, latest, open, Next};
use super::read::seen;
use super::{code, Shared};
use millrace_net::wire::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use millrace_net::wire::Str;
use std::collections::BTreeMap;
use std::rc::Rc;

const FETCH_VERSION: i16 = 11;
/// Epochs of a request that begins a session, and of one without.
const EPOCH_INITIAL: i32 = 0;

struct Session {
    topic: u8,
    id: i32,
    epoch: i32,
    bytes_max: i32,
    /// Where the reader is in each partition.
    positions: BTreeMap<Place, i64>,
    /// What the session was told of each.
    told: BTreeMap<Place, i64>,
}

/// Reads along in all partitions of a topic.
pub async fn follow(shared: Rc<Shared>, topic: u8, polls: u32, bytes_max: i32) {
    let mut session = Session::new(topic, bytes_max);
    let mut conn = None;
    let places = places_of(&shared, topic);
    for place in &places {
        let known = shared.model.borrow().bounds(*place);
        let span = (known.high_watermark - known.log_start).max(0) as u64;
        let at = known.log_start + shared.below(span + 1) as i64;
        session.positions.insert(*place, at);
    }
    for _ in 0..polls {
        if shared.violation().is_some() || session.positions.is_empty() {
            return;
        }
        // Now and then a partition is paused, and asked for again later.
        if shared.below(4) == 0 && session.positions.len() > 1 {
            let place = places[shared.below(places.len() as u64) as usize];
            match session.positions.remove(&place) {
                Some(_) => {}
                None => {
                    let known = shared.model.borrow().bounds(place);
                    session.positions.insert(place, known.log_start);
                }
            }
        }
        if session.poll(&shared, &mut conn, 40).await.is_none() {
            shared.pause(10_000).await;
        }
    }
}

/// Reads all partitions of a topic to their ends, with nothing else under way.
pub async fn verify(shared: Rc<Shared>, topic: u8) {
    let mut session = Session::new(topic, 20_000);
    let mut conn = None;
    let mut tries = 0;
    let mut ends = BTreeMap::new();
    for place in places_of(&shared, topic) {
        loop {
            if shared.violation().is_some() || !shared.model.borrow().is_certain(place) {
                return;
            }
            let start = earliest(&shared, &mut conn, place).await;
            let end = latest(&shared, &mut conn, place).await;
            if let (Some(start), Some(end)) = (start, end) {
                session.positions.insert(place, start);
                ends.insert(place, end);
                break;
            }
            shared.back_off(&mut tries).await;
        }
    }
    let mut idle = 0;
    loop {
        let behind = |s: &Session| {
            let mut all = s.positions.iter().map(|(p, at)| (*p, *at, ends[p]));
            all.find(|(_, at, end)| at < end)
        };
        if behind(&session).is_none() || shared.violation().is_some() {
            return;
        }
        match session.poll(&shared, &mut conn, 100).await {
            Some(true) => idle = 0,
            Some(false) => idle += 1,
            None => shared.pause(10_000).await,
        }
        shared.demand(sessions::on_idle(idle, behind(&session)));
    }
}

fn places_of(shared: &Shared, topic: u8) -> Vec<Place> {
    let mut places = shared.model.borrow().places();
    places.retain(|place| place.topic == topic);
    places
}

impl Session {
    fn new(topic: u8, bytes_max: i32) -> Session {
        Session {
            topic,
            id: 0,
            epoch: EPOCH_INITIAL,
            bytes_max,
            positions: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    fn begin_anew(&mut self) {
        self.id = 0;
        self.epoch = EPOCH_INITIAL;
        self.told.clear();
    }

    /// One fetch; whether it brought the reader forward, None where something got in the way.
    async fn poll(
        &mut self,
        shared: &Shared,
        conn: &mut Option<Conn>,
        wait_ms_max: u64,
    ) -> Option<bool> {
        let certain = |place: &Place| shared.model.borrow().is_certain(*place);
        self.positions.retain(|place, _| certain(place));
        let request = self.request(shared.below(wait_ms_max) as i32);
        self.told = self.positions.clone();
        let known: BTreeMap<Place, _> = {
            let model = shared.model.borrow();
            let bounds = self.positions.keys().map(|p| (*p, model.bounds(*p)));
            bounds.collect()
        };
        let answer = match open(conn).await {
            Ok(open) => open.call(&request, FETCH_VERSION).await,
            Err(Lost) => Err(Lost),
        };
        let Ok(answer) = answer else {
            *conn = None;
            self.begin_anew();
            return None;
        };
        match answer.error_code {
            0 => {}
            code::FETCH_SESSION_ID_NOT_FOUND | code::INVALID_FETCH_SESSION_EPOCH => {
                self.begin_anew();
                return None;
            }
            code if code::is_retriable(code) => return None,
            code => panic!("a session is refused with code {code}"),
        }
        if answer.session_id == 0 {
            // No room for it, or it is empty.
            self.begin_anew();
        } else {
            self.id = answer.session_id;
            self.epoch += 1;
        }
        let mut forward = false;
        let mut later = false;
        for topic in &answer.responses {
            for data in &topic.partitions {
                let place = known.keys().find(|p| p.index == data.partition_index);
                let Some(place) = place.copied() else {
                    let all = self.known_life(shared);
                    if all {
                        let found = sessions::not_asked(&topic.topic, data.partition_index);
                        shared.demand(Err(found));
                    }
                    continue;
                };
                let at = self.positions[&place];
                let mut read = seen(shared, place, at, known[&place], data);
                read.alone = false;
                match judge(shared, data.error_code, &read) {
                    Next::At(next) => {
                        forward |= next > at;
                        self.positions.insert(place, next);
                    }
                    Next::OutOfRange => {
                        later = true;
                        let start = earliest(shared, conn, place).await;
                        self.positions.insert(place, start.unwrap_or(at));
                    }
                    Next::Later => later = true,
                }
            }
        }
        (!later).then_some(forward)
    }

    /// Whether the topic is still there: a session goes by names, and would tell of its next life.
    fn known_life(&self, shared: &Shared) -> bool {
        !places_of(shared, self.topic).is_empty()
    }

    /// What changed since the session was told last.
    fn request(&self, wait_ms: i32) -> FetchRequest {
        let topic = || Str::from(format!("t{}", self.topic));
        let changed = self.positions.iter();
        let changed = changed.filter(|(place, at)| self.told.get(place) != Some(at));
        let partitions: Vec<FetchPartition> = changed
            .map(|(place, at)| FetchPartition {
                partition: place.index,
                fetch_offset: *at,
                partition_max_bytes: self.bytes_max,
                ..Default::default()
            })
            .collect();
        let forgotten = self.told.keys().filter(|p| !self.positions.contains_key(p));
        let forgotten: Vec<i32> = forgotten.map(|p| p.index).collect();
        let topics = match partitions.is_empty() {
            true => Vec::new(),
            false => vec![FetchTopic {
                topic: topic(),
                partitions,
                ..Default::default()
            }],
        };
        let forgotten = match forgotten.is_empty() {
            true => Vec::new(),
            false => vec![ForgottenTopic {
                topic: topic(),
                partitions: forgotten,
                ..Default::default()
            }],
        };
        FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_id: self.id,
            session_epoch: self.epoch,
            topics,
            forgotten_topics_data: forgotten,
            ..Default::default()
        }
    }
}
