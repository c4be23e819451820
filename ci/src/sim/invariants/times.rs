//! Owns: a time is found where it is: the first record that is not older, the newest record, or none.
//! Does not know indexes.
//! Invariant checked: no known record would have been a better answer, and the record named has the time that is told.

use super::recovery::Digest;
use super::{Check, Violation};
use crate::sim::model::{Model, Place};

const NAME: &str = "times are found where they are";

/// What a lookup gave.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub place: Place,
    /// None asks for the newest record.
    pub asked: Option<i64>,
    pub found: Option<(i64, i64)>,
    /// As known when it was asked.
    pub log_start: i64,
}

/// A record that is certain: its offset and its time.
pub type Known = Vec<(i64, i64)>;

/// The records that are sure to be there as long as nobody deletes them, in order.
pub fn certain(model: &Model, place: Place) -> Known {
    let stamped = model.is_stamped(place);
    let mut known = Known::new();
    let Some(partition) = model.partitions.get(&place) else {
        return known;
    };
    let from = partition.bounds.log_start;
    for (base, stored) in &partition.known {
        if stored.end(*base) <= from {
            continue;
        }
        let Some(sent) = model.sent.get(&stored.tag) else {
            continue;
        };
        for n in 0..stored.records {
            let offset = base + i64::from(n);
            if let (true, Some(time)) = (offset >= from, sent.time(n, stamped)) {
                known.push((offset, time));
            }
        }
    }
    known
}

/// `known`: what was certain when it was asked; `whole`: the partition has no other records.
pub fn on_answer(model: &Model, answer: &Answer, known: &Known, whole: Option<&Digest>) -> Check {
    let place = answer.place;
    let wrong = |why: String| {
        let asked = match answer.asked {
            Some(time) => format!("the first record from {time} on"),
            None => "the newest record".to_string(),
        };
        let what = format!("{place}: {asked} is said to be {:?}: {why}", answer.found);
        Err(Violation::new(NAME, what))
    };
    if let Some((offset, time)) = answer.found {
        if offset < answer.log_start {
            return wrong(format!("the log begins at {}", answer.log_start));
        }
        if answer.asked.is_some_and(|asked| time < asked) {
            return wrong("that is too old".to_string());
        }
        if let Some((_, is)) = known.iter().find(|(o, _)| *o == offset) {
            if *is != time {
                return wrong(format!("the record there is of {is}"));
            }
        }
    }
    let partition = model.partitions.get(&place);
    let deleted = partition.map_or(0, |p| p.delete_asked);
    let gone = |offset: i64| offset < deleted || (model.retains(place) && whole.is_none());
    let better = known.iter().filter(|(offset, _)| !gone(*offset));
    let better = match (answer.asked, answer.found) {
        (Some(asked), found) => {
            let before = found.map_or(i64::MAX, |f| f.0);
            better
                .filter(|r| r.1 >= asked && r.0 < before)
                .min_by_key(|r| r.0)
        }
        (None, found) => {
            let than = found.map_or(i64::MIN, |f| f.1);
            better.filter(|r| r.1 > than).max_by_key(|r| r.1)
        }
    };
    match better {
        Some((offset, time)) => wrong(format!("the record at {offset} is of {time}")),
        None => Ok(()),
    }
}
