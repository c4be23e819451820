//! Owns ListGroups: which groups there are.
//! Does not know where their coordinators live: the engine asks all of them.
//! Invariant: a filter only takes away; what it says and nobody knows takes everything away.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::wire::Str;
use millrace_engine::api::coord::{self, GroupError};

/// The types of groups there are.
const CLASSIC: &str = "classic";
const SHARE: &str = "share";

impl Outcome for ListGroupsResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

/// A group and its type.
type Typed = (coord::ListedGroup, &'static str);

pub(crate) async fn handle(shard: &ShardNet, request: ListGroupsRequest) -> ListGroupsResponse {
    answer(&request, all(shard).await)
}

async fn all(shard: &ShardNet) -> Result<Vec<Typed>, GroupError> {
    let typed = |groups: Vec<coord::ListedGroup>, of| groups.into_iter().map(move |g| (g, of));
    let classic = typed(shard.broker.list_groups().await?, CLASSIC);
    let share = typed(shard.broker.list_share_groups().await?, SHARE);
    Ok(classic.chain(share).collect())
}

fn answer(
    request: &ListGroupsRequest,
    groups: Result<Vec<Typed>, GroupError>,
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
    let is_wanted = |(group, of): &Typed| {
        lets_through(&request.states_filter, group.state.name())
            && lets_through(&request.types_filter, of)
    };
    let listed = |(group, of): Typed| ListedGroup {
        group_id: group.group.into(),
        protocol_type: group.protocol_type.into(),
        group_state: Str::from_static(group.state.name()),
        group_type: Str::from_static(of),
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
    use millrace_engine::api::coord::GroupState;

    fn groups() -> Vec<Typed> {
        let group = |name: &str, state| {
            let listed = coord::ListedGroup {
                group: name.into(),
                protocol_type: "consumer".into(),
                state,
            };
            (listed, if name == "d" { SHARE } else { CLASSIC })
        };
        vec![
            group("a", GroupState::Stable),
            group("b", GroupState::Empty),
            group("c", GroupState::PreparingRebalance),
            group("d", GroupState::Empty),
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
        assert_eq!(listed(&["Empty", "no such state"], &[]), "bd");
        assert_eq!(listed(&["no such state"], &[]), "");
        assert_eq!(listed(&[], &["Classic"]), "abc");
        assert_eq!(listed(&["stable"], &["consumer", "classic"]), "a");
        assert_eq!(listed(&[], &["consumer"]), "");
        assert_eq!(listed(&["stable"], &["share"]), "");
        assert_eq!(listed(&[], &["Share"]), "d");
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
