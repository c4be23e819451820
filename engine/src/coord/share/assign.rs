//! Owns which member of a share group reads from which partitions: all may be given to several.
//! Does not know members beyond their names and topics.
//! Invariant: the same members and topics give the same assignment; every partition has a member, and every member of a
//! topic a partition of it.

use super::members::TopicNow;
use super::types::Partitions;
use std::collections::BTreeMap;

/// Spreads the partitions of each topic over the members that want it, evenly: where there are fewer partitions than
/// members, some are with several, else each is with one.
pub fn assign<'a>(
    members: impl Iterator<Item = (&'a str, &'a [String])> + Clone,
    topics: &BTreeMap<String, TopicNow>,
) -> BTreeMap<String, Partitions> {
    let mut assigned: BTreeMap<String, Partitions> = BTreeMap::new();
    for (member, _) in members.clone() {
        assigned.insert(member.to_string(), Partitions::new());
    }
    // Where one topic ends the next begins, so that the first member does not have more of each.
    let mut turn = 0;
    for (name, topic) in topics {
        let wants = |(_, wanted): &(&str, &[String])| wanted.contains(name);
        let readers: Vec<&str> = members.clone().filter(wants).map(|(m, _)| m).collect();
        if readers.is_empty() || topic.partitions == 0 {
            continue;
        }
        let partitions = topic.partitions as usize;
        for at in 0..readers.len().max(partitions) {
            let reader = readers[(turn + at) % readers.len()];
            let of = assigned.get_mut(reader).expect("put in above");
            of.entry(topic.id)
                .or_default()
                .push((at % partitions) as i32);
        }
        turn += partitions;
    }
    assigned.values_mut().for_each(|partitions| {
        partitions
            .values_mut()
            .for_each(|indexes| indexes.sort_unstable());
    });
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TopicId;

    fn shared(members: &[(&str, &[&str])], topics: &[(&str, i32)]) -> Vec<String> {
        let topics = topics.iter().enumerate().map(|(at, (name, partitions))| {
            let id = TopicId::from_random(at as u64, 1);
            let partitions = *partitions;
            (name.to_string(), TopicNow { id, partitions })
        });
        let topics: BTreeMap<String, TopicNow> = topics.collect();
        let wanted = |w: &[&str]| w.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        let members: Vec<(&str, Vec<String>)> =
            members.iter().map(|(m, w)| (*m, wanted(w))).collect();
        let assigned = assign(members.iter().map(|(m, w)| (*m, &w[..])), &topics);
        let one = |(member, of): (&String, &Partitions)| {
            let of = topics
                .iter()
                .filter_map(|(name, t)| Some((name, of.get(&t.id)?)));
            let of = of.map(|(name, p)| format!(" {name}{p:?}"));
            format!("{member}{}", of.collect::<String>())
        };
        assigned.iter().map(one).collect()
    }

    #[test]
    fn partitions_are_spread_evenly_and_shared_where_they_are_few() {
        assert_eq!(shared(&[("a", &["t"])], &[("t", 3)]), ["a t[0, 1, 2]"]);
        let two: &[(&str, &[&str])] = &[("a", &["t"]), ("b", &["t"])];
        assert_eq!(shared(two, &[("t", 1)]), ["a t[0]", "b t[0]"]);
        assert_eq!(shared(two, &[("t", 3)]), ["a t[0, 2]", "b t[1]"]);
        let both: &[(&str, &[&str])] = &[("a", &["t", "u"]), ("b", &["t", "u"])];
        assert_eq!(
            shared(both, &[("t", 3), ("u", 1)]),
            ["a t[0, 2] u[0]", "b t[1] u[0]"]
        );
        let some: &[(&str, &[&str])] = &[("a", &["t", "x"]), ("b", &["u"]), ("c", &[])];
        assert_eq!(
            shared(some, &[("t", 2), ("u", 2)]),
            ["a t[0, 1]", "b u[0, 1]", "c"]
        );
    }
}
