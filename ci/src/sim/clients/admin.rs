//! Owns the administrator: topics made, changed and deleted, records deleted, each repeated until it is answered.
//! Does not know what else happens to the topics.
//! Invariant: a topic is in doubt from the first request about it to the answer of the last.

use super::super::invariants::{acknowledged, log_start, Violation};
use super::super::model::{Caching, Existence, Retention, Topic};
use super::super::wire::{Conn, Lost};
use super::{code, Shared};
use millrace_net::wire::config_codes::operation;
use millrace_net::wire::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use millrace_net::wire::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use millrace_net::wire::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use millrace_net::wire::delete_topics::DeleteTopicsRequest;
use millrace_net::wire::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use millrace_net::wire::{Request, Str};
use std::rc::Rc;

/// Kafka's number for a resource that is a topic.
const RESOURCE_TOPIC: i8 = 2;

/// The answer to `request`, however often it has to be sent.
async fn insist<R: Request>(
    shared: &Shared,
    request: &R,
    version: i16,
    code_of: impl Fn(&R::Response) -> i16,
) -> Option<R::Response> {
    let mut conn: Option<Conn> = None;
    let mut tries = 0;
    while shared.violation().is_none() {
        if conn.is_none() {
            // A broker that is down or full refuses: the next round tries again.
            conn = Conn::open().await.ok();
        }
        let answer = match conn.as_mut() {
            Some(open) => open.call(request, version).await,
            None => Err(Lost),
        };
        match answer {
            Ok(answer) if !code::is_retriable(code_of(&answer)) => return Some(answer),
            Ok(_) => {}
            Err(Lost) => conn = None,
        }
        shared.back_off(&mut tries).await;
    }
    None
}

fn unexpected(what: &str, code: i16) -> Violation {
    Violation::new(
        "requests are answered as asked",
        format!("{what}: code {code}"),
    )
}

/// How a topic is made.
#[derive(Clone, Copy, Debug)]
pub struct NewTopic {
    pub topic: u8,
    pub partitions: i32,
    pub segment_bytes: u64,
    pub segment_ms: Option<u64>,
    pub retention: Retention,
    pub caching: Option<Caching>,
    pub stamped: bool,
}

pub async fn create_topic(shared: Rc<Shared>, new: NewTopic) {
    let life = {
        let mut model = shared.model.borrow_mut();
        let known = model.topics.get(&new.topic);
        if known.is_some_and(|t| t.existence != Existence::Absent) {
            return;
        }
        let life = known.map_or(1, |t| t.life + 1);
        let topic = Topic {
            life,
            existence: Existence::Changing,
            partitions: new.partitions,
            retention: new.retention,
            caching: new.caching,
            stamped: new.stamped,
        };
        model.begin_life(new.topic, topic);
        life
    };
    let config = |name: &'static str, value: String| CreatableTopicConfig {
        name: Str::from_static(name),
        value: Some(Str::from(value)),
    };
    let limit = |of: Option<u64>| of.map_or("-1".to_string(), |of| of.to_string());
    let mut configs = vec![
        config("retention.ms", limit(new.retention.ms)),
        config("retention.bytes", limit(new.retention.bytes)),
        // Clocks jump here, and a refused batch would be a hole in its producer's sequence.
        config("message.timestamp.after.max.ms", i64::MAX.to_string()),
        config("file.delete.delay.ms", "50".to_string()),
        // Below what Kafka allows: many segments without many bytes.
        config("internal.segment.bytes", new.segment_bytes.to_string()),
    ];
    configs.extend(
        new.segment_ms
            .map(|ms| config("segment.ms", ms.to_string())),
    );
    if let Some(caching) = new.caching {
        configs.push(config("write.caching", "true".to_string()));
        configs.push(config("flush.messages", caching.messages.to_string()));
        configs.push(config("flush.ms", caching.ms.to_string()));
    }
    if new.stamped {
        configs.push(config(
            "message.timestamp.type",
            "LogAppendTime".to_string(),
        ));
    }
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Str::from(format!("t{}", new.topic)),
            num_partitions: new.partitions,
            replication_factor: 1,
            configs,
            ..Default::default()
        }],
        ..Default::default()
    };
    let Some(answer) = insist(&shared, &request, 5, |r| r.topics[0].error_code).await else {
        return;
    };
    match answer.topics[0].error_code {
        // A repeated request finds what the first one made.
        0 | code::TOPIC_ALREADY_EXISTS => {
            let mut model = shared.model.borrow_mut();
            let topic = model.topics.get_mut(&new.topic).expect("entered above");
            assert_eq!(topic.life, life, "one administrator at a time");
            topic.existence = Existence::Present;
        }
        code => {
            shared.demand(Err(unexpected("creating a topic", code)));
        }
    }
}

