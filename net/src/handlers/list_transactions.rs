//! Owns ListTransactions: which transactional ids there are.
//! Does not know where their coordinators live: the engine asks all of them.
//! Invariant: a filter only takes away; states that do not exist are named, and take away what is in none that was asked.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::list_transactions::{
    ListTransactionsRequest, ListTransactionsResponse, ListedTransaction,
};
use crate::wire::Str;
use millrace_engine::api::txn::{ListedTxn, TxnError, TxnState};
use millrace_engine::rt;

impl Outcome for ListTransactionsResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    answer(
        &request,
        shard.broker.list_transactions().await,
        rt::wall_ms(),
    )
}

fn answer(
    request: &ListTransactionsRequest,
    all: Result<Vec<ListedTxn>, TxnError>,
    now_ms: i64,
) -> ListTransactionsResponse {
    let all = match all {
        Ok(all) => all,
        Err(error) => {
            return ListTransactionsResponse {
                error_code: errors::txn(error).code(),
                ..Default::default()
            }
        }
    };
    let named = |name: &Str| TxnState::ALL.into_iter().find(|s| name == s.name());
    let filters = &request.state_filters;
    let unknown = filters.iter().filter(|name| named(name).is_none());
    let states: Vec<TxnState> = filters.iter().filter_map(named).collect();
    let ids = &request.producer_id_filters;
    let is_wanted = |txn: &ListedTxn| {
        let long_ago = request.duration_filter < 0
            || now_ms.saturating_sub(txn.started_ms) > request.duration_filter;
        (filters.is_empty() || states.contains(&txn.state))
            && (ids.is_empty() || ids.contains(&txn.producer_id))
            && long_ago
    };
    let listed = |txn: ListedTxn| ListedTransaction {
        transactional_id: txn.transactional_id.into(),
        producer_id: txn.producer_id,
        transaction_state: Str::from_static(txn.state.name()),
    };
    ListTransactionsResponse {
        unknown_state_filters: unknown.cloned().collect(),
        transaction_states: all.into_iter().filter(is_wanted).map(listed).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(id: &str, producer_id: i64, state: TxnState, started_ms: i64) -> ListedTxn {
        ListedTxn {
            transactional_id: id.into(),
            producer_id,
            state,
            started_ms,
        }
    }

    #[test]
    fn filters_take_away_what_they_do_not_name() {
        let all = || {
            vec![
                txn("a", 1, TxnState::Ongoing, 1_000),
                txn("b", 2, TxnState::CompleteCommit, 5_000),
            ]
        };
        let check = |states: &[&'static str], ids: &[i64], duration_filter, expected: &[&str]| {
            let request = ListTransactionsRequest {
                state_filters: states.iter().map(|s| Str::from(*s)).collect(),
                producer_id_filters: ids.to_vec(),
                duration_filter,
            };
            let response = answer(&request, Ok(all()), 6_000);
            let found = response.transaction_states.iter();
            let found: Vec<&str> = found.map(|txn| &*txn.transactional_id).collect();
            assert_eq!(found, expected);
            response.unknown_state_filters.len()
        };
        assert_eq!(check(&[], &[], -1, &["a", "b"]), 0);
        assert_eq!(check(&["Ongoing"], &[], -1, &["a"]), 0);
        assert_eq!(check(&["ongoing", "Dead"], &[], -1, &[]), 1);
        assert_eq!(check(&[], &[2], -1, &["b"]), 0);
        assert_eq!(check(&[], &[], 1_000, &["a"]), 0);
        let failed = answer(&Default::default(), Err(TxnError::NotAvailable), 0);
        assert_eq!(failed.error_code, 15);
    }
}
