//! Owns ElectLeaders: who asks for an election learns that there is nothing to elect, or why it cannot be done.
//! Does not know how leaders come to be: a partition is led by the node that has it.
//! Invariant: an election is never said to have been held.

use super::admin::Refusal;
use super::Outcome;
use crate::shard::ShardNet;
use crate::wire::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::PartitionMeta;

impl Outcome for ElectLeadersResponse {
    fn failed(&self) -> bool {
        let mut results = self
            .replica_election_results
            .iter()
            .flat_map(|topic| &topic.partition_result);
        let fine = [ErrorCode::None.code(), ErrorCode::ElectionNotNeeded.code()];
        self.error_code != 0 || results.any(|result| !fine.contains(&result.error_code))
    }
}

/// Who shall lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Election {
    /// The first of the replicas.
    Preferred,
    /// Any that lives, where none that has everything does.
    Unclean,
}

pub(crate) async fn handle(shard: &ShardNet, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let election = match request.election_type {
        0 => Election::Preferred,
        1 => Election::Unclean,
        _ => {
            return ElectLeadersResponse {
                error_code: ErrorCode::InvalidRequest.code(),
                ..Default::default()
            }
        }
    };
    let image = shard.broker.image();
    let mut results = Vec::new();
    match request.topic_partitions {
        Some(topics) => {
            for asked in topics {
                let known = image.topic(&asked.topic);
                let one = |index: i32| {
                    let at = usize::try_from(index).ok();
                    let meta = known.and_then(|topic| topic.partitions.get(at?));
                    let refusal =
                        meta.map_or_else(Refusal::unknown_topic, |meta| elect(meta, election));
                    result(index, refusal)
                };
                results.push(ReplicaElectionResult {
                    partition_result: asked.partitions.into_iter().map(one).collect(),
                    topic: asked.topic,
                });
            }
        }
        // Of all partitions those are told for which an election would have been needed.
        None => {
            for topic in image.topics() {
                let all = topic.partitions.iter().enumerate();
                let needed = all.map(|(index, meta)| (index as i32, elect(meta, election)));
                let needed = needed.filter(|(_, why)| why.code != ErrorCode::ElectionNotNeeded);
                let partition_result: Vec<_> =
                    needed.map(|(index, why)| result(index, why)).collect();
                if !partition_result.is_empty() {
                    results.push(ReplicaElectionResult {
                        topic: Str::from(topic.name.clone()),
                        partition_result,
                    });
                }
            }
        }
    }
    ElectLeadersResponse {
        replica_election_results: results,
        ..Default::default()
    }
}

fn result(index: i32, why: Refusal) -> PartitionResult {
    PartitionResult {
        partition_id: index,
        error_code: why.code.code(),
        error_message: Some(why.message.into()),
    }
}

/// Why there is no election.
fn elect(meta: &PartitionMeta, election: Election) -> Refusal {
    let is_led = match election {
        Election::Preferred => meta.replicas.first() == Some(&meta.leader),
        Election::Unclean => meta.leader >= 0,
    };
    match election {
        _ if is_led => Refusal::new(
            ErrorCode::ElectionNotNeeded,
            "The partition has the leader that it would be given.",
        ),
        Election::Preferred => Refusal::new(
            ErrorCode::PreferredLeaderNotAvailable,
            "The first of the partition's replicas cannot lead it now.",
        ),
        Election::Unclean => Refusal::new(
            ErrorCode::EligibleLeadersNotAvailable,
            "None of the partition's replicas can lead it now.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_already_needs_no_election() {
        let code = |leader, election| {
            let meta = PartitionMeta {
                leader,
                leader_epoch: 0,
                replicas: vec![1, 2],
                isr: vec![2],
            };
            elect(&meta, election).code
        };
        use Election::{Preferred, Unclean};
        assert_eq!(code(1, Preferred), ErrorCode::ElectionNotNeeded);
        assert_eq!(code(2, Preferred), ErrorCode::PreferredLeaderNotAvailable);
        assert_eq!(code(2, Unclean), ErrorCode::ElectionNotNeeded);
        assert_eq!(code(-1, Unclean), ErrorCode::EligibleLeadersNotAvailable);
    }
}
