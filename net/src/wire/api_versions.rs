//! Owns the ApiVersions request (key 18) and its response, versions 0 to 5.
//! Does not know which versions are served; the table in `versions` does.
//! Keeps: a broker that answers in version 0 to refuse the version asked for is understood.
use bytes::Bytes;

use super::error::WireError;
use super::error_code::ErrorCode;
use super::frame;
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks which versions the broker understands.
    pub struct ApiVersionsRequest, versions 0..=5, flexible 3 {
        client_software_name: Str => 3.. else drop;
        client_software_version: Str => 3.. else drop;
        /// The cluster that the client believes it is connected to, if it knows one.
        cluster_id: Option<Str> => 5.. else drop;
        /// The broker it believes it is connected to; -1 if it knows none.
        node_id: i32 => 5.. else drop = -1;
    }
}

wire_struct! {
    /// The versions the broker understands.
    pub struct ApiVersionsResponse, versions 0..=5, flexible 3 {
        error_code: i16 => 0..;
        api_keys: Vec<ApiVersion> => 0..;
        throttle_time_ms: i32 => 1.. else drop;
    } tagged {
        0: supported_features: Vec<SupportedFeatureKey> => 3..;
        /// -1 if unknown.
        1: finalized_features_epoch: i64 => 3.. = -1;
        2: finalized_features: Vec<FinalizedFeatureKey> => 3..;
        3: zk_migration_ready: bool => 3..;
    }
}

wire_struct! {
    /// The versions of one API.
    pub struct ApiVersion, versions 0..=5, flexible 3 {
        api_key: i16 => 0..;
        min_version: i16 => 0..;
        max_version: i16 => 0..;
    }
}

wire_struct! {
    /// The levels of a feature this broker could run.
    pub struct SupportedFeatureKey, versions 0..=5, flexible 3 {
        name: Str => 3..;
        min_version: i16 => 3..;
        max_version: i16 => 3..;
    }
}

wire_struct! {
    /// The levels of a feature the cluster agreed on.
    pub struct FinalizedFeatureKey, versions 0..=5, flexible 3 {
        name: Str => 3..;
        max_version_level: i16 => 3..;
        min_version_level: i16 => 3..;
    }
}

wire_api!(ApiVersions, ApiVersionsRequest, ApiVersionsResponse);

/// Reads the answer (prefix taken off) to an ApiVersions request of `version`, and says in which version it came.
///
/// A broker that does not know `version` answers in version 0 with UNSUPPORTED_VERSION, often naming the versions of
/// ApiVersions it knows.
pub fn decode_reply(
    reply: Bytes,
    correlation_id: i32,
    version: i16,
) -> Result<(ApiVersionsResponse, i16), WireError> {
    let refused = ErrorCode::UnsupportedVersion.code().to_be_bytes();
    let version = if reply.get(4..6) == Some(&refused) {
        0
    } else {
        version
    };
    Ok((
        frame::decode_response::<ApiVersionsRequest>(reply, correlation_id, version)?,
        version,
    ))
}
