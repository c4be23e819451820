//! Tests of the tables of settings: values, bounds, messages, sources.

use super::*;
use std::collections::BTreeMap;

fn map(values: &[(&str, &str)]) -> Overrides {
    values
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn edit_topic(current: &Overrides, edit: ConfigEdit) -> Result<Overrides, String> {
    edit.apply_to_topic(current).map_err(|e| e.to_string())
}

fn incremental(ops: &[(&str, ConfigOp)]) -> ConfigEdit {
    ConfigEdit::Incremental(
        ops.iter()
            .map(|(n, op)| (n.to_string(), op.clone()))
            .collect(),
    )
}

fn replace(values: &[(&str, &str)]) -> ConfigEdit {
    ConfigEdit::Replace(map(values).into_iter().collect())
}

#[test]
fn tables_are_sorted_and_their_defaults_valid() {
    let names: Vec<_> = topic_config_defs().iter().map(|row| row.def.name).collect();
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    for row in topic_config_defs() {
        let default = row.def.default.expect("a topic setting has a default");
        let value = row
            .def
            .default_value()
            .expect("a topic setting has a default");
        assert_eq!(value.to_string(), default, "{}", row.def.name);
        assert!(std::ptr::eq(
            topic_config_def(row.def.name).expect("found by name"),
            row
        ));
        assert!(!row.def.doc.is_empty());
    }
    for row in broker_config_defs() {
        if let Some(default) = row.def.default {
            assert_eq!(
                row.parse(default).expect("a valid default").to_string(),
                default
            );
        }
        assert_eq!(
            broker_config_def(row.def.name)
                .expect("found by name")
                .def
                .name,
            row.def.name
        );
    }
    assert!(topic_config_def("no.such").is_none());
    assert!(broker_config_def("no.such").is_none());
}

#[test]
fn defaults_are_those_of_kafka_4() {
    let config = TopicConfig::defaults();
    assert_eq!(config.retention_ms, Some(604_800_000));
    assert_eq!(config.retention_bytes, None);
    assert_eq!(config.segment_bytes, 1 << 30);
    assert_eq!(config.segment_ms, 604_800_000);
    assert_eq!(
        config.cleanup_policy,
        CleanupPolicy {
            delete: true,
            compact: false
        }
    );
    assert_eq!(config.compression_type, CompressionType::Producer);
    assert_eq!(config.min_insync_replicas, 1);
    assert_eq!(config.max_message_bytes, 1_048_588);
    assert_eq!(config.message_timestamp_type, TimestampType::CreateTime);
    assert_eq!(config.message_timestamp_before_max_ms, i64::MAX as u64);
    assert_eq!(config.message_timestamp_after_max_ms, 3_600_000);
    assert!(!config.unclean_leader_election_enable);
    assert_eq!(config.min_cleanable_dirty_ratio, 0.5);
    assert_eq!(config.delete_retention_ms, 86_400_000);
    assert_eq!(config.file_delete_delay_ms, 60_000);
    assert_eq!(config.index_interval_bytes, 4096);
    assert_eq!((config.flush_messages, config.flush_ms), (None, None));
    assert!(!config.write_caching && !config.remote_storage_enable && !config.preallocate);
    let (messages, ms) = config.write_caching_bounds();
    assert!(
        messages < u64::MAX && ms < 10_000,
        "caching is bounded without being told"
    );
}

#[test]
fn every_topic_setting_reaches_its_field() {
    // For each setting a value other than its default; the struct must differ from the default in exactly that.
    let skipped = [
        "follower.replication.throttled.replicas",
        "leader.replication.throttled.replicas",
        "remote.log.copy.disable",
        "remote.log.delete.on.disable",
        "remote.storage.enable",
    ];
    let nothing = Overrides::new();
    let layers = Layers {
        node: &nothing,
        cluster: &nothing,
        fixed: &nothing,
    };
    for row in topic_config_defs() {
        let other = match row.def.name {
            "cleanup.policy" => "compact,delete",
            "compression.type" => "zstd",
            "message.timestamp.type" => "LogAppendTime",
            "min.cleanable.dirty.ratio" => "0.25",
            name if skipped.contains(&name) => continue,
            _ if row.def.kind == ConfigType::Boolean => "true",
            name if name.starts_with("compression.") => "5",
            _ => "2097152",
        };
        let config = TopicConfig::resolve(&map(&[(row.def.name, other)]), layers);
        let config = config.unwrap_or_else(|e| panic!("{}: {e}", row.def.name));
        assert_ne!(
            config,
            *TopicConfig::defaults(),
            "{} changes nothing",
            row.def.name
        );
    }
}

#[test]
fn values_are_parsed_checked_and_made_canonical() {
    let cases: &[(&str, &str, Result<&str, &str>)] = &[
        ("retention.ms", " 1000 ", Ok("1000")),
        ("retention.ms", "+0100", Ok("100")),
        ("retention.ms", "-1", Ok("-1")),
        ("retention.ms", "-2", Err("Invalid value -2 for configuration retention.ms: Value must be at least -1")),
        ("retention.ms", "abc", Err("Invalid value abc for configuration retention.ms: Not a number of type LONG")),
        ("retention.ms", "", Err("Invalid value  for configuration retention.ms: Not a number of type LONG")),
        ("retention.ms", "1e3", Err("Invalid value 1e3 for configuration retention.ms: Not a number of type LONG")),
        ("retention.ms", "9223372036854775808", Err("Invalid value 9223372036854775808 for configuration retention.ms: Not a number of type LONG")),
        ("retention.bytes", "-5", Ok("-5")),
        ("segment.bytes", "1048575", Err("Invalid value 1048575 for configuration segment.bytes: Value must be at least 1048576")),
        ("segment.bytes", "2147483648", Err("Invalid value 2147483648 for configuration segment.bytes: Not a number of type INT")),
        ("cleanup.policy", "compact, delete", Ok("compact,delete")),
        ("cleanup.policy", "", Ok("")),
        ("cleanup.policy", "compact,compact", Err("Invalid value compact,compact for configuration cleanup.policy: Configuration values must not be duplicated.")),
        ("cleanup.policy", "keep", Err("Invalid value keep for configuration cleanup.policy: String must be one of: compact, delete")),
        ("compression.type", "lz4", Ok("lz4")),
        ("compression.type", "LZ4", Err("Invalid value LZ4 for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer")),
        ("compression.gzip.level", "-1", Ok("-1")),
        ("compression.gzip.level", "0", Err("Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1")),
        ("compression.lz4.level", "18", Err("Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17")),
        ("min.cleanable.dirty.ratio", "1", Ok("1.0")),
        ("min.cleanable.dirty.ratio", "NaN", Err("Invalid value NaN for configuration min.cleanable.dirty.ratio: Value must be at least 0")),
        ("min.cleanable.dirty.ratio", "1.5", Err("Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1")),
        ("preallocate", "TRUE", Ok("true")),
        ("preallocate", "yes", Err("Invalid value yes for configuration preallocate: Expected value to be either true or false")),
        ("write.caching", "true", Ok("true")),
        ("remote.storage.enable", "false", Ok("false")),
        ("remote.storage.enable", "true", Err("Invalid value true for configuration remote.storage.enable: Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.")),
        ("leader.replication.throttled.replicas", "0:1,1:2", Ok("0:1,1:2")),
        ("leader.replication.throttled.replicas", "*", Ok("*")),
        ("leader.replication.throttled.replicas", "0", Err("Invalid value 0 for configuration leader.replication.throttled.replicas: must be the literal '*' or 'none', or a list of replicas in the form '[partitionId]:[brokerId],...'")),
        ("max.message.bytes", "2147483647", Err("Invalid value 2147483647 for configuration max.message.bytes: Value must be no more than 50331648")),
        ("internal.segment.bytes", "8192", Ok("8192")),
        ("retention.ms\0", "1", Err("Unknown topic config name: retention.ms\0")),
        ("no.such", "1", Err("Unknown topic config name: no.such")),
        ("retention.ms", "1\u{7}", Err("Invalid value 1\\u{7} for configuration retention.ms: Value must not have control characters")),
    ];
    for (name, raw, expected) in cases {
        let got = edit_topic(&Overrides::new(), replace(&[(name, raw)]));
        let got = got
            .as_ref()
            .map(|o| o[*name].as_str())
            .map_err(|e| e.as_str());
        assert_eq!(got, *expected, "{name}={raw:?}");
    }
    let long = "9".repeat(crate::meta::limits::CONFIG_VALUE_LEN_MAX + 1);
    let refused = edit_topic(&Overrides::new(), replace(&[("retention.ms", &long)])).unwrap_err();
    assert!(
        refused.len() < 300 && refused.contains("bytes long"),
        "{refused}"
    );
}

#[test]
fn edits_set_delete_append_and_subtract() {
    let current = map(&[("retention.ms", "5"), ("cleanup.policy", "compact")]);
    let text = |value: &str| value.to_string();
    let cases: Vec<(ConfigEdit, Result<Overrides, &str>)> = vec![
        (replace(&[("segment.ms", "9")]), Ok(map(&[("segment.ms", "9")]))),
        (replace(&[]), Ok(map(&[]))),
        (
            incremental(&[("segment.ms", ConfigOp::Set(text("9"))), ("retention.ms", ConfigOp::Delete)]),
            Ok(map(&[("segment.ms", "9"), ("cleanup.policy", "compact")])),
        ),
        (incremental(&[("segment.ms", ConfigOp::Delete)]), Ok(current.clone())),
        (
            incremental(&[("cleanup.policy", ConfigOp::Append(text("delete,compact")))]),
            Ok(map(&[("retention.ms", "5"), ("cleanup.policy", "compact,delete")])),
        ),
        (
            incremental(&[("cleanup.policy", ConfigOp::Subtract(text("compact")))]),
            Ok(map(&[("retention.ms", "5"), ("cleanup.policy", "")])),
        ),
        (
            incremental(&[("retention.ms", ConfigOp::Append(text("1")))]),
            Err("Can't APPEND to key retention.ms because its type is not LIST."),
        ),
        (
            incremental(&[("retention.ms", ConfigOp::Subtract(text("1")))]),
            Err("Can't SUBTRACT to key retention.ms because its type is not LIST."),
        ),
        (
            incremental(&[("retention.ms", ConfigOp::Delete), ("retention.ms", ConfigOp::Delete)]),
            Err("Error due to duplicate config keys: retention.ms"),
        ),
        (incremental(&[("nope", ConfigOp::Delete)]), Ok(current.clone())),
        (
            replace(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]),
            Err("conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"),
        ),
    ];
    for (edit, expected) in cases {
        let got = edit_topic(&current, edit.clone());
        assert_eq!(
            got.as_ref().map_err(|e| e.as_str()),
            expected.as_ref().map_err(|e| *e),
            "{edit:?}"
        );
    }
    let empty_append = incremental(&[("cleanup.policy", ConfigOp::Append(text("compact")))]);
    assert_eq!(
        edit_topic(&map(&[]), empty_append),
        Ok(map(&[("cleanup.policy", "delete,compact")]))
    );
    let many = (0..300).map(|n| (format!("n{n}"), text("1"))).collect();
    let refused = edit_topic(&map(&[]), ConfigEdit::Replace(many)).unwrap_err();
    assert_eq!(
        refused,
        "The number of settings in one change exceeds the limit of 256"
    );
}

