//! Owns the tests of the assignors, over random members and topics.
//! Does not know groups.
//! Invariant checked: all is handed out once and to those who want it, evenly, and little moves.

use super::*;

fn topic(index: u8) -> TopicId {
    TopicId([index; 16])
}

fn wish(name: &str, topics: &[u8]) -> Wish {
    Wish {
        member: name.into(),
        instance: None,
        topics: topics.iter().map(|index| topic(*index)).collect(),
        before: Assignment::new(),
    }
}

fn partitions(counts: &[i32]) -> BTreeMap<TopicId, i32> {
    let counts = (0..).zip(counts);
    counts
        .map(|(index, count)| (topic(index), *count))
        .collect()
}

fn counts(targets: &[Assignment]) -> Vec<usize> {
    let count = |target: &Assignment| target.values().map(BTreeSet::len).sum();
    targets.iter().map(count).collect()
}

/// All that is wanted goes to one member each, which wants it.
fn check(members: &[Wish], partitions: &BTreeMap<TopicId, i32>, targets: &[Assignment]) {
    let mut seen = BTreeSet::new();
    for (member, target) in members.iter().zip(targets) {
        for (topic, indexes) in target {
            assert!(member.topics.contains(topic) && !indexes.is_empty());
            for index in indexes {
                assert!(*index < partitions[topic] && seen.insert((*topic, *index)));
            }
        }
    }
    let is_wanted = |id: &TopicId| members.iter().any(|m| m.topics.contains(id));
    let wanted = partitions.iter().filter(|(id, _)| is_wanted(id));
    let all: i32 = wanted.map(|(_, count)| *count).sum();
    assert_eq!(seen.len(), all as usize);
}

fn moved(before: &[Wish], after: &[Assignment]) -> usize {
    let lost = |(member, target): (&Wish, &Assignment)| {
        let had = member.before.iter();
        had.map(|(topic, indexes)| {
            let has = target.get(topic);
            indexes
                .iter()
                .filter(|i| !has.is_some_and(|h| h.contains(i)))
                .count()
        })
        .sum::<usize>()
    };
    before.iter().zip(after).map(lost).sum()
}

#[test]
fn range_gives_each_a_run_of_each_topic() {
    let mut members = [wish("c", &[0, 1]), wish("a", &[0, 1]), wish("b", &[0])];
    members[0].instance = Some("static".into());
    let partitions = partitions(&[5, 2]);
    let targets = assign(Assignor::Range, &members, &partitions);
    check(&members, &partitions, &targets);
    assert_eq!(
        targets[0][&topic(0)],
        [0, 1].into(),
        "static members come first"
    );
    assert_eq!(targets[1][&topic(0)], [2, 3].into());
    assert_eq!(targets[2][&topic(0)], [4].into());
    assert_eq!(targets[1][&topic(1)], [1].into());
    let few = assign(Assignor::Range, &[wish("a", &[2])], &BTreeMap::new());
    assert_eq!(few, [Assignment::new()]);
    assert!(assign(Assignor::Uniform, &[], &partitions).is_empty());
}

#[test]
fn uniform_is_even_and_moves_no_more_than_it_has_to() {
    let mut random = crate::coord::random::random_of(3);
    for _ in 0..500 {
        let sizes: Vec<i32> = (0..3).map(|_| (random() % 9) as i32).collect();
        let partitions = partitions(&sizes);
        let count = 1 + random() % 6;
        let mut members: Vec<Wish> = (0..count)
            .map(|i| wish(&format!("m{i}"), &[0, 1, 2]))
            .collect();
        for _ in 0..4 {
            let targets = assign(Assignor::Uniform, &members, &partitions);
            check(&members, &partitions, &targets);
            let counts = counts(&targets);
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{counts:?}");
            // Only what a member has too much of moves.
            let all: usize = sizes.iter().sum::<i32>() as usize;
            let most = all.div_ceil(members.len());
            let had = members.iter().map(|m| counts_of(&m.before));
            let too_much: usize = had.map(|had| had.saturating_sub(all / members.len())).sum();
            let moved = moved(&members, &targets);
            assert!(moved <= too_much, "{moved} moved, {too_much} of {most}");
            for (member, target) in members.iter_mut().zip(targets) {
                member.before = target;
            }
            let again = assign(Assignor::Uniform, &members, &partitions);
            assert_eq!(self::moved(&members, &again), 0, "nothing changed");
            if random().is_multiple_of(2) && members.len() > 1 {
                members.pop();
            } else {
                members.push(wish(&format!("n{}", random()), &[0, 1, 2]));
            }
        }
    }
}

fn counts_of(target: &Assignment) -> usize {
    target.values().map(BTreeSet::len).sum()
}

#[test]
fn uniform_is_as_even_as_single_moves_make_it_where_wishes_differ() {
    let mut random = crate::coord::random::random_of(5);
    for _ in 0..500 {
        let sizes: Vec<i32> = (0..4).map(|_| (random() % 7) as i32).collect();
        let partitions = partitions(&sizes);
        let mut members: Vec<Wish> = (0..1 + random() % 6)
            .map(|i| {
                let topics: Vec<u8> = (0..4).filter(|_| random().is_multiple_of(2)).collect();
                wish(&format!("m{i}"), &topics)
            })
            .collect();
        for _ in 0..3 {
            let targets = assign(Assignor::Uniform, &members, &partitions);
            check(&members, &partitions, &targets);
            let counts = counts(&targets);
            for (from, target) in targets.iter().enumerate() {
                for topic in target.keys() {
                    for (to, member) in members.iter().enumerate() {
                        let better = member.topics.contains(topic) && counts[to] + 1 < counts[from];
                        assert!(!better, "{counts:?}");
                    }
                }
            }
            for (member, target) in members.iter_mut().zip(targets) {
                member.before = target;
            }
            let again = assign(Assignor::Uniform, &members, &partitions);
            assert_eq!(moved(&members, &again), 0, "nothing changed");
            members.push(wish(&format!("n{}", random()), &[(random() % 4) as u8]));
        }
    }
}
