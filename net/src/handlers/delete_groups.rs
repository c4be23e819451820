//! Owns DeleteGroups.
//! Does not know when a group may be deleted (the engine's coordinators do).
//! Invariant: each group succeeds or fails by itself, and is answered once however often it is named.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};
use crate::wire::Str;
use millrace_engine::api::coord::GroupError;
use std::collections::HashSet;

impl Outcome for DeleteGroupsResponse {
    fn failed(&self) -> bool {
        self.results.iter().any(|group| group.error_code != 0)
    }
}

pub(crate) async fn handle(shard: &ShardNet, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let one = |group: Str| async move {
        let deleted = shard.broker.delete_group(group.to_string()).await;
        answer(group, deleted)
    };
    DeleteGroupsResponse {
        results: super::for_each(once(request.groups_names), one).await,
        ..Default::default()
    }
}

/// Each name once, where it comes first.
fn once(names: Vec<Str>) -> Vec<Str> {
    let mut seen = HashSet::with_capacity(names.len());
    let mut names = names;
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn answer(group: Str, deleted: Result<(), GroupError>) -> DeletableGroupResult {
    DeletableGroupResult {
        group_id: group,
        error_code: errors::result(deleted).code(),
        error_message: deleted.err().map(|error| error.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;

    #[test]
    fn a_group_is_deleted_once() {
        let names = ["b", "a", "b", "", "a"].map(Str::from).to_vec();
        assert_eq!(once(names), ["b", "a", ""]);
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        for version in 0..=3 {
            let response = DeleteGroupsResponse {
                results: vec![
                    answer("a".into(), Ok(())),
                    answer("b".into(), Err(GroupError::NonEmptyGroup)),
                ],
                ..Default::default()
            };
            let codes: Vec<i16> = response.results.iter().map(|g| g.error_code).collect();
            assert_eq!(codes, [0, 68]);
            assert!(response.failed());
            let texts: Vec<bool> = response
                .results
                .iter()
                .map(|g| g.error_message.is_some())
                .collect();
            assert_eq!(texts, [false, true]);
            let mut out = Out::default();
            out.respond::<DeleteGroupsRequest>(1, version, &response)
                .unwrap();
        }
    }
}
