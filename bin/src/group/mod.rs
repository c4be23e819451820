//! Owns `millrace group ...`: listing and describing consumer groups, resetting and deleting their offsets.
//! Does not know the protocol (that is `client`).
//! Invariant: nothing of a group is changed that the command line did not name.

mod delete;
mod describe;
mod list;
mod reset;
mod share;
mod topics;

use crate::client::ClientError;
use crate::failure::Failure;
use std::io;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the groups of all brokers
    List(list::Args),
    /// Show what groups have read, and who reads for them
    Describe(describe::Args),
    /// Move the committed offsets of a group that nobody uses
    ResetOffsets(reset::Args),
    /// Delete groups that nobody uses, with their offsets
    Delete(delete::Args),
    /// Forget committed offsets of topics that a group no longer reads
    DeleteOffsets(delete::OffsetsArgs),
}

pub fn run(args: Args) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match args.command {
        Command::List(args) => list::run(args, &mut out),
        Command::Describe(args) => describe::run(args, &mut out),
        Command::ResetOffsets(args) => reset::run(args, &mut out),
        Command::Delete(args) => delete::run(args, &mut out),
        Command::DeleteOffsets(args) => delete::run_offsets(args, &mut out),
    }
}

/// `1 offset`, `2 offsets`.
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// What clients named themselves, as a terminal may show it: control characters are escaped, nothing is `-`.
pub fn shown(text: &str) -> String {
    if text.is_empty() {
        "-".to_string()
    } else if text.chars().any(char::is_control) {
        text.escape_debug().to_string()
    } else {
        text.to_string()
    }
}

/// A number, or `-` where there is none.
fn number(value: Option<i64>) -> String {
    value.map_or_else(|| "-".to_string(), |n| n.to_string())
}

/// The first error becomes the command's; the others are told at once.
pub fn first_of(errors: Vec<ClientError>) -> Result<(), Failure> {
    let mut failures = errors.into_iter().map(Failure::from);
    let first = failures.next();
    failures.for_each(|failure| eprintln!("millrace: {failure}"));
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_command_the_terminal() {
        for (text, expected) in [
            ("orders", "orders"),
            ("gr\u{fc}n \"x\"", "gr\u{fc}n \"x\""),
            ("", "-"),
            ("a\u{1b}[2Jb\n", "a\\u{1b}[2Jb\\n"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn one_is_not_several() {
        assert_eq!(counted(0, "offset"), "0 offsets");
        assert_eq!(counted(1, "offset"), "1 offset");
        assert_eq!(counted(2, "member"), "2 members");
    }

    #[test]
    fn one_of_several_errors_is_the_commands() {
        let error = |what: &str| ClientError::broker(what, -1, None);
        assert!(first_of(Vec::new()).is_ok());
        let first = first_of(vec![error("a"), error("b")]).unwrap_err();
        assert_eq!(first.to_string(), "a: UNKNOWN_SERVER_ERROR");
    }
}
