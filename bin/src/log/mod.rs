//! Owns `millrace log`: looking at, checking and mending the files of a broker that does not run.
//! Does not know the files' formats (that is the engine's inspection).
//! Invariant: nothing here touches a data directory that a running broker has locked.

mod dump;
mod repair;
mod verify;

use crate::failure::Failure;
use crate::lock::{self, Held};
use millrace_engine::inspect::Directories;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Check every checksum, offset and index of a stopped broker's data directory; changes nothing
    Verify(verify::Args),
    /// Print the batches and records of segments and journal files
    Dump(dump::Args),
    /// Mend what can be made again, and give up records that the operator names
    Repair(repair::Args),
}

pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Verify(args) => verify::run(args),
        Command::Dump(args) => dump::run(args),
        Command::Repair(args) => repair::run(args),
    }
}

/// Where a stopped broker has its files.
#[derive(clap::Args, Clone, Debug)]
pub struct Place {
    /// Data directory
    #[arg(
        value_name = "DATA_DIR",
        env = "MILLRACE_DATA_DIR",
        default_value = "./data"
    )]
    data_dir: PathBuf,

    /// Journals, where they are not in the data directory
    #[arg(long, value_name = "DIR", env = "MILLRACE_JOURNAL_DIR")]
    journal_dir: Option<PathBuf>,
}

impl Place {
    /// The directories; refuses those that are not there.
    pub fn directories(&self) -> Result<Directories, Failure> {
        let data = &self.data_dir;
        if !data.is_dir() {
            return Err(
                Failure::new(format!("there is no data directory {}", data.display()))
                    .todo("Name it as the argument."),
            );
        }
        let journals = self
            .journal_dir
            .clone()
            .filter(|dir| !dir.as_os_str().is_empty());
        Ok(Directories::new(data.clone(), journals))
    }
}

/// Refuses a directory that a running broker has locked; takes no lock itself.
pub fn refuse_running(data_dir: &Path) -> Result<(), Failure> {
    let who = match lock::holder(data_dir) {
        Ok(None) => return Ok(()),
        Ok(Some(Held::By(pid))) => format!("process {pid}"),
        Ok(Some(Held::BySomeone)) => "another process".to_string(),
        Err(error) => {
            let dir = data_dir.display();
            return Err(
                Failure::new(format!("cannot see whether {dir} is in use: {error}"))
                    .todo("Check that this user may read the data directory."),
            );
        }
    };
    Err(Failure::new(format!(
        "the data directory {} is in use by {who}",
        data_dir.display()
    ))
    .todo("Stop that broker first: what it writes meanwhile would look like damage."))
}
