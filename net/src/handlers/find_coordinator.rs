//! Owns FindCoordinator: where coordinators of groups, transactions and share states are, and making their topics when
//! first asked.
//! Does not know groups, transactions or states.
//! Invariant: every key asked for is answered, each with its own error or the broker that serves it.

use super::admin::{self, NewTopic, Refusal};
use super::Outcome;
use crate::cores::{Assigned, Endpoint, Faces};
use crate::shard::ShardNet;
use crate::wire::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::coord::{partition_of, GROUP_TOPIC};
use millrace_engine::api::meta::Overrides;
use millrace_engine::api::share::SHARE_TOPIC;
use millrace_engine::api::txn::TXN_TOPIC;

/// First version that asks for several keys.
const BATCH_VERSION_MIN: i16 = 4;
/// First version with share groups.
const SHARE_VERSION_MIN: i16 = 6;

/// Partitions of a coordinators' topic, as in Kafka: so many coordinators share the groups, or the transactional ids.
const COORDINATORS: i32 = 50;

impl Outcome for FindCoordinatorResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
            || self
                .coordinators
                .iter()
                .any(|coordinator| coordinator.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let known = match topic_of(request.key_type, version) {
        Ok(topic) => make_topic(shard, topic).await,
        Err(refusal) => Err(refusal),
    };
    let image = shard.broker.image();
    answer(&shard.faces(&image), request, version, known)
}

/// The topic of what has coordinators here: groups, transactions and the states of share groups.
fn topic_of(key_type: i8, version: i16) -> Result<&'static str, Refusal> {
    let refused = |code, message: &str| Err(Refusal::new(code, message));
    match key_type {
        0 => Ok(GROUP_TOPIC),
        1 => Ok(TXN_TOPIC),
        2 if version >= SHARE_VERSION_MIN => Ok(SHARE_TOPIC),
        i8::MIN..=i8::MAX => refused(
            ErrorCode::InvalidRequest,
            "There is no such type of coordinator.",
        ),
    }
}

/// Makes a coordinators' topic where it is not there yet.
pub(super) async fn make_topic(
    shard: &ShardNet,
    name: &'static str,
) -> Result<&'static str, Refusal> {
    if shard.broker.image().topic(name).is_some() {
        return Ok(name);
    }
    match admin::create_topic(shard, new_topic(name)).await {
        Ok(_) => Ok(name),
        // Somebody else was faster.
        Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => Ok(name),
        Err(refusal) => {
            tracing::error!(topic = name, code = %refusal.code, refusal.message, "no topic for coordinators can be made");
            Err(unavailable(refusal.message))
        }
    }
}

fn new_topic(name: &str) -> NewTopic {
    // Of the states of share groups updates go before they would be compacted, and no record goes by its age.
    let policy = match name {
        SHARE_TOPIC => "delete",
        _ => "compact",
    };
    let settings = [
        ("cleanup.policy", policy),
        ("compression.type", "producer"),
        ("segment.bytes", "104857600"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut overrides = Overrides::from(settings);
    if name == SHARE_TOPIC {
        overrides.insert("retention.ms".to_owned(), "-1".to_owned());
    }
    NewTopic {
        name: name.to_owned(),
        partitions: COORDINATORS,
        replication_factor: 1,
        assigned: Assigned::default(),
        overrides,
    }
}

/// Clients ask again after it.
fn unavailable(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::CoordinatorNotAvailable, message)
}

/// The broker that coordinates a group or a transactional id: the one that has its partition, by the id that clients know.
fn coordinator<'a>(
    faces: &Faces<'_>,
    brokers: &'a [Endpoint],
    topic: &str,
    key: &str,
) -> Result<&'a Endpoint, Refusal> {
    let nobody = || unavailable("The coordinator is not available.");
    let topic = faces.image.topic(topic).ok_or_else(nobody)?;
    let partition = partition_of(key, topic.partitions.len() as i32) as usize;
    let leader = faces
        .held(topic, partition, &topic.partitions[partition])
        .leader;
    let found = brokers.iter().find(|broker| broker.id == leader);
    found.ok_or_else(nobody)
}

