//! Owns consumers that read along, and the reader that verifies a whole partition.
//! Does not know what the records should be: every answer goes to the checks.
//! Invariant: a reader goes on where its last answer ended, and gives up only where its topic does.

use super::super::invariants::recovery::Digest;
use super::super::invariants::{acknowledged, corruption, durable_points, log_start, retention};
use super::super::model::{Place, Read};
use super::super::wire::{Conn, Lost};
use super::read::{fetch, list_offset, Ask, Listed};
use super::{code, lookup, Shared};
use millrace_net::wire::list_offsets::timestamp::{EARLIEST, LATEST};
use std::cell::RefCell;
use std::rc::Rc;

/// Errors of a damaged partition after which its reader has seen enough.
const ERRORS_MAX: u32 = 200;

/// Reads along from somewhere in a partition.
pub async fn follow(shared: Rc<Shared>, topic: u8, polls: u32, bytes_max: i32) {
    let partitions = shared
        .model
        .borrow()
        .topics
        .get(&topic)
        .map_or(0, |t| t.partitions);
    let index = shared.below(partitions.max(1) as u64) as i32;
    let Some(place) = shared.model.borrow().place(topic, index) else {
        return;
    };
    let known = shared.model.borrow().bounds(place);
    let span = (known.high_watermark - known.log_start).max(0) as u64;
    let mut offset = known.log_start + shared.below(span + 1) as i64;
    let mut conn: Option<Conn> = None;
    let mut left = polls;
    while left > 0 && shared.violation().is_none() && shared.model.borrow().is_certain(place) {
        left -= 1;
        let ask = Ask {
            place,
            offset,
            bytes_max,
            wait_ms: shared.below(60) as i32,
        };
        match step(&shared, &mut conn, ask).await {
            Some(Next::At(next)) => offset = next,
            Some(Next::OutOfRange) => {
                offset = earliest(&shared, &mut conn, place).await.unwrap_or(offset);
            }
            Some(Next::Later) | None => shared.pause(10_000).await,
        }
    }
}

pub(super) enum Next {
    At(i64),
    OutOfRange,
    /// An error that may pass.
    Later,
}

pub(super) async fn open(conn: &mut Option<Conn>) -> Result<&mut Conn, Lost> {
    if conn.is_none() {
        *conn = Some(Conn::open().await?);
    }
    conn.as_mut().ok_or(Lost)
}

/// One fetch, checked; None where the connection was lost.
async fn step(shared: &Shared, conn: &mut Option<Conn>, ask: Ask) -> Option<Next> {
    let answer = match open(conn).await {
        Ok(conn) => fetch(shared, conn, ask).await,
        Err(Lost) => Err(Lost),
    };
    let Ok((code, read)) = answer else {
        *conn = None;
        return None;
    };
    Some(judge(shared, code, &read))
}

/// What a partition's answer means for whoever reads on, after the checks.
pub(super) fn judge(shared: &Shared, code: i16, read: &Read) -> Next {
    match code {
        0 => {
            shared.read(read);
            let end = read.batches.last().map(|b| b.header.next_offset());
            Next::At(end.unwrap_or(read.asked))
        }
        code::OFFSET_OUT_OF_RANGE => {
            let model = shared.model.borrow();
            if model.is_certain(read.place) && !model.damaged {
                shared.demand(acknowledged::on_out_of_range(&model, read));
            }
            Next::OutOfRange
        }
        code::UNKNOWN_TOPIC_OR_PARTITION => {
            if shared.model.borrow().is_certain(read.place) {
                shared.demand(Err(acknowledged::unknown_partition(read.place)));
            }
            Next::Later
        }
        code if code::is_retriable(code) => Next::Later,
        code => panic!("{}: a fetch is refused with code {code}", read.place),
    }
}

pub(super) async fn earliest(
    shared: &Shared,
    conn: &mut Option<Conn>,
    place: Place,
) -> Option<i64> {
    let before = shared.model.borrow().bounds(place);
    let Listed { code, offset, .. } = listed(conn, place, EARLIEST).await?;
    let mut model = shared.model.borrow_mut();
    if code != 0 || !model.is_certain(place) {
        return None;
    }
    let check = log_start::on_listed(&model, place, before.log_start, offset);
    shared.demand(check);
    model.learn_bounds(place, offset, 0);
    Some(offset)
}

pub(super) async fn latest(shared: &Shared, conn: &mut Option<Conn>, place: Place) -> Option<i64> {
    let before = shared.model.borrow().bounds(place);
    let Listed { code, offset, .. } = listed(conn, place, LATEST).await?;
    let mut model = shared.model.borrow_mut();
    if code != 0 || !model.is_certain(place) {
        return None;
    }
    let check = durable_points::on_listed(&model, place, before.high_watermark, offset);
    shared.demand(check);
    if !model.damaged {
        model.learn_bounds(place, 0, offset);
    }
    Some(offset)
}