#[test]
fn broker_settings_know_their_scope() {
    let nothing = Overrides::new();
    let cases: &[(&str, &str, bool, Result<&str, &str>)] = &[
        ("log.retention.ms", "5", true, Ok("5")),
        (
            "log.retention.ms",
            "-2",
            false,
            Err("Invalid value -2 for configuration log.retention.ms: Value must be at least -1"),
        ),
        ("message.max.bytes", "100", false, Ok("100")),
        (
            "num.partitions",
            "3",
            true,
            Err("Cannot update these configs dynamically: Set(num.partitions)"),
        ),
        (
            "log.retention.hours",
            "3",
            false,
            Err("Cannot update these configs dynamically: Set(log.retention.hours)"),
        ),
        ("max.connections", "7", true, Ok("7")),
        (
            "no.such",
            "7",
            true,
            Err("Unknown broker config name: no.such"),
        ),
    ];
    for (name, raw, for_all, expected) in cases {
        let got = replace(&[(name, raw)])
            .apply_to_broker(&nothing, *for_all)
            .map_err(|e| e.to_string());
        let got = got
            .as_ref()
            .map(|o| o[*name].as_str())
            .map_err(|e| e.as_str());
        assert_eq!(got, *expected, "{name}={raw}");
    }
}

#[test]
fn what_a_node_is_started_with_is_checked() {
    let good = check_fixed(&map(&[("log.retention.hours", " 24"), ("node.id", "1")]));
    assert_eq!(
        good,
        Ok(map(&[("log.retention.hours", "24"), ("node.id", "1")]))
    );
    assert!(
        check_fixed(&map(&[("retention.ms", "1")])).is_err(),
        "a topic's name is no broker's"
    );
    assert!(check_fixed(&map(&[("num.partitions", "0")])).is_err());
    assert!(
        check_fixed(&map(&[("log.roll.hours", "0")])).is_err(),
        "segment.ms is at least 1"
    );
}

