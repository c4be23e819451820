//! Owns: what was acknowledged is there, in order, at its offset, as long as nobody deleted it.
//! Does not know how it could have been lost.
//! Invariant checked: every acknowledged batch inside of what a read covers is in that read.

use super::{Check, Violation};
use crate::sim::model::{Model, Place, Read};

const NAME: &str = "acknowledged records survive";

pub fn on_read(model: &Model, read: &Read) -> Check {
    let (Some(first), Some(last)) = (read.batches.first(), read.batches.last()) else {
        // An empty answer below the high watermark gives nothing where something is.
        if read.alone && read.asked >= read.log_start && read.asked < read.high_watermark {
            let what = format!(
                "{}: nothing to read at {}, below the high watermark {}",
                read.place, read.asked, read.high_watermark
            );
            return Err(Violation::new(NAME, what));
        }
        return Ok(());
    };
    let Some(partition) = model.partitions.get(&read.place) else {
        return Ok(());
    };
    let covered = first.header.base_offset..last.header.next_offset();
    for (base, stored) in partition.acked.range(covered) {
        let found = read
            .batches
            .iter()
            .find(|b| b.header.base_offset == *base)
            .map(|b| b.tag);
        if found != Some(stored.tag) {
            let what = format!(
                "{}: batch {} was acknowledged at {base}, read there: {found:?}",
                read.place, stored.tag
            );
            return Err(Violation::new(NAME, what));
        }
    }
    Ok(())
}

/// After everything from `log_start` to `end` was read.
pub fn on_complete(model: &Model, place: Place, log_start: i64, end: i64) -> Check {
    let Some(partition) = model.partitions.get(&place) else {
        return Ok(());
    };
    let beyond = partition
        .known
        .iter()
        .find(|(base, stored)| **base >= log_start && stored.end(**base) > end);
    match beyond {
        Some((base, stored)) => {
            let acked = partition.acked.contains_key(base);
            let how = if acked { "acknowledged" } else { "read" };
            let what = format!(
                "{place}: batch {} was {how} at {base}, and the log ends at {end}",
                stored.tag
            );
            Err(Violation::new(NAME, what))
        }
        None => Ok(()),
    }
}

/// A partition of a topic that is certain to be there.
pub fn unknown_partition(place: Place) -> Violation {
    Violation::new(
        NAME,
        format!("{place} exists, and the broker does not know it"),
    )
}

/// An offset that is certain to be there.
pub fn on_out_of_range(model: &Model, read: &Read) -> Check {
    let known = model.bounds(read.place);
    let partition = model.partitions.get(&read.place);
    let deleted = partition.map_or(0, |p| p.delete_asked);
    let certain = read.asked >= deleted
        && read.asked >= known.log_start
        && read.asked <= read.before.high_watermark
        && !model.retains(read.place);
    if certain {
        let what = format!(
            "{}: offset {} is said to be out of range; known: {known:?}",
            read.place, read.asked
        );
        return Err(Violation::new(NAME, what));
    }
    Ok(())
}
