//! Owns ShareGroupDescribe: share groups with their members.
//! Does not know groups.
//! Invariant: every group asked for is answered, in the order of the request.

use super::{allowed, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::share_group_describe::{
    DescribedShareAssignment, DescribedShareGroup, DescribedShareMember, DescribedShareTopic,
    ShareGroupDescribeRequest, ShareGroupDescribeResponse,
};
use crate::wire::Str;
use millrace_engine::api::share::{self, Partitions, ShareError};
use millrace_engine::api::Image;
use uuid::Uuid;

/// The only assignor, by Kafka's name.
const ASSIGNOR: &str = "simple";

impl Outcome for ShareGroupDescribeResponse {
    fn failed(&self) -> bool {
        self.groups.iter().any(|group| group.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
    let operations = allowed::if_asked(request.include_authorized_operations, allowed::WITH_GROUP);
    let one = |group: Str| async move {
        let described = shard.broker.describe_share_group(group.to_string()).await;
        let mut known = answer(&shard.broker.image(), group, described);
        if known.error_code == 0 {
            known.authorized_operations = operations;
        }
        known
    };
    ShareGroupDescribeResponse {
        groups: super::for_each(super::each_once(request.group_ids, Str::clone), one).await,
        ..Default::default()
    }
}

fn answer(
    image: &Image,
    group_id: Str,
    described: Result<share::DescribedShareGroup, ShareError>,
) -> DescribedShareGroup {
    // A topic that is gone has no name any more.
    let topics = |assigned: Partitions| {
        let known = assigned.into_iter().filter_map(|(topic, partitions)| {
            Some(DescribedShareTopic {
                topic_id: Uuid::from_bytes(topic.0),
                topic_name: image.topic_by_id(topic)?.name.clone().into(),
                partitions,
            })
        });
        known.collect()
    };
    let member = |member: share::DescribedShareMember| DescribedShareMember {
        member_id: member.member.into(),
        rack_id: member.rack.map(Str::from),
        member_epoch: member.epoch,
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        subscribed_topic_names: member.topics.into_iter().map(Str::from).collect(),
        assignment: DescribedShareAssignment {
            topic_partitions: topics(member.assignment),
        },
    };
    match described {
        Ok(known) => DescribedShareGroup {
            group_id,
            group_state: Str::from_static(known.state),
            group_epoch: known.epoch,
            assignment_epoch: known.assignment_epoch,
            assignor_name: Str::from_static(ASSIGNOR),
            members: known.members.into_iter().map(member).collect(),
            ..Default::default()
        },
        Err(error) => DescribedShareGroup {
            error_code: errors::share(&error).code(),
            error_message: Some(format!("Group {group_id}: {error}.").into()),
            group_id,
            ..Default::default()
        },
    }
}
