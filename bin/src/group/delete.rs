//! Owns `millrace group delete` and `delete-offsets`: groups, or some of what they committed, are forgotten.
//! Does not know the protocol.
//! Invariant: what members still use is refused by the coordinator, not guessed here.

use super::topics::{self, Choice, Chosen};
use super::{counted, first_of};
use crate::client::groups::{self, Offsets, Place, Seen};
use crate::client::{Bootstrap, Cluster};
use crate::failure::{each, Failure};
use std::collections::BTreeSet;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  millrace group delete billing audit\n\n\
    A group that still has members is refused; stop them first.")]
pub struct Args {
    /// Names of groups
    #[arg(required = true)]
    group: Vec<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  millrace group delete-offsets billing --topic orders\n  \
    millrace group delete-offsets billing --topic orders:0,3 --topic audit\n\n\
    The group may have members, if none of them reads these topics."
)]
pub struct OffsetsArgs {
    /// Name of the group
    group: String,
    /// A topic whose committed offsets go, or some of its partitions; repeat it for more
    #[arg(long, short, value_name = "TOPIC[:P1,P2]", required = true)]
    topic: Vec<Choice>,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

pub fn run(args: Args, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    each(&args.group, |group| {
        groups::delete(&mut cluster, group)?;
        writeln!(out, "deleted {group}").map_err(Failure::output)
    })
}

pub fn run_offsets(args: OffsetsArgs, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let committed = groups::committed(&mut cluster, &args.group)?;
    if committed.is_empty() {
        // Tells a group that is not there from one that has nothing to forget.
        if let Seen::Absent(error) = groups::look(&mut cluster, &args.group)? {
            return Err(error.into());
        }
    }
    let places = forgotten(&args.group, &committed, &topics::chosen(&args.topic))?;
    let errors = groups::delete_offsets(&mut cluster, &args.group, &places)?;
    let deleted = places.len() - errors.len();
    if deleted > 0 {
        let offsets = counted(deleted, "offset");
        writeln!(out, "deleted {offsets} of {}", args.group).map_err(Failure::output)?;
    }
    first_of(errors)
}

/// The committed offsets that are named; a name that fits none of them is an error.
fn forgotten(
    group: &str,
    committed: &Offsets,
    chosen: &Chosen,
) -> Result<BTreeSet<Place>, Failure> {
    let all = topics::by_topic(committed.keys());
    let mut places = BTreeSet::new();
    for (topic, partitions) in chosen {
        let found = all.get(topic.as_str());
        let missing = match (found, partitions) {
            (None, _) => Some(format!("topic {topic}")),
            (Some(_), None) => None,
            (Some(found), Some(wanted)) => wanted
                .difference(found)
                .next()
                .map(|p| format!("partition {p} of {topic}")),
        };
        if let Some(missing) = missing {
            let what = format!("group {group} has no committed offset of {missing}");
            let todo = format!("`millrace group describe {group}` shows those it has.");
            return Err(Failure::new(what).todo(todo));
        }
        let wanted = partitions.as_ref().or(found).into_iter().flatten();
        places.extend(wanted.map(|p| (topic.clone(), *p)));
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_committed_offsets_are_forgotten() {
        let place = |topic: &str, p| (topic.to_string(), p);
        let committed = Offsets::from([(place("t", 0), 5), (place("t", 2), 0), (place("u", 0), 9)]);
        let forget = |texts: &[&str]| {
            let choices: Vec<Choice> = texts.iter().map(|t| t.parse().unwrap()).collect();
            forgotten("g", &committed, &topics::chosen(&choices))
        };
        assert_eq!(
            forget(&["t"]).unwrap(),
            BTreeSet::from([place("t", 0), place("t", 2)])
        );
        assert_eq!(
            forget(&["t:2", "u"]).unwrap(),
            BTreeSet::from([place("t", 2), place("u", 0)])
        );
        for (text, what) in [("t:1", "partition 1 of t"), ("v", "topic v")] {
            let failure = forget(&["u", text]).unwrap_err().to_string();
            assert!(failure.contains(what), "{failure}");
        }
    }
}
