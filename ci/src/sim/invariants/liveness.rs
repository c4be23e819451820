//! Owns: once the faults have ended, everything under way comes to an end.
//! Does not know why it would not.
//! Invariant checked: no request is without an answer after minutes of virtual time.

use super::Violation;
use std::time::Duration;

const NAME: &str = "everything comes to an end";

/// How long it may take, in virtual time, after the last fault.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub fn stuck(what: &str) -> Violation {
    let seconds = PATIENCE.as_secs();
    Violation::new(NAME, format!("{what}, {seconds} s after the last fault"))
}

/// What the simulator says when nothing can ever run again, or something spins.
pub fn is_stuck(panic: &str) -> bool {
    panic.contains("the simulation is stuck") || panic.contains("something spins")
}

pub fn of_panic(panic: &str) -> Violation {
    Violation::new(NAME, panic)
}
