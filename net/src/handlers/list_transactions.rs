//! Owns ListTransactions: which transactional ids there are.
//! Does not know where their coordinators live: the engine asks all of them.
//! Invariant: a filter only takes away; states that do not exist are named, and take away what is in none that was asked.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::list_transactions::{
    ListTransactionsRequest, ListTransactionsResponse, ListedTransaction,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::txn::{ListedTxn, TxnError, TxnState};
use millrace_engine::rt;
use regex::{Regex, RegexBuilder};

/// What an expression of a client may take when it is made ready, and again while it is used.
const PATTERN_BYTES_MAX: usize = 1 << 20;

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
    let pattern = request.transactional_id_pattern.as_deref();
    let Ok(pattern) = pattern.filter(|p| !p.is_empty()).map(whole).transpose() else {
        return ListTransactionsResponse {
            error_code: ErrorCode::InvalidRegularExpression.code(),
            ..Default::default()
        };
    };
    let is_wanted = |txn: &ListedTxn| {
        let long_ago = request.duration_filter < 0
            || now_ms.saturating_sub(txn.started_ms) > request.duration_filter;
        (filters.is_empty() || states.contains(&txn.state))
            && (ids.is_empty() || ids.contains(&txn.producer_id))
            && long_ago
            && pattern
                .as_ref()
                .is_none_or(|p| p.is_match(&txn.transactional_id))
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

/// An expression that matches all of an id or nothing.
fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .build()
    };
    // By itself first: what closes the group around it is none.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
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
                ..Default::default()
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

    #[test]
    fn an_expression_matches_whole_ids() {
        let all = || {
            let ids = ["pay-1", "pay-22", "repay-1", "x"];
            ids.map(|id| txn(id, 1, TxnState::Ongoing, 0)).into()
        };
        let found = |pattern: Option<&str>| {
            let request = ListTransactionsRequest {
                transactional_id_pattern: pattern.map(|p| Str::from(p.to_owned())),
                ..Default::default()
            };
            let response = answer(&request, Ok(all()), 0);
            let found = response.transaction_states.iter();
            let found = found.map(|txn| txn.transactional_id.to_string());
            (response.error_code, found.collect::<Vec<_>>().join(" "))
        };
        let every = (0, "pay-1 pay-22 repay-1 x".to_owned());
        assert_eq!(found(None), every);
        assert_eq!(found(Some("")), every);
        assert_eq!(found(Some("pay-.")), (0, "pay-1".into()));
        assert_eq!(found(Some("x|pay-.*")), (0, "pay-1 pay-22 x".into()));
        for bad in ["(", "a{1000}{1000}{1000}", ")|(", r"(?P<"] {
            assert_eq!(found(Some(bad)), (128, String::new()), "{bad}");
        }
    }
}
