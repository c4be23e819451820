//! Owns making a failing history small: steps are dropped while it still fails in the same way.
//! Does not know what the steps do.
//! Invariant: what it gives fails; in how many tries is bounded.

use super::history::History;
use super::workers::{Order, Report, Worker};
use std::io;

const TRIES_MAX: u32 = 400;

/// Which steps are needed for the violation of `first`.
pub fn shrink(
    worker: &mut Worker,
    history: &History,
    plant: Option<&str>,
    first: &Report,
) -> io::Result<Vec<bool>> {
    let wanted = first.violation.as_ref().map(|v| &v.invariant);
    let mut keep = vec![true; history.steps.len()];
    let mut tries = 0;
    let mut chunk = keep.len().next_power_of_two() / 2;
    while chunk > 0 {
        let mut dropped = false;
        let mut at = 0;
        while at < keep.len() && tries < TRIES_MAX {
            let end = (at + chunk).min(keep.len());
            if keep[at..end].contains(&true) {
                let mut fewer = keep.clone();
                fewer[at..end].fill(false);
                tries += 1;
                let order = Order {
                    seed: history.seed,
                    plant: plant.map(str::to_string),
                    keep: Some(fewer.clone()),
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
        if chunk > 1 || !dropped || tries >= TRIES_MAX {
            chunk /= 2;
        }
    }
    Ok(keep)
}
