//! Owns AlterConfigs: replacing all settings of a resource.
//! Does not know which settings exist or what they mean.
//! Invariant: each resource changes as a whole or not at all; one that is named twice does not change.

use super::admin::{self, Refusal, Resource};
use super::Outcome;
use crate::cores::Faces;
use crate::shard::ShardNet;
use crate::wire::alter_configs::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse, AlterableConfig,
};
use crate::wire::config_codes::resource;
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::{ConfigEdit, MetaError};

impl Outcome for AlterConfigsResponse {
    fn failed(&self) -> bool {
        self.responses
            .iter()
            .any(|resource| resource.error_code != 0)
    }
}

pub(crate) async fn handle(shard: &ShardNet, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let wanted = request.resources.into_iter().map(|resource| Wanted {
        kind: resource.resource_type,
        name: resource.resource_name,
        edit: edit(resource.configs),
    });
    let altered = alter_all(shard, wanted.collect(), request.validate_only).await;
    let answer = |altered: Altered| AlterConfigsResourceResponse {
        error_code: altered.error.code(),
        error_message: altered.message,
        resource_type: altered.kind,
        resource_name: altered.name,
    };
    AlterConfigsResponse {
        responses: altered.into_iter().map(answer).collect(),
        ..Default::default()
    }
}

/// A resource and what is to become of its settings.
pub(super) struct Wanted {
    pub(super) kind: i8,
    pub(super) name: Str,
    pub(super) edit: Result<ConfigEdit, Refusal>,
}

/// A resource and what became of it.
pub(super) struct Altered {
    pub(super) kind: i8,
    pub(super) name: Str,
    pub(super) error: ErrorCode,
    pub(super) message: Option<Str>,
}

/// Changes the settings of resources, each by itself; both kinds of AlterConfigs end here.
pub(super) async fn alter_all(
    shard: &ShardNet,
    wanted: Vec<Wanted>,
    validate_only: bool,
) -> Vec<Altered> {
    let image = shard.broker.image();
    let faces = shard.faces(&image);
    let counts = admin::occurrences(wanted.iter().map(|w| canonical(&faces, w.kind, &w.name)));
    let (faces, counts) = (&faces, &counts);
    let one = |wanted: Wanted| async move {
        let Wanted { kind, name, edit } = wanted;
        let repeated = counts[&canonical(faces, kind, &name)] > 1;
        let (error, message) = match alter(shard, kind, &name, edit, repeated, validate_only).await
        {
            Ok(()) => (ErrorCode::None, None),
            Err(refusal) => (refusal.code, Some(refusal.message.into())),
        };
        Altered {
            kind,
            name,
            error,
            message,
        }
    };
    super::for_each(wanted, one).await
}

/// One name for each resource: the cores of this node have its settings.
fn canonical(faces: &Faces<'_>, kind: i8, name: &Str) -> (i8, Str) {
    let node = (kind == resource::BROKER).then(|| admin::node_named(faces, name));
    let own = node.flatten() == Some(faces.image.node_id);
    let name = if own {
        Str::from(faces.image.node_id.to_string())
    } else {
        name.clone()
    };
    (kind, name)
}

async fn alter(
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
    let (resource, edit) = (Resource::find(&shard.faces(&image), kind, name)?, edit?);
    if let Resource::Group(group) = &resource {
        let checked = image.check_group_edit(group, &edit);
        checked.map_err(MetaError::from)?;
    }
    let command = resource.edit(&image, edit);
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
