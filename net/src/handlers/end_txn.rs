//! Owns EndTxn: commit and abort by the producer itself.
//! Does not know how a transaction goes, nor when its markers are written.
//! Invariant: what is answered is certain; a client that bumps its epoch with each end hears which one it has.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::end_txn::{EndTxnRequest, EndTxnResponse};
use millrace_engine::api::txn::{EndTxn, Producer, TxnOf};

/// First version that knows PRODUCER_FENCED.
const FENCED_VERSION_MIN: i16 = 2;
/// First version of clients that bump the epoch with each transaction.
const BUMP_VERSION_MIN: i16 = 5;

impl Outcome for EndTxnResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: EndTxnRequest,
    version: i16,
) -> EndTxnResponse {
    let asked = EndTxn {
        of: TxnOf {
            transactional_id: request.transactional_id.to_string(),
            producer: Producer {
                id: request.producer_id,
                epoch: request.producer_epoch,
            },
        },
        commit: request.committed,
        version: level(version),
    };
    match shard.broker.end_transaction(asked).await {
        Ok(producer) => EndTxnResponse {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            ..Default::default()
        },
        Err(error) => EndTxnResponse {
            error_code: errors::txn_knowing(error, version >= FENCED_VERSION_MIN).code(),
            ..Default::default()
        },
    }
}

/// The level of `transaction.version` that a request's version stands for.
fn level(version: i16) -> i16 {
    match version {
        BUMP_VERSION_MIN.. => 2,
        ..BUMP_VERSION_MIN => 0,
    }
}
