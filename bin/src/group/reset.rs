//! Owns `millrace group reset-offsets`: where a group is to go on reading, shown and then committed.
//! Does not know the protocol.
//! Invariant: nothing is committed without --execute, for a group with members, or outside of a log.

use super::topics::{self, Choice, Chosen};
use super::{counted, first_of, number, shown};
use crate::client::groups::{self, Offsets, Place, Seen};
use crate::client::offsets::Spec;
use crate::client::{Bootstrap, Cluster};
use crate::failure::Failure;
use crate::text::{parse_duration, parse_time, table};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    millrace group reset-offsets billing --topic orders --to-earliest\n  \
    millrace group reset-offsets billing --topic orders:0,3 --shift-by -100 --execute\n  \
    millrace group reset-offsets billing --all-topics --to-datetime 2026-01-31T12:00:00Z --execute\n  \
    millrace group reset-offsets billing --all-topics --by-duration 1h30m\n\n\
    Shows where the group would go on reading; --execute makes it so. The group may have no members\n\
    meanwhile. Offsets outside of a log become the nearest inside.")]
#[command(group = clap::ArgGroup::new("which").required(true))]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub struct Args {
    /// Name of the group; one that is not there yet begins with these offsets
    group: String,
    /// A topic, or some of its partitions; repeat it for more
    #[arg(long, short, value_name = "TOPIC[:P1,P2]", group = "which")]
    topic: Vec<Choice>,
    /// Everything the group has committed
    #[arg(long, group = "which")]
    all_topics: bool,
    /// To the first record of each partition
    #[arg(long, group = "target")]
    to_earliest: bool,
    /// To the end: what is there now is passed by
    #[arg(long, group = "target")]
    to_latest: bool,
    /// To this offset
    #[arg(long, value_name = "N", group = "target", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// By so many records, backwards where negative
    #[arg(
        long,
        value_name = "N",
        group = "target",
        allow_negative_numbers = true
    )]
    shift_by: Option<i64>,
    /// To the first record at or after a time (RFC 3339, or a date)
    #[arg(long, value_name = "TIME", group = "target", value_parser = time)]
    to_datetime: Option<i64>,
    /// To the first record not older than this, such as 90s, 1h30m, 7d or PT1H30M
    #[arg(long, value_name = "DURATION", group = "target", value_parser = duration)]
    by_duration: Option<i64>,
    /// To where it is, or inside the log again; partitions never committed to their end
    #[arg(long, group = "target")]
    to_current: bool,
    /// Commits the offsets, instead of only showing them
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

fn time(text: &str) -> Result<i64, String> {
    parse_time(text)
        .ok_or_else(|| format!("`{text}` is not a time; times look like 2026-01-31T12:00:00Z"))
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration(text)
        .ok_or_else(|| format!("`{text}` is not a duration; for example 90s, 1h30m, 7d or PT1H30M"))
}

/// Where to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Earliest,
    Latest,
    Offset(i64),
    Shift(i64),
    /// Milliseconds since 1970.
    Time(i64),
    Current,
}

impl Target {
    fn of(args: &Args, now_ms: i64) -> Target {
        let ago = |ms: i64| now_ms.saturating_sub(ms);
        let time = args.to_datetime.or(args.by_duration.map(ago));
        let valued = args.to_offset.map(Target::Offset);
        let valued = valued.or(args.shift_by.map(Target::Shift));
        match valued.or(time.map(Target::Time)) {
            Some(target) => target,
            None if args.to_earliest => Target::Earliest,
            None if args.to_latest => Target::Latest,
            None => {
                assert!(args.to_current, "the command line demands one of them");
                Target::Current
            }
        }
    }
}

/// What is known of a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    begin: i64,
    end: i64,
    committed: Option<i64>,
    /// -1 where no record is that late.
    at_time: Option<i64>,
}

