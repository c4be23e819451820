//! Owns FindCoordinator: an honest answer while there are no coordinators.
//! Does not know groups or transactions.
//! Invariant: every key asked for is answered, each with its own error.

use super::Outcome;
use crate::wire::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::wire::{ErrorCode, Str};

/// First version that asks for several keys.
const BATCH_VERSION_MIN: i16 = 4;
/// First version with share groups.
const SHARE_VERSION_MIN: i16 = 6;

impl Outcome for FindCoordinatorResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
            || self
                .coordinators
                .iter()
                .any(|coordinator| coordinator.error_code != 0)
    }
}

pub(crate) async fn handle(
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let (error, message) = answer(request.key_type, version);
    let (error_code, error_message) = (error.code(), Some(Str::from_static(message)));
    if version < BATCH_VERSION_MIN {
        return FindCoordinatorResponse {
            error_code,
            error_message,
            node_id: -1,
            port: -1,
            ..Default::default()
        };
    }
    let one = |key| Coordinator {
        key,
        node_id: -1,
        host: Str::default(),
        port: -1,
        error_code,
        error_message: error_message.clone(),
    };
    FindCoordinatorResponse {
        coordinators: request.coordinator_keys.into_iter().map(one).collect(),
        ..Default::default()
    }
}

fn answer(key_type: i8, version: i16) -> (ErrorCode, &'static str) {
    match key_type {
        0 => (
            ErrorCode::CoordinatorNotAvailable,
            "This broker does not coordinate consumer groups.",
        ),
        1 => (
            ErrorCode::CoordinatorNotAvailable,
            "This broker does not coordinate transactions.",
        ),
        2 if version >= SHARE_VERSION_MIN => (
            ErrorCode::CoordinatorNotAvailable,
            "This broker does not coordinate share groups.",
        ),
        i8::MIN..=i8::MAX => (
            ErrorCode::InvalidRequest,
            "There is no such type of coordinator.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;
    use futures_lite::future::block_on;

    #[test]
    fn every_version_can_carry_its_answer() {
        for version in 0..=6 {
            for key_type in [0, 1, 2, 9] {
                let request = FindCoordinatorRequest {
                    key_type,
                    coordinator_keys: vec!["a".into(), "b".into()],
                    ..Default::default()
                };
                let response = block_on(handle(request, version));
                assert!(response.failed());
                assert_eq!(
                    response.coordinators.len(),
                    if version >= 4 { 2 } else { 0 }
                );
                let mut out = Out::default();
                out.respond::<FindCoordinatorRequest>(1, version, &response)
                    .unwrap();
            }
        }
    }

    #[test]
    fn kinds_that_exist_are_unavailable_and_others_invalid() {
        assert_eq!(answer(0, 0).0, ErrorCode::CoordinatorNotAvailable);
        assert_eq!(answer(1, 1).0, ErrorCode::CoordinatorNotAvailable);
        assert_eq!(answer(2, 5).0, ErrorCode::InvalidRequest);
        assert_eq!(answer(2, 6).0, ErrorCode::CoordinatorNotAvailable);
        assert_eq!(answer(-1, 6).0, ErrorCode::InvalidRequest);
    }
}
