//! Tests of the state machine: what each command does, what is refused, and that text and image are one to one.

use super::*;
use crate::meta::machine::{apply, check};
use crate::meta::{limits, snapshot, ApplyError, Outcome, PartitionMeta, Topic};

fn run(image: &mut Image, commands: &[Command]) {
    for command in commands {
        let outcome = apply(image, command);
        assert!(outcome.is_ok(), "{command:?}: {outcome:?}");
        image.version += 1;
    }
}

fn two_nodes() -> Image {
    let mut image = empty_image();
    run(&mut image, &[register(1), register(2)]);
    image
}

fn topic(image: &Image, name: &str) -> Arc<Topic> {
    image.topic(name).expect("the topic exists").clone()
}

/// The text of a refusal. It must have changed nothing.
fn refusal(image: &Image, command: &Command) -> ApplyError {
    let mut changed = image.clone();
    let error = apply(&mut changed, command).expect_err("it is refused");
    assert_eq!(
        changed, *image,
        "{command:?} was refused and changed something"
    );
    assert_eq!(check(image, command), Err(error.clone()));
    error
}

#[test]
fn topics_are_created_found_and_deleted() {
    let mut image = two_nodes();
    run(&mut image, &[create(1, "b", 3), create(2, "a.x", 1)]);
    let b = topic(&image, "b");
    assert_eq!(b.id, topic_id(1));
    assert_eq!(image.topic_by_id(topic_id(1)), Some(&b));
    let leaders: Vec<i32> = b.partitions.iter().map(|p| p.leader).collect();
    assert_eq!(leaders, [1, 2, 1], "spread over the nodes");
    assert!(b
        .partitions
        .iter()
        .all(|p| p.leader_epoch == 0 && p.isr == p.replicas));
    assert!(
        Arc::ptr_eq(&b.config, &image.default_topic_config),
        "no settings, no copy"
    );
    assert!(image.topics().map(|t| t.name.as_str()).eq(["a.x", "b"]));
    assert!(image.topics_from("ab").map(|t| t.name.as_str()).eq(["b"]));
    assert_eq!((image.topic_count(), image.partition_count()), (2, 4));

    let deleted = apply(&mut image, &Command::DeleteTopic { id: topic_id(1) });
    assert_eq!(deleted, Ok(Outcome::Topic(b)));
    assert!(image.topic("b").is_none() && image.topic_by_id(topic_id(1)).is_none());
    assert_eq!((image.topic_count(), image.partition_count()), (1, 1));
    run(
        &mut image,
        &[
            Command::DeleteTopic { id: topic_id(2) },
            create(3, "a_x", 1),
        ],
    );
}