/// Where a partition goes, and why elsewhere than asked.
#[derive(Clone, Debug, PartialEq)]
struct Goal {
    offset: i64,
    note: String,
}

/// None for a shift of what was never committed.
fn goal(target: Target, known: Known) -> Option<Goal> {
    let at = |offset, note: &str| Goal {
        offset,
        note: note.to_string(),
    };
    let wanted = match target {
        Target::Earliest => known.begin,
        Target::Latest => known.end,
        Target::Offset(offset) => offset,
        Target::Shift(by) => known.committed?.saturating_add(by),
        Target::Time(_) => match known.at_time {
            Some(offset) if offset >= 0 => offset,
            Some(_) | None => return Some(at(known.end, "no record is that late: the end")),
        },
        Target::Current => match known.committed {
            Some(offset) => offset,
            None => return Some(at(known.end, "nothing is committed: the end")),
        },
    };
    Some(if wanted < known.begin {
        at(known.begin, &format!("{wanted} lies before the beginning"))
    } else if wanted > known.end {
        at(known.end, &format!("{wanted} lies after the end"))
    } else {
        at(wanted, "")
    })
}

pub fn run(args: Args, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let group = args.group.as_str();
    refuse_members(&mut cluster, group)?;
    let committed = groups::committed(&mut cluster, group)?;
    let wanted = wanted(&mut cluster, &args, &committed)?;
    let target = Target::of(&args, now_ms());
    let known = known(&mut cluster, target, &wanted, &committed)?;
    let goals = goals(group, target, &known)?;
    print(&known, &goals, out).map_err(Failure::output)?;
    if !args.execute {
        return writeln!(out, "nothing is committed yet: repeat it with --execute")
            .map_err(Failure::output);
    }
    let offsets: Offsets = goals
        .into_iter()
        .map(|(place, goal)| (place, goal.offset))
        .collect();
    let errors = groups::commit(&mut cluster, group, &offsets)?;
    let done = offsets.len() - errors.len();
    if done > 0 {
        let offsets = counted(done, "offset");
        writeln!(out, "committed {offsets} for {group}").map_err(Failure::output)?;
    }
    first_of(errors)
}

/// Members would not notice new offsets, and commit over them.
fn refuse_members(cluster: &mut Cluster, group: &str) -> Result<(), Failure> {
    let (state, members) = match groups::look(cluster, group)? {
        Seen::Described(found) => {
            let members = counted(found.members.len(), "member");
            (found.state, format!(" with {members}"))
        }
        Seen::Listed(found) => (found.state, String::new()),
        // One that is not there has no members, either; offsets may be made for it beforehand.
        Seen::Absent(_) => {
            eprintln!("millrace: there is no group {group} yet; it begins with these offsets");
            return Ok(());
        }
    };
    if state == groups::EMPTY {
        return Ok(());
    }
    let what = format!(
        "group {group} is in state {}{members}; its offsets are reset only while it is {}",
        shown(&state),
        groups::EMPTY
    );
    Err(Failure::new(what).todo(format!(
        "Stop its members, and try again when `millrace group list` says {}.",
        groups::EMPTY
    )))
}

/// The partitions that are named, or all that are committed.
fn wanted(
    cluster: &mut Cluster,
    args: &Args,
    committed: &Offsets,
) -> Result<BTreeMap<String, BTreeSet<i32>>, Failure> {
    if args.all_topics {
        if committed.is_empty() {
            let what = format!("group {} has committed no offsets", args.group);
            return Err(Failure::new(what).todo("Name the topics with --topic."));
        }
        let all = topics::by_topic(committed.keys());
        return Ok(all.into_iter().map(|(t, p)| (t.to_string(), p)).collect());
    }
    let chosen: Chosen = topics::chosen(&args.topic);
    let mut wanted = BTreeMap::new();
    for (name, some) in chosen {
        let topic = cluster.topic(&name, false)?;
        let all: BTreeSet<i32> = topic.partitions.iter().map(|p| p.index).collect();
        let some = some.unwrap_or_else(|| all.clone());
        if let Some(missing) = some.difference(&all).next() {
            let last = all.last().copied().unwrap_or(0);
            return Err(
                Failure::new(format!("topic {name} has no partition {missing}"))
                    .todo(format!("It has partitions 0 to {last}.")),
            );
        }
        wanted.insert(name, some);
    }
    Ok(wanted)
}

