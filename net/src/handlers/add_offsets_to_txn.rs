//! Owns AddOffsetsToTxn: that a group's offsets will be part of a transaction.
//! Does not know how a transaction goes, nor groups.
//! Invariant: what is added is the partition in which the group's coordinator will write.

use super::{find_coordinator, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use crate::wire::ErrorCode;
use millrace_engine::api::coord::GROUP_TOPIC;
use millrace_engine::api::txn::{Producer, TxnOf};

/// First version that knows PRODUCER_FENCED.
const FENCED_VERSION_MIN: i16 = 2;

/// Clients that ask themselves do not work by a level of `transaction.version` that needs to be known.
const LEVEL: i16 = 0;

impl Outcome for AddOffsetsToTxnResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: AddOffsetsToTxnRequest,
    version: i16,
) -> AddOffsetsToTxnResponse {
    let of = TxnOf {
        transactional_id: request.transactional_id.to_string(),
        producer: Producer {
            id: request.producer_id,
            epoch: request.producer_epoch,
        },
    };
    // Clients look for the group's coordinator only after this.
    let code = match find_coordinator::make_topic(shard, GROUP_TOPIC).await {
        Err(refusal) => refusal.code,
        Ok(_) => {
            let broker = &shard.broker;
            let added = broker.add_group_to_transaction(of, &request.group_id, LEVEL);
            let code = |error| errors::txn_knowing(error, version >= FENCED_VERSION_MIN);
            added.await.map_or_else(code, |()| ErrorCode::None)
        }
    };
    AddOffsetsToTxnResponse {
        error_code: code.code(),
        ..Default::default()
    }
}
