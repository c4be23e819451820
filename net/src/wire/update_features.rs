//! Owns the UpdateFeatures request (key 57) and its response, versions 0 to 2.
//! Does not know features or their levels.
//! Keeps: what version 0 called a downgrade is not turned into one of the kinds that came after it.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for other levels of features.
    pub struct UpdateFeaturesRequest, versions 0..=2, flexible 0 {
        timeout_ms: i32 => 0.. = 60_000;
        feature_updates: Vec<FeatureUpdateKey> => 0..;
        validate_only: bool => 1..;
    }
}

wire_struct! {
    /// The level wanted of one feature; below 1 it shall not be in force.
    pub struct FeatureUpdateKey, versions 0..=2, flexible 0 {
        feature: Str => 0..;
        max_version_level: i16 => 0..;
        allow_downgrade: bool => 0..=0;
        /// 1 upgrades only, 2 downgrades that lose nothing, 3 any.
        upgrade_type: i8 => 1.. = 1;
    }
}

wire_struct! {
    /// What became of the levels.
    pub struct UpdateFeaturesResponse, versions 0..=2, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        results: Vec<UpdatableFeatureResult> => 0..=1 else drop;
    }
}

wire_struct! {
    /// What became of the level of one feature.
    pub struct UpdatableFeatureResult, versions 0..=2, flexible 0 {
        feature: Str => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
    }
}

wire_api!(
    UpdateFeatures,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse
);