pub(super) async fn listed(
    conn: &mut Option<Conn>,
    place: Place,
    timestamp: i64,
) -> Option<Listed> {
    let answer = match open(conn).await {
        Ok(conn) => list_offset(conn, place, timestamp).await,
        Err(Lost) => Err(Lost),
    };
    if answer.is_err() {
        *conn = None;
    }
    answer.ok()
}

/// Reads everything a partition has, and says what that is.
pub async fn verify(shared: Rc<Shared>, place: Place, out: Rc<RefCell<Vec<Digest>>>) {
    let mut conn: Option<Conn> = None;
    let mut tries = 0;
    let bytes_max = [1, 10_000, 200_000, 1 << 20][shared.below(4) as usize];
    loop {
        if shared.violation().is_some() || !shared.model.borrow().is_certain(place) {
            return;
        }
        if let Some(digest) = read_all(&shared, &mut conn, place, bytes_max).await {
            if shared.below(2) == 0 {
                lookup::verify(&shared, &mut conn, &digest).await;
            }
            let model = shared.model.borrow();
            let complete =
                acknowledged::on_complete(&model, place, digest.log_start, digest.high_watermark);
            let complete =
                complete.and_then(|()| retention::on_whole(&model, place, digest.log_start));
            if model.is_certain(place) && shared.demand(complete) {
                out.borrow_mut().push(digest);
            }
            return;
        }
        shared.back_off(&mut tries).await;
    }
}

/// None where something got in the way: the caller tries again.
async fn read_all(
    shared: &Shared,
    conn: &mut Option<Conn>,
    place: Place,
    bytes_max: i32,
) -> Option<Digest> {
    let log_start = earliest(shared, conn, place).await?;
    let high_watermark = latest(shared, conn, place).await?;
    let mut offset = log_start;
    while offset < high_watermark {
        let ask = Ask {
            place,
            offset,
            bytes_max,
            wait_ms: 0,
        };
        match step(shared, conn, ask).await {
            Some(Next::At(next)) if next > offset => offset = next,
            Some(Next::At(_) | Next::OutOfRange | Next::Later) => return None,
            // The connection is gone, not what was read so far.
            None if shared.violation().is_none() => shared.pause(5_000).await,
            None => return None,
        }
    }
    // Retention may have gone on meanwhile; what counts is the end.
    let model = shared.model.borrow();
    let partition = model.partitions.get(&place);
    let batches = partition.map_or(Vec::new(), |p| {
        let from = p.known.range(..).filter(|(b, s)| s.end(**b) > log_start);
        from.map(|(b, s)| (*b, *s)).collect()
    });
    Some(Digest {
        place,
        log_start,
        high_watermark: high_watermark.max(offset),
        batches,
    })
}

/// Reads all that a partition gives after damage: whatever it does not give, it has to refuse.
pub async fn verify_damaged(shared: Rc<Shared>, place: Place, refusals: Rc<RefCell<u64>>) {
    let mut conn: Option<Conn> = None;
    let mut offset = shared.model.borrow().bounds(place).log_start;
    let mut errors = 0;
    loop {
        if errors > ERRORS_MAX || shared.violation().is_some() {
            return;
        }
        let known_end = shared.model.borrow().bounds(place).high_watermark;
        let ask = Ask {
            place,
            offset,
            bytes_max: 1,
            wait_ms: 0,
        };
        let answer = match open(&mut conn).await {
            Ok(open) => fetch(&shared, open, ask).await,
            Err(Lost) => Err(Lost),
        };
        let Ok((code, read)) = answer else {
            conn = None;
            errors += 1;
            shared.pause(5_000).await;
            continue;
        };
        let ended = code == 0 && read.batches.is_empty() && offset >= read.high_watermark;
        if code == 0 && !ended {
            shared.read(&read);
            let end = read.batches.last().map(|b| b.header.next_offset());
            offset = end.unwrap_or(offset + 1);
            continue;
        }
        if ended {
            let model = shared.model.borrow();
            shared.demand(corruption::on_early_end(&model, place, offset, false));
            return;
        }
        errors += 1;
        *refusals.borrow_mut() += 1;
        if offset >= known_end {
            return;
        }
        // Refused here: what comes behind may still be served, and must be right.
        let model = shared.model.borrow();
        let partition = model.partitions.get(&place);
        let next = partition.and_then(|p| p.known.range(offset + 1..).next().map(|(b, _)| *b));
        offset = next.unwrap_or(known_end);
    }
}