#[test]
fn refusals_say_why_and_change_nothing() {
    let mut image = two_nodes();
    run(&mut image, &[create(1, "a.b", 2)]);
    type Change<'a> = &'a dyn Fn(&mut i32, &mut i16, &mut Vec<Vec<i32>>);
    let with = |change: Change<'_>| {
        let mut command = create(9, "new", 1);
        let Command::CreateTopic {
            partitions,
            replication_factor,
            assignment,
            ..
        } = &mut command
        else {
            panic!("create makes a CreateTopic")
        };
        change(partitions, replication_factor, assignment);
        command
    };
    let id = topic_id(1);
    let add = |new_total, assignment| Command::AddPartitions {
        id,
        new_total,
        assignment,
    };
    let too_many = limits::PARTITIONS_PER_TOPIC_MAX as i32 + 1;
    let in_use = format!("The topic id {id} is nil or in use.");
    let unknown = format!("The topic id {} is not known.", topic_id(9));
    let cases: Vec<(Command, &str)> = vec![
        (create(9, "a.b", 1), "Topic 'a.b' already exists."),
        (create(9, "a_b", 1), "Topic 'a_b' collides with existing topic: a.b"),
        (create(9, "a b", 1), "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
        (create(1, "new", 1), &in_use),
        (with(&|p, _, _| *p = 0), "Number of partitions was set to an invalid non-positive value."),
        (with(&|p, _, _| *p = -1), "Number of partitions was set to an invalid non-positive value."),
        (with(&|p, _, _| *p = too_many), "Number of partitions 100001 is larger than the limit of 100000 of a topic."),
        (with(&|_, f, _| *f = 0), "Replication factor must be larger than 0."),
        (with(&|_, f, _| *f = 3), "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 2 broker(s) are registered."),
        (with(&|p, f, a| (*p, *f, *a) = (3, -1, vec![vec![1]])), "The number of partitions does not agree with the assignment."),
        (with(&|p, f, a| (*p, *f, *a) = (-1, 2, vec![vec![1]])), "The replication factor does not agree with the assignment."),
        (with(&|p, f, a| (*p, *f, *a) = (-1, -1, vec![vec![]])), "The manual partition assignment includes an empty replica list."),
        (with(&|p, f, a| (*p, *f, *a) = (-1, -1, vec![vec![1, 1]])), "The manual partition assignment includes the broker 1 more than once."),
        (with(&|p, f, a| (*p, *f, *a) = (-1, -1, vec![vec![1, 7]])), "The manual partition assignment includes broker 7, but no such broker is registered."),
        (with(&|p, f, a| (*p, *f, *a) = (-1, -1, vec![vec![1], vec![1, 2]])), "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous partitions, which have 1 replica(s)."),
        (Command::DeleteTopic { id: topic_id(9) }, &unknown),
        (add(2, vec![]), "Topic already has 2 partition(s)."),
        (add(1, vec![]), "The topic a.b currently has 2 partition(s); 1 would not be an increase."),
        (add(-1, vec![]), "The topic a.b currently has 2 partition(s); -1 would not be an increase."),
        (add(4, vec![vec![1]]), "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."),
        (add(3, vec![vec![1, 2]]), "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous partitions, which have 1 replica(s)."),
        (set(1, "nope", Some("1")), "Unknown topic config name: nope"),
        (set(9, "retention.ms", Some("1")), &unknown),
        (Command::AllocateProducerIds { node: 7, count: 1 }, "The node 7 is not registered."),
        (Command::AllocateProducerIds { node: 1, count: 0 }, "The number of producer ids must be between 1 and 1000000."),
        (Command::BumpLeaderEpochs { node: 7 }, "The node 7 is not registered."),
        (register(-1), "The registration is invalid: a node id is 0 or above"),
        (Command::RegisterNode { id: 1, host: String::new(), port: 1, rack: None }, "The registration is invalid: the host name is empty or too long"),
        (Command::SetBrokerConfig { node: Some(7), edit: ConfigEdit::set([]) }, "The node 7 is not registered."),
    ];
    for (command, expected) in cases {
        assert_eq!(
            refusal(&image, &command).to_string(),
            expected,
            "{command:?}"
        );
    }
}

#[test]
fn settings_take_effect_and_are_counted() {
    let mut image = two_nodes();
    run(
        &mut image,
        &[
            create(1, "a", 1),
            create(2, "b", 1),
            set(1, "retention.ms", Some(" 5 ")),
        ],
    );
    assert_eq!(
        topic(&image, "a").overrides["retention.ms"],
        "5",
        "canonical"
    );
    assert_eq!(topic(&image, "a").config.retention_ms, Some(5));
    assert_eq!(image.config_bytes(), "retention.ms".len() + 1);

    let broker = |node, name: &str, value: Option<&str>| Command::SetBrokerConfig {
        node,
        edit: ConfigEdit::set([(name.to_string(), value.map(str::to_string))]),
    };
    run(
        &mut image,
        &[
            broker(None, "log.retention.ms", Some("6")),
            broker(None, "log.roll.ms", Some("7")),
        ],
    );
    assert_eq!(topic(&image, "a").config.retention_ms, Some(5), "its own");
    assert_eq!(topic(&image, "a").config.segment_ms, 7, "the cluster's");
    assert_eq!(topic(&image, "b").config.retention_ms, Some(6));
    assert!(Arc::ptr_eq(
        &topic(&image, "b").config,
        &image.default_topic_config
    ));
    run(
        &mut image,
        &[broker(Some(2), "log.retention.ms", Some("8"))],
    );
    assert_eq!(
        topic(&image, "b").config.retention_ms,
        Some(6),
        "another node's"
    );
    run(
        &mut image,
        &[broker(Some(1), "log.retention.ms", Some("9"))],
    );
    assert_eq!(
        topic(&image, "b").config.retention_ms,
        Some(9),
        "this node's"
    );
    let mut described = image.describe_topic(&topic(&image, "b")).into_iter();
    let entry = described
        .find(|e| e.name == "retention.ms")
        .expect("described");
    assert_eq!(entry.value.as_deref(), Some("9"));

    run(
        &mut image,
        &[
            broker(Some(1), "log.retention.ms", None),
            broker(Some(2), "log.retention.ms", None),
            broker(None, "log.retention.ms", None),
            broker(None, "log.roll.ms", None),
            set(1, "retention.ms", None),
        ],
    );
    assert_eq!(image.config_bytes(), 0);
    assert!(image.node_configs.is_empty());
    assert_eq!(
        topic(&image, "a").config,
        crate::meta::TopicConfig::defaults()
    );
}

