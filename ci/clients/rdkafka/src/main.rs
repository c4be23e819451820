//! Owns the suite of the `rdkafka` crate: a case each for what a Rust program does with a broker.
//! Does not know which broker it talks to; prints a line for each case, as the other suites do.
//! Invariant: every case ends, by its result or by the limit on its time.

mod client;
mod groups;

use client::{check, check_equal, expect_error, Client, Failure, Sent};
use groups::{
    group_assignor_range, group_assignor_roundrobin, group_cooperative_members_keep_what_stays,
    group_independent_groups_each_see_everything, group_is_deleted,
    group_members_share_the_partitions, group_resumes_after_commit_async,
    group_resumes_after_commit_sync, group_static_member_restarts_without_a_rebalance,
    group_stores_offsets_itself, group_takes_over_from_a_member_that_was_killed,
    member_until_killed,
};
use rdkafka::admin::{
    AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::{Offset, TopicPartitionList};
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CASE_TIME_MAX: Duration = Duration::from_secs(90);
const NEAR_LIMIT: usize = 1_000_000;
const OVER_LIMIT: usize = 1_100_000;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

type Outcome = Result<(), Failure>;
type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// The cases by name; a macro, because each is a future of its own type.
macro_rules! cases {
    ($client:expr, $($name:ident),* $(,)?) => {
        vec![$((stringify!($name).to_string(), Box::pin($name($client)) as Running<'_>)),*]
    };
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().expect("HOST:PORT");
    let only = arguments.next().unwrap_or_default();
    let client = Client::new(&bootstrap);
    // `--member GROUP TOPIC`: as the suite starts itself, to have a member that it can kill.
    if only == "--member" {
        let (group, topic) = (arguments.next(), arguments.next());
        let (group, topic) = (group.expect("GROUP"), topic.expect("TOPIC"));
        return ExitCode::from(u8::from(
            member_until_killed(&client, &group, &topic).is_err(),
        ));
    }
    let mut cases = cases!(
        &client,
        headers,
        nulls_and_empties,
        idempotent_producer,
        many_partitions,
        created_on_first_use,
        seek,
        long_poll_wakes,
        watermarks,
        offsets_for_times,
        timestamps,
        near_the_size_limit,
        over_the_size_limit,
        create_and_list,
        create_partitions,
        describe_configs,
        alter_configs,
        delete_records,
        delete_topic,
        log_append_time,
        invalid_topic_name,
        duplicate_topic,
        invalid_replication,
        unknown_config,
        delete_unknown_topic,
        fewer_partitions,
        cluster_id,
        group_resumes_after_commit_sync,
        group_resumes_after_commit_async,
        group_members_share_the_partitions,
        group_independent_groups_each_see_everything,
        group_takes_over_from_a_member_that_was_killed,
        group_assignor_range,
        group_assignor_roundrobin,
        group_cooperative_members_keep_what_stays,
        group_static_member_restarts_without_a_rebalance,
        group_stores_offsets_itself,
        group_is_deleted,
    );
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for acks in ["0", "1", "all"] {
            let name = format!("round_trip_{codec}_acks_{acks}");
            cases.push((name, Box::pin(round_trip(&client, codec, acks))));
        }
    }
    let (mut ran, mut failed) = (0, 0);
    for (name, case) in cases.into_iter().filter(|(name, _)| name.contains(&only)) {
        ran += 1;
        let started = Instant::now();
        let outcome = tokio::time::timeout(CASE_TIME_MAX, case).await;
        match outcome.unwrap_or_else(|_| Err(Failure::new("not done in time"))) {
            Ok(()) => println!("ok {name} ({:.1} s)", started.elapsed().as_secs_f64()),
            Err(failure) => {
                failed += 1;
                println!("FAIL {name}: {}", failure.text.replace('\n', " "));
            }
        }
    }
    println!("ran {ran}");
    ExitCode::from(u8::from(failed > 0))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as i64
}

async fn round_trip(client: &Client, codec: &str, acks: &str) -> Outcome {
    let topic = client.fresh("codec", 1, &[]).await?;
    let sent = Sent::numbered(0, 25, 200);
    let settings = [
        ("acks", acks),
        ("compression.type", codec),
        ("linger.ms", "5"),
    ];
    let offsets = client.produce(&topic, &sent, &settings).await?;
    if acks != "0" {
        check_equal(offsets, (0..25).collect(), "offsets")?;
    }
    let found = client.consume(&topic, 0, Offset::Offset(0), 25).await?;
    let got: Vec<_> = found
        .iter()
        .map(|m| (m.key().map(<[u8]>::to_vec), m.payload().map(<[u8]>::to_vec)))
        .collect();
    let want: Vec<_> = sent
        .iter()
        .map(|s| (s.key.clone(), s.value.clone()))
        .collect();
    check_equal(got, want, "records")
}

async fn headers(client: &Client) -> Outcome {
    let topic = client.fresh("headers", 1, &[]).await?;
    let headers = OwnedHeaders::new()
        .insert(Header {
            key: "a",
            value: Some("1"),
        })
        .insert(Header {
            key: "a",
            value: Some("2"),
        })
        .insert(Header {
            key: "n",
            value: None::<&str>,
        });
    let sent = Sent {
        headers: Some(headers),
        ..Sent::value(b"v")
    };
    client.produce(&topic, &[sent], &[]).await?;
    let found = client.consume(&topic, 0, Offset::Beginning, 1).await?;
    let headers = found[0]
        .headers()
        .ok_or_else(|| Failure::new("no headers"))?;
    let got: Vec<_> = headers
        .iter()
        .map(|h| (h.key.to_string(), h.value.map(<[u8]>::to_vec)))
        .collect();
    let want = [("a", Some("1")), ("a", Some("2")), ("n", None)];
    let want = want
        .iter()
        .map(|(k, v)| (k.to_string(), v.map(|v| v.as_bytes().to_vec())))
        .collect();
    check_equal(got, want, "headers")
}

async fn nulls_and_empties(client: &Client) -> Outcome {
    let topic = client.fresh("nulls", 1, &[]).await?;
    let pairs: [(Option<&[u8]>, Option<&[u8]>); 4] = [
        (None, Some(b"v")),
        (Some(b"k"), None),
        (None, None),
        (Some(b"k"), Some(b"v")),
    ];
    let make = |(key, value): &(Option<&[u8]>, Option<&[u8]>)| Sent {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        ..Sent::value(b"")
    };
    let sent: Vec<Sent> = pairs.iter().map(make).collect();
    client.produce(&topic, &sent, &[]).await?;
    let found = client.consume(&topic, 0, Offset::Beginning, 4).await?;
    let got: Vec<_> = found.iter().map(|m| (m.key(), m.payload())).collect();
    check_equal(got, pairs.to_vec(), "records")
}

async fn idempotent_producer(client: &Client) -> Outcome {
    let topic = client.fresh("idempotent", 2, &[]).await?;
    let sent: Vec<Sent> = (0..1000)
        .map(|n| Sent {
            partition: n % 2,
            ..Sent::value(n.to_string().as_bytes())
        })
        .collect();
    let settings = [
        ("enable.idempotence", "true"),
        ("batch.num.messages", "10"),
        ("linger.ms", "0"),
    ];
    client.produce(&topic, &sent, &settings).await?;
    for partition in 0..2 {
        let found = client
            .consume(&topic, partition, Offset::Beginning, 500)
            .await?;
        let got: Vec<_> = found
            .iter()
            .map(|m| m.payload().map(<[u8]>::to_vec))
            .collect();
        let want = (0..500)
            .map(|n| Some((2 * n + partition).to_string().into_bytes()))
            .collect();
        check_equal(got, want, "values")?;
        check_equal(
            client.watermarks(&topic, partition).await?,
            (0, 500),
            "watermarks",
        )?;
    }
    Ok(())
}

async fn many_partitions(client: &Client) -> Outcome {
    let topic = client.fresh("many", 32, &[]).await?;
    let sent: Vec<Sent> = (0..32).flat_map(|p| Sent::numbered(p, 3, 0)).collect();
    client
        .produce(&topic, &sent, &[("enable.idempotence", "true")])
        .await?;
    for partition in [0, 13, 31] {
        let found = client
            .consume(&topic, partition, Offset::Beginning, 3)
            .await?;
        check_equal(
            found.iter().map(Message::offset).collect(),
            vec![0, 1, 2],
            "offsets",
        )?;
    }
    Ok(())
}

async fn created_on_first_use(client: &Client) -> Outcome {
    let topic = client.topic_name("auto");
    client
        .produce(&topic, &Sent::numbered(0, 5, 0), &[])
        .await?;
    check_equal(
        client.consume(&topic, 0, Offset::Beginning, 5).await?.len(),
        5,
        "records",
    )
}

async fn seek(client: &Client) -> Outcome {
    let topic = client.fresh("seek", 1, &[]).await?;
    client
        .produce(&topic, &Sent::numbered(0, 100, 0), &[])
        .await?;
    for at in [0, 1, 37, 99] {
        let found = client
            .consume(&topic, 0, Offset::Offset(at), (100 - at) as usize)
            .await?;
        check_equal(found[0].offset(), at, "first offset")?;
    }
    Ok(())
}

async fn long_poll_wakes(client: &Client) -> Outcome {
    let topic = client.fresh("poll", 1, &[]).await?;
    client
        .produce(&topic, &Sent::numbered(0, 3, 0), &[])
        .await?;
    let late = [Sent::value(b"late")];
    let read = client.consume(&topic, 0, Offset::Offset(3), 1);
    let write = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.produce(&topic, &late, &[]).await
    };
    let (found, written) = futures_util::future::join(read, write).await;
    written?;
    check_equal(
        found?[0].payload().map(<[u8]>::to_vec),
        Some(b"late".to_vec()),
        "value",
    )
}

async fn watermarks(client: &Client) -> Outcome {
    let topic = client.fresh("marks", 1, &[]).await?;
    check_equal(
        client.watermarks(&topic, 0).await?,
        (0, 0),
        "of an empty topic",
    )?;
    client
        .produce(&topic, &Sent::numbered(0, 7, 0), &[])
        .await?;
    check_equal(client.watermarks(&topic, 0).await?, (0, 7), "after 7")
}

async fn offsets_for_times(client: &Client) -> Outcome {
    let topic = client.fresh("times", 1, &[]).await?;
    let base = now_ms() - 600_000;
    for stamp in [base, base + 1000, base + 500, base + 3000] {
        client
            .produce(
                &topic,
                &[Sent {
                    timestamp: Some(stamp),
                    ..Sent::value(b"v")
                }],
                &[],
            )
            .await?;
    }
    let consumer = client.consumer();
    for (at, want) in [(-1, 0), (0, 0), (1, 1), (1000, 1), (1001, 3), (3000, 3)] {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&topic, 0, Offset::Offset(base + at))?;
        let found = consumer.offsets_for_times(asked, ANSWER_TIME_MAX)?;
        check_equal(found.elements()[0].offset(), Offset::Offset(want), "offset")?;
    }
    Ok(())
}

async fn timestamps(client: &Client) -> Outcome {
    let topic = client.fresh("stamps", 1, &[]).await?;
    let stamp = now_ms() - 123_456;
    client
        .produce(
            &topic,
            &[Sent {
                timestamp: Some(stamp),
                ..Sent::value(b"v")
            }],
            &[],
        )
        .await?;
    let found = client.consume(&topic, 0, Offset::Beginning, 1).await?;
    check_equal(
        found[0].timestamp(),
        rdkafka::Timestamp::CreateTime(stamp),
        "timestamp",
    )
}

async fn log_append_time(client: &Client) -> Outcome {
    let topic = client
        .fresh("append", 1, &[("message.timestamp.type", "LogAppendTime")])
        .await?;
    let before = now_ms();
    client
        .produce(
            &topic,
            &[Sent {
                timestamp: Some(before - 1_000_000),
                ..Sent::value(b"v")
            }],
            &[],
        )
        .await?;
    match client.consume(&topic, 0, Offset::Beginning, 1).await?[0].timestamp() {
        rdkafka::Timestamp::LogAppendTime(at) if at >= before - 5000 => Ok(()),
        other => Err(Failure::new(&format!("timestamp {other:?}"))),
    }
}

async fn near_the_size_limit(client: &Client) -> Outcome {
    let topic = client.fresh("near", 1, &[]).await?;
    client
        .produce(&topic, &[Sent::value(&vec![7; NEAR_LIMIT])], &[])
        .await?;
    let found = client.consume(&topic, 0, Offset::Beginning, 1).await?;
    check_equal(
        found[0].payload().map_or(0, <[u8]>::len),
        NEAR_LIMIT,
        "bytes",
    )
}

async fn over_the_size_limit(client: &Client) -> Outcome {
    let topic = client.fresh("over", 1, &[]).await?;
    let big = [Sent::value(&vec![7; OVER_LIMIT])];
    expect_error(
        client.produce(&topic, &big, &[]).await,
        Code::MessageSizeTooLarge,
    )
}

async fn create_and_list(client: &Client) -> Outcome {
    let topic = client.fresh("create", 3, &[]).await?;
    let consumer = client.consumer();
    let found = consumer.fetch_metadata(Some(&topic), ANSWER_TIME_MAX)?;
    check_equal(found.topics()[0].partitions().len(), 3, "partitions")?;
    let all = consumer.fetch_metadata(None, ANSWER_TIME_MAX)?;
    check(
        all.topics().iter().any(|t| t.name() == topic),
        "the topic is listed",
    )
}

async fn create_partitions(client: &Client) -> Outcome {
    let topic = client.fresh("grow", 2, &[]).await?;
    let wanted = [NewPartitions::new(&topic, 5)];
    client::only(
        client
            .admin
            .create_partitions(&wanted, &AdminOptions::new())
            .await?,
    )?;
    let consumer = client.consumer();
    client::eventually(5, || {
        Ok(consumer
            .fetch_metadata(Some(&topic), ANSWER_TIME_MAX)?
            .topics()[0]
            .partitions()
            .len())
    })
    .await
}

async fn config_of(client: &Client, topic: &str, name: &str) -> Result<Option<String>, Failure> {
    let asked = [ResourceSpecifier::Topic(topic)];
    let mut found = client
        .admin
        .describe_configs(&asked, &AdminOptions::new())
        .await?;
    let config = found
        .remove(0)
        .map_err(|code| Failure::coded(code, "describe_configs"))?;
    Ok(config.get(name).and_then(|entry| entry.value.clone()))
}

async fn describe_configs(client: &Client) -> Outcome {
    let topic = client
        .fresh("describe", 1, &[("retention.ms", "3600000")])
        .await?;
    check_equal(
        config_of(client, &topic, "retention.ms").await?.as_deref(),
        Some("3600000"),
        "retention.ms",
    )?;
    check_equal(
        config_of(client, &topic, "max.message.bytes")
            .await?
            .as_deref(),
        Some("1048588"),
        "max.message.bytes",
    )
}

async fn alter_configs(client: &Client) -> Outcome {
    let topic = client.fresh("alter", 1, &[]).await?;
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "7200000");
    let mut answers = client
        .admin
        .alter_configs([&change], &AdminOptions::new())
        .await?;
    answers
        .remove(0)
        .map_err(|(_, code)| Failure::coded(code, "alter_configs"))?;
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    while config_of(client, &topic, "retention.ms").await?.as_deref() != Some("7200000") {
        check(Instant::now() < deadline, "retention.ms is altered")?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn delete_records(client: &Client) -> Outcome {
    let topic = client.fresh("records", 1, &[]).await?;
    client
        .produce(&topic, &Sent::numbered(0, 10, 0), &[])
        .await?;
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, Offset::Offset(4))?;
    let found = client
        .admin
        .delete_records(&before, &AdminOptions::new())
        .await?;
    check_equal(
        found.elements()[0].offset(),
        Offset::Offset(4),
        "low watermark",
    )?;
    check_equal(client.watermarks(&topic, 0).await?, (4, 10), "watermarks")
}

async fn delete_topic(client: &Client) -> Outcome {
    let topic = client.fresh("delete", 1, &[]).await?;
    client::only(
        client
            .admin
            .delete_topics(&[&topic], &AdminOptions::new())
            .await?,
    )?;
    let consumer = client.consumer();
    let listed = || {
        Ok(consumer
            .fetch_metadata(None, ANSWER_TIME_MAX)?
            .topics()
            .iter()
            .any(|t| t.name() == topic))
    };
    client::eventually(false, listed).await
}

async fn invalid_topic_name(client: &Client) -> Outcome {
    expect_error(client.create("no spaces", 1, &[]).await, Code::InvalidTopic)
}

async fn duplicate_topic(client: &Client) -> Outcome {
    let topic = client.fresh("twice", 1, &[]).await?;
    expect_error(
        client.create(&topic, 1, &[]).await,
        Code::TopicAlreadyExists,
    )
}

async fn invalid_replication(client: &Client) -> Outcome {
    let topic = client.topic_name("rf");
    let wanted = [NewTopic::new(&topic, 1, TopicReplication::Fixed(3))];
    let answers = client
        .admin
        .create_topics(&wanted, &AdminOptions::new())
        .await?;
    expect_error(client::only(answers), Code::InvalidReplicationFactor)
}

async fn unknown_config(client: &Client) -> Outcome {
    let topic = client.topic_name("cfg");
    expect_error(
        client.create(&topic, 1, &[("no.such.config", "1")]).await,
        Code::InvalidConfig,
    )
}

async fn delete_unknown_topic(client: &Client) -> Outcome {
    let topic = client.topic_name("none");
    let answers = client
        .admin
        .delete_topics(&[&topic], &AdminOptions::new())
        .await?;
    expect_error(client::only(answers), Code::UnknownTopicOrPartition)
}

async fn fewer_partitions(client: &Client) -> Outcome {
    let topic = client.fresh("fewer", 3, &[]).await?;
    let wanted = [NewPartitions::new(&topic, 2)];
    let answers = client
        .admin
        .create_partitions(&wanted, &AdminOptions::new())
        .await?;
    expect_error(client::only(answers), Code::InvalidPartitions)
}

async fn cluster_id(client: &Client) -> Outcome {
    let consumer = client.consumer();
    let id = consumer.client().fetch_cluster_id(ANSWER_TIME_MAX);
    check(id.is_some_and(|id| !id.is_empty()), "the cluster has an id")
}
