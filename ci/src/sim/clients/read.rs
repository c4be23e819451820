//! Owns single reads: one fetch or offset lookup of one partition, decoded into what the checks look at.
//! Does not know what to read next.
//! Invariant: what was known before the request was sent goes with the answer, since answers may overtake each other.

use super::super::model::{Place, Read, SeenBatch};
use super::super::wire::{Conn, Lost};
use super::Shared;
use millrace_engine::types::batch::{crc32c, BatchHeader};
use millrace_net::wire::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use millrace_net::wire::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use millrace_net::wire::Str;

const FETCH_VERSION: i16 = 11;
const LIST_VERSION: i16 = 5;
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
        }],
        ..Default::default()
    };
    let response = conn.call(&request, FETCH_VERSION).await?;
    let data = response.responses.into_iter().flat_map(|t| t.partitions);
    let data = data
        .into_iter()
        .next()
        .expect("an answer for the partition");
    let mut read = Read {
        place: ask.place,
        asked: ask.offset,
        before,
        high_watermark: data.high_watermark,
        log_start: data.log_start_offset,
        batches: Vec::new(),
        garbage: None,
    };
    if data.error_code == 0 {
        decode(&data, &mut read);
    }
    Ok((data.error_code, read))
}

fn decode(data: &PartitionData, read: &mut Read) {
    let bytes: Vec<u8> = data.records.chunks().concat();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let header = match BatchHeader::parse(rest) {
            Ok(header) if header.size <= rest.len() && header.size >= HEADER_BYTES + 8 => header,
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
        let tag = &batch[HEADER_BYTES..HEADER_BYTES + 8];
        read.batches.push(SeenBatch {
            tag: u64::from_be_bytes(tag.try_into().expect("eight bytes")),
            checksum: crc32c(&batch[HEADER_BYTES..]),
            intact: header.crc_matches(batch),
            header,
        });
        rest = behind;
    }
}

/// The offset for a timestamp (or one of Kafka's special ones), with the error code.
pub async fn list_offset(
    conn: &mut Conn,
    place: Place,
    timestamp: i64,
) -> Result<(i16, i64), Lost> {
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
    Ok((found.error_code, found.offset))
}
