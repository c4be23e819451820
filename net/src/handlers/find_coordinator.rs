//! Owns FindCoordinator: where the coordinators of groups are, and making the topic they live in when first asked.
//! Does not know groups; of transactions and share groups it knows that nobody coordinates them here.
//! Invariant: every key asked for is answered, each with its own error or the broker that serves it.

use super::admin::{self, NewTopic, Refusal};
use super::Outcome;
use crate::cores::{Assigned, Endpoint, Faces};
use crate::shard::ShardNet;
use crate::wire::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::coord::{partition_of, GROUP_TOPIC};
use millrace_engine::api::meta::Overrides;

/// First version that asks for several keys.
const BATCH_VERSION_MIN: i16 = 4;
/// First version with share groups.
const SHARE_VERSION_MIN: i16 = 6;

/// Partitions of the groups' topic, as in Kafka: so many coordinators share the groups.
const GROUP_PARTITIONS: i32 = 50;

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
    let known = match check(request.key_type, version) {
        Ok(()) => make_group_topic(shard).await,
        Err(refusal) => Err(refusal),
    };
    let image = shard.broker.image();
    answer(&shard.faces(&image), request, version, known)
}

/// Whether that is what has coordinators here: groups.
fn check(key_type: i8, version: i16) -> Result<(), Refusal> {
    let refused = |code, message: &str| Err(Refusal::new(code, message));
    match key_type {
        0 => Ok(()),
        1 => refused(
            ErrorCode::CoordinatorNotAvailable,
            "This broker does not coordinate transactions.",
        ),
        2 if version >= SHARE_VERSION_MIN => refused(
            ErrorCode::CoordinatorNotAvailable,
            "This broker does not coordinate share groups.",
        ),
        i8::MIN..=i8::MAX => refused(
            ErrorCode::InvalidRequest,
            "There is no such type of coordinator.",
        ),
    }
}

/// Makes the groups' topic where it is not there yet.
async fn make_group_topic(shard: &ShardNet) -> Result<(), Refusal> {
    if shard.broker.image().topic(GROUP_TOPIC).is_some() {
        return Ok(());
    }
    match admin::create_topic(shard, group_topic()).await {
        Ok(_) => Ok(()),
        // Somebody else was faster.
        Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => Ok(()),
        Err(refusal) => {
            tracing::error!(code = %refusal.code, refusal.message, "no topic for groups can be made");
            Err(unavailable(refusal.message))
        }
    }
}

fn group_topic() -> NewTopic {
    let settings = [
        ("cleanup.policy", "compact"),
        ("compression.type", "producer"),
        ("segment.bytes", "104857600"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    NewTopic {
        name: GROUP_TOPIC.to_owned(),
        partitions: GROUP_PARTITIONS,
        replication_factor: 1,
        assigned: Assigned::default(),
        overrides: Overrides::from(settings),
    }
}

/// Clients ask again after it.
fn unavailable(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::CoordinatorNotAvailable, message)
}

/// The broker that coordinates a group: the one that has the group's partition, by the id that clients know.
fn coordinator<'a>(
    faces: &Faces<'_>,
    brokers: &'a [Endpoint],
    group: &str,
) -> Result<&'a Endpoint, Refusal> {
    let nobody = || unavailable("The coordinator is not available.");
    let topic = faces.image.topic(GROUP_TOPIC).ok_or_else(nobody)?;
    let partition = partition_of(group, topic.partitions.len() as i32) as usize;
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
    known: Result<(), Refusal>,
) -> FindCoordinatorResponse {
    let brokers = faces.brokers();
    let one = |key: Str| {
        let found = match &known {
            Ok(()) => coordinator(faces, &brokers, &key),
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
        known: Result<(), Refusal>,
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
        let (config, image) = (NetConfig::default(), image(&[(GROUP_TOPIC, 50)]));
        let faces = Faces::new(&config, 1, &image);
        let refusals = [(0, 0), (1, 15), (2, 15), (9, 42)];
        for version in 0..=6 {
            for (key_type, code) in refusals {
                let known = check(key_type, version);
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
        let code = |key_type, version| check(key_type, version).map_err(|refusal| refusal.code);
        assert_eq!(code(0, 0), Ok(()));
        assert_eq!(code(1, 1), Err(ErrorCode::CoordinatorNotAvailable));
        assert_eq!(code(2, 5), Err(ErrorCode::InvalidRequest));
        assert_eq!(code(2, 6), Err(ErrorCode::CoordinatorNotAvailable));
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
        let found = coordinators(&faces, &keys, 6, Ok(()));
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
            coordinators(&faces, &["g"], 6, Ok(()))[0].error_code
        };
        assert_eq!(code(&image(&[])), 15);
        assert_eq!(code(&image(&[(GROUP_TOPIC, 1)])), 0);
    }

    #[test]
    fn the_topic_is_kafkas() {
        use millrace_engine::api::meta::names;
        let topic = group_topic();
        assert!(names::is_internal(&topic.name));
        assert_eq!((topic.partitions, topic.replication_factor), (50, 1));
        assert_eq!(topic.overrides["cleanup.policy"], "compact");
    }
}
