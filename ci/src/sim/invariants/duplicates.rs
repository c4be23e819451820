//! Owns: a batch is stored at most once, however often an idempotent producer repeats it.
//! Does not know sequences; clients that are not idempotent never repeat.
//! Invariant checked: a batch has one offset, whether acknowledged or read.

use super::{Check, Violation};
use crate::sim::model::{Acked, Model, Place, Read};

const NAME: &str = "no batch is stored twice";

pub fn on_acked(model: &Model, acked: &Acked) -> Check {
    one_offset(model, acked.place, acked.tag, acked.base)
}

pub fn on_read(model: &Model, read: &Read) -> Check {
    for (n, batch) in read.batches.iter().enumerate() {
        let base = batch.header.base_offset;
        one_offset(model, read.place, batch.tag, base)?;
        let again = read.batches[..n].iter().find(|b| b.tag == batch.tag);
        if let Some(again) = again {
            return Err(twice(read.place, batch.tag, again.header.base_offset, base));
        }
    }
    Ok(())
}

fn one_offset(model: &Model, place: Place, tag: u64, base: i64) -> Check {
    match model.sent.get(&tag).and_then(|sent| sent.base) {
        Some(known) if known != base => Err(twice(place, tag, known, base)),
        Some(_) | None => Ok(()),
    }
}

fn twice(place: Place, tag: u64, one: i64, other: i64) -> Violation {
    let what = format!("{place}: batch {tag} is at {one} and at {other}");
    Violation::new(NAME, what)
}

/// The first batch that has no answer is refused as out of order, again and again: what the producer was told is stored
/// was forgotten.
pub fn forgotten_sequence(place: Place, tag: u64) -> Violation {
    let what = format!("{place}: batch {tag} is next in its producer's sequence and is refused");
    Violation::new(NAME, what)
}
