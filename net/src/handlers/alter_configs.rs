//! Owns AlterConfigs: replacing all settings of a resource.
//! Does not know which settings exist or what they mean.
//! Invariant: each resource changes as a whole or not at all; one that is named twice does not change.

use super::admin::{self, Refusal, Resource};
use super::Outcome;
use crate::shard::ShardNet;
use crate::wire::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
    AlterableConfig,
};
use crate::wire::ErrorCode;
use millrace_engine::api::meta::ConfigEdit;

impl Outcome for AlterConfigsResponse {
    fn failed(&self) -> bool {
        self.responses
            .iter()
            .any(|resource| resource.error_code != 0)
    }
}

pub(crate) async fn handle(shard: &ShardNet, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let counts = admin::occurrences(
        request
            .resources
            .iter()
            .map(|r| (r.resource_type, r.resource_name.clone())),
    );
    let counts = &counts;
    let one = |resource: AlterConfigsResource| async move {
        let AlterConfigsResource {
            resource_type,
            resource_name,
            configs,
        } = resource;
        let repeated = counts[&(resource_type, resource_name.clone())] > 1;
        let edit = edit(configs);
        let result = alter(
            shard,
            resource_type,
            &resource_name,
            edit,
            repeated,
            request.validate_only,
        )
        .await;
        let (error, error_message) = match result {
            Ok(()) => (ErrorCode::None, None),
            Err(refusal) => (refusal.code, Some(refusal.message.into())),
        };
        AlterConfigsResourceResponse {
            error_code: error.code(),
            error_message,
            resource_type,
            resource_name,
        }
    };
    AlterConfigsResponse {
        responses: super::for_each(request.resources, one).await,
        ..Default::default()
    }
}

/// Changes the settings of one resource; both kinds of AlterConfigs end here.
pub(super) async fn alter(
    shard: &ShardNet,
    kind: i8,
    name: &str,
    edit: Result<ConfigEdit, Refusal>,
    repeated: bool,
    validate_only: bool,
) -> Result<(), Refusal> {
    if repeated {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "Each resource must appear at most once.",
        ));
    }
    let image = shard.broker.image();
    let command = Resource::find(&image, kind, name)?.edit(&image, edit?);
    admin::change(shard, command, validate_only)
        .await
        .map(|_| ())
}

fn edit(configs: Vec<AlterableConfig>) -> Result<ConfigEdit, Refusal> {
    let one = |config: AlterableConfig| match config.value {
        Some(value) => Ok((config.name.to_string(), value.to_string())),
        None => Err(null_value(&config.name)),
    };
    configs
        .into_iter()
        .map(one)
        .collect::<Result<_, _>>()
        .map(ConfigEdit::Replace)
}

pub(super) fn null_value(name: &str) -> Refusal {
    Refusal::new(
        ErrorCode::InvalidRequest,
        format!("Null value not supported for : {name}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_values_are_refused() {
        let config = |value: Option<&'static str>| AlterableConfig {
            name: "retention.ms".into(),
            value: value.map(Into::into),
        };
        let given = edit(vec![config(Some("5"))]).unwrap();
        assert_eq!(
            given,
            ConfigEdit::Replace(vec![("retention.ms".into(), "5".into())])
        );
        assert_eq!(
            edit(vec![config(Some("5")), config(None)])
                .unwrap_err()
                .code,
            ErrorCode::InvalidRequest
        );
    }
}
