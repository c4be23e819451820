//! Owns ListConfigResources: the names of what has settings.
//! Does not know the settings (`describe_configs`).
//! Invariant: what is listed can be described; loggers and client metrics have no settings here.

use super::Outcome;
use crate::shard::ShardNet;
use crate::wire::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};
use crate::wire::{ErrorCode, Str};

/// Kafka's numbers of the types.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// First version in which types are asked for.
const TYPES_VERSION_MIN: i16 = 1;

impl Outcome for ListConfigResourcesResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    let asked = request.resource_types;
    let known = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    if asked.iter().any(|code| !known.contains(code)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        };
    }
    let wants = |code| match version {
        TYPES_VERSION_MIN.. => asked.is_empty() || asked.contains(&code),
        ..TYPES_VERSION_MIN => code == CLIENT_METRICS,
    };
    let image = shard.broker.image();
    let mut config_resources = Vec::new();
    let mut list = |name: String, resource_type| {
        config_resources.push(ConfigResource {
            resource_name: Str::from(name),
            resource_type,
        });
    };
    if wants(TOPIC) {
        let names = image.topics().map(|topic| topic.name.clone());
        names.for_each(|name| list(name, TOPIC));
    }
    if wants(BROKER) {
        let brokers = shard.faces(&image).brokers();
        brokers
            .iter()
            .for_each(|broker| list(broker.id.to_string(), BROKER));
    }
    if wants(GROUP) {
        let groups = image.group_configs.keys().cloned();
        groups.for_each(|name| list(name, GROUP));
    }
    ListConfigResourcesResponse {
        config_resources,
        ..Default::default()
    }
}
