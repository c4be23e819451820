//! Owns the calls about share groups: where one is in its partitions, and who is in it.
//! Does not know how their results are shown.
//! Invariant: a call about one group goes to its coordinator.

use super::cluster::Cluster;
use super::error::ClientError;
use super::groups::{coordinated, is_worth_repeating, Place};
use millrace_net::wire::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, ShareOffsetsGroup,
};
use millrace_net::wire::share_group_describe::ShareGroupDescribeRequest;
use millrace_net::wire::Str;
use std::collections::BTreeMap;

/// The type of these groups in a list of groups.
pub const SHARE: &str = "share";

/// Where a group is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareOffset {
    /// None where nothing was read yet.
    pub start: Option<i64>,
    pub lag: Option<i64>,
}

/// Who is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareMember {
    pub id: String,
    pub client_id: String,
    pub host: String,
    pub places: Vec<Place>,
}

/// Where a group is in all partitions that it has read; errors of single partitions leave them out.
pub fn offsets(
    cluster: &mut Cluster,
    group: &str,
) -> Result<BTreeMap<Place, ShareOffset>, ClientError> {
    let what = || format!("the offsets of share group {group}");
    let request = DescribeShareGroupOffsetsRequest {
        groups: vec![ShareOffsetsGroup {
            group_id: Str::from(group.to_string()),
            topics: None,
        }],
    };
    coordinated(cluster, group, is_worth_repeating, |cluster, at| {
        let answer = cluster.with_node(at.node, |conn| conn.call(&request))?;
        let mut all = BTreeMap::new();
        for found in answer.groups {
            ClientError::check(what, found.error_code, found.error_message.as_deref())?;
            for topic in found.topics {
                for partition in topic.partitions.iter().filter(|p| p.error_code == 0) {
                    let place = (topic.topic_name.to_string(), partition.partition_index);
                    let known = |number: i64| (number >= 0).then_some(number);
                    let offset = ShareOffset {
                        start: known(partition.start_offset),
                        lag: known(partition.lag),
                    };
                    all.insert(place, offset);
                }
            }
        }
        Ok(all)
    })
}

/// The members of a group.
pub fn members(cluster: &mut Cluster, group: &str) -> Result<Vec<ShareMember>, ClientError> {
    let what = || format!("share group {group}");
    let request = ShareGroupDescribeRequest {
        group_ids: vec![Str::from(group.to_string())],
        ..Default::default()
    };
    coordinated(cluster, group, is_worth_repeating, |cluster, at| {
        let answer = cluster.with_node(at.node, |conn| conn.call(&request))?;
        let mut all = Vec::new();
        for found in answer.groups {
            ClientError::check(what, found.error_code, found.error_message.as_deref())?;
            for member in found.members {
                let topics = member.assignment.topic_partitions.iter();
                let places = topics.flat_map(|topic| {
                    let name = topic.topic_name.to_string();
                    topic.partitions.iter().map(move |p| (name.clone(), *p))
                });
                all.push(ShareMember {
                    id: member.member_id.to_string(),
                    client_id: member.client_id.to_string(),
                    host: member.client_host.to_string(),
                    places: places.collect(),
                });
            }
        }
        Ok(all)
    })
}
