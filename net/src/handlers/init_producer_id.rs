//! Owns InitProducerId: identities for idempotent producers.
//! Does not know how ids are kept apart (the metadata hands them out).
//! Invariant: an id is never given twice, and no producer is told that it may begin a transaction.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::wire::ErrorCode;

impl Outcome for InitProducerIdResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    if let Some(id) = &request.transactional_id {
        return refused(transactional(id));
    }
    // Without a transactional id there is nothing to fence: a client that names its old id just gets a new one.
    match shard.broker.new_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..Default::default()
        },
        Err(error) => {
            tracing::error!(%error, "no producer id can be given");
            refused(errors::meta(&error))
        }
    }
}

/// Why a transactional producer gets no id. There is no transaction coordinator: that is what its client hears from
/// FindCoordinator too, it may be cured by another version of this broker, and nothing is wrong with the client's
/// rights (TRANSACTIONAL_ID_AUTHORIZATION_FAILED) or its version of the request (UNSUPPORTED_VERSION).
fn transactional(id: &str) -> ErrorCode {
    if id.is_empty() {
        ErrorCode::InvalidRequest
    } else {
        ErrorCode::CoordinatorNotAvailable
    }
}

fn refused(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_refused_as_what_they_are() {
        assert_eq!(transactional("orders"), ErrorCode::CoordinatorNotAvailable);
        assert_eq!(transactional(""), ErrorCode::InvalidRequest);
    }
}
