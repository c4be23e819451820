//! Owns reading partitions of one topic from their leaders: positions, fetches, decoding.
//! Does not know what is done with a record.
//! Invariant: every record from a position on is given once and in order; a position only moves past
//! records that were given, markers and holes.

use super::cluster::{Cluster, Topic};
use super::error::ClientError;
use super::isolation::{Aborted, Isolation};
use millrace_net::wire::batch::Batch;
use millrace_net::wire::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use millrace_net::wire::record::Record;
use millrace_net::wire::{ErrorCode, Str};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const FETCH_BYTES_MAX: i32 = 16 << 20;
const PARTITION_BYTES_FIRST: i32 = 1 << 20;
/// A batch that is larger than this cannot be read.
const PARTITION_BYTES_MAX: i32 = 128 << 20;
/// A batch may not unpack to more than this.
const DECOMPRESSED_BYTES_MAX: usize = 512 << 20;

#[derive(Clone, Debug)]
struct Position {
    offset: i64,
    leader: i32,
    bytes_max: i32,
}

/// Takes a record and its partition, and says whether to go on.
pub type Take<'a> = dyn FnMut(i32, Record) -> ControlFlow<()> + 'a;

/// Reads some partitions of one topic.
pub struct Fetcher {
    topic: String,
    positions: BTreeMap<i32, Position>,
    isolation: Isolation,
}

impl Fetcher {
    /// Reads each partition from the offset given.
    pub fn new(topic: &Topic, offsets: &BTreeMap<i32, i64>, isolation: Isolation) -> Fetcher {
        let positions = topic.partitions.iter().filter_map(|p| {
            let offset = *offsets.get(&p.index)?;
            Some((
                p.index,
                Position {
                    offset,
                    leader: p.leader,
                    bytes_max: PARTITION_BYTES_FIRST,
                },
            ))
        });
        Fetcher {
            topic: topic.name.clone(),
            positions: positions.collect(),
            isolation,
        }
    }

    /// Next offset to be read of a partition that is being read.
    pub fn offset(&self, partition: i32) -> Option<i64> {
        self.positions.get(&partition).map(|p| p.offset)
    }

    pub fn set_offset(&mut self, partition: i32, offset: i64) {
        if let Some(position) = self.positions.get_mut(&partition) {
            position.offset = offset;
        }
    }

    /// Stops reading partitions.
    pub fn retain(&mut self, keep: impl Fn(i32, i64) -> bool) {
        self.positions
            .retain(|index, position| keep(*index, position.offset));
    }

    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Learns the leaders anew; one that is gone stays where it was, to be tried again.
    pub fn refresh(&mut self, cluster: &mut Cluster) -> Result<(), ClientError> {
        let topic = cluster.topic(&self.topic, false)?;
        for partition in topic.partitions {
            if let Some(position) = self.positions.get_mut(&partition.index) {
                position.leader = partition.leader;
            }
        }
        Ok(())
    }

    /// Asks every leader at once and gives what they have; waits up to `wait_ms` for something.
    pub fn poll(
        &mut self,
        cluster: &mut Cluster,
        wait_ms: i32,
        take: &mut Take<'_>,
    ) -> Result<ControlFlow<()>, ClientError> {
        let mut leaders: Vec<i32> = self.positions.values().map(|p| p.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        let result = self.poll_leaders(cluster, &leaders, wait_ms, take);
        if !matches!(result, Ok(ControlFlow::Continue(()))) {
            // Answers may still be under way: they must not be taken for those to later requests.
            leaders.iter().for_each(|leader| cluster.drop_node(*leader));
        }
        result
    }

    fn poll_leaders(
        &mut self,
        cluster: &mut Cluster,
        leaders: &[i32],
        wait_ms: i32,
        take: &mut Take<'_>,
    ) -> Result<ControlFlow<()>, ClientError> {
        for leader in leaders {
            let request = self.request(*leader, wait_ms);
            cluster.with_node(*leader, |conn| conn.send(&request))?;
        }
        let mut first_error = None;
        for leader in leaders {
            let answer = cluster.with_node(*leader, |conn| conn.receive::<FetchRequest>())?;
            ClientError::check(
                || format!("fetch from {}", self.topic),
                answer.error_code,
                None,
            )?;
            for part in answer.responses.into_iter().flat_map(|t| t.partitions) {
                match self.take_partition(part, take) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
                    Err(error) => {
                        first_error.get_or_insert(error);
                    }
                }
            }
        }
        first_error.map_or(Ok(ControlFlow::Continue(())), Err)
    }

    fn request(&self, leader: i32, wait_ms: i32) -> FetchRequest {
        let partitions = self
            .positions
            .iter()
            .filter(|(_, p)| p.leader == leader)
            .map(|(index, p)| FetchPartition {
                partition: *index,
                fetch_offset: p.offset,
                partition_max_bytes: p.bytes_max,
                ..FetchPartition::default()
            });
        let partitions: Vec<FetchPartition> = partitions.collect();
        let max_bytes = partitions
            .iter()
            .map(|p| p.partition_max_bytes)
            .fold(FETCH_BYTES_MAX, i32::max);
        FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes,
            isolation_level: self.isolation.code(),
            topics: vec![FetchTopic {
                topic: Str::from(self.topic.clone()),
                partitions,
                ..Default::default()
            }],
            ..FetchRequest::default()
        }
    }

    fn take_partition(
        &mut self,
        part: PartitionData,
        take: &mut Take<'_>,
    ) -> Result<ControlFlow<()>, ClientError> {
        let index = part.partition_index;
        let what = || format!("partition {index} of {}", self.topic);
        ClientError::check(what, part.error_code, None)?;
        let Some(position) = self.positions.get_mut(&index) else {
            return Ok(ControlFlow::Continue(()));
        };
        // Brokers say "nothing new" by null or by no bytes.
        let mut bytes = part.records.to_bytes().unwrap_or_default();
        let got_bytes = !bytes.is_empty();
        let begun_at = position.offset;
        let bad = |e: &dyn std::fmt::Display, offset: i64| {
            ClientError::Batch(format!(
                "partition {index} of {} is unreadable at offset {offset}: {e}",
                self.topic
            ))
        };
        let mut aborted = Aborted::new(part.aborted_transactions);
        while let Some(batch) = Batch::take(&mut bytes).map_err(|e| bad(&e, position.offset))? {
            let hidden = aborted.hides(&batch, DECOMPRESSED_BYTES_MAX);
            let hidden = hidden.map_err(|e| bad(&e, position.offset))?;
            if !hidden && !batch.header.is_control() {
                for record in batch
                    .records(DECOMPRESSED_BYTES_MAX)
                    .map_err(|e| bad(&e, position.offset))?
                {
                    let record = record.map_err(|e| bad(&e, position.offset))?;
                    if record.offset < position.offset {
                        // The first batch may begin before the offset asked for.
                        continue;
                    }
                    position.offset = record.offset + 1;
                    if take(index, record).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            position.offset = position.offset.max(batch.header.next_offset());
        }
        if got_bytes && position.offset == begun_at {
            // Older brokers cut the first batch at the limit: ask for more of it.
            if position.bytes_max >= PARTITION_BYTES_MAX {
                return Err(bad(
                    &format!("a batch exceeds {PARTITION_BYTES_MAX} bytes"),
                    begun_at,
                ));
            }
            position.bytes_max *= 2;
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Whether a fetch failed because its position is not in the log (any more).
pub fn is_out_of_range(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::OffsetOutOfRange)
}
