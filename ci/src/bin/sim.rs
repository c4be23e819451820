//! Owns the command `ci/sim`: many histories, one history shown, or the trial by planted bugs.
//! Does not know what a history is made of.
//! Invariant: it ends with a line that counts, and with a failure where there was one.

use clap::Parser;
use millrace_ci::sim::history::History;
use millrace_ci::sim::options::Options;
use millrace_ci::sim::run::run;
use millrace_ci::sim::workers::{self, Order, Report, Worker};
use millrace_ci::sim::{plants, shrink};
use std::io;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.worker {
        workers::serve().map(|()| true)
    } else if let Some(seed) = options.replay {
        replay(seed, &options)
    } else if options.plants {
        let jobs = jobs(&options);
        plants::trial(options.plant.as_deref(), options.from, options.seeds, jobs).map(|n| n == 0)
    } else {
        many(&options)
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ci/sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn jobs(options: &Options) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    options.jobs.unwrap_or_else(cores)
}

fn many(options: &Options) -> io::Result<bool> {
    let began = Instant::now();
    let total = Mutex::new((0u64, 0u64, Report::default()));
    let plant = options.plant.as_deref();
    workers::run_seeds(
        options.from,
        options.seeds,
        jobs(options),
        plant,
        |report| {
            let mut total = total.lock().expect("nothing panics with it");
            total.0 += 1;
            if let Some(violation) = &report.violation {
                total.1 += 1;
                println!("seed {}: {violation}", report.seed);
            }
            let sum = &mut total.2;
            sum.starts += report.starts;
            sum.crashes += report.crashes;
            sum.deaths += report.deaths;
            sum.laps += report.laps;
            sum.acked += report.acked;
            sum.looked_up += report.looked_up;
            sum.refusals += report.refusals;
            sum.reads_disk += report.reads_disk;
            sum.virtual_ms += report.virtual_ms;
            true
        },
    )?;
    let (histories, violations, sum) = total.into_inner().expect("nothing panics with it");
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} batches acknowledged, {} starts, {} crashes, the broker gave up {} times, {} rounds of journal rings, \
         {} reads from disk, {} lookups by time, {} refusals of damage, {} s of virtual time",
        sum.acked,
        sum.starts,
        sum.crashes,
        sum.deaths,
        sum.laps,
        sum.reads_disk,
        sum.looked_up,
        sum.refusals,
        sum.virtual_ms / 1000
    );
    let hourly = histories as f64 / took * 3600.0;
    println!("{took:.0} s, {hourly:.0} histories an hour");
    println!("{histories} histories, {violations} violations");
    Ok(violations == 0)
}

fn replay(seed: u64, options: &Options) -> io::Result<bool> {
    let history = History::generate(seed);
    let plant = options.plant.as_deref();
    let mut worker = Worker::default();
    let order = Order {
        seed,
        plant: plant.map(str::to_string),
        keep: None,
        limit: None,
    };
    let began = Instant::now();
    let report = worker.ask(&order)?;
    let took = began.elapsed();
    let all = vec![true; history.steps.len()];
    let keep = match &report.violation {
        Some(_) if !options.whole => shrink::shrink(&mut worker, &history, plant, &report, took)?,
        Some(_) | None => all,
    };
    drop(worker);
    plants::choose(plant).map_err(io::Error::other)?;
    tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stdout)
        .init();
    println!("seed {seed}: {:?}", history.settings);
    for (n, step) in history.steps.iter().enumerate().filter(|(n, _)| keep[*n]) {
        println!("[{n}] {step}");
    }
    if let Some(violation) = &report.violation {
        let kept = keep.iter().filter(|k| **k).count();
        println!("fails with {kept} of {} steps: {violation}", keep.len());
    }
    println!();
    let outcome = run(&history, &keep, true);
    match outcome.violation {
        Some(violation) => {
            println!("VIOLATION at step {}: {violation}", outcome.step);
            Ok(false)
        }
        None => {
            println!("no violation; {:?}", outcome.counts);
            Ok(true)
        }
    }
}
