//! Owns the administrative calls of the command line: create, delete, widen, configure topics.
//! Does not know how their results are shown.
//! Invariant: an error names the topic it is about.

use super::cluster::Cluster;
use super::error::ClientError;
use super::BROKER_TIMEOUT_MS;
use millrace_net::wire::config_codes::{operation, resource};
use millrace_net::wire::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use millrace_net::wire::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use millrace_net::wire::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use millrace_net::wire::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use millrace_net::wire::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use millrace_net::wire::{ErrorCode, Str};

fn text(s: &str) -> Str {
    Str::from(s.to_string())
}

/// A call that changes something: tried again only where the first try cannot have done anything.
fn change<T>(
    cluster: &mut Cluster,
    call: impl Fn(&mut Cluster) -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let refused = |error: &ClientError| match error {
        ClientError::Connect { .. } | ClientError::NoLeader(_) => true,
        other => matches!(
            other.code(),
            Some(ErrorCode::NotController | ErrorCode::ThrottlingQuotaExceeded)
        ),
    };
    cluster.retry_if(refused, |cluster| {
        let result = call(cluster);
        if result
            .as_ref()
            .is_err_and(|e| e.code() == Some(ErrorCode::NotController))
        {
            cluster.metadata(Some(&[]), false)?;
        }
        result
    })
}

/// Creates a topic; -1 for partitions or replicas leaves the number to the broker.
pub fn create(
    cluster: &mut Cluster,
    name: &str,
    partitions: i32,
    replicas: i16,
    configs: &[(String, String)],
) -> Result<(), ClientError> {
    let config = |(name, value): &(String, String)| CreatableTopicConfig {
        name: text(name),
        value: Some(text(value)),
    };
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: text(name),
            num_partitions: partitions,
            replication_factor: replicas,
            assignments: Vec::new(),
            configs: configs.iter().map(config).collect(),
        }],
        timeout_ms: BROKER_TIMEOUT_MS,
        validate_only: false,
    };
    change(cluster, |cluster| {
        let answer = cluster.call_controller(&request)?;
        answer.topics.into_iter().try_for_each(|topic| {
            ClientError::check(
                || format!("topic {name}"),
                topic.error_code,
                topic.error_message.as_deref(),
            )
        })
    })
}

pub fn delete(cluster: &mut Cluster, name: &str) -> Result<(), ClientError> {
    // Names moved to another field in version 6; the same request says it in both.
    let by_state = |names: bool| DeleteTopicsRequest {
        topics: if names {
            Vec::new()
        } else {
            vec![DeleteTopicState {
                name: Some(text(name)),
                ..DeleteTopicState::default()
            }]
        },
        topic_names: vec![text(name)],
        timeout_ms: BROKER_TIMEOUT_MS,
    };
    change(cluster, |cluster| {
        let answer = match cluster.call_controller(&by_state(false)) {
            // Nothing was sent: this broker's version has no such field.
            Err(ClientError::Encode(_)) => cluster.call_controller(&by_state(true))?,
            done => done?,
        };
        answer.responses.into_iter().try_for_each(|topic| {
            ClientError::check(
                || format!("topic {name}"),
                topic.error_code,
                topic.error_message.as_deref(),
            )
        })
    })
}

/// Raises the number of partitions to `total`.
pub fn widen(cluster: &mut Cluster, name: &str, total: i32) -> Result<(), ClientError> {
    let request = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: text(name),
            count: total,
            assignments: None,
        }],
        timeout_ms: BROKER_TIMEOUT_MS,
        validate_only: false,
    };
    change(cluster, |cluster| {
        let answer = cluster.call_controller(&request)?;
        answer.results.into_iter().try_for_each(|topic| {
            ClientError::check(
                || format!("topic {name}"),
                topic.error_code,
                topic.error_message.as_deref(),
            )
        })
    })
}

/// Sets configurations, or with None puts them back to their defaults.
pub fn configure(
    cluster: &mut Cluster,
    name: &str,
    changes: &[(String, Option<String>)],
) -> Result<(), ClientError> {
    let setting = |(key, value): &(String, Option<String>)| AlterableConfig {
        name: text(key),
        config_operation: if value.is_some() {
            operation::SET
        } else {
            operation::DELETE
        },
        value: value.as_deref().map(text),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: resource::TOPIC,
            resource_name: text(name),
            configs: changes.iter().map(setting).collect(),
        }],
        validate_only: false,
    };
    change(cluster, |cluster| {
        let answer = cluster.call_controller(&request)?;
        answer.responses.into_iter().try_for_each(|topic| {
            ClientError::check(
                || format!("topic {name}"),
                topic.error_code,
                topic.error_message.as_deref(),
            )
        })
    })
}

/// A configuration in force, and whether it was set on the topic itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigValue {
    pub name: String,
    pub value: Option<String>,
    pub set_on_topic: bool,
}

/// Every configuration of a topic, ascending by name.
pub fn configs(cluster: &mut Cluster, name: &str) -> Result<Vec<ConfigValue>, ClientError> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: resource::TOPIC,
            resource_name: text(name),
            configuration_keys: None,
        }],
        ..DescribeConfigsRequest::default()
    };
    cluster.retry(|cluster| {
        let answer = cluster.call_any(&request)?;
        let mut values = Vec::new();
        for result in answer.results {
            let what = || format!("configuration of {name}");
            ClientError::check(what, result.error_code, result.error_message.as_deref())?;
            values.extend(result.configs.into_iter().map(|config| ConfigValue {
                name: config.name.to_string(),
                value: config.value.map(|v| v.to_string()),
                set_on_topic: config.config_source
                    == millrace_net::wire::config_codes::source::TOPIC,
            }));
        }
        values.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(values)
    })
}
