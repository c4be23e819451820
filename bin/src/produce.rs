//! Owns `millrace produce`: lines of standard input become records.
//! Does not know batches or leaders (that is `client`).
//! Invariant: every line read is acknowledged or the command fails and says how many were.

use crate::client::sender::{Options, Sender};
use crate::client::{interrupt, Bootstrap, Cluster};
use crate::failure::Failure;
use crate::text::unescape;
use crate::topic::key_value;
use bytes::Bytes;
use millrace_net::wire::compress::Compression;
use millrace_net::wire::record::{Header, Record};
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A longer line is refused; brokers take about 1 MiB unless told otherwise.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Lines read ahead of what is sent, in pieces of at most this many bytes or one line.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_AHEAD: usize = 4;

/// What was gathered is sent when no line came for this long.
const LINGER: Duration = Duration::from_millis(5);

/// How often Ctrl-C is looked at while there is nothing to do.
const IDLE: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  echo hello | millrace produce topic1\n  \
    seq 100000 | millrace produce load --compression zstd --rate 5000/s\n  \
    printf 'ann:1\\nbob:2\\n' | millrace produce accounts --key-separator : --header source=import")]
pub struct Args {
    /// The topic; most brokers create it on first use
    topic: String,

    /// Splits each line into key and value at the first of these; \t stands for a tab
    #[arg(long, short = 'k', value_name = "TEXT", value_parser = separator)]
    key_separator: Option<String>,

    /// A header of every record; repeat it for more
    #[arg(long, short = 'H', value_name = "KEY=VALUE", value_parser = key_value)]
    header: Vec<(String, String)>,

    /// Sends a value equal to this as null, which deletes its key from a compacted topic
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,

    /// How to compress batches
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none",
        value_parser = ["none", "gzip", "snappy", "lz4", "zstd"])]
    compression: String,

    /// Who must have a record: nobody, the leader, or all in-sync replicas
    #[arg(long, value_name = "WHO", default_value = "all", value_parser = ["0", "1", "all", "-1"],
        allow_hyphen_values = true)]
    acks: String,

    /// Sends at most this many records a second, as in 100 or 100/s
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,

    /// Sends everything to this partition [default: by key; without a key, one at random per batch]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,

    /// Does not say how many records were sent
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    bootstrap: Bootstrap,
}

fn separator(text: &str) -> Result<String, String> {
    match unescape(text) {
        separator if separator.is_empty() => Err("the separator is empty".to_string()),
        separator => Ok(separator),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.trim().parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err(format!("`{text}` is not a rate; for example 100/s")),
    }
}

pub fn run(args: Args) -> Result<(), Failure> {
    interrupt::install();
    let acks = match args.acks.as_str() {
        "0" => 0,
        "1" => 1,
        _ => -1,
    };
    let compression =
        Compression::from_name(&args.compression).expect("the parser allows known names only");
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let mut sender = Sender::open(&mut cluster, &args.topic, Options { acks, compression })?;
    let result = send_lines(&args, &mut cluster, &mut sender, read_ahead());
    let sent = sender.acknowledged();
    match result {
        Ok(()) if args.quiet => Ok(()),
        Ok(()) => {
            eprintln!(
                "{sent} {} to {}",
                if sent == 1 { "record" } else { "records" },
                args.topic
            );
            Ok(())
        }
        Err(Failure::Told { what, todo }) => Err(Failure::Told {
            what: format!("{what} (acknowledged before: {sent})"),
            todo,
        }),
        Err(Failure::BrokenPipe) => Err(Failure::BrokenPipe),
    }
}

