//! Owns: what was once acknowledged or read at an offset is what is there ever after.
//! Does not know crashes; it compares only what clients were told.
//! Invariant checked: two batches never share an offset.

use super::{Check, Violation};
use crate::sim::model::{Acked, Model, Place, Read, Stored};

const NAME: &str = "an offset never changes its record";

pub fn on_acked(model: &Model, acked: &Acked) -> Check {
    let Some(sent) = model.sent.get(&acked.tag) else {
        return Ok(());
    };
    let stored = Stored {
        tag: acked.tag,
        records: sent.records,
    };
    compare(model, acked.place, acked.base, stored)
}

pub fn on_read(model: &Model, read: &Read) -> Check {
    for batch in &read.batches {
        let stored = Stored {
            tag: batch.tag,
            records: batch.header.record_count,
        };
        compare(model, read.place, batch.header.base_offset, stored)?;
    }
    Ok(())
}

fn compare(model: &Model, place: Place, base: i64, stored: Stored) -> Check {
    let Some(partition) = model.partitions.get(&place) else {
        return Ok(());
    };
    let other = partition
        .known
        .range(..stored.end(base))
        .next_back()
        .filter(|(b, other)| other.end(**b) > base && (**b, **other) != (base, stored));
    match other {
        Some((at, other)) => {
            let what = format!(
                "{place}: batch {} was at {at}, now {} is at {base}",
                other.tag, stored.tag
            );
            Err(Violation::new(NAME, what))
        }
        None => Ok(()),
    }
}
