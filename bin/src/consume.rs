//! Owns `millrace consume`: records of a topic are printed, from a place to an end.
//! Does not know fetches or leaders (that is `client`).
//! Invariant: records of one partition are printed in order, each once.

use crate::client::cluster::{Partition, Topic};
use crate::client::fetcher::{is_out_of_range, Fetcher};
use crate::client::offsets::{self, Spec};
use crate::client::{interrupt, Bootstrap, ClientError, Cluster, Isolation};
use crate::failure::Failure;
use crate::format::Format;
use crate::text::parse_time;
use millrace_net::wire::record::Record;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::time::Duration;

/// How long a broker waits for records; also how soon Ctrl-C is seen.
const WAIT_MS: i32 = 500;

/// Failures in a row before the command gives up, and the pause after each.
const FAILURES_MAX: u32 = 12;
const FAILURE_PAUSE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  millrace consume topic1 --exit-at-end\n  \
    millrace consume orders --from 2026-01-31T12:00:00Z --format json | jq .value\n  \
    millrace consume payments --isolation read_committed --exit-at-end\n  \
    millrace consume orders --partition 3 --from 1000 --count 10 --format '{offset} {key}\\t{value}'\n\n\
    Without --exit-at-end or --count it goes on until Ctrl-C.")]
pub struct Args {
    /// The topic to read
    topic: String,

    /// Where to begin: beginning, end, an offset, -N for the last N of each partition, or a time (RFC
    /// 3339, a date, or milliseconds since 1970 as in 1700000000000ms)
    #[arg(
        long,
        short = 'f',
        value_name = "WHERE",
        default_value = "beginning",
        allow_hyphen_values = true
    )]
    from: From,

    /// Reads this partition only; repeat it for more [default: all]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,

    /// Ends after this many records
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,

    /// json, or a text with {topic} {partition} {offset} {timestamp} {time} {key} {value} {headers}
    #[arg(long, value_name = "FORMAT", default_value = "{value}")]
    format: Format,

    /// What is read of transactions
    #[arg(long, value_name = "LEVEL", default_value = "read_uncommitted")]
    isolation: Isolation,

    /// Ends where the partitions ended when the command began
    #[arg(long, short)]
    exit_at_end: bool,

    #[command(flatten)]
    bootstrap: Bootstrap,
}

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    Beginning,
    End,
    Offset(i64),
    /// So many before the end.
    Last(i64),
    /// Milliseconds since 1970.
    Time(i64),
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<From, String> {
        let whole = |t: &str| t.parse::<i64>().ok().filter(|n| *n >= 0);
        match text {
            "beginning" => return Ok(From::Beginning),
            "end" => return Ok(From::End),
            _ => {}
        }
        let offset = whole(text).map(From::Offset);
        let last = || text.strip_prefix('-').and_then(whole).map(From::Last);
        let ms = || text.strip_suffix("ms").and_then(whole).map(From::Time);
        let time = || parse_time(text).map(From::Time);
        offset.or_else(last).or_else(ms).or_else(time).ok_or_else(|| {
            format!(
                "`{text}` is neither beginning, end, an offset, -N nor a time; times look like 2026-01-31T12:00:00Z \
                 or 1700000000000ms"
            )
        })
    }
}

pub fn run(args: Args) -> Result<(), Failure> {
    interrupt::install();
    if args.count == Some(0) {
        return Ok(());
    }
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let topic = cluster.topic(&args.topic, false)?;
    let partitions = wanted(&topic, &args.partition)?;
    let (starts, ends) = places(&mut cluster, &args, &topic, &partitions)?;
    let mut fetcher = Fetcher::new(&topic, &starts, args.isolation);
    print_all(&args, &mut cluster, &mut fetcher, &ends)
}

fn wanted(topic: &Topic, only: &[i32]) -> Result<Vec<Partition>, Failure> {
    if let Some(missing) = only
        .iter()
        .find(|index| topic.partitions.iter().all(|p| p.index != **index))
    {
        return Err(
            Failure::new(format!("topic {} has no partition {missing}", topic.name)).todo(format!(
                "It has partitions 0 to {}.",
                topic.partitions.len() - 1
            )),
        );
    }
    Ok(topic
        .partitions
        .iter()
        .filter(|p| only.is_empty() || only.contains(&p.index))
        .cloned()
        .collect())
}

type Places = BTreeMap<i32, i64>;

