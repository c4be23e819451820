//! Owns lookups by time: which record is the first that is not older, and which is the newest.
//! Does not know how the broker finds them.
//! Invariant: an answer is compared with what was known before its request was sent.

use super::super::invariants::recovery::Digest;
use super::super::invariants::times::{self, Answer};
use super::super::model::Place;
use super::super::wire::Conn;
use super::consume::listed;
use super::{code, Shared};
use millrace_engine::rt;
use millrace_net::wire::list_offsets::timestamp::{EARLIEST, MAX_TIMESTAMP};
use std::rc::Rc;

/// How far from now a time may be that is asked for, where no record is known.
const AROUND_MS: u64 = 2_000;

/// Looks up times in partitions of a topic.
pub async fn run(shared: Rc<Shared>, topic: u8, lookups: u32) {
    let mut conn = None;
    for _ in 0..lookups {
        let partitions = shared
            .model
            .borrow()
            .topics
            .get(&topic)
            .map(|t| t.partitions);
        let index = shared.below(partitions.unwrap_or(1).max(1) as u64) as i32;
        let Some(place) = shared.model.borrow().place(topic, index) else {
            return;
        };
        if shared.violation().is_some() {
            return;
        }
        look(&shared, &mut conn, place, None).await;
        shared.pause(2_000).await;
    }
}

/// A few lookups of a partition that was read to its end and does not change: each has one right answer.
pub async fn verify(shared: &Shared, conn: &mut Option<Conn>, digest: &Digest) {
    for _ in 0..2 {
        look(shared, conn, digest.place, Some(digest)).await;
    }
}

async fn look(shared: &Shared, conn: &mut Option<Conn>, place: Place, whole: Option<&Digest>) {
    let asked = match shared.below(5) {
        0 => MAX_TIMESTAMP,
        _ => some_time(shared, place),
    };
    let (before, known) = {
        let model = shared.model.borrow();
        (model.bounds(place), times::certain(&model, place))
    };
    let Some(listed_now) = listed(conn, place, asked).await else {
        return;
    };
    // Where retention went on meanwhile, what was known of the whole is of no use.
    let mut whole = whole;
    if whole.is_some() && shared.model.borrow().retains(place) {
        let start = listed(conn, place, EARLIEST).await;
        whole = whole.filter(|w| start.is_some_and(|s| s.code == 0 && s.offset == w.log_start));
    }
    let mut model = shared.model.borrow_mut();
    if !model.is_certain(place) || (model.damaged && !model.hints_damaged) {
        return;
    }
    match listed_now.code {
        0 => {}
        code if code::is_retriable(code) => return,
        code => panic!("{place}: a lookup by time is refused with code {code}"),
    }
    let answer = Answer {
        place,
        asked: (asked != MAX_TIMESTAMP).then_some(asked),
        found: (listed_now.offset >= 0).then_some((listed_now.offset, listed_now.timestamp_ms)),
        log_start: before.log_start,
    };
    model.looked_up += 1;
    shared.demand(times::on_answer(&model, &answer, &known, whole));
}

/// The time of some record that is known, or one close to it.
fn some_time(shared: &Shared, place: Place) -> i64 {
    let model = shared.model.borrow();
    let partition = model.partitions.get(&place);
    let known = partition.map_or(0, |p| p.known.len());
    let picked = partition.and_then(|p| p.known.values().nth(shared.below(known as u64) as usize));
    let sent = picked.and_then(|stored| model.sent.get(&stored.tag));
    let stamped = model.is_stamped(place);
    let time = sent.and_then(|s| s.time(shared.below(s.records as u64) as i32, stamped));
    match time {
        Some(time) => time + shared.below(3) as i64 - 1,
        None => rt::wall_ms() + shared.below(2 * AROUND_MS) as i64 - AROUND_MS as i64,
    }
}