#[test]
fn layers_are_taken_most_specific_first() {
    let nothing = Overrides::new();
    let hours = map(&[("log.retention.hours", "2")]);
    let never = map(&[("log.retention.hours", "-1")]);
    let minutes = map(&[("log.retention.minutes", "3"), ("log.retention.hours", "2")]);
    let (five, six) = (
        map(&[("log.retention.ms", "5")]),
        map(&[("log.retention.ms", "6")]),
    );
    let seven = map(&[("retention.ms", "7")]);
    let cases: &[(&Overrides, &Overrides, &Overrides, &Overrides, Option<u64>)] = &[
        // topic, node, cluster, fixed
        (&nothing, &nothing, &nothing, &nothing, Some(604_800_000)),
        (&nothing, &nothing, &nothing, &hours, Some(7_200_000)),
        (&nothing, &nothing, &nothing, &never, None),
        (&nothing, &nothing, &nothing, &minutes, Some(180_000)),
        (&nothing, &nothing, &six, &minutes, Some(6)),
        (&nothing, &five, &six, &minutes, Some(5)),
        (&seven, &five, &six, &minutes, Some(7)),
    ];
    for (topic, node, cluster, fixed, expected) in cases {
        let layers = Layers {
            node,
            cluster,
            fixed,
        };
        let config = TopicConfig::resolve(topic, layers).expect("valid layers");
        assert_eq!(config.retention_ms, *expected);
        // What is described is what is used.
        let described = describe_topic(topic, layers);
        let entry = described
            .iter()
            .find(|e| e.name == "retention.ms")
            .expect("described");
        let value = expected.map_or("-1".to_string(), |v| v.to_string());
        assert_eq!(entry.value.as_deref(), Some(value.as_str()));
        assert_eq!(entry.source, entry.synonyms[0].source);
    }
}

