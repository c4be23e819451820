//! Owns DescribeShareGroupOffsets: where share groups are.
//! Does not know how that is kept.
//! Invariant: every group asked for is answered, and every partition of it that was named.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, DescribedShareOffset,
    DescribedShareOffsetsGroup, DescribedShareOffsetsTopic, ShareOffsetsGroup,
};
use crate::wire::ErrorCode;
use millrace_engine::api::share::{ShareError, ShareOffset};
use std::collections::HashSet;
use uuid::Uuid;

impl Outcome for DescribeShareGroupOffsetsResponse {
    fn failed(&self) -> bool {
        self.groups.iter().any(|group| group.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    mut request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    // As in OffsetFetch.
    let mut whole = HashSet::new();
    let groups = &mut request.groups;
    groups.retain(|asked| asked.topics.is_some() || whole.insert(asked.group_id.clone()));
    let one = |group: ShareOffsetsGroup| describe(shard, group);
    DescribeShareGroupOffsetsResponse {
        groups: super::for_each(request.groups, one).await,
        ..Default::default()
    }
}

async fn describe(shard: &ShardNet, asked: ShareOffsetsGroup) -> DescribedShareOffsetsGroup {
    let group_id = asked.group_id;
    let image = shard.broker.image();
    let mut unknown = Vec::new();
    let topics = asked.topics.map(|topics| {
        let named = topics.into_iter().filter_map(|topic| {
            if image.topic(&topic.topic_name).is_some() {
                return Some((topic.topic_name.to_string(), topic.partitions));
            }
            unknown.push(topic);
            None
        });
        named.collect::<Vec<_>>()
    });
    let found = shard.broker.describe_share_offsets(&group_id, topics).await;
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            return DescribedShareOffsetsGroup {
                error_code: errors::share(&error).code(),
                error_message: Some(format!("Group {group_id}: {error}.").into()),
                group_id,
                ..Default::default()
            }
        }
    };
    let topic = |(id, name, partitions): (millrace_engine::types::TopicId, String, Vec<_>)| {
        DescribedShareOffsetsTopic {
            topic_name: name.into(),
            topic_id: Uuid::from_bytes(id.0),
            partitions: partitions.into_iter().map(partition).collect(),
        }
    };
    let mut topics: Vec<_> = found.into_iter().map(topic).collect();
    for asked in unknown {
        let missing = |index| DescribedShareOffset {
            partition_index: index,
            start_offset: -1,
            error_code: ErrorCode::UnknownTopicOrPartition.code(),
            ..Default::default()
        };
        topics.push(DescribedShareOffsetsTopic {
            topic_name: asked.topic_name,
            partitions: asked.partitions.into_iter().map(missing).collect(),
            ..Default::default()
        });
    }
    DescribedShareOffsetsGroup {
        group_id,
        topics,
        ..Default::default()
    }
}

fn partition((index, found): (i32, Result<ShareOffset, ShareError>)) -> DescribedShareOffset {
    match found {
        Ok(offset) => DescribedShareOffset {
            partition_index: index,
            start_offset: offset.start,
            leader_epoch: offset.leader_epoch,
            lag: offset.lag,
            ..Default::default()
        },
        Err(error) => DescribedShareOffset {
            partition_index: index,
            start_offset: -1,
            error_code: errors::share(&error).code(),
            error_message: Some(error.to_string().into()),
            ..Default::default()
        },
    }
}
