//! Owns making a failing history small: steps are dropped while it still fails in the same way.
//! Does not know what the steps do.
//! Invariant: what it gives fails; in how many tries, and in how much time, is bounded.

use super::history::History;
use super::workers::{Order, Report, Worker};
use std::io;
use std::time::{Duration, Instant};

const TRIES_MAX: u32 = 400;
/// After this no further try begins. Where something is stuck or spins each takes long.
const TIME_MAX: Duration = Duration::from_secs(90);
/// What a try may take more than the whole history did: with fewer steps it does less, unless it fails otherwise.
const SLOWER_MAX: Duration = Duration::from_secs(3);

/// Which steps are needed for the violation of `first`, which took `took` to run into.
pub fn shrink(
    worker: &mut Worker,
    history: &History,
    plant: Option<&str>,
    first: &Report,
    took: Duration,
) -> io::Result<Vec<bool>> {
    let began = Instant::now();
    let more = |tries: u32| tries < TRIES_MAX && began.elapsed() < TIME_MAX;
    let wanted = first.violation.as_ref().map(|v| &v.invariant);
    let mut keep = vec![true; history.steps.len()];
    let mut tries = 0;
    let mut chunk = keep.len().next_power_of_two() / 2;
    while chunk > 0 {
        let mut dropped = false;
        let mut at = 0;
        while at < keep.len() && more(tries) {
            let end = (at + chunk).min(keep.len());
            if keep[at..end].contains(&true) {
                let mut fewer = keep.clone();
                fewer[at..end].fill(false);
                tries += 1;
                let order = Order {
                    seed: history.seed,
                    plant: plant.map(str::to_string),
                    keep: Some(fewer.clone()),
                    limit: Some(took + SLOWER_MAX),
                };
                let report = worker.ask(&order)?;
                if report.violation.as_ref().map(|v| &v.invariant) == wanted {
                    keep = fewer;
                    dropped = true;
                }
            }
            at = end;
        }
        // Dropping one step may make another one needless.
        if chunk > 1 || !dropped || !more(tries) {
            chunk /= 2;
        }
    }
    Ok(keep)
}