fn send_lines(
    args: &Args,
    cluster: &mut Cluster,
    sender: &mut Sender,
    pieces: Receiver<Result<Vec<Vec<u8>>, String>>,
) -> Result<(), Failure> {
    let mut pace = Pace::new(args.rate);
    let mut number = 0u64;
    loop {
        if interrupt::requested() {
            break;
        }
        let wait = if sender.is_empty() { IDLE } else { LINGER };
        let lines = match pieces.recv_timeout(wait) {
            Ok(Ok(lines)) => lines,
            Ok(Err(what)) => {
                sender.flush(cluster)?;
                return Err(Failure::new(format!("line {}: {what}", number + 1)));
            }
            Err(RecvTimeoutError::Timeout) => {
                sender.flush(cluster)?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        for line in lines {
            number += 1;
            while let Some(wait) = pace.wait() {
                sender.flush(cluster)?;
                std::thread::sleep(wait);
                if interrupt::requested() {
                    return Ok(());
                }
            }
            match record(args, line) {
                Ok(record) => sender.push(cluster, &record, args.partition)?,
                Err(what) => {
                    sender.flush(cluster)?;
                    return Err(Failure::new(format!("line {number}: {what}"))
                        .todo("Correct the line, or choose another --key-separator."));
                }
            }
        }
    }
    sender.flush(cluster)?;
    Ok(())
}

fn record(args: &Args, line: Vec<u8>) -> Result<Record, String> {
    let line = Bytes::from(line);
    let (key, value) = match &args.key_separator {
        None => (None, line),
        Some(separator) => {
            let at = find(&line, separator.as_bytes());
            let at = at.ok_or_else(|| {
                format!("there is no key separator `{}`", separator.escape_default())
            })?;
            (Some(line.slice(..at)), line.slice(at + separator.len()..))
        }
    };
    let is_null = args
        .null
        .as_ref()
        .is_some_and(|null| null.as_bytes() == value);
    let headers = args.header.iter().map(|(key, value)| Header {
        key: Bytes::from(key.clone()),
        value: Some(Bytes::from(value.clone())),
    });
    Ok(Record {
        offset: 0,
        timestamp_ms: now_ms(),
        key,
        value: (!is_null).then_some(value),
        headers: headers.collect(),
    })
}

fn find(line: &[u8], separator: &[u8]) -> Option<usize> {
    line.windows(separator.len())
        .position(|window| window == separator)
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// Says when the next record is due.
struct Pace {
    per_second: Option<f64>,
    begun: Instant,
    passed: u64,
}

impl Pace {
    fn new(per_second: Option<f64>) -> Pace {
        Pace {
            per_second,
            begun: Instant::now(),
            passed: 0,
        }
    }

    /// How long to wait before the next record; None when it is due, which counts it.
    fn wait(&mut self) -> Option<Duration> {
        let per_second = self.per_second?;
        let due =
            Duration::try_from_secs_f64(self.passed as f64 / per_second).unwrap_or(Duration::MAX);
        let early = due.saturating_sub(self.begun.elapsed());
        if early.is_zero() {
            self.passed += 1;
            return None;
        }
        // In steps, so that Ctrl-C is seen.
        Some(early.min(IDLE))
    }
}

/// Reads standard input on a thread of its own, because a read cannot be given up for Ctrl-C. The
/// thread ends with the input, with the receiver, or with the process.
fn read_ahead() -> Receiver<Result<Vec<Vec<u8>>, String>> {
    let (to, from) = sync_channel(PIECES_AHEAD);
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(PIECE_BYTES, std::io::stdin());
        loop {
            let piece = read_piece(&mut input);
            let over = !matches!(&piece, Ok(lines) if !lines.is_empty());
            let ended = matches!(&piece, Ok(lines) if lines.is_empty());
            if ended || to.send(piece).is_err() || over {
                return;
            }
        }
    });
    from
}

/// Lines that are there without waiting for more, at least one; none at the end of the input.
fn read_piece<R: Read>(input: &mut BufReader<R>) -> Result<Vec<Vec<u8>>, String> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        let got = (&mut *input)
            .take(LINE_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| format!("standard input cannot be read: {error}"))?;
        if got == 0 {
            return Ok(lines);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > LINE_BYTES_MAX {
            return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
        }
        lines.push(line);
        if !input.buffer().contains(&b'\n') {
            return Ok(lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &[&str]) -> Args {
        Only::parse_from(["x", "topic"].iter().chain(flags)).args
    }

    #[test]
    fn lines_become_records() {
        let args = args(&[
            "--key-separator",
            "\\t",
            "--header",
            "a=b",
            "--null",
            "NULL",
        ]);
        let made = record(&args, b"k\tv\tw".to_vec()).unwrap();
        assert_eq!(
            (made.key.as_deref(), made.value.as_deref()),
            (Some(&b"k"[..]), Some(&b"v\tw"[..]))
        );
        assert_eq!(made.headers[0].key.as_ref(), b"a");
        assert_eq!(record(&args, b"k\tNULL".to_vec()).unwrap().value, None);
        assert!(record(&args, b"no tab".to_vec()).is_err());
    }

    #[test]
    fn pieces_hold_whole_lines_and_end_with_the_input() {
        let mut input = BufReader::new(&b"one\n\nthree"[..]);
        let mut lines = Vec::new();
        loop {
            match read_piece(&mut input).unwrap() {
                piece if piece.is_empty() => break,
                piece => lines.extend(piece),
            }
        }
        assert_eq!(lines, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
    }

    #[test]
    fn rates() {
        assert_eq!(rate("100/s"), Ok(100.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("fast").is_err());
    }
}
