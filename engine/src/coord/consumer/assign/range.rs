//! Owns the assignor `range`: each member gets a run of partitions of each topic, the same one where topics are alike.
//! Does not know what members had before: their order, by instance and by id, keeps them in place.
//! Invariant: of each topic members get the same number of partitions, or one more.

use super::Wish;
use crate::coord::consumer::types::Assignment;
use crate::types::TopicId;
use std::collections::BTreeMap;

pub fn assign(members: &[Wish], partitions: &BTreeMap<TopicId, i32>) -> Vec<Assignment> {
    // Static members first, by what stays when they are started again.
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|at| {
        let member = &members[*at];
        (
            member.instance.is_none(),
            member.instance.as_ref().unwrap_or(&member.member),
        )
    });
    let mut wanted: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for at in order {
        for topic in &members[at].topics {
            wanted.entry(*topic).or_default().push(at);
        }
    }
    let mut targets = vec![Assignment::new(); members.len()];
    for (topic, wanting) in wanted {
        let all = partitions.get(&topic).copied().unwrap_or(0);
        let each = all / wanting.len() as i32;
        let more = all % wanting.len() as i32;
        let mut next = 0;
        for (place, at) in (0..).zip(wanting) {
            let count = each + i32::from(place < more);
            if count > 0 {
                targets[at].insert(topic, (next..next + count).collect());
            }
            next += count;
        }
    }
    targets
}
