//! Owns the command line of the simulation.
//! Does not know what is run.
//! Invariant: whatever can be chosen has a default that a gate can use.

use clap::Parser;

/// Runs histories of a whole simulated node: real engine, real request handlers, simulated disk, clock and network.
#[derive(Parser, Debug)]
#[command(name = "ci/sim")]
pub struct Options {
    /// How many histories to run
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub from: u64,
    /// Show one history, step by step; one that fails is shrunk first
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "plants"])]
    pub replay: Option<u64>,
    /// Give the engine one deliberate bug after the other, and demand that each is caught within --seeds histories
    #[arg(long)]
    pub plants: bool,
    /// Give the engine this bug (see engine/src/plant.rs), or with --plants try only this one
    #[arg(long, value_name = "NAME")]
    pub plant: Option<String>,
    /// Processes at once [default: one for each core]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Shows a history that fails as it is, without dropping steps
    #[arg(long, requires = "replay")]
    pub whole: bool,
    /// Takes orders on standard input: how the processes of a run are started
    #[arg(long, hide = true)]
    pub worker: bool,
}
