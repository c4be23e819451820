//! Owns noticing that the whole machine stood still, as a virtual one does when its host takes its processors away.
//! Does not know what else runs on it.
//! Invariant: who is late by what a scheduler may do to a thread that hardly runs is not counted.

use crate::clock::{self, Nanos};
use serde::Serialize;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(20);
/// A thread that sleeps most of the time is woken within milliseconds, also where another would run all the time.
const LATE: Duration = Duration::from_millis(100);

/// How the machine stood still in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stalls {
    pub count: u64,
    pub seconds: f64,
    pub longest_seconds: f64,
}

impl Stalls {
    fn note(&mut self, meant: Nanos, woken: Nanos) {
        let late_ns = woken.since(meant);
        if late_ns < clock::nanos(LATE) {
            return;
        }
        let seconds = late_ns as f64 / 1e9;
        self.count += 1;
        self.seconds += seconds;
        self.longest_seconds = self.longest_seconds.max(seconds);
    }

    /// Waits until `at`, or until `done` is told or given up; gives whether it was the time.
    pub fn wait_until(&mut self, at: Nanos, done: &Receiver<()>) -> bool {
        loop {
            let now = clock::now();
            let step = Duration::from_nanos(at.since(now)).min(LOOK);
            match done.recv_timeout(step) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return false,
            }
            let woken = clock::now();
            self.note(now.after(step), woken);
            if woken >= at {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn being_woken_far_too_late_is_a_stall() {
        let mut stalls = Stalls::default();
        let ms = |ms: u64| Nanos(ms * 1_000_000);
        stalls.note(ms(20), ms(21));
        stalls.note(ms(41), ms(140));
        assert_eq!(stalls, Stalls::default());
        stalls.note(ms(160), ms(660));
        stalls.note(ms(680), ms(930));
        let seen = Stalls {
            count: 2,
            seconds: 0.75,
            longest_seconds: 0.5,
        };
        assert_eq!(stalls, seen);
    }

    #[test]
    fn a_wait_ends_at_its_time_or_when_it_is_told() {
        let (sender, done) = mpsc::channel();
        let mut stalls = Stalls::default();
        let at = clock::now().after(3 * LOOK);
        assert!(stalls.wait_until(at, &done));
        assert!(clock::now() >= at);
        let far = clock::now().after(Duration::from_secs(3_600));
        sender.send(()).expect("there");
        assert!(!stalls.wait_until(far, &done));
        drop(sender);
        assert!(!stalls.wait_until(far, &done));
    }
}
