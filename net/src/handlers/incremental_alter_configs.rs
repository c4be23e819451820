//! Owns IncrementalAlterConfigs: setting, deleting, appending to and subtracting from single settings.
//! Does not know which settings exist, nor which of them are lists.
//! Invariant: each resource changes as a whole or not at all; one that is named twice does not change.

use super::admin::Refusal;
use super::alter_configs::{alter_all, null_value, Altered, Wanted};
use super::Outcome;
use crate::shard::ShardNet;
use crate::wire::config_codes::operation;
use crate::wire::incremental_alter_configs::{
    AlterConfigsResourceResponse, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
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
    let wanted = request.resources.into_iter().map(|resource| Wanted {
        kind: resource.resource_type,
        name: resource.resource_name,
        edit: resource
            .configs
            .into_iter()
            .map(operation)
            .collect::<Result<_, _>>()
            .map(ConfigEdit::Incremental),
    });
    let altered = alter_all(shard, wanted.collect(), request.validate_only).await;
    let answer = |altered: Altered| AlterConfigsResourceResponse {
        error_code: altered.error.code(),
        error_message: altered.message,
        resource_type: altered.kind,
        resource_name: altered.name,
    };
    IncrementalAlterConfigsResponse {
        responses: altered.into_iter().map(answer).collect(),
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
