//! Owns `millrace log dump`: batches and records of files, as text or JSON lines.
//! Does not know the files' formats.
//! Invariant: prints what can be read of a damaged file and says where it cannot go on.

use crate::failure::Failure;
use crate::format::Format;
use bytes::Bytes;
use millrace_engine::inspect::dump::{dump, EntryKind, Item};
use millrace_engine::rt;
use millrace_engine::types::batch::{BatchHeader, Codec};
use millrace_net::wire::batch::Batch;
use serde_json::json;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Largest decompressed batch whose records are printed.
const RECORDS_BYTES_MAX: usize = 256 << 20;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    millrace log dump data/topics/topic1-0/00000000000000000000.log\n  \
    millrace log dump --records --json data/topics/topic1-0/*.log\n  \
    millrace log dump data/journal/g1-s0/000000.journal")]
pub struct Args {
    /// Segments (.log) or journal files (.journal)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Prints the records of each batch, with keys, values and headers
    #[arg(long)]
    records: bool,

    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let mut bad = 0;
    for file in &args.files {
        bad += dump_file(&args, file)?;
    }
    if bad > 0 {
        return Err(Failure::new(format!("{bad} batches are damaged")));
    }
    Ok(())
}

/// Prints one file; gives how much of it is damaged.
fn dump_file(args: &Args, file: &Path) -> Result<u64, Failure> {
    let out = io::BufWriter::new(io::stdout().lock());
    let mut printer = Printer::new(args, file, out);
    let mut written = Ok(());
    rt::run_one(dump(file, &mut |item| {
        written = printer.print(item);
        written.is_ok()
    }))
    .and_then(|done| done)
    .map_err(|e| Failure::new(format!("cannot dump {}: {e}", file.display())))?;
    written
        .and_then(|()| printer.out.flush())
        .map_err(Failure::output)?;
    Ok(printer.bad)
}

struct Printer<'a, W: Write> {
    args: &'a Args,
    file: &'a Path,
    /// Of the folder a segment is in, or of the entry before in a journal.
    topic: String,
    partition: i32,
    format: Format,
    out: W,
    bad: u64,
}

impl<'a, W: Write> Printer<'a, W> {
    fn new(args: &'a Args, file: &'a Path, out: W) -> Printer<'a, W> {
        // Only for the name that is shown: a path that cannot be resolved fails when it is opened.
        let folder = file.canonicalize().ok();
        let folder = folder
            .as_deref()
            .and_then(Path::parent)
            .and_then(Path::file_name);
        let name = folder.map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let (topic, partition) = match name.rsplit_once('-') {
            Some((topic, n)) => (topic.to_string(), n.parse().unwrap_or(-1)),
            None => (name, -1),
        };
        let format = if args.json {
            "json"
        } else {
            "    {offset} {time} {key}: {value} {headers}"
        };
        Printer {
            args,
            file,
            topic,
            partition,
            format: format.parse().expect("a format of ours"),
            out,
            bad: 0,
        }
    }

    fn print(&mut self, item: Item<'_>) -> io::Result<()> {
        match item {
            Item::Commit { header, intact } => {
                if self.args.json {
                    let line = json!({"commit": header.sequence, "generation": header.generation,
                        "position": header.position, "durable": header.durable_sequence,
                        "body_bytes": header.body_bytes, "intact": intact});
                    return writeln!(self.out, "{line}");
                }
                let state = match intact {
                    true => "",
                    false => "; its body is damaged, torn or overwritten by a later commit",
                };
                writeln!(
                    self.out,
                    "commit {} of generation {} at byte {}: {} bytes, all up to {} were flushed{state}",
                    header.sequence,
                    header.generation,
                    header.position,
                    header.body_bytes,
                    header.durable_sequence
                )
            }
            Item::Entry(entry) => {
                self.topic = entry.partition.topic.to_string();
                self.partition = entry.partition.index;
                let kind = match entry.kind {
                    EntryKind::Append => "append",
                    EntryKind::Truncate => "truncate",
                    EntryKind::LogStart => "log start",
                    EntryKind::CarryOver => "carry-over",
                };
                if self.args.json {
                    let line = json!({"entry": kind, "topic_id": self.topic, "partition": self.partition,
                        "offset": entry.base_offset, "leader_epoch": entry.leader_epoch,
                        "truncation": entry.truncation, "bytes": entry.payload_bytes});
                    return writeln!(self.out, "{line}");
                }
                writeln!(
                    self.out,
                    "  {kind} topic {} partition {} offset {}, leader epoch {}, {} bytes",
                    self.topic,
                    self.partition,
                    entry.base_offset,
                    entry.leader_epoch,
                    entry.payload_bytes
                )
            }
            Item::Batch {
                position,
                header,
                crc_fits,
                bytes,
            } => {
                self.bad += u64::from(!crc_fits);
                self.batch(position, &header, crc_fits)?;
                if self.args.records {
                    self.records(position, bytes)?;
                }
                Ok(())
            }
            Item::Trouble { position, what } => self.trouble(position, &what),
        }
    }

    fn batch(&mut self, position: u64, h: &BatchHeader, crc_fits: bool) -> io::Result<()> {
        let codec = match h.codec() {
            Ok(Codec::None) => "none".to_string(),
            Ok(codec) => format!("{codec:?}").to_lowercase(),
            Err(error) => error.to_string(),
        };
        if self.args.json {
            let line = json!({"file": self.file.display().to_string(), "position": position,
                "base_offset": h.base_offset, "last_offset": h.last_offset(), "count": h.record_count,
                "base_sequence": h.base_sequence, "producer_id": h.producer_id,
                "producer_epoch": h.producer_epoch, "leader_epoch": h.leader_epoch,
                "transactional": h.is_transactional(), "control": h.is_control(),
                "max_timestamp": h.max_timestamp, "log_append_time": h.is_log_append_time(),
                "size": h.size, "codec": codec, "crc": h.crc, "crc_fits": crc_fits});
            return writeln!(self.out, "{line}");
        }
        write!(
            self.out,
            "offsets {}..={} at byte {position}: {} records, {} bytes, {codec}, leader epoch {}, timestamp {}",
            h.base_offset,
            h.last_offset(),
            h.record_count,
            h.size,
            h.leader_epoch,
            h.max_timestamp
        )?;
        if h.has_producer() {
            let (id, epoch, first) = (h.producer_id, h.producer_epoch, h.base_sequence);
            write!(self.out, ", producer {id} epoch {epoch} sequence {first}")?;
        }
        for (set, text) in [
            (h.is_log_append_time(), ", append time"),
            (h.is_transactional(), ", transactional"),
            (h.is_control(), ", control"),
            (!crc_fits, ", DAMAGED: CRC-32C does not match"),
        ] {
            if set {
                write!(self.out, "{text}")?;
            }
        }
        writeln!(self.out)
    }

    fn records(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let batch = Batch::decode(Bytes::copy_from_slice(bytes));
        let records = match batch.and_then(|b| b.records(RECORDS_BYTES_MAX)) {
            Ok(records) => records,
            Err(error) => return self.trouble(position, &error.to_string()),
        };
        for record in records {
            match record {
                Ok(record) => {
                    self.format
                        .write(&mut self.out, &self.topic, self.partition, &record)?;
                }
                Err(error) => return self.trouble(position, &error.to_string()),
            }
        }
        Ok(())
    }

    fn trouble(&mut self, position: u64, what: &str) -> io::Result<()> {
        if self.args.json {
            let file = self.file.display().to_string();
            return writeln!(
                self.out,
                "{}",
                json!({"file": file, "position": position, "trouble": what})
            );
        }
        writeln!(self.out, "byte {position}: {what}")
    }
}