/// Looks up what the target needs; every partition has to have a leader.
fn known(
    cluster: &mut Cluster,
    target: Target,
    wanted: &BTreeMap<String, BTreeSet<i32>>,
    committed: &Offsets,
) -> Result<BTreeMap<Place, Known>, Failure> {
    let mut known = BTreeMap::new();
    for (topic, partitions) in wanted {
        let mut list = |spec| topics::offsets(cluster, topic, partitions, spec);
        let (begins, ends) = (list(Spec::Earliest)?, list(Spec::Latest)?);
        let at_time = match target {
            Target::Time(ms) => list(Spec::At(ms))?,
            Target::Earliest
            | Target::Latest
            | Target::Offset(_)
            | Target::Shift(_)
            | Target::Current => BTreeMap::new(),
        };
        for p in partitions {
            let (Some(begin), Some(end)) = (begins.get(p), ends.get(p)) else {
                let what = format!("partition {p} of {topic} is not there or has no leader");
                let todo = format!(
                    "`millrace topic describe {topic}` shows its partitions; name others with --topic."
                );
                return Err(Failure::new(what).todo(todo));
            };
            let place = (topic.clone(), *p);
            let of_partition = Known {
                begin: *begin,
                end: *end,
                committed: committed.get(&place).copied(),
                at_time: at_time.get(p).copied(),
            };
            known.insert(place, of_partition);
        }
    }
    Ok(known)
}

fn goals(
    group: &str,
    target: Target,
    known: &BTreeMap<Place, Known>,
) -> Result<BTreeMap<Place, Goal>, Failure> {
    let one = |(place, known): (&Place, &Known)| {
        let found = goal(target, *known).ok_or_else(|| {
            let (topic, partition) = place;
            Failure::new(format!(
                "group {group} has committed nothing for partition {partition} of {topic}, so there is nothing to \
                 shift from"
            ))
            .todo("Leave the partition out, or say where to with another option such as --to-offset.")
        });
        Ok((place.clone(), found?))
    };
    known.iter().map(one).collect()
}

