//! Owns which partitions a command line names, and where their logs begin and end.
//! Does not know what is done with them, or what groups have committed.
//! Invariant: a topic named with and without partitions is the whole topic, in either order.

use crate::client::groups::Place;
use crate::client::offsets::{self, Spec};
use crate::client::{ClientError, Cluster, Isolation};
use millrace_net::wire::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// A topic, or some of its partitions: `orders` or `orders:0,3`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    topic: String,
    /// None: all.
    partitions: Option<BTreeSet<i32>>,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        let wrong = || format!("`{text}` is not TOPIC or TOPIC:PARTITIONS; for example orders:0,3");
        let (topic, partitions) = match text.split_once(':') {
            None => (text, None),
            Some((topic, list)) => {
                let number = |t: &str| t.parse::<i32>().ok().filter(|n| *n >= 0).ok_or_else(wrong);
                let partitions: Result<_, String> = list.split(',').map(number).collect();
                (topic, Some(partitions?))
            }
        };
        if topic.is_empty() {
            return Err(wrong());
        }
        Ok(Choice {
            topic: topic.to_string(),
            partitions,
        })
    }
}

/// Partitions by topic; None stands for all of it.
pub type Chosen = BTreeMap<String, Option<BTreeSet<i32>>>;

/// Joins what names the same topic.
pub fn chosen(choices: &[Choice]) -> Chosen {
    let mut all = Chosen::new();
    for choice in choices {
        let known = all
            .entry(choice.topic.clone())
            .or_insert_with(|| Some(BTreeSet::new()));
        match (&mut *known, &choice.partitions) {
            (Some(known), Some(more)) => known.extend(more),
            (_, None) | (None, _) => *known = None,
        }
    }
    all
}

/// Partitions by topic, none of them twice.
pub fn by_topic<'a>(places: impl Iterator<Item = &'a Place>) -> BTreeMap<&'a str, BTreeSet<i32>> {
    let mut topics: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for (topic, partition) in places {
        topics.entry(topic).or_default().insert(*partition);
    }
    topics
}

/// Offsets of some partitions of a topic, from their leaders as they are now; partitions that are not there or
/// have no leader are left out, and a topic that is not there is an error at once.
pub fn offsets(
    cluster: &mut Cluster,
    topic: &str,
    partitions: &BTreeSet<i32>,
    spec: Spec,
) -> Result<BTreeMap<i32, i64>, ClientError> {
    let worth = |error: &ClientError| {
        error.is_retriable() && error.code() != Some(ErrorCode::UnknownTopicOrPartition)
    };
    cluster.retry_if(worth, |cluster| {
        let mut led = cluster.topic_now(topic, false)?.partitions;
        led.retain(|p| p.leader >= 0 && partitions.contains(&p.index));
        offsets::list(cluster, topic, &led, spec, Isolation::Uncommitted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(topic: &str, partitions: Option<&[i32]>) -> Choice {
        Choice {
            topic: topic.to_string(),
            partitions: partitions.map(|p| p.iter().copied().collect()),
        }
    }

    #[test]
    fn choices_are_read() {
        for (text, expected) in [
            ("orders", Some(choice("orders", None))),
            ("orders:0", Some(choice("orders", Some(&[0])))),
            ("a.b_c-d:3,1,3", Some(choice("a.b_c-d", Some(&[1, 3])))),
            ("", None),
            (":1", None),
            ("orders:", None),
            ("orders:1,", None),
            ("orders:-1", None),
            ("orders:one", None),
            ("orders:1:2", None),
            ("orders:2147483648", None),
        ] {
            assert_eq!(text.parse::<Choice>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_names_one_topic_is_joined() {
        let joined = |texts: &[&str]| {
            let choices: Vec<Choice> = texts.iter().map(|t| t.parse().unwrap()).collect();
            chosen(&choices)
        };
        let some = |partitions: &[i32]| Some(partitions.iter().copied().collect::<BTreeSet<i32>>());
        let expected = Chosen::from([("t".to_string(), some(&[0, 1])), ("u".to_string(), None)]);
        assert_eq!(joined(&["t:1", "u", "t:0"]), expected);
        let whole = Chosen::from([("t".to_string(), None)]);
        assert_eq!(joined(&["t:1", "t"]), whole);
        assert_eq!(joined(&["t", "t:1"]), whole);
    }
}