fn answer(
    faces: &Faces<'_>,
    request: FindCoordinatorRequest,
    version: i16,
    known: Result<&'static str, Refusal>,
) -> FindCoordinatorResponse {
    let brokers = faces.brokers();
    let one = |key: Str| {
        let found = match &known {
            Ok(topic) => coordinator(faces, &brokers, topic, &key),
            Err(refusal) => Err(refusal.clone()),
        };
        match found {
            Ok(broker) => Coordinator {
                key,
                node_id: broker.id,
                host: broker.host.clone(),
                port: broker.port,
                ..Default::default()
            },
            Err(refusal) => Coordinator {
                key,
                node_id: -1,
                host: Str::default(),
                port: -1,
                error_code: refusal.code.code(),
                error_message: Some(refusal.message.into()),
            },
        }
    };
    if version >= BATCH_VERSION_MIN {
        return FindCoordinatorResponse {
            coordinators: request.coordinator_keys.into_iter().map(one).collect(),
            ..Default::default()
        };
    }
    let found = one(request.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NetConfig;
    use crate::handlers::tests::image;
    use crate::out::Out;
    use millrace_engine::api::meta::Image;
    use millrace_engine::types::PartitionId;

    fn encodes(response: &FindCoordinatorResponse, version: i16) {
        let mut out = Out::default();
        out.respond::<FindCoordinatorRequest>(1, version, response)
            .unwrap();
    }

    fn asked(keys: &[&'static str]) -> FindCoordinatorRequest {
        FindCoordinatorRequest {
            key: keys[0].into(),
            key_type: 0,
            coordinator_keys: keys.iter().map(|key| Str::from(*key)).collect(),
        }
    }

    /// The answers of any version in the form of the later ones.
    fn coordinators(
        faces: &Faces<'_>,
        keys: &[&'static str],
        version: i16,
        known: Result<&'static str, Refusal>,
    ) -> Vec<Coordinator> {
        let response = answer(faces, asked(keys), version, known);
        encodes(&response, version);
        if version >= 4 {
            return response.coordinators;
        }
        vec![Coordinator {
            key: keys[0].into(),
            node_id: response.node_id,
            host: response.host,
            port: response.port,
            error_code: response.error_code,
            error_message: response.error_message,
        }]
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        let (config, image) = (
            NetConfig::default(),
            image(&[(GROUP_TOPIC, 50), (TXN_TOPIC, 50)]),
        );
        let faces = Faces::new(&config, 1, &image);
        let refusals = [(0, 0), (1, 0), (2, 15), (9, 42)];
        for version in 0..=6 {
            for (key_type, code) in refusals {
                let known = topic_of(key_type, version);
                let code = if key_type == 2 && version < 6 {
                    42
                } else {
                    code
                };
                let found = coordinators(&faces, &["a", "b"], version, known);
                assert_eq!(found.len(), if version >= 4 { 2 } else { 1 });
                for (found, key) in found.iter().zip(["a", "b"]) {
                    assert_eq!((&*found.key, found.error_code), (key, code));
                    let broker = if code == 0 { (1, 9092) } else { (-1, -1) };
                    assert_eq!((found.node_id, found.port), broker);
                    assert_eq!(found.error_message.is_some(), code != 0);
                }
            }
        }
    }

    #[test]
    fn kinds_that_exist_are_unavailable_and_others_invalid() {
        let code = |key_type, version| topic_of(key_type, version).map_err(|refusal| refusal.code);
        assert_eq!(code(0, 0), Ok(GROUP_TOPIC));
        assert_eq!(code(1, 1), Ok(TXN_TOPIC));
        assert_eq!(code(2, 5), Err(ErrorCode::InvalidRequest));
        assert_eq!(code(2, 6), Ok(SHARE_TOPIC));
        assert_eq!(code(-1, 6), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn where_cores_are_brokers_it_is_the_core_of_the_groups_partition() {
        let image = image(&[(GROUP_TOPIC, 50)]);
        let config = NetConfig {
            advertised_host: "here".into(),
            core_ports: vec![9093, 9094, 9095],
            ..NetConfig::default()
        };
        let faces = Faces::new(&config, 3, &image);
        let topic = image.topic(GROUP_TOPIC).unwrap();
        let keys = ["", "a", "group", "another group", "ž"];
        let found = coordinators(&faces, &keys, 6, Ok(GROUP_TOPIC));
        let mut seen = std::collections::BTreeSet::new();
        for (key, found) in keys.iter().zip(found) {
            let partition = PartitionId::new(topic.id, partition_of(key, 50));
            let core = partition.shard(3) as i32;
            let broker = (found.node_id, &*found.host, found.port);
            assert_eq!(broker, (1000 + core, "here", 9093 + core), "{key:?}");
            seen.insert(core);
        }
        assert!(seen.len() > 1, "these keys are on several cores");
    }

    #[test]
    fn without_the_topic_or_its_leader_clients_ask_again() {
        let code = |image: &Image| {
            let config = NetConfig::default();
            let faces = Faces::new(&config, 1, image);
            coordinators(&faces, &["g"], 6, Ok(GROUP_TOPIC))[0].error_code
        };
        assert_eq!(code(&image(&[])), 15);
        assert_eq!(code(&image(&[(GROUP_TOPIC, 1)])), 0);
    }

    #[test]
    fn the_topics_are_kafkas() {
        use millrace_engine::api::meta::names;
        for name in [GROUP_TOPIC, TXN_TOPIC] {
            let topic = new_topic(name);
            assert!(names::is_internal(&topic.name));
            assert_eq!((topic.partitions, topic.replication_factor), (50, 1));
            assert_eq!(topic.overrides["cleanup.policy"], "compact");
        }
    }
}
