//! Owns IncrementalAlterConfigs: setting, deleting, appending to and subtracting from single settings.
//! Does not know which settings exist, nor which of them are lists.
//! Invariant: each resource changes as a whole or not at all; one that is named twice does not change.

use super::admin::{self, Refusal};
use super::alter_configs::{alter, null_value};
use super::Outcome;
use crate::shard::ShardNet;
use crate::wire::config_codes::operation;
use crate::wire::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use crate::wire::ErrorCode;
use millrace_engine::api::meta::{ConfigEdit, ConfigOp};

impl Outcome for IncrementalAlterConfigsResponse {
    fn failed(&self) -> bool {
        self.responses
            .iter()
            .any(|resource| resource.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
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
        let edit = configs
            .into_iter()
            .map(operation)
            .collect::<Result<_, _>>()
            .map(ConfigEdit::Incremental);
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
    IncrementalAlterConfigsResponse {
        responses: super::for_each(request.resources, one).await,
        ..Default::default()
    }
}

fn operation(config: AlterableConfig) -> Result<(String, ConfigOp), Refusal> {
    let make = match config.config_operation {
        operation::DELETE => return Ok((config.name.to_string(), ConfigOp::Delete)),
        operation::SET => ConfigOp::Set,
        operation::APPEND => ConfigOp::Append,
        operation::SUBTRACT => ConfigOp::Subtract,
        i8::MIN..=i8::MAX => {
            let message = format!(
                "Unknown operation type id {} for {}",
                config.config_operation, config.name
            );
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    };
    match config.value {
        Some(value) => Ok((config.name.to_string(), make(value.to_string()))),
        None => Err(null_value(&config.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_operations_and_nothing_else() {
        let op = |config_operation, value: Option<&'static str>| {
            operation(AlterableConfig {
                name: "n".into(),
                config_operation,
                value: value.map(Into::into),
            })
            .map(|(_, op)| op)
            .map_err(|refusal| refusal.code)
        };
        let v = || "v".to_owned();
        assert_eq!(op(0, Some("v")), Ok(ConfigOp::Set(v())));
        assert_eq!(op(1, None), Ok(ConfigOp::Delete));
        assert_eq!(op(1, Some("ignored")), Ok(ConfigOp::Delete));
        assert_eq!(op(2, Some("v")), Ok(ConfigOp::Append(v())));
        assert_eq!(op(3, Some("v")), Ok(ConfigOp::Subtract(v())));
        for (kind, value) in [
            (0, None),
            (2, None),
            (3, None),
            (4, Some("v")),
            (-1, Some("v")),
        ] {
            assert_eq!(
                op(kind, value),
                Err(ErrorCode::InvalidRequest),
                "operation {kind}"
            );
        }
    }
}
