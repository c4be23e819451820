//! Owns InitProducerId: identities for idempotent and transactional producers.
//! Does not know how ids are kept apart (the metadata hands them out), nor how transactions go.
//! Invariant: an id and epoch are never given to two producers.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::wire::ErrorCode;
use millrace_engine::api::txn::{InitProducer, Producer};

/// First version that knows PRODUCER_FENCED.
const FENCED_VERSION_MIN: i16 = 4;

impl Outcome for InitProducerIdResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: InitProducerIdRequest,
    version: i16,
) -> InitProducerIdResponse {
    let given = match request.transactional_id {
        // Without a transactional id there is nothing to fence: a client that names its old id just gets a new one.
        None => idempotent(shard).await,
        Some(_) => transactional(shard, request, version).await,
    };
    match given {
        Ok(producer) => InitProducerIdResponse {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            ..Default::default()
        },
        Err(error) => refused(error),
    }
}

async fn idempotent(shard: &ShardNet) -> Result<Producer, ErrorCode> {
    match shard.broker.new_producer_id().await {
        Ok(id) => Ok(Producer { id, epoch: 0 }),
        Err(error) => {
            tracing::error!(%error, "no producer id can be given");
            Err(errors::meta(&error))
        }
    }
}

async fn transactional(
    shard: &ShardNet,
    request: InitProducerIdRequest,
    version: i16,
) -> Result<Producer, ErrorCode> {
    let expected = expected(&request)?;
    let id = request.transactional_id.unwrap_or_default();
    let asked = InitProducer {
        transactional_id: id.to_string(),
        timeout_ms: request.transaction_timeout_ms,
        expected,
    };
    let given = shard.broker.init_producer(asked).await;
    given.map_err(|error| errors::txn_knowing(error, version >= FENCED_VERSION_MIN))
}

/// What the producer was before, where it says so.
fn expected(request: &InitProducerIdRequest) -> Result<Option<Producer>, ErrorCode> {
    match (request.producer_id, request.producer_epoch) {
        (-1, -1) => Ok(None),
        (-1, _) | (_, -1) => Err(ErrorCode::InvalidRequest),
        (id, epoch) => Ok(Some(Producer { id, epoch })),
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
    fn who_names_an_id_names_its_epoch() {
        let asked = |producer_id, producer_epoch| {
            expected(&InitProducerIdRequest {
                producer_id,
                producer_epoch,
                ..Default::default()
            })
        };
        assert_eq!(asked(-1, -1), Ok(None));
        assert_eq!(asked(7, 0), Ok(Some(Producer { id: 7, epoch: 0 })));
        assert_eq!(asked(7, -1), Err(ErrorCode::InvalidRequest));
        assert_eq!(asked(-1, 0), Err(ErrorCode::InvalidRequest));
    }
}
