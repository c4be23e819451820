//! Owns UpdateFeatures: levels of features are those this build has in force, and who wants others is told so.
//! Does not know what a level changes (`features` has the table).
//! Invariant: only what is so already is said to have been done.

use super::admin::{self, Refusal};
use super::Outcome;
use crate::features::{self, Feature, FEATURES};
use crate::wire::update_features::{
    FeatureUpdateKey, UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use crate::wire::ErrorCode;

/// First version with kinds of changes.
const KIND_VERSION_MIN: i16 = 1;
/// Last version with a result for each feature, where none was refused.
const RESULT_VERSION_MAX: i16 = 1;

/// Kafka's numbers of the kinds.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

impl Outcome for UpdateFeaturesResponse {
    fn failed(&self) -> bool {
        self.error_code != 0 || self.results.iter().any(|result| result.error_code != 0)
    }
}

pub(crate) async fn handle(request: UpdateFeaturesRequest, version: i16) -> UpdateFeaturesResponse {
    answer(FEATURES, request, version)
}

/// To validate and to do are the same, as nothing changes.
fn answer(
    features: &[Feature],
    request: UpdateFeaturesRequest,
    version: i16,
) -> UpdateFeaturesResponse {
    let updates = request.feature_updates;
    let counts = admin::occurrences(updates.iter().map(|update| update.feature.clone()));
    if counts.values().any(|count| *count > 1) {
        return UpdateFeaturesResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            error_message: Some("Each feature must appear at most once.".into()),
            ..Default::default()
        };
    }
    for update in &updates {
        if let Err(refusal) = stays(features, update, version) {
            let message = format!(
                "The update failed for all features since the following feature had an error: {}: {}",
                update.feature, refusal.message
            );
            return UpdateFeaturesResponse {
                error_code: refusal.code.code(),
                error_message: Some(message.into()),
                ..Default::default()
            };
        }
    }
    if version > RESULT_VERSION_MAX {
        return UpdateFeaturesResponse::default();
    }
    let done = |update: FeatureUpdateKey| UpdatableFeatureResult {
        feature: update.feature,
        ..Default::default()
    };
    UpdateFeaturesResponse {
        results: updates.into_iter().map(done).collect(),
        ..Default::default()
    }
}

/// Whether the feature has the level it shall have.
fn stays(features: &[Feature], update: &FeatureUpdateKey, version: i16) -> Result<(), Refusal> {
    let name = &update.feature;
    let wanted = update.max_version_level.max(0);
    let refused = |why: String| {
        Err(Refusal::new(
            ErrorCode::InvalidUpdateVersion,
            format!("Invalid update version {wanted} for feature {name}. {why}"),
        ))
    };
    let upgrades = match update.upgrade_type {
        _ if version < KIND_VERSION_MIN => !update.allow_downgrade,
        UPGRADE => true,
        SAFE_DOWNGRADE | UNSAFE_DOWNGRADE => false,
        i8::MIN..=i8::MAX => {
            let why = format!("Unknown type of upgrade {}.", update.upgrade_type);
            return Err(Refusal::new(ErrorCode::InvalidRequest, why));
        }
    };
    let Some(feature) = features::find(features, name) else {
        return match wanted {
            // It is not in force.
            0 => Ok(()),
            _ => refused("The broker does not support this feature.".into()),
        };
    };
    let Feature {
        min, max, level, ..
    } = *feature;
    if !(min..=max).contains(&wanted) {
        return refused(format!("The broker only supports versions {min}-{max}."));
    }
    if wanted < level && upgrades {
        return refused(
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade."
                .into(),
        );
    }
    if wanted > level && !upgrades {
        return refused("Can't downgrade to a newer version.".into());
    }
    if wanted != level {
        return refused(format!("The broker is built to keep to version {level}."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::tests::SOME;

    fn update(feature: &'static str, level: i16, upgrade_type: i8) -> FeatureUpdateKey {
        FeatureUpdateKey {
            feature: feature.into(),
            max_version_level: level,
            upgrade_type,
            ..Default::default()
        }
    }

    #[test]
    fn only_the_level_in_force_is_accepted() {
        let wrong = ErrorCode::InvalidUpdateVersion.code();
        for (name, level, kind, expected) in [
            ("a.version", 2, 1, 0),
            ("a.version", 2, 3, 0),
            ("a.version", 1, 1, wrong),
            ("a.version", 1, 2, wrong),
            ("a.version", 3, 1, wrong),
            ("a.version", 0, 2, wrong),
            ("b.version", 0, 2, wrong),
            ("c.version", 0, 1, 0),
            ("c.version", -1, 1, 0),
            ("c.version", 1, 1, wrong),
            ("d.version", 1, 1, wrong),
            ("d.version", 0, 1, 0),
            ("a.version", 2, 0, ErrorCode::InvalidRequest.code()),
            ("a.version", 2, 4, ErrorCode::InvalidRequest.code()),
        ] {
            let request = UpdateFeaturesRequest {
                feature_updates: vec![update("b.version", 3, 1), update(name, level, kind)],
                ..Default::default()
            };
            let what = format!("{name} {level} {kind}");
            if name != "b.version" {
                for version in [1, 2] {
                    let told = answer(SOME, request.clone(), version);
                    let results = if expected == 0 && version == 1 { 2 } else { 0 };
                    let got = (told.error_code, told.results.len());
                    assert_eq!(got, (expected, results), "{what}, version {version}");
                }
            } else {
                let twice = answer(SOME, request, 2);
                assert_eq!(twice.error_code, ErrorCode::InvalidRequest.code());
            }
        }
    }

    #[test]
    fn before_kinds_there_was_leave_to_downgrade() {
        let code = |level, allow_downgrade| {
            let request = UpdateFeaturesRequest {
                feature_updates: vec![FeatureUpdateKey {
                    allow_downgrade,
                    ..update("a.version", level, 1)
                }],
                ..Default::default()
            };
            answer(SOME, request, 0).error_code
        };
        assert_eq!((code(2, false), code(2, true)), (0, 0));
        assert_ne!(code(1, false), 0);
        assert_ne!(code(1, true), 0);
    }
}
