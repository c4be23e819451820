//! Owns ListPartitionReassignments.
//! Does not know which partitions there are: whichever is asked for, it does not move.
//! Invariant: nothing is listed, as nothing is ever begun (`alter_partition_reassignments`).

use super::Outcome;
use crate::wire::list_partition_reassignments::ListPartitionReassignmentsResponse;

impl Outcome for ListPartitionReassignmentsResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle() -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
