//! Owns the calls about transactions: which there are, how far one is, and aborting one that nobody ends.
//! Does not know how their results are shown.
//! Invariant: a call about one transactional id goes to its coordinator, which is looked up anew for every try.

use super::cluster::Cluster;
use super::error::ClientError;
use super::groups::{find, is_undone, is_worth_repeating, Coordinated};
use millrace_net::wire::describe_transactions::DescribeTransactionsRequest;
use millrace_net::wire::init_producer_id::InitProducerIdRequest;
use millrace_net::wire::list_transactions::ListTransactionsRequest;
use millrace_net::wire::{ErrorCode, Str};
use std::collections::BTreeMap;

/// Whoever fences begins nothing, so that nothing of it can take long.
const FENCING_TIMEOUT_MS: i32 = 1;

/// One transactional id in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub id: String,
    pub producer_id: i64,
    pub state: String,
}

/// One transactional id as its coordinator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    pub id: String,
    pub coordinator: i32,
    pub state: String,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub timeout_ms: i32,
    /// None where nothing was begun yet.
    pub started_ms: Option<i64>,
    pub partitions: BTreeMap<String, Vec<i32>>,
}

/// The transactional ids of all brokers, ascending, and what went wrong with those that did not answer.
pub fn list(cluster: &mut Cluster) -> Result<(Vec<Listed>, Vec<ClientError>), ClientError> {
    cluster.retry(|cluster| cluster.metadata(Some(&[]), false))?;
    let (mut all, mut errors) = (BTreeMap::new(), Vec::new());
    for node in cluster.nodes() {
        let found = cluster.retry_if(is_undone, |cluster| {
            let request = ListTransactionsRequest::default();
            let answer = cluster.with_node(node, |conn| conn.call(&request))?;
            let what = || format!("the transactions of broker {node}");
            ClientError::check(what, answer.error_code, None)?;
            Ok(answer.transaction_states)
        });
        match found {
            Err(error) => errors.push(error),
            // Twice, where it moved from one broker to the next meanwhile.
            Ok(found) => all.extend(found.into_iter().map(|txn| {
                let listed = Listed {
                    id: txn.transactional_id.to_string(),
                    producer_id: txn.producer_id,
                    state: txn.transaction_state.to_string(),
                };
                (listed.id.clone(), listed)
            })),
        }
    }
    Ok((all.into_values().collect(), errors))
}

/// How far the transaction of an id is.
pub fn describe(cluster: &mut Cluster, id: &str) -> Result<Description, ClientError> {
    let request = DescribeTransactionsRequest {
        transactional_ids: vec![Str::from(id.to_string())],
    };
    let what = || format!("transactional id {id}");
    cluster.retry_if(is_worth_repeating, |cluster| {
        let node = find(cluster, Coordinated::Transaction, id)?.node;
        let answer = cluster.with_node(node, |conn| conn.call(&request))?;
        let found = answer.transaction_states.into_iter().next();
        let not_found =
            || ClientError::broker(what(), ErrorCode::TransactionalIdNotFound.code(), None);
        let found = found.ok_or_else(not_found)?;
        ClientError::check(what, found.error_code, None)?;
        let topics = found.topics.into_iter();
        Ok(Description {
            id: id.to_string(),
            coordinator: node,
            state: found.transaction_state.to_string(),
            producer_id: found.producer_id,
            producer_epoch: found.producer_epoch,
            timeout_ms: found.transaction_timeout_ms,
            started_ms: Some(found.transaction_start_time_ms).filter(|ms| *ms >= 0),
            partitions: topics
                .map(|t| (t.topic.to_string(), t.partitions))
                .collect(),
        })
    })
}

/// Aborts the transaction of an id, and takes the id from the producer that has it; returns once that is done.
pub fn abort(cluster: &mut Cluster, id: &str) -> Result<(), ClientError> {
    // An id that nobody has is not made by asking for it.
    describe(cluster, id)?;
    let request = InitProducerIdRequest {
        transactional_id: Some(Str::from(id.to_string())),
        transaction_timeout_ms: FENCING_TIMEOUT_MS,
        ..InitProducerIdRequest::default()
    };
    let what = || format!("transactional id {id}");
    // It is told to ask again until the abort is written everywhere.
    let worth = |error: &ClientError| {
        is_worth_repeating(error) || error.code() == Some(ErrorCode::ConcurrentTransactions)
    };
    cluster.retry_if(worth, |cluster| {
        let node = find(cluster, Coordinated::Transaction, id)?.node;
        let answer = cluster.with_node(node, |conn| conn.call(&request))?;
        ClientError::check(what, answer.error_code, None)
    })
}
