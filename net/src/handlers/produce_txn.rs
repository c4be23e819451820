//! Owns what comes before the batches of transactions: that their partitions are in the transaction.
//! Does not know how batches are handed over, nor how a transaction goes.
//! Invariant: a batch of a transaction is handed over only after the coordinator said that its partition is part of it.

use super::produce::{find, is_closed, Refused, ATTRIBUTES_AT};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::produce::ProduceRequest;
use crate::wire::ErrorCode;
use bytes::Bytes;
use millrace_engine::api::txn::{Membership, Producer, TxnError, TxnOf};
use millrace_engine::types::batch::BatchHeader;
use millrace_engine::types::PartitionId;

/// First version whose batches add their partitions to the transaction.
const ADD_VERSION_MIN: i16 = 12;
/// First version that knows TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION_MIN: i16 = 11;

/// In the lower byte of a batch's attributes.
const TRANSACTIONAL: u8 = 1 << 4;

const NOBODY: &str = "a batch of a transaction needs a transactional id";
const SEVERAL: &str = "one request has batches of one producer's transaction";
const NO_MEMBER: &str = "the partition could not be made, or is not, part of the transaction";

/// Where in the request a batch of a transaction is, and where it goes.
struct Place {
    at: (usize, usize),
    partition: PartitionId,
    producer: Producer,
    sequence: i32,
}

/// Has the partitions of all batches of a transaction in it, and notes which are not.
pub(crate) async fn join(
    shard: &ShardNet,
    request: &ProduceRequest,
    version: i16,
    client_id: Option<&str>,
    refused: &mut Refused,
) {
    let places = places(shard, request, client_id, refused);
    let Some(first) = places.first() else { return };
    let all = |refused: &mut Refused, why: (ErrorCode, &'static str)| {
        refused.extend(places.iter().map(|place| (place.at, why)));
    };
    let Some(id) = &request.transactional_id else {
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return all(refused, (code, NOBODY));
    };
    if places.iter().any(|place| place.producer != first.producer) {
        let code = ErrorCode::InvalidProducerIdMapping;
        return all(refused, (code, SEVERAL));
    }
    let of = TxnOf {
        transactional_id: id.to_string(),
        producer: first.producer,
    };
    let membership = match version {
        ADD_VERSION_MIN.. => Membership::Add(2),
        ..ADD_VERSION_MIN => Membership::Verify,
    };
    let partitions = places.iter().map(|place| (place.partition, place.sequence));
    let partitions = partitions.collect();
    let broker = &shard.broker;
    let joined = broker.join_transaction(of, partitions, membership).await;
    for (place, result) in places.iter().zip(joined) {
        if let Err(error) = result {
            refused.insert(place.at, (code(error, version), NO_MEMBER));
        }
    }
}

/// The batches of transactions that could go where they are sent.
fn places(
    shard: &ShardNet,
    request: &ProduceRequest,
    client_id: Option<&str>,
    refused: &Refused,
) -> Vec<Place> {
    let mut places = Vec::new();
    let topics = request.topic_data.iter();
    let mut batches = topics.flat_map(|topic| topic.partition_data.iter());
    // Of most requests only one byte of each batch is looked at here.
    if !batches.any(|data| data.records.as_ref().is_some_and(is_of_transaction)) {
        return places;
    }
    let image = shard.broker.image();
    for (topic_at, topic) in request.topic_data.iter().enumerate() {
        for (partition_at, data) in topic.partition_data.iter().enumerate() {
            let at = (topic_at, partition_at);
            let header = data.records.as_ref().and_then(of_transaction);
            let Some(header) = header.filter(|_| !refused.contains_key(&at)) else {
                continue;
            };
            let index = usize::try_from(data.index);
            let known = find(&image, topic).filter(|topic| {
                index.is_ok_and(|index| index < topic.partitions.len())
                    && !is_closed(topic, client_id)
            });
            // What is not there is told when it is handed over.
            let Some(known) = known else { continue };
            places.push(Place {
                at,
                partition: PartitionId::new(known.id, data.index),
                producer: Producer {
                    id: header.producer_id,
                    epoch: header.producer_epoch,
                },
                sequence: header.base_sequence,
            });
        }
    }
    places
}

fn is_of_transaction(batch: &Bytes) -> bool {
    batch
        .get(ATTRIBUTES_AT + 1)
        .is_some_and(|bits| bits & TRANSACTIONAL != 0)
}

fn of_transaction(batch: &Bytes) -> Option<BatchHeader> {
    let header = BatchHeader::parse(batch).ok()?;
    header.is_transactional().then_some(header)
}

/// In the words that clients of the version know.
fn code(error: TxnError, version: i16) -> ErrorCode {
    match error {
        // Older clients try again after it without asking for metadata, as they should.
        TxnError::NotAvailable => ErrorCode::NotEnoughReplicas,
        TxnError::ConcurrentTransactions => ErrorCode::NotEnoughReplicas,
        TxnError::TransactionAbortable if version < ABORTABLE_VERSION_MIN => {
            ErrorCode::InvalidTxnState
        }
        TxnError::TransactionAbortable
        | TxnError::InvalidRequest
        | TxnError::InvalidTimeout
        | TxnError::InvalidTxnState
        | TxnError::ProducerFenced
        | TxnError::InvalidProducerIdMapping
        | TxnError::NotFound
        | TxnError::TooManyPartitions
        | TxnError::RecordTooLarge => errors::txn_knowing(error, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_retriable_for_every_client() {
        for version in [3, 11, 12] {
            for error in [TxnError::NotAvailable, TxnError::ConcurrentTransactions] {
                assert_eq!(code(error, version), ErrorCode::NotEnoughReplicas);
            }
            let fenced = code(TxnError::ProducerFenced, version);
            assert_eq!(fenced, ErrorCode::InvalidProducerEpoch);
        }
        let abortable = |version| code(TxnError::TransactionAbortable, version);
        assert_eq!(abortable(10), ErrorCode::InvalidTxnState);
        assert_eq!(abortable(11), ErrorCode::TransactionAbortable);
    }
}