#[test]
fn floors_are_raised_and_never_lowered() {
    let mut image = two_nodes();
    let raise = |leader_epoch, producer_id| Command::RaiseFloors {
        id: topic_id(1),
        leader_epoch,
        producer_id,
    };
    run(
        &mut image,
        &[create(1, "a", 2), raise(7, 4_000), raise(3, -1)],
    );
    let epochs: Vec<i32> = topic(&image, "a")
        .partitions
        .iter()
        .map(|p| p.leader_epoch)
        .collect();
    assert_eq!((epochs, image.next_producer_id), (vec![7, 7], 4_001));
    let unknown = Command::RaiseFloors {
        id: topic_id(9),
        leader_epoch: 1,
        producer_id: 9_000,
    };
    assert!(machine::apply(&mut image, &unknown).is_err());
    assert!(machine::apply(&mut image, &raise(8, i64::MAX)).is_err());
    assert_eq!(
        image.next_producer_id, 4_001,
        "a refused command changes nothing"
    );
}

#[test]
fn epochs_grow_only_where_the_node_leads() {
    let mut image = two_nodes();
    run(
        &mut image,
        &[create(1, "a", 4), Command::BumpLeaderEpochs { node: 2 }],
    );
    let epochs = |image: &Image| -> Vec<(i32, i32)> {
        topic(image, "a")
            .partitions
            .iter()
            .map(|p| (p.leader, p.leader_epoch))
            .collect()
    };
    assert_eq!(epochs(&image), [(1, 0), (2, 1), (1, 0), (2, 1)]);
    let add = Command::AddPartitions {
        id: topic_id(1),
        new_total: 6,
        assignment: vec![vec![2], vec![1]],
    };
    run(&mut image, &[add, Command::BumpLeaderEpochs { node: 1 }]);
    assert_eq!(
        epochs(&image),
        [(1, 1), (2, 1), (1, 1), (2, 1), (2, 0), (1, 1)]
    );
    assert_eq!(image.partition_count(), 6);
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut image = two_nodes();
    let take = |node, count| Command::AllocateProducerIds { node, count };
    assert_eq!(
        apply(&mut image, &take(1, 1000)),
        Ok(Outcome::ProducerIds {
            first: 0,
            count: 1000
        })
    );
    assert_eq!(
        apply(&mut image, &take(2, 5)),
        Ok(Outcome::ProducerIds {
            first: 1000,
            count: 5
        })
    );
    image.next_producer_id = i64::MAX - 3;
    assert_eq!(
        refusal(&image, &take(1, 4)),
        ApplyError::ProducerIdsExhausted
    );
}

#[test]
fn registering_again_moves_a_node_or_changes_nothing() {
    let mut image = two_nodes();
    let before = image.clone();
    assert_eq!(apply(&mut image, &register(2)), Ok(Outcome::Done));
    assert_eq!(image, before);
    let moved = Command::RegisterNode {
        id: 1,
        host: "b".to_string(),
        port: 1,
        rack: Some("r".to_string()),
    };
    assert_eq!(apply(&mut image, &moved), Ok(Outcome::Done));
    assert_eq!(
        image.broker(1).map(|b| (b.host.as_str(), b.port)),
        Some(("b", 1))
    );
    assert!(image.brokers.iter().map(|b| b.id).eq([1, 2]));
}

#[test]
fn an_older_image_stays_as_it_was() {
    let mut image = two_nodes();
    run(&mut image, &[create(1, "a", 1)]);
    let before = image.clone();
    run(
        &mut image,
        &[
            Command::BumpLeaderEpochs { node: 1 },
            create(2, "b", 1),
            set(1, "retention.ms", Some("1")),
        ],
    );
    assert_eq!(before.topic_count(), 1);
    let partition = PartitionMeta {
        leader: 1,
        leader_epoch: 0,
        replicas: vec![1],
        isr: vec![1],
    };
    assert_eq!(topic(&before, "a").partitions, [partition]);
}

#[test]
fn commands_survive_their_text() {
    let mut state = 7u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    for _ in 0..500 {
        let command = some_command(&mut random);
        let bytes = command.encode().expect("small");
        assert_eq!(Command::decode(&bytes), Ok(command));
    }
    let text = br#"{"delete_topic":{"id":"AAAAAAAAAAAAAAAAAAAAAQ"}}"#;
    let id = TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(
        Command::decode(text),
        Ok(Command::DeleteTopic { id }),
        "the format does not change"
    );
}

