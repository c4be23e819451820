//! Owns the tests of groups that go from the classic to the consumer protocol, and back.
//! Does not know how either works by itself.
//! Invariant: nobody is told to read what another one still reads.

use super::consumer::{client, Client};
use super::*;

/// What a classic consumer says: topic `t`, and what it holds of it.
fn metadata(owned: &[i32]) -> Bytes {
    let mut out = vec![0, 1, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255];
    out.extend(u32::from(!owned.is_empty()).to_be_bytes());
    if !owned.is_empty() {
        out.extend([0, 1, b't']);
        out.extend((owned.len() as u32).to_be_bytes());
        owned
            .iter()
            .for_each(|index| out.extend(index.to_be_bytes()));
    }
    out.into()
}

/// An assignment of partitions of topic `t`, as the classic protocol says it.
fn assignment(partitions: &[i32]) -> Bytes {
    let mut out = vec![0, 1];
    out.extend(u32::from(!partitions.is_empty()).to_be_bytes());
    if !partitions.is_empty() {
        out.extend([0, 1, b't']);
        out.extend((partitions.len() as u32).to_be_bytes());
        partitions
            .iter()
            .for_each(|index| out.extend(index.to_be_bytes()));
    }
    out.extend([255; 4]);
    out.into()
}

fn joining(id: &str, owned: &[i32]) -> JoinGroup {
    JoinGroup {
        member: id.into(),
        protocols: vec![("cooperative-sticky".into(), metadata(owned))],
        ..plain("classic")
    }
}

/// A stable classic group of one member that has both partitions of `t`; gives its id.
fn classic(bench: &mut Bench) -> String {
    bench.topics.set("t", 2);
    let token = bench.join(joining("", &[]));
    let joined = bench.joined(token).clone();
    let token = bench.sync(SyncGroup {
        assignments: vec![(joined.member.clone(), assignment(&[0, 1]))],
        ..sync(&joined.member, joined.generation, &[])
    });
    assert_eq!(bench.synced(token).unwrap().assignment, assignment(&[0, 1]));
    joined.member
}

#[test]
fn a_classic_group_takes_a_member_of_the_new_protocol_and_has_its_way_back() {
    let mut bench = Bench::new(CONFIG);
    let old = classic(&mut bench);
    let mut new = client("n", &["t"]);
    bench.full(&mut new);
    bench.check_replay();
    assert_eq!(bench.coordinator.list()[0].kind, "consumer");
    assert_eq!(
        (new.epoch, new.owned.len()),
        (2, 0),
        "the classic member has all"
    );
    assert_eq!(
        bench.heartbeat(&old, 1),
        Err(GroupError::RebalanceInProgress)
    );

    // It joins, holding both still: it is to keep one, in its generation.
    let token = bench.join(joining(&old, &[0, 1]));
    let joined = bench.joined(token).clone();
    assert_eq!((joined.error, joined.generation), (None, 1));
    assert_eq!(joined.protocol.as_deref(), Some("cooperative-sticky"));
    assert!(joined.leader.is_empty() && joined.members.is_empty());
    let token = bench.sync(sync(&old, 1, &[]));
    let kept = bench.synced(token).unwrap().assignment.clone();
    assert!([assignment(&[0]), assignment(&[1])].contains(&kept));
    bench.full(&mut new);
    assert_eq!(new.owned.len(), 0);
    // It has given up the other, and says so by joining again.
    assert_eq!(
        bench.heartbeat(&old, 1),
        Err(GroupError::RebalanceInProgress)
    );
    let keeps = if kept == assignment(&[0]) { 0 } else { 1 };
    let token = bench.join(joining(&old, &[keeps]));
    assert_eq!(bench.joined(token).generation, 2);
    let token = bench.sync(sync(&old, 2, &[]));
    assert_eq!(bench.synced(token).unwrap().assignment, kept);
    bench.full(&mut new);
    let owned: Vec<i32> = new.owned.values().flatten().copied().collect();
    assert_eq!(owned, [1 - keeps]);
    assert_eq!(bench.heartbeat(&old, 2), Ok(()));
    assert_eq!(bench.group_state(), "Stable");
    bench.check_replay();
    assert_eq!(bench.commit(member(&old, 2), 5), Ok(()));
    assert_eq!(
        bench.commit(member(&old, 1), 6),
        Err(GroupError::IllegalGeneration)
    );

    // The last of the new protocol leaves: the rest is a classic group, which joins anew.
    bench.beat(&new.leaving(-1)).unwrap();
    assert_eq!(bench.coordinator.list()[0].kind, "classic");
    assert_eq!(bench.state("g"), GroupState::PreparingRebalance);
    assert_eq!(
        bench.heartbeat(&old, 2),
        Err(GroupError::RebalanceInProgress)
    );
    let token = bench.join(joining(&old, &[keeps]));
    let joined = bench.joined(token).clone();
    assert_eq!((joined.error, joined.leader == old), (None, true));
    assert_eq!(bench.committed(), 5);
    bench.check_replay();
}

