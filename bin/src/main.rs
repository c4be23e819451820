//! Owns the `millrace` command: one subcommand, one file.
//! Does not know what any subcommand does.
//! Invariant: an error ends in one message on standard error and a non-zero exit code.

mod adopt;
mod allocator;
mod broker;
mod buffers;
mod check;
mod client;
mod cluster;
mod completions;
mod consume;
mod control;
mod dirs;
mod format;
mod group;
mod listeners;
mod lock;
mod log;
mod memory;
mod perf;
mod produce;
mod serve;
mod text;
mod topic;
mod txn;

use clap::{CommandFactory, Parser, Subcommand};
use failure::Failure;
use millrace::{config, failure, host, units};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// A durable log broker that speaks the Apache Kafka protocol.
#[derive(Parser)]
#[command(
    name = "millrace",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a broker
    Serve(Box<serve::Args>),
    /// Show what this machine offers a broker, and measure its disk
    Check(Box<check::Args>),
    /// Show what a cluster is
    Cluster(cluster::Args),
    /// Create, list, describe, delete and alter topics
    Topic(topic::Args),
    /// List, describe, reset and delete consumer groups and what they committed
    Group(group::Args),
    /// List, describe and abort transactions
    Txn(txn::Args),
    /// Send lines of standard input to a topic
    Produce(produce::Args),
    /// Print the records of a topic
    Consume(consume::Args),
    /// Take in the log directories of an Apache Kafka broker
    Adopt(adopt::Args),
    /// Check, show and mend the files of a broker that does not run
    Log(log::Args),
    /// Measure brokers: scenarios, single loads, the machine's limits
    Perf(perf::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

fn main() -> ExitCode {
    memory::settle();
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(*args, &variables()),
        Command::Check(args) => check::run(*args),
        Command::Cluster(args) => cluster::run(args),
        Command::Topic(args) => topic::run(args),
        Command::Group(args) => group::run(args),
        Command::Txn(args) => txn::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Consume(args) => consume::run(args),
        Command::Adopt(args) => adopt::run(args),
        Command::Log(args) => log::run(args),
        Command::Perf(args) => perf::run(args),
        Command::Completions(args) => completions::run(args, &mut Cli::command()),
    };
    match result {
        Ok(()) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("millrace: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Every environment variable that some subcommand reads.
fn variables() -> Vec<String> {
    fn collect(command: &clap::Command, into: &mut Vec<String>) {
        into.extend(
            command
                .get_arguments()
                .filter_map(|a| Some(a.get_env()?.to_str()?.to_string())),
        );
        command.get_subcommands().for_each(|sub| collect(sub, into));
    }
    let mut names = Vec::new();
    collect(&Cli::command(), &mut names);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_leaf_command_shows_an_example() {
        fn look(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_some() {
                command.get_subcommands().for_each(|sub| look(sub, &path));
            } else {
                let help = command
                    .get_after_help()
                    .map(|h| h.to_string())
                    .unwrap_or_default();
                assert!(
                    help.contains("Example"),
                    "`{}` has no example in its help",
                    path.trim()
                );
            }
        }
        look(&Cli::command(), "");
    }

    #[test]
    fn variables_are_collected_from_the_tree() {
        assert!(variables().iter().any(|name| name == "MILLRACE_DATA_DIR"));
    }
}
