//! Owns: damage is reported before its bytes are served; an answer is right or an error, never wrong.
//! Does not know where the damage is.
//! Invariant checked: every batch served is intact, and a log that ends early says so to whoever asks behind its end.

use super::{Check, Violation};
use crate::sim::model::{Model, Place, Read};

const NAME: &str = "damage is reported, never served";

pub fn on_read(read: &Read) -> Check {
    if let Some(garbage) = &read.garbage {
        let what = format!("{}: served at {}: {garbage}", read.place, read.asked);
        return Err(Violation::new(NAME, what));
    }
    match read.batches.iter().find(|b| !b.intact) {
        Some(batch) => {
            let at = batch.header.base_offset;
            let what = format!("{}: the batch served at {at} is damaged", read.place);
            Err(Violation::new(NAME, what))
        }
        None => Ok(()),
    }
}

/// After a damaged partition was read to its end: `refused` says that the fetch at `end` was an error.
pub fn on_early_end(model: &Model, place: Place, end: i64, refused: bool) -> Check {
    let known = model.bounds(place).high_watermark;
    if end < known && !refused {
        let what =
            format!("{place}: ends at {end} without an error; records up to {known} were there");
        return Err(Violation::new(NAME, what));
    }
    Ok(())
}
