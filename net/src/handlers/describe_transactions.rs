//! Owns DescribeTransactions: how far the transactions of some ids are.
//! Does not know how a transaction goes.
//! Invariant: every id is answered where it was asked, with its own error or state.

use super::{for_each, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::describe_transactions::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, DescribedTransaction,
    DescribedTransactionTopic,
};
use crate::wire::Str;
use millrace_engine::api::txn::{DescribedTxn, TxnError};

impl Outcome for DescribeTransactionsResponse {
    fn failed(&self) -> bool {
        let mut states = self.transaction_states.iter();
        states.any(|state| state.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let ids = super::each_once(request.transactional_ids, Str::clone);
    let states = for_each(ids, |id| async move {
        let described = shard.broker.describe_transaction(id.to_string()).await;
        answer(id, described)
    });
    DescribeTransactionsResponse {
        transaction_states: states.await,
        ..Default::default()
    }
}

fn answer(id: Str, described: Result<DescribedTxn, TxnError>) -> DescribedTransaction {
    match described {
        Err(error) => DescribedTransaction {
            error_code: errors::txn(error).code(),
            transactional_id: id,
            ..Default::default()
        },
        Ok(txn) => DescribedTransaction {
            error_code: 0,
            transactional_id: id,
            transaction_state: Str::from_static(txn.state.name()),
            transaction_timeout_ms: txn.timeout_ms,
            transaction_start_time_ms: txn.started_ms,
            producer_id: txn.producer.id,
            producer_epoch: txn.producer.epoch,
            topics: txn
                .partitions
                .into_iter()
                .map(|(topic, partitions)| DescribedTransactionTopic {
                    topic: topic.into(),
                    partitions: partitions.into_iter().collect(),
                })
                .collect(),
        },
    }
}
