//! Owns `millrace log repair`: what the operator gives up, and what was done about it.
//! Does not know how anything is repaired.
//! Invariant: holds the lock of the data directory, and ends with a non-zero code while damage is left.

use super::{verify, Place};
use crate::failure::Failure;
use crate::lock;
use millrace_engine::inspect::repair::{repair, AcceptLoss, RepairError, Repaired};
use millrace_engine::rt;
use std::io::{self, Write};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  millrace log repair /srv/millrace\n  \
    millrace log repair /srv/millrace --partition orders-3 --accept-loss-from 120344\n\n\
    Without --partition it only makes again what the records prove: block checksums, index files,\n\
    partition.metadata. With it, it gives up a partition's records from an offset on, which may not\n\
    lie behind the first damaged one, as `millrace log verify` names it. What it replaces or cuts is\n\
    kept in repair-evidence/ below the data directory.")]
pub struct Args {
    #[command(flatten)]
    place: Place,

    /// Partition whose damaged records are given up, as TOPIC-N (repeatable, each with an offset)
    #[arg(long, value_name = "TOPIC-N", requires = "accept_loss_from")]
    partition: Vec<String>,

    /// First offset that is given up, for each --partition in turn
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    accept_loss_from: Vec<i64>,
}

pub fn run(args: Args) -> Result<(), Failure> {
    if args.partition.len() != args.accept_loss_from.len() {
        return Err(
            Failure::new("--partition and --accept-loss-from belong together").todo(
                "Give each partition its offset: --partition TOPIC-N --accept-loss-from OFFSET.",
            ),
        );
    }
    if let Some(negative) = args.accept_loss_from.iter().find(|offset| **offset < 0) {
        return Err(Failure::new(format!(
            "--accept-loss-from: {negative} is no offset"
        )));
    }
    let accept: Vec<AcceptLoss> = args
        .partition
        .into_iter()
        .zip(args.accept_loss_from)
        .map(|(partition, from)| AcceptLoss { partition, from })
        .collect();
    let dirs = args.place.directories()?;
    let _lock = lock::acquire(&dirs.data)?;
    let repaired = rt::run_one(repair(&dirs, &accept))
        .map_err(|e| Failure::new(format!("cannot set up io_uring: {e}")))?
        .map_err(|error| match error {
            RepairError::Refused(why) => Failure::new(format!("nothing was changed: {why}")),
            RepairError::Io(error) => Failure::new(format!("the repair was cut short: {error}"))
                .todo("What was replaced is kept in repair-evidence/; it may be repeated."),
        })?;
    print(&repaired).map_err(Failure::output)?;
    if !repaired.left.is_empty() {
        return Err(Failure::new(format!("{} is still damaged", dirs.data.display()))
            .todo("What is left is named above: put files back from a copy, or give records up by --partition."));
    }
    Ok(())
}

fn print(repaired: &Repaired) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in &repaired.done {
        writeln!(out, "repaired: {line}")?;
    }
    if let Some(folder) = repaired
        .evidence
        .as_ref()
        .filter(|_| !repaired.done.is_empty())
    {
        writeln!(out, "what was replaced is kept in {}", folder.display())?;
    }
    for finding in &repaired.left {
        verify::print(&mut out, finding)?;
    }
    if repaired.done.is_empty() && repaired.left.is_empty() {
        writeln!(out, "nothing is damaged")?;
    }
    writeln!(out, "{}", verify::summary_line(&repaired.summary))?;
    out.flush()
}
