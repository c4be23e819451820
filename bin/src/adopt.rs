//! Owns `millrace adopt`: taking Apache Kafka's log directories in.
//! Does not know their formats (that is the engine's adoption).
//! Invariant: holds the lock of the data directory for as long as anything in it changes.

use crate::failure::Failure;
use crate::lock;
use crate::units::ByteSize;
use millrace_engine::adopt::{adopt, AdoptError, Options, Report};
use millrace_engine::rt;
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  millrace adopt /var/lib/kafka/data --data-dir /srv/millrace\n\n\
    Kafka must have been stopped cleanly. Every batch is checked, then copied; nothing in Kafka's\n\
    directories changes unless --move asks for it. Topics keep their names, ids, partitions, offsets,\n\
    leader epochs and idempotent producers. Their settings are not in the log directories: set them\n\
    with `millrace topic alter`. Consumer groups and transactions in progress are not taken in.\n\
    When it is cut short, repeat it: until it is done no broker starts on the data directory."
)]
pub struct Args {
    /// Log directories of one Kafka broker (its log.dirs)
    #[arg(required = true, value_name = "KAFKA_LOG_DIR")]
    from: Vec<PathBuf>,

    /// Data directory to take them into: a new one, or that of a broker that was stopped cleanly
    #[arg(
        long,
        value_name = "DIR",
        env = "MILLRACE_DATA_DIR",
        default_value = "./data"
    )]
    data_dir: PathBuf,

    /// Number of the node that will serve it
    #[arg(long, value_name = "N", env = "MILLRACE_NODE_ID", default_value_t = 1)]
    node_id: i32,

    /// Leaves a topic out (repeatable)
    #[arg(long, value_name = "TOPIC")]
    skip: Vec<String>,

    /// Takes topics of which only some partitions are here; the others begin empty
    #[arg(long)]
    partial: bool,

    /// Removes the partitions from Kafka's directories once everything is in place
    #[arg(long = "move")]
    remove: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let _lock = lock::acquire(&args.data_dir)?;
    let options = Options {
        from: args.from,
        data_dir: args.data_dir,
        node_id: args.node_id,
        skip: args.skip,
        partial: args.partial,
        remove: args.remove,
    };
    let report = rt::run_one(adopt(&options))
        .map_err(|e| Failure::new(format!("cannot set up io_uring: {e}")))?
        .map_err(|error| refusal(&options, &error))?;
    print(&options, &report).map_err(Failure::output)
}

fn refusal(options: &Options, error: &AdoptError) -> Failure {
    match error {
        AdoptError::Refused(_) => Failure::new(format!("nothing was taken in\n  {error}")),
        AdoptError::Meta(_) | AdoptError::Partition(_) | AdoptError::Io(_) => {
            let dir = options.data_dir.display();
            Failure::new(format!("cannot take everything into {dir}: {error}")).todo(
                "Repeat the command when that is mended; no broker starts on the directory before.",
            )
        }
    }
}

fn print(options: &Options, report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for topic in &report.topics {
        writeln!(
            out,
            "{}: {} partitions, {} records, {}",
            topic.name,
            topic.partitions,
            topic.records,
            ByteSize(topic.bytes).human()
        )?;
        if topic.kept_for_ever {
            writeln!(
                out,
                "  has records older than the default retention.ms: it was set to -1, so that none is deleted"
            )?;
        }
    }
    for skipped in &report.skipped {
        writeln!(out, "left: {}: {}", skipped.path.display(), skipped.why)?;
    }
    for left in &report.left {
        writeln!(out, "cannot remove {left}")?;
    }
    let records: u64 = report.topics.iter().map(|t| t.records).sum();
    writeln!(
        out,
        "took in {} topics with {records} records; settings are the defaults: `millrace topic alter` changes them\n\
         now: millrace serve --data-dir {}",
        report.topics.len(),
        options.data_dir.display()
    )?;
    out.flush()
}
