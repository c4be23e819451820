//! Owns: a fetch session tells of every partition that it was asked for and of no other.
//! Does not know what is in the answers.
//! Invariant checked: no partition of a session is left behind while the others are served, or while none is.

use super::{Check, Violation};
use crate::sim::model::Place;

const NAME: &str = "sessions forget no partition";

/// Answers in a row that may bring nothing new where there is something to read.
pub const IDLE_MAX: u32 = 12;

pub fn on_idle(idle: u32, behind: Option<(Place, i64, i64)>) -> Check {
    match behind {
        Some((place, at, end)) if idle > IDLE_MAX => {
            let what = format!(
                "{place}: still at {at} of {end} after {idle} answers of a session that say nothing of it"
            );
            Err(Violation::new(NAME, what))
        }
        Some(_) | None => Ok(()),
    }
}

pub fn not_asked(topic: &str, index: i32) -> Violation {
    let what = format!("{topic}-{index} is in an answer, and not in its session");
    Violation::new(NAME, what)
}
