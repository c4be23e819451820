//! Owns `millrace log verify`: findings as a person reads them.
//! Does not know how anything is checked.
//! Invariant: ends with a summary line, and with a non-zero code exactly where there is damage.

use super::Place;
use crate::failure::Failure;
use crate::units::ByteSize;
use millrace_engine::inspect::{self, Finding, Level, Summary};
use millrace_engine::rt;
use std::io::{self, Write};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  millrace log verify\n  millrace log verify /srv/millrace\n\n\
    Reads everything and changes nothing. DAMAGE is what must not be; a torn tail is what a crash cut\n\
    short before it was acknowledged; leftovers are files that no start reads. Ends with a non-zero\n\
    code where there is damage."
)]
pub struct Args {
    #[command(flatten)]
    place: Place,

    /// Prints only what is damaged
    #[arg(long)]
    quiet: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let dirs = args.place.directories()?;
    super::refuse_running(&dirs.data)?;
    let mut out = io::stdout().lock();
    let mut written = Ok(());
    let quiet = args.quiet;
    let summary = rt::run_one(inspect::verify(&dirs, &mut |finding| {
        if written.is_ok() && !(quiet && finding.level != Level::Damage) {
            written = print(&mut out, finding);
        }
    }))
    .and_then(|done| done)
    .map_err(|e| Failure::new(format!("cannot look at {}: {e}", dirs.data.display())))?;
    written
        .and_then(|()| writeln!(out, "{}", summary_line(&summary)))
        .and_then(|()| out.flush())
        .map_err(Failure::output)?;
    if summary.damages > 0 {
        return Err(Failure::new(format!(
            "{} is damaged",
            dirs.data.display()
        ))
        .todo("Copy the whole directory before anything else; `millrace log repair --help` says what can be mended."));
    }
    Ok(())
}

/// One finding: where and what, then what it means and what to do.
pub fn print(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    let level = match finding.level {
        Level::TornTail => "torn tail",
        Level::Leftover => "leftover",
        Level::Damage => "DAMAGE",
    };
    write!(out, "{level}: {}", finding.file.display())?;
    if let Some(byte) = finding.byte {
        write!(out, ", byte {byte}")?;
    }
    writeln!(out, ": {}", finding.what)?;
    for (label, text) in [("means", &finding.means), ("do", &finding.advice)] {
        if !text.is_empty() {
            writeln!(out, "    {label}: {text}")?;
        }
    }
    Ok(())
}

pub fn summary_line(s: &Summary) -> String {
    let count = |n: u64, one: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    };
    let stopped = if s.clean {
        "stopped cleanly".to_string()
    } else {
        let journals = count(s.journals, "journal");
        format!(
            "not stopped cleanly: {journals} with {} to replay",
            count(s.commits, "commit")
        )
    };
    format!(
        "{}, {} ({}, {} batches, {} records), {stopped}; {}, {}, {}",
        count(s.partitions, "partition"),
        count(s.segments, "segment"),
        ByteSize(s.segment_bytes).human(),
        s.batches,
        s.records,
        count(s.damages, "damage"),
        count(s.torn_tails, "torn tail"),
        count(s.leftovers, "leftover"),
    )
}
