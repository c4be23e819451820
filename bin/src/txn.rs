//! Owns `millrace txn ...`: listing, describing and aborting transactions.
//! Does not know the protocol (that is `client`).
//! Invariant: nothing is aborted that the command line did not name.

use crate::client::transactions::{self, Description, Listed};
use crate::client::{Bootstrap, Cluster};
use crate::failure::{each, Failure};
use crate::group::{first_of, shown};
use crate::text::table;
use serde_json::json;
use std::io::{self, Write};

/// Every state that a transactional id has in Apache Kafka.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the transactional ids of all brokers
    List(ListArgs),
    /// Show how far transactions are, and what they are about
    Describe(DescribeArgs),
    /// Abort transactions, and take their ids from the producers that have them
    Abort(AbortArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  millrace txn list\n  millrace txn list --state ongoing")]
struct ListArgs {
    /// Ids in this state only; repeat it for more
    #[arg(long, short, value_name = "STATE", ignore_case = true,
          value_parser = clap::builder::PossibleValuesParser::new(STATES))]
    state: Vec<String>,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  millrace txn describe payments")]
struct DescribeArgs {
    /// Transactional ids
    #[arg(required = true)]
    id: Vec<String>,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  millrace txn abort payments\n\n\
    The producer that has the id is refused from then on; it has to begin anew.")]
struct AbortArgs {
    /// Transactional ids
    #[arg(required = true)]
    id: Vec<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match args.command {
        Command::List(args) => list(args, &mut out),
        Command::Describe(args) => describe(args, &mut out),
        Command::Abort(args) => abort(args, &mut out),
    }
}

fn list(args: ListArgs, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let (listed, errors) = transactions::list(&mut cluster)?;
    print_list(&in_states(listed, &args.state), args.json, out).map_err(Failure::output)?;
    first_of(errors)
}

/// Those in one of the states, or all of them where no state is named.
fn in_states(txns: Vec<Listed>, states: &[String]) -> Vec<Listed> {
    let wanted = |txn: &Listed| {
        states.is_empty() || states.iter().any(|s| s.eq_ignore_ascii_case(&txn.state))
    };
    txns.into_iter().filter(wanted).collect()
}

fn print_list(txns: &[Listed], json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return txns.iter().try_for_each(|txn| {
            let line = json!({"id": txn.id, "state": txn.state, "producer_id": txn.producer_id});
            writeln!(out, "{line}")
        });
    }
    let row = |txn: &Listed| {
        vec![
            shown(&txn.id),
            shown(&txn.state),
            txn.producer_id.to_string(),
        ]
    };
    let head = ["TRANSACTIONAL-ID", "STATE", "PRODUCER-ID"];
    table(out, &head, txns.iter().map(row).collect())
}

fn describe(args: DescribeArgs, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let mut found = Vec::new();
    let outcome = each(&args.id, |id| {
        found.push(transactions::describe(&mut cluster, id)?);
        Ok(())
    });
    if !found.is_empty() {
        print_described(&found, args.json, out).map_err(Failure::output)?;
    }
    outcome
}

fn print_described(txns: &[Description], json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return txns.iter().try_for_each(|txn| {
            let line = json!({"id": txn.id, "state": txn.state, "coordinator": txn.coordinator,
                "producer_id": txn.producer_id, "producer_epoch": txn.producer_epoch,
                "timeout_ms": txn.timeout_ms, "started_ms": txn.started_ms,
                "partitions": txn.partitions});
            writeln!(out, "{line}")
        });
    }
    let row = |txn: &Description| {
        vec![
            shown(&txn.id),
            shown(&txn.state),
            txn.coordinator.to_string(),
            txn.producer_id.to_string(),
            txn.producer_epoch.to_string(),
            format!("{} ms", txn.timeout_ms),
            txn.started_ms
                .map_or_else(|| "-".to_string(), |ms| ms.to_string()),
            partitions(txn),
        ]
    };
    let head = [
        "TRANSACTIONAL-ID",
        "STATE",
        "COORDINATOR",
        "PRODUCER-ID",
        "EPOCH",
        "TIMEOUT",
        "STARTED-MS",
        "PARTITIONS",
    ];
    table(out, &head, txns.iter().map(row).collect())
}

/// `orders:0,3 audit:1`
fn partitions(txn: &Description) -> String {
    let one = |(topic, indexes): (&String, &Vec<i32>)| {
        let indexes: Vec<String> = indexes.iter().map(i32::to_string).collect();
        format!("{topic}:{}", indexes.join(","))
    };
    let all: Vec<String> = txn.partitions.iter().map(one).collect();
    shown(&all.join(" "))
}

fn abort(args: AbortArgs, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    each(&args.id, |id| {
        transactions::abort(&mut cluster, id)?;
        writeln!(out, "aborted {}", shown(id)).map_err(Failure::output)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(print: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lists_print_as_a_table_or_as_lines_of_json() {
        let listed = |id: &str, state: &str| Listed {
            id: id.to_string(),
            producer_id: 7,
            state: state.to_string(),
        };
        let all = || vec![listed("a", "Ongoing"), listed("b\n", "Empty")];
        assert_eq!(
            text(|out| print_list(&all(), false, out)),
            "TRANSACTIONAL-ID  STATE    PRODUCER-ID\n\
             a                 Ongoing  7\n\
             b\\n               Empty    7\n"
        );
        assert_eq!(in_states(all(), &["ongoing".to_string()]).len(), 1);
        assert_eq!(
            text(|out| print_list(&all()[..1], true, out)),
            "{\"id\":\"a\",\"producer_id\":7,\"state\":\"Ongoing\"}\n"
        );
    }

    #[test]
    fn descriptions_tell_what_is_about_to_change() {
        let txn = Description {
            id: "a".to_string(),
            coordinator: 1,
            state: "Ongoing".to_string(),
            producer_id: 7,
            producer_epoch: 3,
            timeout_ms: 60_000,
            started_ms: Some(5),
            partitions: [("t".to_string(), vec![0, 2]), ("u".to_string(), vec![1])].into(),
        };
        let shown = text(|out| print_described(std::slice::from_ref(&txn), false, out));
        assert!(
            shown.contains("60000 ms") && shown.contains("t:0,2 u:1"),
            "{shown}"
        );
        let line = text(|out| print_described(std::slice::from_ref(&txn), true, out));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["partitions"], json!({"t": [0, 2], "u": [1]}));
    }
}
