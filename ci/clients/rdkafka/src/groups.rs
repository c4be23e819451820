//! Owns the cases about consumer groups: members in this process, and one in another that is killed.
//! Does not know how the other cases read and write.
//! Invariant: whatever is waited for has a limit, and every member of a case is polled while it waits.

use crate::client::{check, check_equal, expect_error, Client, Failure, Sent};
use rdkafka::admin::AdminOptions;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(60);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// Longer than a case, so that only a member that leaves is gone ...
const SESSION_MS: &str = "120000";
/// ... and the shortest that Kafka's defaults allow, for one that is to be lost.
const SESSION_MS_MIN: &str = "6000";

type Outcome = Result<(), Failure>;
/// Partition and offset.
type Place = (i32, i64);

/// What a member was told of its partitions, in turn; empty parts are left out.
#[derive(Default)]
struct Changes(Mutex<Vec<(&'static str, BTreeSet<i32>)>>);

impl ClientContext for Changes {}

impl ConsumerContext for Changes {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let (what, parts) = match rebalance {
            Rebalance::Assign(parts) => ("assigned", parts),
            Rebalance::Revoke(parts) => ("revoked", parts),
            Rebalance::Error(_) => return,
        };
        let parts = partitions_of(parts);
        if !parts.is_empty() {
            self.0.lock().expect("no panic").push((what, parts));
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> BTreeSet<i32> {
    list.elements().iter().map(|e| e.partition()).collect()
}

/// A consumer of a group, with what it has read. It leaves when it is dropped, unless it is a static member.
struct Member {
    consumer: BaseConsumer<Changes>,
    read: RefCell<Vec<Place>>,
}

impl Member {
    fn join(
        client: &Client,
        group: &str,
        topic: &str,
        settings: &[(&str, &str)],
    ) -> Result<Member, Failure> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", client.bootstrap())
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.commit.interval.ms", "600000")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", SESSION_MS)
            .set("max.poll.interval.ms", SESSION_MS)
            .set("heartbeat.interval.ms", "500");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let consumer: BaseConsumer<Changes> = config.create_with_context(Changes::default())?;
        consumer.subscribe(&[topic])?;
        Ok(Member {
            consumer,
            read: RefCell::default(),
        })
    }

    /// Reads what is there, at most `count` records.
    fn poll(&self, count: usize) -> Outcome {
        let until = Instant::now() + Duration::from_millis(100);
        let mut found = 0;
        while found < count {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if let Some(message) = self.consumer.poll(left) {
                let message = message?;
                let place = (message.partition(), message.offset());
                self.read.borrow_mut().push(place);
                found += 1;
            }
        }
        Ok(())
    }

    fn assignment(&self) -> Result<BTreeSet<i32>, Failure> {
        Ok(partitions_of(&self.consumer.assignment()?))
    }

    fn changes(&self) -> Vec<(&'static str, BTreeSet<i32>)> {
        let changes = &self.consumer.context().0;
        changes.lock().expect("no panic").clone()
    }
}

/// Polls all of them until it holds: a member that is not polled holds up a rebalance.
async fn until(
    what: &str,
    members: &[&Member],
    count: usize,
    holds: impl Fn() -> Result<bool, Failure>,
) -> Outcome {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds()? {
        if Instant::now() > deadline {
            let read: Vec<_> = members.iter().map(|m| m.read.borrow().len()).collect();
            return Err(Failure::new(&format!("not in time: {what}; read {read:?}")));
        }
        for member in members {
            member.poll(count)?;
        }
        // The limit on the time of a case is looked at here.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Until every member has a part, the parts are disjoint, and together they are all.
async fn settle(members: &[&Member], partitions: i32) -> Outcome {
    until("the partitions are shared", members, 1000, || {
        let mut all = BTreeSet::new();
        let mut sum = 0;
        for member in members {
            let part = member.assignment()?;
            if part.is_empty() {
                return Ok(false);
            }
            sum += part.len();
            all.extend(part);
        }
        Ok(all == (0..partitions).collect() && sum == all.len())
    })
    .await
}

async fn until_read(members: &[&Member], count: usize) -> Outcome {
    until("everything is read", members, 1000, || {
        Ok(members.iter().map(|m| m.read.borrow().len()).sum::<usize>() >= count)
    })
    .await
}

fn all_read(members: &[&Member]) -> Vec<Place> {
    let mut all: Vec<Place> = Vec::new();
    for member in members {
        all.extend(member.read.borrow().iter());
    }
    all.sort_unstable();
    all
}

fn places(partitions: i32, offsets: std::ops::Range<i64>) -> Vec<Place> {
    (0..partitions)
        .flat_map(|p| offsets.clone().map(move |n| (p, n)))
        .collect()
}

async fn produce(client: &Client, topic: &str, partitions: i32, count: usize) -> Outcome {
    let sent: Vec<Sent> = (0..partitions)
        .flat_map(|p| Sent::numbered(p, count, 0))
        .collect();
    let settings = [("enable.idempotence", "true")];
    client.produce(topic, &sent, &settings).await?;
    Ok(())
}

/// What is committed, by partition; what is not is left out.
fn committed(
    client: &Client,
    group: &str,
    topic: &str,
    partitions: i32,
) -> Result<BTreeMap<i32, i64>, Failure> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", client.bootstrap())
        .set("group.id", group);
    let consumer: BaseConsumer = config.create()?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, partitions - 1);
    let found = consumer.committed_offsets(asked, ANSWER_TIME_MAX)?;
    let offsets = found.elements().into_iter().filter_map(|e| {
        let Offset::Offset(at) = e.offset() else {
            return None;
        };
        Some((e.partition(), at))
    });
    Ok(offsets.collect())
}

pub async fn group_resumes_after_commit_sync(client: &Client) -> Outcome {
    resumes(client, |member| {
        Ok(member.consumer.commit_consumer_state(CommitMode::Sync)?)
    })
    .await
}

pub async fn group_resumes_after_commit_async(client: &Client) -> Outcome {
    resumes(client, |member| {
        Ok(member.consumer.commit_consumer_state(CommitMode::Async)?)
    })
    .await
}

async fn resumes(client: &Client, commit: impl Fn(&Member) -> Outcome) -> Outcome {
    let topic = client.fresh("resume", 3, &[]).await?;
    let group = client.topic_name("group");
    produce(client, &topic, 3, 30).await?;
    let settings = [("enable.auto.commit", "false")];
    let first = Member::join(client, &group, &topic, &settings)?;
    until("the first reads a part", &[&first], 7, || {
        Ok(first.read.borrow().len() >= 40)
    })
    .await?;
    // While it is dropped this client reads on what it has fetched, and takes that for read too.
    first.consumer.pause(&first.consumer.assignment()?)?;
    commit(&first)?;
    let before = first.read.borrow().clone();
    check(before.len() < 90, "there is a rest for the second")?;
    let mut wanted = BTreeMap::new();
    for (partition, _) in &before {
        *wanted.entry(*partition).or_insert(0) += 1;
    }
    // It waits for a commit that is under way.
    drop(first);
    check_equal(
        committed(client, &group, &topic, 3)?,
        wanted,
        "committed offsets",
    )?;
    let second = Member::join(client, &group, &topic, &[])?;
    until_read(&[&second], 90 - before.len()).await?;
    let mut all = before;
    all.extend(second.read.borrow().iter());
    all.sort_unstable();
    check_equal(all, places(3, 0..30), "records of both")
}

pub async fn group_members_share_the_partitions(client: &Client) -> Outcome {
    let topic = client.fresh("share", 6, &[]).await?;
    let group = client.topic_name("group");
    let join = || Member::join(client, &group, &topic, &[]);
    let (one, two) = (join()?, join()?);
    round(client, &topic, &[&one, &two], 0).await?;
    let three = join()?;
    round(client, &topic, &[&one, &two, &three], 10).await?;
    drop(one);
    round(client, &topic, &[&two, &three], 20).await?;
    drop(three);
    round(client, &topic, &[&two], 30).await
}

/// Ten records of each partition are read once, by the member whose partition it is.
async fn round(client: &Client, topic: &str, members: &[&Member], from: i64) -> Outcome {
    settle(members, 6).await?;
    for member in members {
        member.read.borrow_mut().clear();
    }
    produce(client, topic, 6, 10).await?;
    until_read(members, 60).await?;
    check_equal(
        all_read(members),
        places(6, from..from + 10),
        "records of all members",
    )?;
    for member in members {
        let of: BTreeSet<i32> = member.read.borrow().iter().map(|(p, _)| *p).collect();
        check_equal(of, member.assignment()?, "partitions that a member reads")?;
        member.consumer.commit_consumer_state(CommitMode::Sync)?;
    }
    Ok(())
}

pub async fn group_independent_groups_each_see_everything(client: &Client) -> Outcome {
    let topic = client.fresh("independent", 2, &[]).await?;
    produce(client, &topic, 2, 25).await?;
    let join = || Member::join(client, &client.topic_name("group"), &topic, &[]);
    let (one, two) = (join()?, join()?);
    until_read(&[&one], 50).await?;
    until_read(&[&two], 50).await?;
    check_equal(all_read(&[&one]), places(2, 0..25), "records of one")?;
    check_equal(all_read(&[&two]), places(2, 0..25), "records of two")
}

/// A member in a process of its own, which ends with the case.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub async fn group_takes_over_from_a_member_that_was_killed(client: &Client) -> Outcome {
    let topic = client.fresh("killed", 4, &[]).await?;
    let group = client.topic_name("group");
    produce(client, &topic, 4, 10).await?;
    let failed = |what: std::io::Error| Failure::new(&format!("another process: {what}"));
    let other = Command::new(std::env::current_exe().map_err(failed)?)
        .args([client.bootstrap(), "--member", &group, &topic])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let other = Other(other);
    let left = Member::join(client, &group, &topic, &[])?;
    until("the other has its part", &[&left], 1000, || {
        Ok(left.assignment()?.len() == 2)
    })
    .await?;
    drop(other);
    produce(client, &topic, 4, 10).await?;
    settle(&[&left], 4).await?;
    // The other has committed nothing, so what it read comes again.
    until("all is read", &[&left], 1000, || {
        let read: BTreeSet<Place> = left.read.borrow().iter().copied().collect();
        Ok(read.len() == 80)
    })
    .await
}

/// What the suite is in another process: a member that is killed sometime.
pub fn member_until_killed(client: &Client, group: &str, topic: &str) -> Outcome {
    let settings = [("session.timeout.ms", SESSION_MS_MIN)];
    let member = Member::join(client, group, topic, &settings)?;
    let deadline = Instant::now() + 3 * WAIT_MAX;
    while Instant::now() < deadline {
        member.poll(1000)?;
    }
    Ok(())
}

pub async fn group_assignor_range(client: &Client) -> Outcome {
    assignor(client, "range").await
}

pub async fn group_assignor_roundrobin(client: &Client) -> Outcome {
    assignor(client, "roundrobin").await
}

async fn assignor(client: &Client, name: &str) -> Outcome {
    let topic = client.fresh("assign", 6, &[]).await?;
    let group = client.topic_name("group");
    let settings = [("partition.assignment.strategy", name)];
    let join = || Member::join(client, &group, &topic, &settings);
    let (one, two) = (join()?, join()?);
    settle(&[&one, &two], 6).await?;
    let mut parts = [one.assignment()?, two.assignment()?];
    parts.sort_unstable();
    let wanted = match name {
        "range" => [BTreeSet::from([0, 1, 2]), BTreeSet::from([3, 4, 5])],
        _ => [BTreeSet::from([0, 2, 4]), BTreeSet::from([1, 3, 5])],
    };
    check_equal(parts, wanted, "the parts of both")?;
    until("the group is stable", &[&one, &two], 1000, || {
        Ok(described(&one, &group)? == Some(("Stable".into(), name.into(), 2)))
    })
    .await
}

/// State, protocol and number of members of a group; none where there is no such group.
fn described(member: &Member, group: &str) -> Result<Option<(String, String, usize)>, Failure> {
    let found = member
        .consumer
        .fetch_group_list(Some(group), ANSWER_TIME_MAX)?;
    let found = found.groups().iter().find(|g| g.name() == group);
    Ok(found.map(|g| {
        let (state, protocol) = (g.state().to_string(), g.protocol().to_string());
        (state, protocol, g.members().len())
    }))
}

pub async fn group_cooperative_members_keep_what_stays(client: &Client) -> Outcome {
    let topic = client.fresh("cooperative", 6, &[]).await?;
    let group = client.topic_name("group");
    let settings = [("partition.assignment.strategy", "cooperative-sticky")];
    let join = || Member::join(client, &group, &topic, &settings);
    let one = join()?;
    settle(&[&one], 6).await?;
    let two = join()?;
    settle(&[&one, &two], 6).await?;
    let moved = two.assignment()?;
    check_equal(moved.len(), 3, "partitions of the second")?;
    let wanted = vec![("assigned", (0..6).collect()), ("revoked", moved)];
    check_equal(one.changes(), wanted, "changes of the first")
}

pub async fn group_static_member_restarts_without_a_rebalance(client: &Client) -> Outcome {
    let topic = client.fresh("static", 4, &[]).await?;
    let group = client.topic_name("group");
    let join = |name| Member::join(client, &group, &topic, &[("group.instance.id", name)]);
    let one = join("one")?;
    // Alone at first, so that the one that restarts is the leader.
    settle(&[&one], 4).await?;
    let two = join("two")?;
    settle(&[&one, &two], 4).await?;
    let (part, told) = (one.assignment()?, two.changes());
    drop(one);
    let again = join("one")?;
    settle(&[&again, &two], 4).await?;
    check_equal(
        again.assignment()?,
        part,
        "its partitions after the restart",
    )?;
    check_equal(two.changes(), told, "what the other was told")?;
    produce(client, &topic, 4, 10).await?;
    until_read(&[&again, &two], 40).await?;
    check_equal(all_read(&[&again, &two]), places(4, 0..10), "records")
}

pub async fn group_stores_offsets_itself(client: &Client) -> Outcome {
    let topic = client.fresh("store", 1, &[]).await?;
    let group = client.topic_name("group");
    produce(client, &topic, 1, 10).await?;
    let settings = [
        ("enable.auto.commit", "true"),
        ("auto.commit.interval.ms", "100"),
        ("enable.auto.offset.store", "false"),
    ];
    let member = Member::join(client, &group, &topic, &settings)?;
    until_read(&[&member], 10).await?;
    member.consumer.store_offset(&topic, 0, 3)?;
    // Which commits by time what is stored, not what is read.
    until("the offset is committed", &[&member], 1000, || {
        Ok(committed(client, &group, &topic, 1)? == BTreeMap::from([(0, 4)]))
    })
    .await
}

pub async fn group_is_deleted(client: &Client) -> Outcome {
    let topic = client.fresh("delete", 1, &[]).await?;
    let group = client.topic_name("group");
    produce(client, &topic, 1, 5).await?;
    let member = Member::join(client, &group, &topic, &[])?;
    until_read(&[&member], 5).await?;
    member.consumer.commit_consumer_state(CommitMode::Sync)?;
    expect_error(delete(client, &group).await, Code::NonEmptyGroup)?;
    drop(member);
    check_equal(
        committed(client, &group, &topic, 1)?,
        BTreeMap::from([(0, 5)]),
        "committed offsets",
    )?;
    delete(client, &group).await?;
    check_equal(
        committed(client, &group, &topic, 1)?,
        BTreeMap::new(),
        "offsets of a group that is deleted",
    )?;
    expect_error(delete(client, &group).await, Code::GroupIdNotFound)
}

async fn delete(client: &Client, group: &str) -> Result<String, Failure> {
    let answers = client
        .admin
        .delete_groups(&[group], &AdminOptions::new())
        .await?;
    crate::client::only(answers)
}
