//! Owns DescribeConfigs.
//! Does not know which settings exist or what they mean (the metadata's tables do).
//! Invariant: a sensitive value never leaves the broker.

use super::admin::Resource;
use super::Outcome;
use crate::cores::Faces;
use crate::shard::ShardNet;
use crate::wire::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::config::ConfigEntry;
use millrace_engine::rt;

/// First version with types and documentation.
const DOCUMENTATION_VERSION_MIN: i16 = 3;
/// Settings in an answer, but for those of the resource that comes to that number: some hundred bytes each.
const ENTRIES_MAX: usize = 200_000;

impl Outcome for DescribeConfigsResponse {
    fn failed(&self) -> bool {
        self.results.iter().any(|resource| resource.error_code != 0)
    }
}

/// What of each setting is shown.
#[derive(Clone, Copy)]
struct Shown {
    synonyms: bool,
    documentation: bool,
    types: bool,
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResponse {
    let image = shard.broker.image();
    let shown = Shown {
        synonyms: request.include_synonyms,
        documentation: request.include_documentation && version >= DOCUMENTATION_VERSION_MIN,
        types: version >= DOCUMENTATION_VERSION_MIN,
    };
    let faces = shard.faces(&image);
    let resource =
        |asked: &DescribeConfigsResource| (asked.resource_type, asked.resource_name.clone());
    let mut results = Vec::new();
    let mut entries = 0;
    for asked in super::each_once(request.resources, resource) {
        let result = match entries < ENTRIES_MAX {
            true => one(&faces, asked, shown),
            false => too_many(asked),
        };
        entries += result.configs.len();
        results.push(result);
        rt::yield_if_needed().await;
    }
    DescribeConfigsResponse {
        results,
        ..Default::default()
    }
}

fn too_many(asked: DescribeConfigsResource) -> DescribeConfigsResult {
    let why = format!(
        "The answer has {ENTRIES_MAX} settings already. Ask for fewer resources at a time."
    );
    DescribeConfigsResult {
        error_code: ErrorCode::PolicyViolation.code(),
        error_message: Some(why.into()),
        resource_type: asked.resource_type,
        resource_name: asked.resource_name,
        ..Default::default()
    }
}

fn one(faces: &Faces<'_>, asked: DescribeConfigsResource, shown: Shown) -> DescribeConfigsResult {
    let image = faces.image;
    let mut result = DescribeConfigsResult {
        resource_type: asked.resource_type,
        resource_name: asked.resource_name,
        ..Default::default()
    };
    let entries = match Resource::find(faces, asked.resource_type, &result.resource_name) {
        Ok(Resource::Topic(topic)) => image.describe_topic(&topic),
        Ok(Resource::ThisNode) => image.describe_broker(),
        Ok(Resource::AllNodes) => image.describe_cluster_default(),
        Ok(Resource::Group(group)) => image.describe_group(&group),
        Err(refusal) => {
            result.error_code = refusal.code.code();
            result.error_message = Some(refusal.message.into());
            return result;
        }
    };
    // None at all means all, as null does.
    let keys = asked.configuration_keys.filter(|keys| !keys.is_empty());
    let wanted = |entry: &ConfigEntry| {
        keys.as_ref()
            .is_none_or(|keys| keys.iter().any(|key| *key == entry.name))
    };
    result.configs = entries
        .into_iter()
        .filter(wanted)
        .map(|entry| show(entry, shown))
        .collect();
    result
}

fn show(entry: ConfigEntry, shown: Shown) -> DescribeConfigsResourceResult {
    let value = |value: Option<String>| value.filter(|_| !entry.sensitive).map(Str::from);
    let synonyms = if shown.synonyms {
        entry.synonyms
    } else {
        Vec::new()
    };
    DescribeConfigsResourceResult {
        name: Str::from_static(entry.name),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
        synonyms: synonyms
            .into_iter()
            .map(|synonym| DescribeConfigsSynonym {
                name: Str::from_static(synonym.name),
                value: value(synonym.value),
                source: synonym.source.code(),
            })
            .collect(),
        config_type: if shown.types { entry.kind.code() } else { 0 },
        documentation: shown.documentation.then(|| Str::from_static(entry.doc)),
        value: value(entry.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_engine::api::meta::config::{ConfigSource, ConfigSynonym, ConfigType};

    #[test]
    fn sensitive_values_are_not_shown_not_even_as_synonyms() {
        let entry = |sensitive| ConfigEntry {
            name: "n",
            value: Some("secret".into()),
            source: ConfigSource::StaticBroker,
            kind: ConfigType::Password,
            read_only: true,
            sensitive,
            synonyms: vec![ConfigSynonym {
                name: "n",
                value: Some("secret".into()),
                source: ConfigSource::StaticBroker,
            }],
            doc: "d",
        };
        let all = Shown {
            synonyms: true,
            documentation: true,
            types: true,
        };
        let hidden = show(entry(true), all);
        assert_eq!(
            (hidden.value, hidden.synonyms[0].value.clone()),
            (None, None)
        );
        let open = show(entry(false), all);
        assert_eq!(open.value.as_deref(), Some("secret"));
        assert_eq!(
            (
                open.config_type,
                open.config_source,
                open.documentation.as_deref()
            ),
            (9, 4, Some("d"))
        );
        let bare = show(
            entry(false),
            Shown {
                synonyms: false,
                documentation: false,
                types: false,
            },
        );
        assert_eq!(
            (bare.synonyms.len(), bare.documentation, bare.config_type),
            (0, None, 0)
        );
    }
}
