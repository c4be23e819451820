//! Owns: offsets are dense, without gaps or overlaps.
//! Does not know compaction, which will be the one exception.
//! Invariant checked: each batch of a read begins where the one before it ended.

use super::{Check, Violation};
use crate::sim::model::Read;

const NAME: &str = "offsets are dense";

pub fn on_read(read: &Read) -> Check {
    let mut due = None;
    for batch in &read.batches {
        let header = &batch.header;
        let fits = match due {
            None => header.base_offset <= read.asked && read.asked < header.next_offset(),
            Some(due) => header.base_offset == due,
        };
        if !fits || header.record_count != header.last_offset_delta + 1 {
            let due = due.unwrap_or(read.asked);
            let what = format!(
                "{}: asked for {}, {due} was due and {}..{} came",
                read.place,
                read.asked,
                header.base_offset,
                header.next_offset()
            );
            return Err(Violation::new(NAME, what));
        }
        due = Some(header.next_offset());
    }
    let epochs: Vec<i32> = read.batches.iter().map(|b| b.header.leader_epoch).collect();
    if !epochs.is_sorted() {
        let what = format!("{}: leader epochs go back: {epochs:?}", read.place);
        return Err(Violation::new(NAME, what));
    }
    Ok(())
}