#[test]
fn descriptions_have_every_setting_and_where_it_comes_from() {
    let nothing = Overrides::new();
    let topic = map(&[("retention.ms", "7"), ("internal.segment.bytes", "4096")]);
    let (node, cluster) = (
        map(&[("log.retention.ms", "5")]),
        map(&[("log.retention.ms", "6")]),
    );
    let fixed = map(&[("node.id", "3"), ("listeners", "PLAINTEXT://:9092")]);
    let layers = Layers {
        node: &node,
        cluster: &cluster,
        fixed: &fixed,
    };
    let entries = describe_topic(&topic, layers);
    assert_eq!(
        entries.len(),
        topic_config_defs().len(),
        "internal settings are not shown"
    );
    let by_name: BTreeMap<_, _> = entries.iter().map(|e| (e.name, e)).collect();
    let retention = by_name["retention.ms"];
    assert_eq!(retention.source.code(), 1);
    assert_eq!(retention.kind.code(), 5);
    let sources: Vec<_> = retention
        .synonyms
        .iter()
        .map(|s| (s.name, s.source))
        .collect();
    assert_eq!(
        sources,
        [
            ("retention.ms", ConfigSource::DynamicTopic),
            ("log.retention.ms", ConfigSource::DynamicBroker),
            ("log.retention.ms", ConfigSource::DynamicDefaultBroker),
            ("log.retention.ms", ConfigSource::Default),
        ]
    );
    assert!(by_name["segment.ms"].is_default() && !retention.is_default());

    let broker = describe_broker(layers);
    let by_name: BTreeMap<_, _> = broker.iter().map(|e| (e.name, e)).collect();
    assert_eq!(by_name["node.id"].value.as_deref(), Some("3"));
    assert_eq!(by_name["node.id"].source, ConfigSource::StaticBroker);
    assert!(by_name["node.id"].read_only && !by_name["log.retention.ms"].read_only);
    assert_eq!(by_name["log.retention.ms"].value.as_deref(), Some("5"));
    assert_eq!(by_name["log.retention.hours"].value.as_deref(), Some("168"));
    assert_eq!(by_name["log.roll.ms"].value, None, "null until it is set");
    assert_eq!(by_name["min.insync.replicas"].value.as_deref(), Some("1"));

    let defaults = describe_cluster_default(&cluster);
    assert_eq!(defaults.len(), 1);
    assert_eq!(defaults[0].source, ConfigSource::DynamicDefaultBroker);
    assert!(describe_cluster_default(&nothing).is_empty());
}

#[test]
fn broker_config_follows_its_layers() {
    let nothing = Overrides::new();
    let fixed = map(&[
        ("num.partitions", "6"),
        ("auto.create.topics.enable", "false"),
    ]);
    let node = map(&[("max.connections", "9")]);
    let config = BrokerConfig::resolve(Layers {
        node: &node,
        cluster: &nothing,
        fixed: &fixed,
    });
    let config = config.expect("valid layers");
    assert_eq!((config.num_partitions, config.max_connections), (6, 9));
    assert!(!config.auto_create_topics_enable && config.delete_topic_enable);
    assert_eq!(config.socket_request_max_bytes, 100 << 20);
}
