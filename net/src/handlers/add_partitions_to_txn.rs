//! Owns AddPartitionsToTxn: which partitions a transaction is about, for clients one at a time and for brokers many.
//! Does not know how a transaction goes.
//! Invariant: either all partitions of a transaction are added or none, and each is answered where it was asked.

use super::{for_each, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult, AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
};
use crate::wire::ErrorCode;
use millrace_engine::api::meta::Image;
use millrace_engine::api::txn::{AddPartitions, Producer, TopicPartitions, TxnError, TxnOf};

/// First version that asks for several transactions.
const BATCH_VERSION_MIN: i16 = 4;
/// First version that knows PRODUCER_FENCED.
const FENCED_VERSION_MIN: i16 = 2;

/// Levels of `transaction.version` of clients that ask themselves, and of those whose broker asks for them.
const LEVEL_OF_CLIENTS: i16 = 0;
const LEVEL_OF_BROKERS: i16 = 2;

impl Outcome for AddPartitionsToTxnResponse {
    fn failed(&self) -> bool {
        let failed = |topics: &[AddPartitionsToTxnTopicResult]| {
            topics
                .iter()
                .flat_map(|topic| &topic.results_by_partition)
                .any(|partition| partition.partition_error_code != 0)
        };
        let mut batched = self.results_by_transaction.iter();
        self.error_code != 0
            || failed(&self.results_by_topic_v3_and_below)
            || batched.any(|result| failed(&result.topic_results))
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: AddPartitionsToTxnRequest,
    version: i16,
) -> AddPartitionsToTxnResponse {
    if version >= BATCH_VERSION_MIN {
        let results = for_each(request.transactions, |asked| async {
            AddPartitionsToTxnResult {
                transactional_id: asked.transactional_id.clone(),
                topic_results: one(shard, asked, version).await,
            }
        });
        return AddPartitionsToTxnResponse {
            results_by_transaction: results.await,
            ..Default::default()
        };
    }
    let asked = AddPartitionsToTxnTransaction {
        transactional_id: request.v3_and_below_transactional_id,
        producer_id: request.v3_and_below_producer_id,
        producer_epoch: request.v3_and_below_producer_epoch,
        verify_only: false,
        topics: request.v3_and_below_topics,
    };
    AddPartitionsToTxnResponse {
        results_by_topic_v3_and_below: one(shard, asked, version).await,
        ..Default::default()
    }
}

async fn one(
    shard: &ShardNet,
    asked: AddPartitionsToTxnTransaction,
    version: i16,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let image = shard.broker.image();
    let unknown = |topic: &str, index: i32| !is_there(&image, topic, index);
    if any(&asked.topics, unknown) {
        // What can be wrong with one partition keeps all others out.
        return answer(asked.topics, |topic, index| match unknown(topic, index) {
            true => ErrorCode::UnknownTopicOrPartition,
            false => ErrorCode::OperationNotAttempted,
        });
    }
    let mut partitions = TopicPartitions::new();
    for topic in &asked.topics {
        let indexes = partitions.entry(topic.name.to_string()).or_default();
        indexes.extend(&topic.partitions);
    }
    let of = TxnOf {
        transactional_id: asked.transactional_id.to_string(),
        producer: Producer {
            id: asked.producer_id,
            epoch: asked.producer_epoch,
        },
    };
    let code = |error: TxnError| errors::txn_knowing(error, version >= FENCED_VERSION_MIN);
    if asked.verify_only {
        return match shard.broker.missing_in_transaction(of, partitions).await {
            Err(error) => answer(asked.topics, |_, _| code(error)),
            Ok(missing) => answer(asked.topics, |topic, index| {
                let indexes = missing.get(topic);
                match indexes.is_some_and(|indexes| indexes.contains(&index)) {
                    true => code(TxnError::TransactionAbortable),
                    false => ErrorCode::None,
                }
            }),
        };
    }
    let adding = AddPartitions {
        of,
        partitions,
        version: match version {
            BATCH_VERSION_MIN.. => LEVEL_OF_BROKERS,
            ..BATCH_VERSION_MIN => LEVEL_OF_CLIENTS,
        },
    };
    let added = shard.broker.add_to_transaction(adding).await;
    let result = added.map_or_else(code, |()| ErrorCode::None);
    answer(asked.topics, |_, _| result)
}

fn is_there(image: &Image, topic: &str, index: i32) -> bool {
    let topic = image.topic(topic);
    topic.is_some_and(|topic| {
        usize::try_from(index).is_ok_and(|index| index < topic.partitions.len())
    })
}

fn any(topics: &[AddPartitionsToTxnTopic], what: impl Fn(&str, i32) -> bool) -> bool {
    topics.iter().any(|topic| {
        topic
            .partitions
            .iter()
            .any(|index| what(&topic.name, *index))
    })
}

fn answer(
    topics: Vec<AddPartitionsToTxnTopic>,
    code: impl Fn(&str, i32) -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let topic = |topic: AddPartitionsToTxnTopic| {
        let partition = |index: &i32| AddPartitionsToTxnPartitionResult {
            partition_index: *index,
            partition_error_code: code(&topic.name, *index).code(),
        };
        AddPartitionsToTxnTopicResult {
            results_by_partition: topic.partitions.iter().map(partition).collect(),
            name: topic.name,
        }
    };
    topics.into_iter().map(topic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::tests::image;

    #[test]
    fn partitions_are_answered_where_they_were_asked() {
        let image = image(&[("t", 2)]);
        let asked = |name: &'static str, partitions: &[i32]| AddPartitionsToTxnTopic {
            name: name.into(),
            partitions: partitions.to_vec(),
        };
        let topics = vec![asked("t", &[1, 2, -1]), asked("u", &[0])];
        let results = answer(topics, |topic, index| {
            match is_there(&image, topic, index) {
                true => ErrorCode::OperationNotAttempted,
                false => ErrorCode::UnknownTopicOrPartition,
            }
        });
        let codes: Vec<Vec<(i32, i16)>> = results
            .iter()
            .map(|topic| {
                let each = topic.results_by_partition.iter();
                each.map(|p| (p.partition_index, p.partition_error_code))
                    .collect()
            })
            .collect();
        assert_eq!(codes, [vec![(1, 55), (2, 3), (-1, 3)], vec![(0, 3)]]);
        let response = AddPartitionsToTxnResponse {
            results_by_topic_v3_and_below: results,
            ..Default::default()
        };
        assert!(response.failed());
    }
}
