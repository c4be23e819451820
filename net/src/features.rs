//! Owns the table of features: for each its levels, and the one that this broker keeps to.
//! Does not know what a level changes: whoever serves it does.
//! Invariant: a level in force is one that is supported, and names occur once.

use crate::wire::api_versions::{FinalizedFeatureKey, SupportedFeatureKey};
use crate::wire::Str;

/// A feature whose level clients ask for before they rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Kafka's name of it, such as `transaction.version`.
    pub name: &'static str,
    /// Levels this build knows.
    pub min: i16,
    pub max: i16,
    /// The level in force; 0 is not in force.
    pub level: i16,
}

/// A row of the table.
pub const fn feature(name: &'static str, min: i16, max: i16, level: i16) -> Feature {
    assert!(0 <= min && min <= level && level <= max);
    Feature {
        name,
        min,
        max,
        level,
    }
}

/// First version of ApiVersions whose clients can read that a feature has level 0 at the least (KAFKA-17011).
const LEVEL_ZERO_VERSION_MIN: i16 = 4;

/// Every feature, sorted by name.
pub const FEATURES: &[Feature] = &[
    // By level 1 there are groups of the consumer protocol (KIP-848).
    feature("group.version", 0, 1, 1),
    // By level 1 there are share groups (KIP-932).
    feature("share.version", 0, 1, 1),
    // By level 2 each end of a transaction bumps the epoch, and batches add their partitions to it (KIP-890).
    feature("transaction.version", 0, 2, 2),
];

/// The feature of this name.
pub fn find<'a>(features: &'a [Feature], name: &str) -> Option<&'a Feature> {
    features.iter().find(|feature| feature.name == name)
}

/// As ApiVersions of this version shows what could be in force.
pub(crate) fn supported(features: &[Feature], version: i16) -> Vec<SupportedFeatureKey> {
    let readable = |feature: &&Feature| version >= LEVEL_ZERO_VERSION_MIN || feature.min > 0;
    let shown = |feature: &Feature| SupportedFeatureKey {
        name: Str::from_static(feature.name),
        min_version: feature.min,
        max_version: feature.max,
    };
    features.iter().filter(readable).map(shown).collect()
}

/// As ApiVersions shows what is in force.
pub(crate) fn finalized(features: &[Feature]) -> Vec<FinalizedFeatureKey> {
    let shown = |feature: &Feature| FinalizedFeatureKey {
        name: Str::from_static(feature.name),
        max_version_level: feature.level,
        min_version_level: feature.level,
    };
    let in_force = |feature: &&Feature| feature.level > 0;
    features.iter().filter(in_force).map(shown).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One that can be off, one that cannot, one that is off.
    pub(crate) const SOME: &[Feature] = &[
        feature("a.version", 0, 2, 2),
        feature("b.version", 1, 5, 3),
        feature("c.version", 0, 1, 0),
    ];

    #[test]
    fn the_table_is_sorted_by_name() {
        for features in [FEATURES, SOME] {
            assert!(features.is_sorted_by(|a, b| a.name < b.name));
        }
        assert_eq!(find(SOME, "b.version"), Some(&SOME[1]));
        assert_eq!(find(SOME, "b"), None);
    }

    #[test]
    fn clients_see_what_they_can_read_and_what_is_in_force() {
        let names = |version| {
            let shown = supported(SOME, version);
            shown.iter().map(|f| f.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(3), ["b.version"]);
        assert_eq!(names(4), ["a.version", "b.version", "c.version"]);
        let levels: Vec<_> = finalized(SOME)
            .iter()
            .map(|f| (f.name.to_string(), f.min_version_level, f.max_version_level))
            .collect();
        assert_eq!(
            levels,
            [("a.version".into(), 2, 2), ("b.version".into(), 3, 3)]
        );
    }
}
