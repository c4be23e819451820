//! Owns `millrace perf`: the load generator as a subcommand.
//! Does not know any of its modes.
//! Invariant: figures that do not count end in a failure that says why.

use crate::failure::Failure;
use millrace_perf::cli::{self, Done};

pub use millrace_perf::cli::Args;

pub fn run(args: Args) -> Result<(), Failure> {
    match cli::run(args) {
        Ok(Done::Well) => Ok(()),
        Ok(Done::WithFailures(failures)) => Err(Failure::new(format!(
            "the figures do not count\n  {}",
            failures.join("\n  ")
        ))),
        Err(error) => Err(Failure::new(error.to_string())),
    }
}
