//! Owns single reads: one fetch or offset lookup of one partition, decoded into what the checks look at.
//! Does not know what to read next.
//! Invariant: what was known before the request was sent goes with the answer, since answers may overtake each other.

use super::super::model::{Bounds, Content, Place, Read, SeenBatch};
use super::super::wire::{Conn, Lost};
use super::Shared;
use millrace_engine::types::batch::BatchHeader;
use millrace_net::wire::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use millrace_net::wire::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use millrace_net::wire::Str;

const FETCH_VERSION: i16 = 11;
/// The first with the largest timestamp.
const LIST_VERSION: i16 = 7;
const HEADER_BYTES: usize = 61;

/// What a fetch asks of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub place: Place,
    pub offset: i64,
    pub bytes_max: i32,
    pub wait_ms: i32,
}

/// A partition's answer, before it is checked; the error code goes with it.
pub async fn fetch(shared: &Shared, conn: &mut Conn, ask: Ask) -> Result<(i16, Read), Lost> {
    let before = shared.model.borrow().bounds(ask.place);
    let request = FetchRequest {
        max_wait_ms: ask.wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic: Str::from(format!("t{}", ask.place.topic)),
            partitions: vec![FetchPartition {
                partition: ask.place.index,
                fetch_offset: ask.offset,
                partition_max_bytes: ask.bytes_max,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = conn.call(&request, FETCH_VERSION).await?;
    let mut data = response.responses.into_iter().flat_map(|t| t.partitions);
    let data = data.next().expect("an answer for the partition");
    Ok((
        data.error_code,
        seen(shared, ask.place, ask.offset, before, &data),
    ))
}

/// What a partition's answer to a fetch says.
pub fn seen(
    shared: &Shared,
    place: Place,
    asked: i64,
    before: Bounds,
    data: &PartitionData,
) -> Read {
    let mut read = Read {
        place,
        asked,
        before,
        high_watermark: data.high_watermark,
        log_start: data.log_start_offset,
        batches: Vec::new(),
        alone: true,
        garbage: None,
    };
    if data.error_code == 0 {
        decode(shared, data, &mut read);
    }
    read
}

fn decode(shared: &Shared, data: &PartitionData, read: &mut Read) {
    let model = shared.model.borrow();
    let bytes: Vec<u8> = data.records.chunks().concat();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let header = match BatchHeader::parse(rest) {
            Ok(header) if header.size <= rest.len() && header.size >= HEADER_BYTES => header,
            Ok(header) => {
                read.garbage = Some(format!("a batch of {} bytes", header.size));
                return;
            }
            Err(error) => {
                read.garbage = Some(error.to_string());
                return;
            }
        };
        let (batch, behind) = rest.split_at(header.size);
        read.batches.push(SeenBatch {
            tag: model.tag_of(Content::of(&batch[HEADER_BYTES..])),
            intact: header.crc_matches(batch),
            header,
        });
        rest = behind;
    }
}

/// What a partition says of a timestamp.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    pub code: i16,
    /// -1 where there is none.
    pub offset: i64,
    pub timestamp_ms: i64,
}

/// The offset for a timestamp (or one of Kafka's special ones).
pub async fn list_offset(conn: &mut Conn, place: Place, timestamp: i64) -> Result<Listed, Lost> {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: Str::from(format!("t{}", place.topic)),
            partitions: vec![ListOffsetsPartition {
                partition_index: place.index,
                current_leader_epoch: -1,
                timestamp,
            }],
        }],
        ..Default::default()
    };
    let response = conn.call(&request, LIST_VERSION).await?;
    let found = response.topics.iter().flat_map(|t| &t.partitions).next();
    let found = found.expect("an answer for the partition");
    Ok(Listed {
        code: found.error_code,
        offset: found.offset,
        timestamp_ms: found.timestamp,
    })
}
