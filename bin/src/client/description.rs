//! Owns what the command line asks about a whole cluster: its brokers, features, and who agrees on its metadata.
//! Does not know how that is shown.
//! Invariant: what a broker does not serve is left out, and is no error.

use super::cluster::Cluster;
use super::error::ClientError;
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::describe_cluster::DescribeClusterRequest;
use millrace_net::wire::describe_quorum::{AskedPartition, AskedTopic, DescribeQuorumRequest};
use millrace_net::wire::Str;
use std::collections::BTreeMap;

/// What clients call the log that the voters agree on.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// A broker of the cluster.
#[derive(Debug, PartialEq)]
pub struct BrokerAt {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

/// Who agrees on the metadata.
#[derive(Debug, PartialEq)]
pub struct Quorum {
    pub leader: i32,
    pub epoch: i32,
    /// Entries agreed on.
    pub committed: i64,
    pub voters: Vec<i32>,
}

#[derive(Debug)]
pub struct Description {
    pub cluster_id: String,
    pub controller: i32,
    pub brokers: Vec<BrokerAt>,
    /// Levels in force.
    pub features: BTreeMap<String, i16>,
    /// None where the broker does not tell.
    pub quorum: Option<Quorum>,
}

pub fn describe(cluster: &mut Cluster) -> Result<Description, ClientError> {
    let request = DescribeClusterRequest::default();
    let answer = cluster.retry(|cluster| cluster.call_any(&request))?;
    let message = answer.error_message.as_deref();
    ClientError::check(|| "the cluster".to_string(), answer.error_code, message)?;
    let brokers = answer.brokers.into_iter().map(|broker| BrokerAt {
        id: broker.broker_id,
        host: broker.host.to_string(),
        port: broker.port,
        rack: broker.rack.map(|rack| rack.to_string()),
    });
    let mut brokers: Vec<BrokerAt> = brokers.collect();
    brokers.sort_by_key(|broker| broker.id);
    Ok(Description {
        cluster_id: answer.cluster_id.to_string(),
        controller: answer.controller_id,
        brokers,
        features: features(cluster)?,
        quorum: quorum(cluster)?,
    })
}

fn features(cluster: &mut Cluster) -> Result<BTreeMap<String, i16>, ClientError> {
    let request = ApiVersionsRequest {
        client_software_name: Str::from_static("millrace"),
        client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
        ..Default::default()
    };
    // From version 5 on it says whom it means, which nobody has to.
    let versions = |cluster: &mut Cluster| {
        cluster.with_any(|conn| {
            let version = conn.version_up_to::<ApiVersionsRequest>(4)?;
            conn.call_at(&request, version)
        })
    };
    let answer = cluster.retry(versions)?;
    ClientError::check(|| "the features".to_string(), answer.error_code, None)?;
    let levels = answer.finalized_features.into_iter();
    let levels = levels.map(|feature| (feature.name.to_string(), feature.max_version_level));
    Ok(levels.collect())
}

fn quorum(cluster: &mut Cluster) -> Result<Option<Quorum>, ClientError> {
    let request = DescribeQuorumRequest {
        topics: vec![AskedTopic {
            topic_name: Str::from_static(METADATA_TOPIC),
            partitions: vec![AskedPartition { partition_index: 0 }],
        }],
    };
    let answer = match cluster.retry(|cluster| cluster.call_any(&request)) {
        Err(ClientError::NoApi { .. }) => return Ok(None),
        answer => answer?,
    };
    let what = || "the quorum".to_string();
    ClientError::check(what, answer.error_code, answer.error_message.as_deref())?;
    let mut partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
    let Some(partition) = partitions.next() else {
        return Ok(None);
    };
    let message = partition.error_message.as_deref();
    ClientError::check(what, partition.error_code, message)?;
    let voters = partition
        .current_voters
        .iter()
        .map(|voter| voter.replica_id);
    Ok(Some(Quorum {
        leader: partition.leader_id,
        epoch: partition.leader_epoch,
        committed: partition.high_watermark,
        voters: voters.collect(),
    }))
}