#[test]
fn bytes_that_are_no_command_are_refused() {
    let too_deep = "[".repeat(100_000);
    let cases: &[&[u8]] = &[
        b"",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"{\"explode\":{}}",
        b"{\"delete_topic\":{\"id\":\"short\"}}",
        b"{\"delete_topic\":{\"id\":\"AAAAAAAAAAAAAAAAAAAAAQ\",\"force\":true}}",
        b"{\"bump_leader_epochs\":{\"node\":99999999999}}",
        b"{\"bump_leader_epochs\":{\"node\":1}}{\"bump_leader_epochs\":{\"node\":1}}",
        too_deep.as_bytes(),
    ];
    for bytes in cases {
        assert!(
            Command::decode(bytes).is_err(),
            "{:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        );
    }
    // Every truncation of a good one, and every byte replaced.
    let good = create(1, "a", 3).encode().expect("small");
    for len in 0..good.len() {
        assert!(Command::decode(&good[..len]).is_err());
    }
    for at in 0..good.len() {
        for byte in [0, b'"', b'{', b'9', 0xff] {
            let mut bad = good.clone();
            bad[at] = byte;
            // It may still be a command; it must not panic, here or when it is applied.
            if let Ok(command) = Command::decode(&bad) {
                drop(apply(&mut two_nodes(), &command));
            }
        }
    }
}

#[test]
fn image_and_text_are_one_to_one() {
    for seed in 0..30u64 {
        let mut state = seed;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut image = two_nodes();
        for _ in 0..100 {
            drop(apply(&mut image, &some_command(&mut random)));
            image.version += 1;
        }
        let text = snapshot::encode(&image);
        let read = snapshot::decode(&text, 1, Arc::default()).expect("its own text");
        assert_eq!(read, image);
        assert_eq!(snapshot::encode(&read), text);
    }
}

#[test]
fn a_text_that_is_no_image_is_refused() {
    let mut image = two_nodes();
    run(
        &mut image,
        &[create(1, "a.b", 2), set(1, "retention.ms", Some("5"))],
    );
    let text = String::from_utf8(snapshot::encode(&image)).expect("JSON");
    let other = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replacen(from, to, 1)
    };
    let cases = [
        other("\"next_producer_id\":0", "\"next_producer_id\":-1"),
        other("\"cluster_id\":\"", "\"cluster_id\":\"x"),
        other("\"id\":2,\"host\"", "\"id\":1,\"host\""),
        other("[1,0,[1],[1]]", "[1,0,[],[]]"),
        other("[1,0,[1],[1]]", "[3,0,[1],[1]]"),
        other("[1,0,[1],[1]]", "[1,0,[1],[2]]"),
        other("[1,0,[1],[1]]", "[1,-1,[1],[1]]"),
        other("\"name\":\"a.b\"", "\"name\":\"a/b\""),
        other("\"retention.ms\":\"5\"", "\"retention.ms\":\"x\""),
        other("\"version\"", "\"versions\""),
        other("\"topics\":[", "\"topics\":[[],"),
    ];
    for case in cases {
        assert!(
            snapshot::decode(case.as_bytes(), 1, Arc::default()).is_err(),
            "{case}"
        );
    }
    for len in 0..text.len() {
        assert!(snapshot::decode(&text.as_bytes()[..len], 1, Arc::default()).is_err());
    }
}

#[test]
fn limits_hold() {
    let mut image = two_nodes();
    let big = limits::PARTITIONS_PER_TOPIC_MAX as i32;
    run(&mut image, &[create(1, "a", big), create(2, "b", big)]);
    assert_eq!(image.partition_count(), limits::PARTITIONS_MAX);
    let error = refusal(&image, &create(3, "c", 1)).to_string();
    assert_eq!(
        error,
        "The cluster would have more than its limit of 200000 partitions."
    );
    let text = snapshot::encode(&image);
    assert!(text.len() < limits::SNAPSHOT_BYTES_MAX);

    let mut image = empty_image();
    for id in 0..limits::BROKERS_MAX as i32 {
        run(&mut image, &[register(id)]);
    }
    let error = refusal(&image, &register(limits::BROKERS_MAX as i32)).to_string();
    assert_eq!(error, "The number of nodes would exceed the limit of 1024.");
}

#[test]
fn ten_thousand_topics_share_their_memory() {
    let mut image = two_nodes();
    for n in 0..10_000 {
        run(&mut image, &[create(n, &format!("t{n}"), 1)]);
    }
    let before = image.clone();
    run(&mut image, &[create(10_000, "one.more", 1)]);
    assert_eq!(
        (before.topic_count(), image.topic_count()),
        (10_000, 10_001)
    );
    assert!(image
        .topics()
        .filter(|t| t.name != "one.more")
        .all(|t| { before.topic(&t.name).is_some_and(|old| Arc::ptr_eq(old, t)) }));
}
