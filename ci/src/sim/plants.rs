//! Owns the trial of the simulation itself: every deliberate bug of the engine has to be caught.
//! Does not know what the bugs are; the engine lists them.
//! Invariant: a bug counts as caught only by a history that is clean without it.

use super::workers::{run_seeds, Order, Report, Worker};
use std::io;
use std::sync::Mutex;

/// The names of all plants; none in a build without them.
#[cfg(feature = "plants")]
pub fn names() -> Vec<String> {
    let all = millrace_engine::plant::Plant::ALL;
    all.iter().map(|plant| format!("{plant:?}")).collect()
}

#[cfg(not(feature = "plants"))]
pub fn names() -> Vec<String> {
    Vec::new()
}

/// Gives the engine of this thread the bug of this name, or none.
///
/// # Errors
/// No such bug in this build.
#[cfg(feature = "plants")]
pub fn choose(name: Option<&str>) -> Result<(), String> {
    use millrace_engine::plant::{self, Plant};
    let found = match name {
        None => None,
        Some(name) => {
            let named = |p: &&Plant| format!("{p:?}").eq_ignore_ascii_case(name);
            Some(Plant::ALL.iter().find(named).ok_or_else(|| unknown(name))?)
        }
    };
    plant::set(found.copied());
    Ok(())
}

#[cfg(not(feature = "plants"))]
pub fn choose(name: Option<&str>) -> Result<(), String> {
    name.map_or(Ok(()), |name| Err(unknown(name)))
}

fn unknown(name: &str) -> String {
    match names() {
        none if none.is_empty() => "this build has no plants: build with --features plants".into(),
        names => format!("no plant {name}; there are: {}", names.join(", ")),
    }
}

/// Tries each bug until it is caught, and prints the table. Gives how many escaped.
///
/// # Errors
/// Where the processes cannot be run, or there is no such plant.
pub fn trial(only: Option<&str>, from: u64, seeds: u64, jobs: usize) -> io::Result<usize> {
    let wanted = |name: &String| only.is_none_or(|only| name.eq_ignore_ascii_case(only));
    let plants: Vec<String> = names().into_iter().filter(wanted).collect();
    if plants.is_empty() {
        return Err(io::Error::other(unknown(only.unwrap_or("at all"))));
    }
    println!("{:<30} {:>6}  caught by", "plant", "seeds");
    let mut escaped = 0;
    for plant in &plants {
        match first_catch(plant, from, seeds, jobs)? {
            Some((needed, report)) => {
                let found = report.violation.expect("it was caught");
                println!("{plant:<30} {needed:>6}  {}", found.invariant);
            }
            None => {
                println!("{plant:<30} {seeds:>6}  ESCAPED");
                escaped += 1;
            }
        }
    }
    println!("{} plants, {escaped} escaped", plants.len());
    Ok(escaped)
}

/// The first seed that catches the bug and is clean without it.
fn first_catch(
    plant: &str,
    mut from: u64,
    seeds: u64,
    jobs: usize,
) -> io::Result<Option<(u64, Report)>> {
    let (start, end) = (from, from + seeds);
    while from < end {
        let caught: Mutex<Option<Report>> = Mutex::new(None);
        run_seeds(from, end - from, jobs, Some(plant), |report| {
            if report.violation.is_none() {
                return true;
            }
            let mut caught = caught.lock().expect("nothing panics with it");
            if caught.as_ref().is_none_or(|c| report.seed < c.seed) {
                *caught = Some(report);
            }
            false
        })?;
        let Some(report) = caught.into_inner().expect("nothing panics with it") else {
            return Ok(None);
        };
        let without = Order {
            seed: report.seed,
            plant: None,
            keep: None,
            limit: None,
        };
        if Worker::default().ask(&without)?.violation.is_none() {
            return Ok(Some((report.seed - start + 1, report)));
        }
        println!("seed {} fails without {plant}, too", report.seed);
        from = report.seed + 1;
    }
    Ok(None)
}