/// Where each partition is begun, and where it ends now.
fn places(
    cluster: &mut Cluster,
    args: &Args,
    topic: &Topic,
    partitions: &[Partition],
) -> Result<(Places, Places), Failure> {
    let mut list =
        |spec| cluster.retry(|c| offsets::list(c, &topic.name, partitions, spec, args.isolation));
    let begins = list(Spec::Earliest)?;
    let ends = list(Spec::Latest)?;
    let at_time = match args.from {
        From::Time(ms) => list(Spec::At(ms))?,
        _ => BTreeMap::new(),
    };
    let last_end = ends.values().copied().max().unwrap_or(0);
    if let From::Offset(offset) = args.from {
        if offset > last_end {
            return Err(Failure::new(format!(
                "offset {offset} lies after the end of what is read of {}, which is {last_end}",
                topic.name
            ))
            .todo("Choose an offset up to the end; `millrace topic describe` shows it for each partition."));
        }
    }
    let mut starts = BTreeMap::new();
    for p in partitions {
        let (begin, end) = (begins[&p.index], ends[&p.index]);
        let start = match args.from {
            From::Beginning => begin,
            From::End => end,
            From::Last(n) => end.saturating_sub(n).max(begin),
            // No record is that late yet: those to come are.
            From::Time(_) if at_time[&p.index] < 0 => end,
            From::Time(_) => at_time[&p.index],
            // A place that only some of several partitions have reached: the others begin with what comes.
            From::Offset(offset) if offset > end => end,
            From::Offset(offset) if offset < begin => {
                eprintln!(
                    "millrace: partition {} begins at {begin}; {offset} is no longer stored",
                    p.index
                );
                begin
            }
            From::Offset(offset) => offset,
        };
        starts.insert(p.index, start);
    }
    Ok((starts, ends))
}

fn print_all(
    args: &Args,
    cluster: &mut Cluster,
    fetcher: &mut Fetcher,
    ends: &Places,
) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(256 << 10, std::io::stdout().lock());
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut failures = 0;
    while !interrupt::requested() {
        if args.exit_at_end {
            fetcher.retain(|partition, offset| offset < ends[&partition]);
        }
        if fetcher.is_empty() {
            break;
        }
        let mut failed = None;
        let polled = fetcher.poll(cluster, WAIT_MS, &mut |partition, record: Record| {
            // A fetch may bring more than was there when the command began.
            if args.exit_at_end && record.offset >= ends[&partition] {
                return ControlFlow::Continue(());
            }
            if let Err(error) = args.format.write(&mut out, &args.topic, partition, &record) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            left -= 1;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if let Some(error) = failed {
            return Err(Failure::output(error));
        }
        out.flush().map_err(Failure::output)?;
        match polled {
            Ok(ControlFlow::Break(())) => break,
            Ok(ControlFlow::Continue(())) => failures = 0,
            Err(_) if interrupt::requested() => break,
            Err(error) => {
                failures += 1;
                recover(args, cluster, fetcher, error, failures)?;
            }
        }
    }
    out.flush().map_err(Failure::output)
}

/// Makes the next poll likelier to succeed, or gives up.
fn recover(
    args: &Args,
    cluster: &mut Cluster,
    fetcher: &mut Fetcher,
    error: ClientError,
    failures: u32,
) -> Result<(), Failure> {
    let worth = error.is_retriable() || is_out_of_range(&error);
    if !worth || failures >= FAILURES_MAX {
        return Err(error.into());
    }
    if is_out_of_range(&error) {
        return back_in_range(args, cluster, fetcher);
    }
    tracing::debug!("trying again: {error}");
    std::thread::sleep(FAILURE_PAUSE);
    Ok(fetcher.refresh(cluster)?)
}

/// Moves positions that retention (or a lost tail) left outside the log to its nearest end, and says so.
fn back_in_range(args: &Args, cluster: &mut Cluster, fetcher: &mut Fetcher) -> Result<(), Failure> {
    let topic = cluster.topic(&args.topic, false)?;
    let partitions = &topic.partitions;
    let mut list =
        |spec| cluster.retry(|c| offsets::list(c, &topic.name, partitions, spec, args.isolation));
    let (begins, ends) = (list(Spec::Earliest)?, list(Spec::Latest)?);
    for p in &topic.partitions {
        let Some(offset) = fetcher.offset(p.index) else {
            continue;
        };
        let (begin, end) = (begins[&p.index], ends[&p.index]);
        if offset < begin || offset > end {
            let to = offset.clamp(begin, end);
            eprintln!("millrace: partition {} now holds {begin} to {end}; going on at {to}, not at {offset}", p.index);
            fetcher.set_offset(p.index, to);
        }
    }
    Ok(fetcher.refresh(cluster)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_begin() {
        for (text, from) in [
            ("beginning", Some(From::Beginning)),
            ("end", Some(From::End)),
            ("42", Some(From::Offset(42))),
            ("-3", Some(From::Last(3))),
            ("1700000000000ms", Some(From::Time(1_700_000_000_000))),
            ("1970-01-01T00:00:01Z", Some(From::Time(1_000))),
            ("tomorrow", None),
            ("-x", None),
            ("-5ms", None),
        ] {
            assert_eq!(text.parse::<From>().ok(), from, "{text}");
        }
    }
}
