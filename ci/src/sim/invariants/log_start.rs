//! Owns: the log start only grows, and only where deleting was asked for.
//! Does not know when retention runs.
//! Invariant checked: no answer names a lower log start than one before it; without a retention nothing passes what
//! DeleteRecords asked for.

use super::{retention, Check, Violation};
use crate::sim::model::{Acked, Model, Place, Read};
use millrace_engine::rt;

const NAME: &str = "log start only grows";

pub fn on_read(model: &Model, read: &Read) -> Check {
    on_listed(model, read.place, read.before.log_start, read.log_start)
}

pub fn on_listed(model: &Model, place: Place, before: i64, now: i64) -> Check {
    // What moved it may have been in a commit that is damaged: then it is where it was before, which is said of the partition.
    if now < before && !model.damaged {
        let what = format!("{place}: the log start was {before} and is {now}");
        return Err(Violation::new(NAME, what));
    }
    on_told(model, place, now)
}

/// An acknowledgement may be older than what was known when it came, so it may name an older log start.
pub fn on_acked(model: &Model, acked: &Acked) -> Check {
    on_told(model, acked.place, acked.log_start)
}

fn on_told(model: &Model, place: Place, now: i64) -> Check {
    let asked = model.partitions.get(&place).map_or(0, |p| p.delete_asked);
    if now > asked && !model.retains(place) {
        let what = format!("{place}: the log start is {now}, and nobody deleted beyond {asked}");
        return Err(Violation::new(NAME, what));
    }
    retention::on_start(model, place, now, model.wall_max_ms.max(rt::wall_ms()))
}