pub async fn delete_topic(shared: Rc<Shared>, topic: u8) {
    {
        let mut model = shared.model.borrow_mut();
        match model.topics.get_mut(&topic) {
            Some(known) if known.existence == Existence::Present => {
                known.existence = Existence::Changing;
            }
            Some(_) | None => return,
        }
    }
    let request = DeleteTopicsRequest {
        topic_names: vec![Str::from(format!("t{topic}"))],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let Some(answer) = insist(&shared, &request, 5, |r| r.responses[0].error_code).await else {
        return;
    };
    match answer.responses[0].error_code {
        0 | code::UNKNOWN_TOPIC_OR_PARTITION => {
            let mut model = shared.model.borrow_mut();
            let known = model.topics.get_mut(&topic).expect("entered above");
            known.existence = Existence::Absent;
        }
        code => {
            shared.demand(Err(unexpected("deleting a topic", code)));
        }
    }
}

pub async fn set_topic(shared: Rc<Shared>, topic: u8, name: &'static str, value: i64) {
    if shared.model.borrow().place(topic, 0).is_none() {
        return;
    }
    // Below zero there is no limit.
    let limit = u64::try_from(value).ok();
    let asks_for = match name {
        "retention.ms" => Retention {
            ms: limit,
            bytes: None,
        },
        "retention.bytes" => Retention {
            ms: None,
            bytes: limit,
        },
        _ => Retention::default(),
    };
    if let Some(known) = shared.model.borrow_mut().topics.get_mut(&topic) {
        known.retention.also(asks_for);
    }
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: Str::from(format!("t{topic}")),
            configs: vec![AlterableConfig {
                name: Str::from_static(name),
                config_operation: operation::SET,
                value: Some(Str::from(value.to_string())),
            }],
        }],
        validate_only: false,
    };
    let Some(answer) = insist(&shared, &request, 1, |r| r.responses[0].error_code).await else {
        return;
    };
    let code = answer.responses[0].error_code;
    if code != 0 {
        shared.demand(Err(unexpected("changing a topic", code)));
    }
}

/// Gives a topic more partitions.
pub async fn grow_topic(shared: Rc<Shared>, topic: u8, more: i32) {
    let Some(place) = shared.model.borrow().place(topic, 0) else {
        return;
    };
    let count = shared.model.borrow().topics[&topic].partitions + more;
    let request = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: Str::from(format!("t{topic}")),
            count,
            assignments: None,
        }],
        timeout_ms: 10_000,
        validate_only: false,
    };
    let Some(answer) = insist(&shared, &request, 3, |r| r.results[0].error_code).await else {
        return;
    };
    match answer.results[0].error_code {
        // A repeated request finds what the first one did: nobody else gives it partitions.
        0 | code::INVALID_PARTITIONS => {
            let mut model = shared.model.borrow_mut();
            let known = model.topics.get_mut(&topic).expect("it is there");
            assert_eq!(known.life, place.life, "one administrator at a time");
            known.partitions = count;
        }
        code => {
            shared.demand(Err(unexpected("giving a topic partitions", code)));
        }
    }
}

/// Deletes a share of what a partition holds.
pub async fn delete_records(shared: Rc<Shared>, topic: u8, index: i32, percent: u64) {
    let Some(place) = shared.model.borrow().place(topic, index) else {
        return;
    };
    let known = shared.model.borrow().bounds(place);
    let span = (known.high_watermark - known.log_start).max(0) as u64;
    let offset = known.log_start + (span * percent / 100) as i64;
    {
        let mut model = shared.model.borrow_mut();
        let partition = model.partitions.entry(place).or_default();
        partition.delete_asked = partition.delete_asked.max(offset);
        model.deleting.push((topic, index, offset));
    }
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: Str::from(format!("t{topic}")),
            partitions: vec![DeleteRecordsPartition {
                partition_index: index,
                offset,
            }],
        }],
        timeout_ms: 10_000,
    };
    let code_of =
        |r: &<DeleteRecordsRequest as Request>::Response| r.topics[0].partitions[0].error_code;
    let Some(answer) = insist(&shared, &request, 2, code_of).await else {
        return;
    };
    let answer = &answer.topics[0].partitions[0];
    let mut model = shared.model.borrow_mut();
    let under_way = &mut model.deleting;
    if let Some(of_this) = under_way.iter().position(|d| *d == (topic, index, offset)) {
        under_way.swap_remove(of_this);
    }
    if !model.is_certain(place) {
        return;
    }
    match answer.error_code {
        0 => {
            let now = answer.low_watermark;
            let least = offset.max(known.log_start);
            shared.demand(log_start::on_listed(&model, place, least, now));
            model.learn_bounds(place, now, 0);
        }
        code::UNKNOWN_TOPIC_OR_PARTITION => {
            shared.demand(Err(acknowledged::unknown_partition(place)));
        }
        code => {
            shared.demand(Err(unexpected("deleting records", code)));
        }
    }
}
