//! Owns the command behind `ci/fuzz/run`: making the corpus, and trying mutations where there is no libFuzzer.
//! Does not know formats.
//! Invariant: it ends with a line that counts, or with the input that failed.

use clap::{Parser, Subcommand};
use millrace_ci::fuzz::{corpus, heap, trial, Target, TARGETS};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

/// Hostile bytes for everything that reads some.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the corpus again, but for the inputs that were found
    Corpus,
    /// Run the corpus and mutations of it; a failure leaves its input in a file
    Mutate {
        /// Only this target (repeatable)
        #[arg(long, value_name = "NAME")]
        target: Vec<String>,
        /// Mutations of each target in a round
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        mutations: u64,
        /// Goes on for so long with each target, round after round, each from the next seed
        #[arg(long, value_name = "N", default_value_t = 0)]
        seconds: u64,
        /// What the mutations are derived from
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// Where an input that fails is left
        #[arg(long, value_name = "DIR", default_value = "target/fuzz")]
        evidence: PathBuf,
    },
    /// Run files through a target
    Replay {
        #[arg(value_name = "NAME")]
        target: String,
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the names of the targets
    List,
}

fn main() -> ExitCode {
    match run(Options::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> Result<&'static Target, String> {
    Target::named(name).ok_or_else(|| format!("there is no target `{name}`"))
}

/// Rounds of mutations until the time is over, one at least.
fn search(
    target: &Target,
    mutations: u64,
    seed: u64,
    time: Duration,
    evidence: &Path,
) -> Result<(), String> {
    let began = Instant::now();
    let (mut inputs, mut most) = (0, (0, 0));
    for round in 0.. {
        let measure = &mut heap::measured;
        let tried = trial::run(target, mutations, seed + round, evidence, measure);
        let tried = tried.map_err(|e| e.to_string())?;
        inputs += tried.inputs;
        most = most.max(tried.heap_most);
        if began.elapsed() >= time {
            break;
        }
    }
    let (heap, of) = most;
    println!(
        "{}: {inputs} inputs in {:.1} s, at most {heap} bytes of heap ({of} bytes of input)",
        target.name,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Corpus => {
            let files = corpus::write().map_err(|e| e.to_string())?;
            println!("{files} files");
        }
        Command::Mutate {
            target,
            mutations,
            seconds,
            seed,
            evidence,
        } => {
            let chosen: Result<Vec<_>, _> = target.iter().map(|name| named(name)).collect();
            let mut chosen = chosen?;
            if chosen.is_empty() {
                chosen.extend(TARGETS);
            }
            for target in chosen {
                search(
                    target,
                    mutations,
                    seed,
                    Duration::from_secs(seconds),
                    &evidence,
                )?;
            }
        }
        Command::Replay { target, files } => {
            let target = named(&target)?;
            for file in files {
                let input = std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
                let heap = heap::measured(target, &input);
                println!("{}: {heap} bytes of heap", file.display());
            }
        }
        Command::List => TARGETS
            .iter()
            .for_each(|target| println!("{}", target.name)),
    }
    Ok(())
}
