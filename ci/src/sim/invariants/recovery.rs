//! Owns: recovery comes to its end, and to the same end however often it is cut short.
//! Does not know journals.
//! Invariant checked: with nothing under way, the state after a recovery is the state before the crash.

use super::{Check, Violation};
use crate::sim::model::{Place, Stored};

const NAME: &str = "recovery is idempotent";

/// All that clients can see of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    pub place: Place,
    pub log_start: i64,
    pub high_watermark: i64,
    pub batches: Vec<(i64, Stored)>,
}

/// `retains`: retention may have deleted meanwhile, so only the end is compared.
pub fn on_recovered(before: &Digest, after: &Digest, retains: bool) -> Check {
    let same = if retains {
        let tail = |d: &Digest| -> Vec<(i64, Stored)> {
            let from = after.log_start;
            d.batches
                .iter()
                .filter(|(b, s)| s.end(*b) > from)
                .copied()
                .collect()
        };
        before.high_watermark == after.high_watermark && tail(before) == tail(after)
    } else {
        before == after
    };
    if same {
        return Ok(());
    }
    let brief = |d: &Digest| {
        format!(
            "{}..{} in {} batches",
            d.log_start,
            d.high_watermark,
            d.batches.len()
        )
    };
    let what = format!(
        "{}: was {}, is {}",
        before.place,
        brief(before),
        brief(after)
    );
    Err(Violation::new(NAME, what))
}

/// A start that was refused although nothing is damaged.
pub fn refused(reason: &str) -> Violation {
    Violation::new(NAME, format!("the broker does not start: {reason}"))
}
