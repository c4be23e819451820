//! Owns ListGroups: which groups there are.
//! Does not know where their coordinators live: the engine asks all of them.
//! Invariant: a filter only takes away; what it says and nobody knows takes everything away.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::wire::Str;
use millrace_engine::api::coord::{self, GroupError};

impl Outcome for ListGroupsResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(shard: &ShardNet, request: ListGroupsRequest) -> ListGroupsResponse {
    answer(&request, all(shard).await)
}

async fn all(shard: &ShardNet) -> Result<Vec<coord::ListedGroup>, GroupError> {
    let mut groups = shard.broker.list_groups().await?;
    groups.extend(shard.broker.list_share_groups().await?);
    Ok(groups)
}

fn answer(
    request: &ListGroupsRequest,
    groups: Result<Vec<coord::ListedGroup>, GroupError>,
) -> ListGroupsResponse {
    let groups = match groups {
        Ok(groups) => groups,
        Err(error) => {
            return ListGroupsResponse {
                error_code: errors::group(error).code(),
                ..Default::default()
            }
        }
    };
    let lets_through = |filter: &[Str], value: &str| {
        filter.is_empty()
            || filter
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let is_wanted = |group: &coord::ListedGroup| {
        lets_through(&request.states_filter, group.state)
            && lets_through(&request.types_filter, group.kind)
    };
    let listed = |group: coord::ListedGroup| ListedGroup {
        group_id: group.group.into(),
        protocol_type: group.protocol_type.into(),
        group_state: Str::from_static(group.state),
        group_type: Str::from_static(group.kind),
    };
    ListGroupsResponse {
        groups: groups.into_iter().filter(is_wanted).map(listed).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;
    use millrace_engine::api::coord::{ConsumerState, GroupState};

    fn groups() -> Vec<coord::ListedGroup> {
        let group = |name: &str, kind, state| coord::ListedGroup {
            group: name.into(),
            protocol_type: "consumer".into(),
            kind,
            state,
        };
        vec![
            group("a", "classic", GroupState::Stable.name()),
            group("b", "classic", GroupState::Empty.name()),
            group("c", "classic", GroupState::PreparingRebalance.name()),
            group("d", "consumer", ConsumerState::Reconciling.name()),
        ]
    }

    fn listed(states: &[&'static str], types: &[&'static str]) -> String {
        let filter = |names: &[&'static str]| names.iter().map(|name| Str::from(*name)).collect();
        let request = ListGroupsRequest {
            states_filter: filter(states),
            types_filter: filter(types),
        };
        let response = answer(&request, Ok(groups()));
        response.groups.iter().map(|g| &*g.group_id).collect()
    }

    #[test]
    fn filters_are_of_whatever_case_and_what_nobody_knows_matches_nothing() {
        assert_eq!(listed(&[], &[]), "abcd");
        assert_eq!(listed(&["STABLE", "preparingrebalance"], &[]), "ac");
        assert_eq!(listed(&["Empty", "no such state"], &[]), "b");
        assert_eq!(listed(&["no such state"], &[]), "");
        assert_eq!(listed(&[], &["Classic"]), "abc");
        assert_eq!(listed(&["stable"], &["consumer", "classic"]), "a");
        assert_eq!(listed(&[], &["consumer"]), "d");
        assert_eq!(listed(&["stable"], &["share"]), "");
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        for version in 0..=5 {
            for (groups, error) in [(Ok(groups()), 0), (Err(GroupError::NotAvailable), 15)] {
                let response = answer(&ListGroupsRequest::default(), groups);
                assert_eq!(response.error_code, error);
                assert_eq!(response.groups.is_empty(), error != 0);
                let mut out = Out::default();
                out.respond::<ListGroupsRequest>(1, version, &response)
                    .unwrap();
            }
        }
    }
}
