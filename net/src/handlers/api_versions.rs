//! Owns ApiVersions: what this broker serves.
//! Does not know the tables themselves (`wire::versions`, `features`).
//! Invariant: a request of any version is answered, in a form that its client can read.

use super::Outcome;
use crate::cores::Faces;
use crate::features::{self, Feature, FEATURES};
use crate::out::Out;
use crate::shard::ShardNet;
use crate::wire::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::{versions, ApiKey, ErrorCode, WireError};

impl Outcome for ApiVersionsResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ApiVersionsRequest,
    version: i16,
) -> ApiVersionsResponse {
    let image = shard.broker.image();
    match refused(&shard.faces(&image), &request, version) {
        Some(error) => ApiVersionsResponse {
            error_code: error.code(),
            ..Default::default()
        },
        None => answer(FEATURES, image.version, version),
    }
}

fn answer(features: &[Feature], image_version: u64, version: i16) -> ApiVersionsResponse {
    let finalized_features = features::finalized(features);
    // Clients take levels over only with a later epoch than the last they saw, and the metadata's version only grows. Without
    // levels there is no epoch of them either.
    let finalized_features_epoch = match finalized_features.is_empty() {
        true => -1,
        false => i64::try_from(image_version).unwrap_or(i64::MAX),
    };
    ApiVersionsResponse {
        api_keys: versions::advertised(),
        supported_features: features::supported(features, version),
        finalized_features_epoch,
        finalized_features,
        ..Default::default()
    }
}

/// What is wrong with a request: names that are none, or another broker than this one (KIP-1242).
fn refused(faces: &Faces<'_>, request: &ApiVersionsRequest, version: i16) -> Option<ErrorCode> {
    let named = |name: &str| is_software_name(name);
    if version >= 3
        && !(named(&request.client_software_name) && named(&request.client_software_version))
    {
        return Some(ErrorCode::InvalidRequest);
    }
    match (&request.cluster_id, request.node_id) {
        (None, -1) => None,
        (None, _) | (Some(_), -1) => Some(ErrorCode::InvalidRequest),
        (Some(cluster), node) => {
            let image = faces.image;
            let is_here = *cluster == *image.cluster_id && faces.node(node) == image.node_id;
            (!is_here).then_some(ErrorCode::RebootstrapRequired)
        }
    }
}

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
    use crate::config::NetConfig;
    use crate::features::tests::SOME;
    use crate::wire::{api_versions, frame, Str};
    use bytes::Bytes;

    #[test]
    fn an_unknown_version_is_answered_in_version_0_with_error_35() {
        for version in [-1i16, 6, 7, i16::MAX] {
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
        for version in 0..=5 {
            let response = answer(SOME, 77, version);
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
            let (epoch, levels) = if version >= 3 { (77, 2) } else { (-1, 0) };
            assert_eq!(read.finalized_features_epoch, epoch);
            assert_eq!(read.finalized_features.len(), levels);
            let supported = read.supported_features.len();
            assert_eq!(
                supported,
                [0, 0, 0, 1, 3, 3][version as usize],
                "version {version}"
            );
        }
        assert_eq!(answer(&[], 77, 4).finalized_features_epoch, -1);
        assert_eq!(frame::SIZE_PREFIX_BYTES, 4);
    }

    #[test]
    fn malformed_software_names_are_refused_from_version_3_on() {
        let code =
            |name: &'static str, version| refusal(&NetConfig::default(), name, None, -1, version);
        for good in ["a", "apache-kafka-java", "librdkafka", "a.b-c.9"] {
            assert_eq!(code(good, 3), None, "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a_b", "\u{e4}", ".a"] {
            assert_eq!(code(bad, 3), Some(ErrorCode::InvalidRequest), "{bad}");
            assert_eq!(code(bad, 2), None, "{bad}: the field does not exist yet");
        }
    }

    fn refusal(
        config: &NetConfig,
        name: &'static str,
        cluster: Option<&str>,
        node: i32,
        version: i16,
    ) -> Option<ErrorCode> {
        let image = crate::handlers::tests::image(&[]);
        let request = ApiVersionsRequest {
            client_software_name: Str::from(name),
            client_software_version: Str::from("1"),
            cluster_id: cluster.map(|id| Str::from(id.to_owned())),
            node_id: node,
        };
        refused(&Faces::new(config, 2, &image), &request, version)
    }

    #[test]
    fn who_means_another_broker_is_told_to_start_over() {
        let here = "c".repeat(22);
        let code = |config, cluster, node| refusal(config, "a", cluster, node, 5);
        let wrong = Some(ErrorCode::RebootstrapRequired);
        let node = NetConfig::default();
        assert_eq!(code(&node, None, -1), None, "a client that knows nothing");
        assert_eq!(code(&node, Some(&here), 1), None);
        assert_eq!(code(&node, Some(&here), 2), wrong);
        assert_eq!(code(&node, Some("other"), 1), wrong);
        for (cluster, id) in [(Some(&*here), -1), (None, 1)] {
            assert_eq!(code(&node, cluster, id), Some(ErrorCode::InvalidRequest));
        }
        let cores = NetConfig {
            core_ports: vec![1, 2],
            ..NetConfig::default()
        };
        for (id, expected) in [(1_000, None), (1_001, None), (1, None), (1_002, wrong)] {
            assert_eq!(code(&cores, Some(&here), id), expected, "{id}");
        }
    }
}
