//! Owns: the order of a partition's durable points, as far as clients see them. The engine asserts the rest itself.
//! Does not know the journal.
//! Invariant checked: log_start <= high_watermark, records end at or below it, and it never goes back, across crashes too.

use super::{Check, Violation};
use crate::sim::model::{Acked, Model, Place, Read};

const NAME: &str = "the order of the durable points";

pub fn on_read(model: &Model, read: &Read) -> Check {
    let end = read.batches.last().map_or(0, |b| b.header.next_offset());
    let ordered = read.log_start <= read.high_watermark && end <= read.high_watermark;
    if !ordered {
        let what = format!(
            "{}: log start {}, records up to {end}, high watermark {}",
            read.place, read.log_start, read.high_watermark
        );
        return Err(Violation::new(NAME, what));
    }
    never_back(
        model,
        read.place,
        read.before.high_watermark,
        read.high_watermark,
    )
}

pub fn on_listed(model: &Model, place: Place, before: i64, latest: i64) -> Check {
    never_back(model, place, before, latest)
}

pub fn on_acked(_: &Model, acked: &Acked) -> Check {
    if acked.log_start > acked.base && acked.base >= 0 && acked.before.log_start <= acked.base {
        // Deleted between the append and the answer, or a duplicate of what was deleted: both are fine.
        return Ok(());
    }
    if acked.base < 0 {
        let what = format!("{}: acknowledged at {}", acked.place, acked.base);
        return Err(Violation::new(NAME, what));
    }
    Ok(())
}

fn never_back(model: &Model, place: Place, before: i64, now: i64) -> Check {
    // A damaged log may end early; whoever asks behind its end is told, which `corruption` checks.
    if now < before && !model.damaged {
        let what = format!("{place}: the high watermark was {before} and is {now}");
        return Err(Violation::new(NAME, what));
    }
    Ok(())
}