fn print(
    known: &BTreeMap<Place, Known>,
    goals: &BTreeMap<Place, Goal>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let row = |((place, known), goal): ((&Place, &Known), &Goal)| {
        vec![
            shown(&place.0),
            place.1.to_string(),
            number(known.committed),
            goal.offset.to_string(),
            goal.note.clone(),
        ]
    };
    let head = ["TOPIC", "PARTITION", "COMMITTED", "NEW", "NOTE"];
    table(
        out,
        &head,
        known.iter().zip(goals.values()).map(row).collect(),
    )
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(line: &str) -> Option<Args> {
        let words = ["reset-offsets"].into_iter().chain(line.split(' '));
        Cli::try_parse_from(words).ok().map(|cli| cli.args)
    }

    #[test]
    fn a_command_line_has_one_target_and_says_which_partitions() {
        for (line, target) in [
            ("g --topic t --to-earliest", Some(Target::Earliest)),
            ("g --topic t:1 --topic u --to-latest", Some(Target::Latest)),
            ("g --all-topics --to-offset 7", Some(Target::Offset(7))),
            ("g --all-topics --shift-by -3", Some(Target::Shift(-3))),
            ("g --all-topics --shift-by 3", Some(Target::Shift(3))),
            (
                "g -t t --to-datetime 1970-01-01T00:00:01Z",
                Some(Target::Time(1_000)),
            ),
            ("g -t t --by-duration 10s", Some(Target::Time(90_000))),
            ("g -t t --to-current --execute", Some(Target::Current)),
            ("g --to-latest", None),
            ("g --topic t", None),
            ("g --topic t --all-topics --to-latest", None),
            ("g --topic t --to-latest --to-earliest", None),
            ("g --topic t --to-offset -1", None),
            ("g --topic t: --to-latest", None),
            ("g --topic t --to-datetime yesterday", None),
            ("g --topic t --by-duration 10", None),
            ("--topic t --to-latest", None),
        ] {
            let args = parsed(line);
            let found = args.as_ref().map(|args| Target::of(args, 100_000));
            assert_eq!(found, target, "{line}");
            let executes = args.is_some_and(|args| args.execute);
            assert_eq!(executes, line.contains("--execute"), "{line}");
        }
    }

    #[test]
    fn new_offsets_lie_inside_the_log() {
        let known = |committed, at_time| Known {
            begin: 10,
            end: 20,
            committed,
            at_time,
        };
        let to = |target, committed, at_time| {
            let goal = goal(target, known(committed, at_time))?;
            Some((goal.offset, !goal.note.is_empty()))
        };
        for (target, committed, at_time, expected) in [
            (Target::Earliest, None, None, Some((10, false))),
            (Target::Latest, Some(12), None, Some((20, false))),
            (Target::Offset(15), None, None, Some((15, false))),
            (Target::Offset(10), None, None, Some((10, false))),
            (Target::Offset(20), None, None, Some((20, false))),
            (Target::Offset(9), None, None, Some((10, true))),
            (Target::Offset(21), None, None, Some((20, true))),
            (Target::Shift(-3), Some(15), None, Some((12, false))),
            (Target::Shift(-3), Some(12), None, Some((10, true))),
            (Target::Shift(i64::MIN), Some(12), None, Some((10, true))),
            (Target::Shift(i64::MAX), Some(12), None, Some((20, true))),
            (Target::Shift(-3), Some(3), None, Some((10, true))),
            (Target::Shift(1), None, None, None),
            (Target::Time(1), None, Some(13), Some((13, false))),
            (Target::Time(1), None, Some(-1), Some((20, true))),
            (Target::Time(1), Some(12), None, Some((20, true))),
            (Target::Current, Some(12), None, Some((12, false))),
            (Target::Current, Some(30), None, Some((20, true))),
            (Target::Current, None, None, Some((20, true))),
        ] {
            assert_eq!(
                to(target, committed, at_time),
                expected,
                "{target:?} {committed:?} {at_time:?}"
            );
        }
        let clamped = goal(Target::Offset(9), known(None, None)).unwrap();
        assert_eq!(clamped.note, "9 lies before the beginning");
    }

    #[test]
    fn an_empty_log_has_one_place() {
        let known = Known {
            begin: 5,
            end: 5,
            ..Known::default()
        };
        for target in [
            Target::Earliest,
            Target::Latest,
            Target::Offset(0),
            Target::Offset(9),
            Target::Time(0),
            Target::Current,
        ] {
            assert_eq!(goal(target, known).unwrap().offset, 5, "{target:?}");
        }
    }

    #[test]
    fn what_cannot_be_shifted_is_named() {
        let known = BTreeMap::from([
            (("t".to_string(), 0), Known::default()),
            (
                ("t".to_string(), 1),
                Known {
                    end: 9,
                    committed: Some(4),
                    ..Known::default()
                },
            ),
        ]);
        let failure = goals("g", Target::Shift(1), &known)
            .unwrap_err()
            .to_string();
        assert!(failure.contains("partition 0 of t"), "{failure}");
        let goals = goals("g", Target::Latest, &known).unwrap();
        let mut out = Vec::new();
        print(&known, &goals, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "TOPIC  PARTITION  COMMITTED  NEW  NOTE\n\
             t      0          -          0\n\
             t      1          4          9\n"
        );
    }
}