#[test]
fn the_rest_of_a_mixed_group_is_classic_when_members_are_silent() {
    let mut bench = Bench::new(CONFIG);
    let old = classic(&mut bench);
    let mut new = client("n", &["t"]);
    bench.full(&mut new);
    let token = bench.join(joining(&old, &[]));
    assert_eq!(bench.joined(token).generation, 2);
    let token = bench.sync(sync(&old, 2, &[]));
    assert!(bench.synced(token).is_ok());
    for _ in 0..10 {
        bench.pass(5_000);
        let _until_it_is_another_group = bench.heartbeat(&old, 2);
    }
    assert_eq!(bench.coordinator.list()[0].kind, "classic");
    bench.check_replay();
}

#[test]
fn who_waits_in_a_classic_group_hears_that_it_is_none_any_more() {
    let mut bench = Bench::new(CONFIG);
    bench.topics.set("t", 2);
    let first = bench.join(joining("", &[]));
    let second = bench.join(joining("", &[]));
    assert!(bench.joined(first).error.is_none());
    assert!(!bench.answers.contains_key(&second));
    bench.full(&mut client("n", &["t"]));
    let why = bench.joined(second).error;
    assert_eq!(why, Some(GroupError::RebalanceInProgress));
    bench.check_replay();
}

#[test]
fn groups_without_members_are_of_whichever_protocol_comes_next() {
    let mut bench = Bench::new(CONFIG);
    bench.coordinator.config.consumer.migration = Migration::Disabled;
    let old = classic(&mut bench);
    let mut new = client("n", &["t"]);
    assert_eq!(bench.beat(&new.full()), Err(GroupError::GroupIdNotFound));
    assert_eq!(bench.commit(member(&old, 1), 5), Ok(()));
    bench.leave(&old).unwrap();
    bench.full(&mut new);
    assert_eq!(
        (bench.coordinator.list()[0].kind, bench.committed()),
        ("consumer", 5)
    );
    bench.check_replay();
    bench.beat(&new.leaving(-1)).unwrap();
    let stranger = bench.join(joining("nobody", &[]));
    assert_eq!(
        bench.joined(stranger).error,
        Some(GroupError::UnknownMemberId)
    );
    assert_eq!(bench.coordinator.list()[0].kind, "consumer");
    let token = bench.join(joining("", &[]));
    assert!(bench.joined(token).error.is_none());
    assert_eq!(
        (bench.coordinator.list()[0].kind, bench.committed()),
        ("classic", 5)
    );
    bench.check_replay();
}

#[test]
fn other_kinds_of_groups_stay_what_they_are() {
    let mut bench = Bench::new(CONFIG);
    bench.topics.set("t", 2);
    let token = bench.join(JoinGroup {
        protocol_type: "connect".into(),
        ..plain("worker")
    });
    assert!(bench.joined(token).error.is_none());
    let refused = bench.beat(&client("n", &["t"]).full());
    assert_eq!(refused, Err(GroupError::GroupIdNotFound));
    let token = bench.join(JoinGroup {
        group: "h".into(),
        ..plain("worker")
    });
    assert!(bench.joined(token).error.is_none());
}

#[test]
fn the_last_static_member_that_comes_back_as_a_classic_one_makes_the_group_classic() {
    let mut bench = Bench::new(CONFIG);
    bench.topics.set("t", 2);
    let mut members: Vec<_> = ["i1", "i2"]
        .map(|instance| {
            let new = client(instance, &["t"]);
            let instance = Some(instance.to_string());
            Client { instance, ..new }
        })
        .into();
    bench.settle(&mut members);
    for (member, kind) in members.iter().zip(["consumer", "classic"]) {
        bench.beat(&member.leaving(-2)).unwrap();
        let token = bench.join(JoinGroup {
            instance: member.instance.clone(),
            ..joining("", &[])
        });
        assert_eq!(bench.joined(token).error, None);
        assert_eq!(bench.coordinator.list()[0].kind, kind);
        bench.check_replay();
    }
    assert_eq!(bench.coordinator.describe("g").unwrap().members.len(), 2);
}

#[test]
fn whoever_administers_a_group_takes_members_of_the_new_protocol_out() {
    let mut bench = Bench::new(CONFIG);
    bench.topics.set("t", 2);
    let new = client("n", &["t"]);
    let fixed = Client {
        instance: Some("i".into()),
        ..client("f", &["t"])
    };
    bench.settle(&mut [new, fixed]);
    let leaver = |member: &str, instance: Option<&str>| Leaver {
        member: member.into(),
        instance: instance.map(str::to_string),
    };
    let leavers = [
        leaver("", Some("i")),
        leaver("n", None),
        leaver("nobody", None),
        leaver("", Some("none")),
    ];
    let left = bench.step(|c, ctx| c.leave("g", &leavers, ctx));
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(left, [Ok(()), Ok(()), unknown, unknown]);
    assert_eq!(bench.group_state(), "Empty");
    bench.check_replay();
}
