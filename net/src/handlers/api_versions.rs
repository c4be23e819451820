//! Owns ApiVersions: what this broker serves.
//! Does not know the table itself (`wire::versions`).
//! Invariant: a request of any version is answered, in a form that its client can read.

use super::Outcome;
use crate::out::Out;
use crate::wire::api_versions::{
    ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use crate::wire::{versions, ApiKey, ErrorCode, Str, WireError};

impl Outcome for ApiVersionsResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(request: ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    let named = |name: &str| is_software_name(name);
    if version >= 3
        && !(named(&request.client_software_name) && named(&request.client_software_version))
    {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..Default::default()
        };
    }
    let features = FEATURES
        .iter()
        .filter(|f| f.min > 0 || version >= ZERO_VERSION_MIN);
    let supported = features.map(|feature| SupportedFeatureKey {
        name: Str::from_static(feature.name),
        min_version: feature.min,
        max_version: feature.max,
    });
    let finalized = FEATURES.iter().map(|feature| FinalizedFeatureKey {
        name: Str::from_static(feature.name),
        max_version_level: feature.level,
        min_version_level: feature.level,
    });
    ApiVersionsResponse {
        api_keys: versions::advertised(),
        supported_features: supported.collect(),
        finalized_features_epoch: FEATURES_EPOCH,
        finalized_features: finalized.collect(),
        ..Default::default()
    }
}

/// First version that may carry features whose lowest level is 0.
const ZERO_VERSION_MIN: i16 = 4;

/// Levels are the same for as long as a broker runs: clients hear of them once.
const FEATURES_EPOCH: i64 = 0;

/// A feature on whose level clients' behaviour hangs.
struct Feature {
    name: &'static str,
    min: i16,
    max: i16,
    level: i16,
}

/// By level 2 each end of a transaction bumps the epoch, and batches add their partitions to it (KIP-890).
const FEATURES: &[Feature] = &[Feature {
    name: "transaction.version",
    min: 0,
    max: 2,
    level: 2,
}];

/// Letters, digits, dots and dashes, a letter or digit at both ends.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.iter().all(inner) && end(bytes.first()) && end(bytes.last())
}

/// The correlation id of a frame that holds an ApiVersions request in a version that is not served.
pub(crate) fn unknown_version(frame: &[u8]) -> Option<i32> {
    let key = i16::from_be_bytes(frame.get(0..2)?.try_into().ok()?);
    let version = i16::from_be_bytes(frame.get(2..4)?.try_into().ok()?);
    let correlation_id = i32::from_be_bytes(frame.get(4..8)?.try_into().ok()?);
    let served = versions::served(key).filter(|served| served.key == ApiKey::ApiVersions)?;
    (!served.serves(version)).then_some(correlation_id)
}

/// Answers such a request: in version 0, with what is served of ApiVersions itself, so that the client can ask again.
pub(crate) fn refuse(out: &mut Out, correlation_id: i32) -> Result<(), WireError> {
    out.respond::<ApiVersionsRequest>(correlation_id, 0, &versions::refusal())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{api_versions, frame};
    use bytes::Bytes;
    use futures_lite::future::block_on;

    #[test]
    fn an_unknown_version_is_answered_in_version_0_with_error_35() {
        for version in [-1i16, 5, 6, i16::MAX] {
            let mut request = Vec::new();
            request.extend(18i16.to_be_bytes());
            request.extend(version.to_be_bytes());
            request.extend(77i32.to_be_bytes());
            request.extend([0xff; 9]);
            let correlation_id = unknown_version(&request).expect("not served");
            let mut out = Out::default();
            refuse(&mut out, correlation_id).unwrap();
            // size, correlation id, error 35, one key: 18 from 0 to the highest
            let max = versions::served(18).unwrap().max;
            let expected = [
                &[0, 0, 0, 16, 0, 0, 0, 77, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0][..],
                &max.to_be_bytes(),
            ]
            .concat();
            assert_eq!(out.pieces().concat(), expected);
        }
        let known = [&18i16.to_be_bytes()[..], &4i16.to_be_bytes(), &[0, 0, 0, 7]].concat();
        assert_eq!(unknown_version(&known), None);
        let other_key = [&3i16.to_be_bytes()[..], &99i16.to_be_bytes(), &[0, 0, 0, 7]].concat();
        assert_eq!(unknown_version(&other_key), None);
        assert_eq!(unknown_version(&known[..7]), None);
    }

    #[test]
    fn the_response_header_is_version_0_even_where_the_body_is_flexible() {
        let request = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1.0-rc1".into(),
        };
        for version in 0..=4 {
            let response = block_on(handle(request.clone(), version));
            let mut out = Out::default();
            out.respond::<ApiVersionsRequest>(5, version, &response)
                .unwrap();
            let bytes = out.pieces().concat();
            assert_eq!(
                bytes[4..10],
                [0, 0, 0, 5, 0, 0],
                "correlation id, then at once the error code"
            );
            let (read, _) =
                api_versions::decode_reply(Bytes::from(bytes).slice(4..), 5, version).unwrap();
            assert_eq!(read.api_keys, versions::advertised());
            let levels = read.finalized_features.iter();
            let levels: Vec<i16> = levels.map(|f| f.max_version_level).collect();
            assert_eq!(levels, if version >= 3 { vec![2] } else { vec![] });
            let supported = read.supported_features.len();
            assert_eq!(supported, usize::from(version >= 4), "version {version}");
        }
        assert_eq!(frame::SIZE_PREFIX_BYTES, 4);
    }

    #[test]
    fn malformed_software_names_are_refused_from_version_3_on() {
        let code = |name: &'static str, version| {
            let request = ApiVersionsRequest {
                client_software_name: Str::from(name),
                client_software_version: Str::from("1"),
            };
            block_on(handle(request, version)).error_code
        };
        for good in ["a", "apache-kafka-java", "librdkafka", "a.b-c.9"] {
            assert_eq!(code(good, 3), 0, "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a_b", "\u{e4}", ".a"] {
            assert_eq!(code(bad, 3), 42, "{bad}");
            assert_eq!(code(bad, 2), 0, "{bad}: the field does not exist yet");
        }
    }
}
