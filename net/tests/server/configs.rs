//! Owns the end-to-end tests of settings described and altered, of topics and of brokers.
//! Does not know what a setting does.
//! Invariant: every answer is read by the wire codec of the version it was asked in.

use crate::support::*;
use millrace_net::wire::alter_configs::{self, AlterConfigsRequest};
use millrace_net::wire::config_codes::{operation, resource, source};
use millrace_net::wire::describe_cluster::DescribeClusterRequest;
use millrace_net::wire::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use millrace_net::wire::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use millrace_net::wire::Str;

/// The settings of a resource.
pub async fn described(
    client: &mut Client,
    kind: i8,
    name: &str,
    version: i16,
) -> (i16, Vec<DescribeConfigsResourceResult>) {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name.to_owned()),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    let mut response = client.call(&request, version).await;
    let result = response.results.remove(0);
    (result.error_code, result.configs)
}

/// The value of a setting and where it comes from.
pub fn value(configs: &[DescribeConfigsResourceResult], name: &str) -> (Option<String>, i8) {
    let config = configs
        .iter()
        .find(|config| &*config.name == name)
        .unwrap_or_else(|| panic!("no {name}"));
    (
        config.value.as_ref().map(|value| value.to_string()),
        config.config_source,
    )
}

#[test]
fn settings_are_altered_one_by_one_and_shown_with_their_sources() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let alter = |kind,
                     name: &'static str,
                     ops: &[(&'static str, i8, Option<&'static str>)],
                     validate_only| {
            let configs = ops.iter().map(|(name, op, value)| AlterableConfig {
                name: (*name).into(),
                config_operation: *op,
                value: value.map(Str::from),
            });
            let resource = AlterConfigsResource {
                resource_type: kind,
                resource_name: name.into(),
                configs: configs.collect(),
            };
            IncrementalAlterConfigsRequest {
                resources: vec![resource],
                validate_only,
            }
        };
        let set = |v| [("retention.ms", operation::SET, Some(v))];
        let cases: Vec<(IncrementalAlterConfigsRequest, i16)> = vec![
            (alter(resource::TOPIC, "t", &set("7777"), true), 0),
            (alter(resource::TOPIC, "t", &set("5555"), false), 0),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("cleanup.policy", operation::APPEND, Some("compact"))],
                    false,
                ),
                0,
            ),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("cleanup.policy", operation::SUBTRACT, Some("delete"))],
                    false,
                ),
                0,
            ),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("retention.ms", operation::APPEND, Some("1"))],
                    false,
                ),
                40,
            ),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("retention.ms", operation::SET, None)],
                    false,
                ),
                42,
            ),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("retention.ms", 9, Some("1"))],
                    false,
                ),
                42,
            ),
            // What another broker has and this one does not is unset already.
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[
                        ("message.downconversion.enable", operation::DELETE, None),
                        ("retention.ms", operation::SET, Some("5555")),
                    ],
                    false,
                ),
                0,
            ),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[(
                        "message.downconversion.enable",
                        operation::SET,
                        Some("true"),
                    )],
                    false,
                ),
                40,
            ),
            (alter(resource::TOPIC, "t", &set("soon"), false), 40),
            (alter(resource::TOPIC, "nope", &set("1"), false), 3),
            (alter(resource::BROKER, "77", &set("1"), false), 42),
            (alter(resource::GROUP, "g", &set("1"), false), 40),
            (
                alter(
                    resource::BROKER,
                    "",
                    &[("log.retention.ms", operation::SET, Some("4444"))],
                    false,
                ),
                0,
            ),
            (
                alter(
                    resource::BROKER,
                    "",
                    &[("node.id", operation::SET, Some("5"))],
                    false,
                ),
                42,
            ),
        ];
        for (version, (request, expected)) in cases
            .into_iter()
            .enumerate()
            .map(|(i, case)| ((i % 2) as i16, case))
        {
            let response = client.call(&request, version).await;
            let result = &response.responses[0];
            assert_eq!(
                result.error_code, expected,
                "{request:?}: {:?}",
                result.error_message
            );
            assert_eq!(result.error_message.is_some(), expected != 0);
        }
        let mut twice = alter(resource::TOPIC, "t", &set("1"), false);
        twice.resources.push(twice.resources[0].clone());
        assert!(client
            .call(&twice, 1)
            .await
            .responses
            .iter()
            .all(|result| result.error_code == 42));

        for version in 1..=4 {
            let (error, configs) = described(&mut client, resource::TOPIC, "t", version).await;
            assert_eq!(error, 0);
            assert_eq!(
                value(&configs, "retention.ms"),
                (Some("5555".into()), source::TOPIC)
            );
            assert_eq!(
                value(&configs, "cleanup.policy"),
                (Some("compact".into()), source::TOPIC)
            );
            assert_eq!(
                value(&configs, "max.message.bytes"),
                (Some("1048588".into()), source::DEFAULT)
            );
            let retention = configs
                .iter()
                .find(|config| config.name == "retention.ms")
                .unwrap();
            assert!(
                retention.synonyms.len() >= 3,
                "own, cluster's and default: {:?}",
                retention.synonyms
            );
            assert_eq!(retention.documentation.is_some(), version >= 3);
            assert_eq!(retention.config_type != 0, version >= 3);
        }
        let reset = alter(
            resource::TOPIC,
            "t",
            &[("retention.ms", operation::DELETE, None)],
            false,
        );
        assert_eq!(client.call(&reset, 1).await.responses[0].error_code, 0);
        let (_, configs) = described(&mut client, resource::TOPIC, "t", 4).await;
        assert_eq!(
            value(&configs, "retention.ms"),
            (Some("4444".into()), source::DYNAMIC_DEFAULT_BROKER)
        );

        // AlterConfigs replaces everything.
        let replace = AlterConfigsRequest {
            resources: vec![alter_configs::AlterConfigsResource {
                resource_type: resource::TOPIC,
                resource_name: "t".into(),
                configs: vec![alter_configs::AlterableConfig {
                    name: "retention.bytes".into(),
                    value: Some("9".into()),
                }],
            }],
            validate_only: false,
        };
        for version in 0..=2 {
            assert_eq!(
                client.call(&replace, version).await.responses[0].error_code,
                0
            );
        }
        let (_, configs) = described(&mut client, resource::TOPIC, "t", 4).await;
        assert_eq!(
            value(&configs, "retention.bytes"),
            (Some("9".into()), source::TOPIC)
        );
        assert_eq!(
            value(&configs, "cleanup.policy"),
            (Some("delete".into()), source::DEFAULT)
        );

        let (error, cluster) = described(&mut client, resource::BROKER, "", 4).await;
        assert_eq!((error, cluster.len()), (0, 1));
        let node = client
            .call(&DescribeClusterRequest::default(), 0)
            .await
            .controller_id;
        let (error, broker) = described(&mut client, resource::BROKER, &node.to_string(), 4).await;
        assert_eq!(error, 0);
        assert_eq!(value(&broker, "log.retention.ms").0, Some("4444".into()));
        let partitions = broker
            .iter()
            .find(|config| config.name == "num.partitions")
            .unwrap();
        assert!(partitions.read_only);
        assert_eq!(
            described(&mut client, resource::BROKER, "99", 4).await.0,
            42
        );
        assert_eq!(
            described(&mut client, resource::TOPIC, "bad name", 4)
                .await
                .0,
            17
        );
        assert_eq!(described(&mut client, 99, "x", 4).await.0, 42);
    });
}

#[test]
fn a_resource_is_described_once_and_without_keys_as_a_whole() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let (_, all) = described(&mut client, resource::TOPIC, "t", 4).await;
        let resource = |keys: Option<Vec<Str>>| DescribeConfigsResource {
            resource_type: resource::TOPIC,
            resource_name: "t".into(),
            configuration_keys: keys,
        };
        for (keys, expected) in [
            (None, all.len()),
            (Some(vec![]), all.len()),
            (Some(vec!["retention.ms".into()]), 1),
        ] {
            let request = DescribeConfigsRequest {
                resources: vec![resource(keys.clone()), resource(keys)],
                ..Default::default()
            };
            let results = client.call(&request, 4).await.results;
            let counts: Vec<usize> = results.iter().map(|r| r.configs.len()).collect();
            assert_eq!(counts, [expected]);
        }
    });
}
