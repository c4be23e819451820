//! Owns: nothing is invented; what is read was sent, to that partition, byte for byte.
//! Does not know whether it should be there.
//! Invariant checked: every batch read has the content, count and place of one that a client sent.

use super::{Check, Violation};
use crate::sim::model::{Model, Read};

const NAME: &str = "nothing is invented";

pub fn on_read(model: &Model, read: &Read) -> Check {
    for batch in &read.batches {
        let at = batch.header.base_offset;
        let Some(sent) = model.sent.get(&batch.tag) else {
            let what = format!("{}: nobody sent what is at {at}", read.place);
            return Err(Violation::new(NAME, what));
        };
        let same_partition =
            (sent.place.topic, sent.place.index) == (read.place.topic, read.place.index);
        // A request may arrive after its topic was made anew; it is never one of a later life.
        if !same_partition || sent.place.life > read.place.life {
            let what = format!(
                "{}: at {at} is batch {}, which was sent to {}",
                read.place, batch.tag, sent.place
            );
            return Err(Violation::new(NAME, what));
        }
        if sent.place.life < read.place.life && sent.base.is_some() {
            let what = format!(
                "{}: at {at} is batch {}, which was deleted with {}",
                read.place, batch.tag, sent.place
            );
            return Err(Violation::new(NAME, what));
        }
        if sent.records != batch.header.record_count {
            let what = format!(
                "{}: batch {} at {at} is not what was sent",
                read.place, batch.tag
            );
            return Err(Violation::new(NAME, what));
        }
    }
    Ok(())
}
