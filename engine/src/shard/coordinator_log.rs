//! Owns reading the log of a coordinator's partition from its start to its end, record by record.
//! Does not know what the records say.
//! Invariant: every record and every marker is handed over once, in the order of the log.

use super::Shard;
use crate::api::{FetchItem, FetchOptions, Fetched};
use crate::coord::batch;
use crate::error::PartitionError;
use crate::log::marker::outcome;
use crate::log::Partition;
use crate::rt;
use crate::types::batch::BatchHeader;
use crate::types::limits::COORDINATOR_READ_BYTES;
use crate::types::PartitionId;
use std::rc::Rc;
use std::time::Duration;

/// What a batch has.
pub(super) enum Logged<'a> {
    Record {
        key: &'a [u8],
        value: Option<&'a [u8]>,
    },
    /// The end of a transaction of the batch's producer.
    Marker { commit: bool },
}

/// Milliseconds of the monotonic clock.
pub(super) fn now_ms() -> u64 {
    rt::now().as_nanos() / 1_000_000
}

impl Shard {
    /// Hands over all that a partition of this shard has, with the header of its batch; gives the bytes it took.
    pub(super) async fn read_own(
        self: &Rc<Self>,
        partition: &Partition,
        mut take: impl FnMut(&BatchHeader, Logged),
    ) -> Result<u64, PartitionError> {
        let (bounds, _) = partition.bounds(false);
        let mut offset = bounds.log_start;
        let mut bytes = 0;
        let options = FetchOptions {
            max_wait: Duration::ZERO,
            min_bytes: 0,
            max_bytes: COORDINATOR_READ_BYTES,
            read_committed: false,
        };
        while offset < bounds.high_watermark {
            let item = FetchItem {
                partition: partition.id,
                offset,
                max_bytes: COORDINATOR_READ_BYTES,
                current_leader_epoch: -1,
                last_fetched_epoch: -1,
            };
            let mut fetched = self.clone().fetch(vec![item], options).await;
            let fetched = fetched.pop().expect("one result for one item")?;
            bytes += fetched.bytes() as u64;
            match hand_over(&fetched, offset, &mut take).await? {
                Some(next) if next > offset => offset = next,
                // A fetch that has to wait for memory may find nothing.
                Some(_) | None if self.stopping.get() => return Err(PartitionError::Stopping),
                Some(_) | None => rt::sleep(Duration::from_millis(10)).await,
            }
        }
        Ok(bytes)
    }

    pub(super) fn has_records(&self, id: PartitionId) -> bool {
        let known = self.partitions.borrow().get(&id).cloned();
        known.is_some_and(|p| {
            let log = p.log.borrow();
            log.next_offset > log.log_start
        })
    }

    /// The partitions of a topic that this shard owns.
    pub(super) fn own_partitions(&self, topic: &str) -> Vec<PartitionId> {
        let image = self.image.borrow();
        let Some(topic) = image.topic(topic) else {
            return Vec::new();
        };
        (0..topic.partitions.len() as i32)
            .map(|index| PartitionId::new(topic.id, index))
            .filter(|id| id.shard(self.shards) == self.index)
            .collect()
    }
}

/// Hands over what was read, and gives the offset behind it, if there was anything. Batches that end before `offset` were
/// handed over already.
async fn hand_over(
    fetched: &Fetched,
    offset: i64,
    take: &mut impl FnMut(&BatchHeader, Logged<'_>),
) -> Result<Option<i64>, PartitionError> {
    let mut next = None;
    for chunk in &fetched.records {
        let mut bytes: &[u8] = chunk.as_ref();
        while !bytes.is_empty() {
            let header = BatchHeader::parse(bytes).map_err(PartitionError::Corrupt)?;
            if header.size > bytes.len() {
                return Err(PartitionError::Storage(
                    "a batch ends beyond what was read".into(),
                ));
            }
            let (batch, rest) = bytes.split_at(header.size);
            bytes = rest;
            next = Some(header.next_offset());
            if header.next_offset() <= offset {
                continue;
            }
            let records =
                batch::records(batch).map_err(|e| PartitionError::Storage(e.to_string()))?;
            for (key, value) in records {
                let Some(key) = key else { continue };
                match header.is_control() {
                    false => take(
                        &header,
                        Logged::Record {
                            key: &key,
                            value: value.as_deref(),
                        },
                    ),
                    true => {
                        if let Some(commit) = outcome(&key) {
                            take(&header, Logged::Marker { commit });
                        }
                    }
                }
            }
            rt::yield_if_needed().await;
        }
    }
    Ok(next)
}
