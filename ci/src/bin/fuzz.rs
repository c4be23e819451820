//! Owns the command behind `ci/fuzz/run`: making the corpus, and trying mutations where there is no libFuzzer.
//! Does not know formats.
//! Invariant: it ends with a line that counts, or with the input that failed.

use clap::{Parser, Subcommand};
use millrace_ci::fuzz::{corpus, heap, trial, Target, TARGETS};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

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
        /// Mutations of each target
        #[arg(long, value_name = "N", default_value_t = 100_000)]
        mutations: u64,
        /// What they are derived from
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

fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Corpus => {
            let files = corpus::write().map_err(|e| e.to_string())?;
            println!("{files} files");
        }
        Command::Mutate {
            target,
            mutations,
            seed,
            evidence,
        } => {
            let chosen: Result<Vec<_>, _> = target.iter().map(|name| named(name)).collect();
            let mut chosen = chosen?;
            if chosen.is_empty() {
                chosen.extend(TARGETS);
            }
            for target in chosen {
                let began = Instant::now();
                let measure = &mut heap::measured;
                let tried = trial::run(target, mutations, seed, &evidence, measure);
                let tried = tried.map_err(|e| e.to_string())?;
                let seconds = began.elapsed().as_secs_f64();
                let (heap, of) = tried.heap_most;
                println!(
                    "{}: {} inputs in {seconds:.1} s, at most {heap} bytes of heap ({of} bytes of input)",
                    target.name, tried.inputs
                );
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
