//! Owns requests built before the run: record batches, whole produce frames, and fetch frames patched in place.
//! Does not know connections or when a request leaves.
//! Invariant: what leaves is what the wire codec wrote, but for the correlation id and the fetch offsets.

use crate::error::PerfError;
use crate::scan::{FETCH_VERSION, PRODUCE_VERSION};
use bytes::Bytes;
use millrace_net::wire::batch::{BatchBuilder, HEADER_BYTES};
use millrace_net::wire::compress::Compression;
use millrace_net::wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use millrace_net::wire::frame::encode_request_pieces;
use millrace_net::wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millrace_net::wire::record::Record;
use millrace_net::wire::Str;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes from the start of a frame to the end of its correlation id: size, key, version, id.
pub const PREFIX_BYTES: usize = 12;
/// Where in the prefix the correlation id is.
const CORRELATION_AT: usize = 8;
/// Bytes of one partition in a fetch request of [`FETCH_VERSION`].
const FETCH_PARTITION_BYTES: usize = 28;
/// Where among those the offset is: after partition and leader epoch.
const FETCH_OFFSET_AT: usize = 8;
/// Bytes of the topic's name length before, and of what follows the topics: no forgotten topics, an empty rack.
const FETCH_TAIL_BYTES: usize = 4 + 2;

/// Bytes of a record's key, where it has one.
const KEY_BYTES: usize = 8;

/// The name this program tells brokers.
pub const CLIENT_ID: &str = "millrace-perf";

/// A record batch, shared by all frames that carry it.
#[derive(Clone, Debug)]
pub struct BuiltBatch {
    pub bytes: Bytes,
    pub records: u64,
}

/// What a batch is made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BatchShape {
    /// Bytes of each record's value.
    pub record_bytes: usize,
    /// Each record has a key, as those that were hashed to their partition have.
    pub keyed: bool,
    /// Share of each value that compresses to nothing, 0 to 1; the rest does not compress.
    pub compressibility: f64,
    #[serde(serialize_with = "codec_name")]
    pub codec: Compression,
}

fn codec_name<S: serde::Serializer>(codec: &Compression, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(codec.name())
}

impl BatchShape {
    /// Without keys and compression.
    pub fn plain(record_bytes: usize) -> BatchShape {
        BatchShape {
            record_bytes,
            keyed: false,
            compressibility: 0.0,
            codec: Compression::None,
        }
    }

    /// A batch of `count` records.
    pub fn batch(&self, count: usize) -> Result<BuiltBatch, PerfError> {
        self.build(count, self.codec)
    }

    fn build(&self, count: usize, codec: Compression) -> Result<BuiltBatch, PerfError> {
        assert!((0.0..=1.0).contains(&self.compressibility));
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp_ms = since_1970.map_or(0, |d| d.as_millis() as i64);
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let noise_bytes =
            (self.record_bytes as f64 * (1.0 - self.compressibility)).round() as usize;
        let mut builder = BatchBuilder::new(codec);
        for _ in 0..count {
            let key = self.keyed.then(|| noise.bytes(KEY_BYTES, KEY_BYTES));
            builder.push(&Record {
                timestamp_ms,
                key,
                value: Some(noise.bytes(noise_bytes, self.record_bytes)),
                ..Default::default()
            })?;
        }
        Ok(BuiltBatch {
            bytes: builder.build()?,
            records: count as u64,
        })
    }

    /// The largest batch that is no longer than `batch_bytes` before it is compressed, of one record at the least.
    ///
    /// As a client's `batch.size` means it: header and framing of the records count.
    pub fn batch_within(&self, batch_bytes: usize) -> Result<BuiltBatch, PerfError> {
        self.batch(self.records_within(batch_bytes)?)
    }

    /// Records of the largest batch that is no longer than `batch_bytes` before it is compressed; at least one.
    pub fn records_within(&self, batch_bytes: usize) -> Result<usize, PerfError> {
        // A record adds 7 to 14 bytes to its key and value here; the guess is corrected below.
        let key_bytes = if self.keyed { KEY_BYTES } else { 0 };
        let room = batch_bytes.saturating_sub(HEADER_BYTES);
        let mut count = (room / (self.record_bytes + key_bytes + 7)).max(1);
        while count > 1 && self.build(count, Compression::None)?.bytes.len() > batch_bytes {
            count -= 1;
        }
        Ok(count)
    }
}

/// A batch of `count` records whose values have `record_bytes`, filled with bytes that do not compress.
pub fn batch(record_bytes: usize, count: usize) -> Result<BuiltBatch, PerfError> {
    BatchShape::plain(record_bytes).batch(count)
}

/// Puts `items` in an order that depends on `seed` alone.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d ^ (seed + 1));
    for last in (1..items.len()).rev() {
        items.swap(last, (noise.next() % (last as u64 + 1)) as usize);
    }
}

/// A fast generator of bytes; always the same, so that runs compare.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// So much noise, then the same byte again and again up to `length`.
    fn bytes(&mut self, noise: usize, length: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < noise {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(noise);
        bytes.resize(length, b'=');
        Bytes::from(bytes)
    }
}

/// A request frame ready to leave, but for its correlation id.
#[derive(Clone, Debug)]
pub struct Template {
    prefix: [u8; PREFIX_BYTES],
    /// What follows the prefix; batches are shared with other templates.
    pub rest: Vec<Bytes>,
    /// Of the whole frame, size prefix included.
    pub frame_bytes: usize,
    /// Of record batches in it.
    pub batch_bytes: u64,
    pub records: u64,
}

impl Template {
    /// Splits a frame that the codec wrote.
    fn new(mut pieces: Vec<Bytes>) -> Template {
        let frame_bytes = pieces.iter().map(Bytes::len).sum();
        let head = pieces.first_mut().expect("a frame has a header");
        assert!(
            head.len() >= PREFIX_BYTES,
            "the header is in the first piece"
        );
        let prefix = head.split_to(PREFIX_BYTES);
        pieces.retain(|piece| !piece.is_empty());
        Template {
            prefix: prefix[..].try_into().expect("as many bytes"),
            rest: pieces,
            frame_bytes,
            batch_bytes: 0,
            records: 0,
        }
    }

    /// A produce request that brings `batch` to each of `partitions`.
    pub fn produce(
        topic: &str,
        partitions: &[i32],
        batch: &BuiltBatch,
        acks: i16,
        timeout_ms: i32,
    ) -> Result<Template, PerfError> {
        let partition_data = partitions
            .iter()
            .map(|&index| PartitionProduceData {
                index,
                records: Some(batch.bytes.clone()),
            })
            .collect();
        let request = ProduceRequest {
            transactional_id: None,
            acks,
            timeout_ms,
            topic_data: vec![TopicProduceData {
                name: Str::from(topic.to_string()),
                partition_data,
                ..Default::default()
            }],
        };
        let pieces = encode_request_pieces(0, Some(CLIENT_ID.into()), &request, PRODUCE_VERSION)?;
        let mut template = Template::new(pieces);
        template.batch_bytes = (batch.bytes.len() * partitions.len()) as u64;
        template.records = batch.records * partitions.len() as u64;
        Ok(template)
    }

    /// The first bytes of the frame, as request `correlation`.
    pub fn prefix(&self, correlation: i32) -> [u8; PREFIX_BYTES] {
        let mut prefix = self.prefix;
        prefix[CORRELATION_AT..].copy_from_slice(&correlation.to_be_bytes());
        prefix
    }
}

/// A fetch request without a session, whose offsets change from one sending to the next.
#[derive(Clone, Debug)]
pub struct FetchTemplate {
    prefix: [u8; PREFIX_BYTES],
    rest: Vec<u8>,
    partitions_at: usize,
}

/// How much a fetch asks for, and how long it waits for that.
#[derive(Clone, Copy, Debug)]
pub struct FetchWishes {
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
}

impl FetchTemplate {
    pub fn new(topic: &str, partitions: &[i32], wishes: FetchWishes) -> Result<Self, PerfError> {
        assert!(!partitions.is_empty());
        let partition_list = partitions
            .iter()
            .map(|&partition| FetchPartition {
                partition,
                partition_max_bytes: wishes.partition_max_bytes,
                ..Default::default()
            })
            .collect();
        let request = FetchRequest {
            max_wait_ms: wishes.max_wait_ms,
            min_bytes: wishes.min_bytes,
            max_bytes: wishes.max_bytes,
            topics: vec![FetchTopic {
                topic: Str::from(topic.to_string()),
                partitions: partition_list,
                ..Default::default()
            }],
            ..Default::default()
        };
        let pieces = encode_request_pieces(0, Some(CLIENT_ID.into()), &request, FETCH_VERSION)?;
        let frame = pieces.concat();
        let (prefix, rest) = frame.split_at(PREFIX_BYTES);
        let partitions_at =
            rest.len() - FETCH_TAIL_BYTES - FETCH_PARTITION_BYTES * partitions.len();
        Ok(FetchTemplate {
            prefix: prefix.try_into().expect("as many bytes"),
            rest: rest.to_vec(),
            partitions_at,
        })
    }

    /// Asks for the partition at `index` of those given to [`new`](Self::new) from `offset` on.
    pub fn set_offset(&mut self, index: usize, offset: i64) {
        let at = self.partitions_at + FETCH_PARTITION_BYTES * index + FETCH_OFFSET_AT;
        self.rest[at..at + 8].copy_from_slice(&offset.to_be_bytes());
    }

    /// The frame as it is now.
    pub fn snapshot(&self) -> Template {
        Template {
            prefix: self.prefix,
            rest: vec![Bytes::copy_from_slice(&self.rest)],
            frame_bytes: PREFIX_BYTES + self.rest.len(),
            batch_bytes: 0,
            records: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_net::wire::batch::Batch;
    use millrace_net::wire::frame::{RequestHeader, SIZE_PREFIX_BYTES};
    use millrace_net::wire::{ApiKey, Message, Reader, Request};

    fn decode<R: Request>(template: &Template, correlation: i32) -> (RequestHeader, R) {
        let mut frame = template.prefix(correlation).to_vec();
        frame.extend(template.rest.iter().flatten());
        assert_eq!(frame.len(), template.frame_bytes);
        let size = i32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
        assert_eq!(size as usize + SIZE_PREFIX_BYTES, frame.len());
        let mut reader = Reader::new(Bytes::from(frame).slice(SIZE_PREFIX_BYTES..));
        let (header, _) = RequestHeader::decode(&mut reader).expect("a header");
        let request = R::decode(&mut reader, header.version).expect("a request");
        reader.finish().expect("no more");
        (header, request)
    }

    #[test]
    fn a_patched_produce_frame_is_what_the_codec_reads() {
        for (record_bytes, count, partitions) in [
            (1_024, 60, &[3][..]),
            (10, 1, &[0, 9, 4][..]),
            (1_000, 1, &[0, 1]),
        ] {
            let batch = batch(record_bytes, count).expect("builds");
            let template =
                Template::produce("topic", partitions, &batch, -1, 1_500).expect("encodes");
            for correlation in [0, 1, i32::MAX, -7] {
                let (header, request) = decode::<ProduceRequest>(&template, correlation);
                assert_eq!(header.correlation_id, correlation);
                assert_eq!(
                    (header.key, header.version),
                    (ApiKey::Produce, PRODUCE_VERSION)
                );
                assert_eq!((request.acks, request.timeout_ms), (-1, 1_500));
                let data = &request.topic_data[0].partition_data;
                let indexes: Vec<i32> = data.iter().map(|p| p.index).collect();
                assert_eq!(indexes, partitions);
                for partition in data {
                    let records = partition.records.clone().expect("not null");
                    let batch = Batch::decode(records).expect("a sound batch");
                    assert_eq!(batch.header.record_count as usize, count);
                }
            }
            assert_eq!(template.records, (count * partitions.len()) as u64);
            assert_eq!(
                template.batch_bytes,
                (batch.bytes.len() * partitions.len()) as u64
            );
        }
    }

    #[test]
    fn large_batches_are_shared_and_not_copied_into_each_frame() {
        let batch = batch(1_024, 60).expect("builds");
        let template = Template::produce("topic", &[0, 1], &batch, 1, 1).expect("encodes");
        let shared = template
            .rest
            .iter()
            .filter(|p| p.as_ptr() == batch.bytes.as_ptr());
        assert_eq!(shared.count(), 2);
    }

    #[test]
    fn patched_fetch_offsets_are_what_the_codec_reads() {
        let wishes = FetchWishes {
            max_wait_ms: 11,
            min_bytes: 12,
            max_bytes: 13,
            partition_max_bytes: 14,
        };
        let mut template = FetchTemplate::new("topic", &[7, 2, 5], wishes).expect("encodes");
        for (index, offset) in [(0, 70), (1, i64::MAX), (2, 50), (0, 71)] {
            template.set_offset(index, offset);
        }
        let (header, request) = decode::<FetchRequest>(&template.snapshot(), 6);
        assert_eq!((header.correlation_id, header.version), (6, FETCH_VERSION));
        assert_eq!(
            (request.max_wait_ms, request.min_bytes, request.max_bytes),
            (11, 12, 13)
        );
        assert_eq!((request.session_id, request.session_epoch), (0, -1));
        let asked: Vec<(i32, i64, i32)> = request.topics[0]
            .partitions
            .iter()
            .map(|p| (p.partition, p.fetch_offset, p.partition_max_bytes))
            .collect();
        assert_eq!(asked, [(7, 71, 14), (2, i64::MAX, 14), (5, 50, 14)]);
    }

    #[test]
    fn batches_are_as_full_as_they_may_be() {
        for (record, limit) in [(1_024, 65_536), (100, 16_384), (1_024, 1_024), (1, 1_000)] {
            for keyed in [false, true] {
                let shape = BatchShape {
                    keyed,
                    ..BatchShape::plain(record)
                };
                let built = shape.batch_within(limit).expect("builds");
                let more = shape.batch(built.records as usize + 1).expect("builds");
                assert!(more.bytes.len() > limit, "{record} in {limit}");
                assert!(built.bytes.len() <= limit || built.records == 1);
            }
        }
    }

    #[test]
    fn compressible_values_shrink_by_their_share_and_are_whole_batches() {
        for codec in [Compression::Lz4, Compression::Zstd] {
            let shape = BatchShape {
                compressibility: 0.75,
                codec,
                ..BatchShape::plain(1_024)
            };
            let built = shape.batch_within(64 << 10).expect("builds");
            let plain = built.records as usize * 1_024;
            let share = built.bytes.len() as f64 / plain as f64;
            assert!(
                (0.2..0.35).contains(&share),
                "{share} with {}",
                codec.name()
            );
            let batch = Batch::decode(built.bytes).expect("a sound batch");
            assert_eq!(batch.header.compression().expect("known"), codec);
            let records = batch.records(plain * 2).expect("decompresses");
            assert_eq!(records.count() as u64, built.records);
        }
    }

    #[test]
    fn keyed_records_have_different_keys() {
        let shape = BatchShape {
            keyed: true,
            ..BatchShape::plain(10)
        };
        let batch = Batch::decode(shape.batch(50).expect("builds").bytes).expect("sound");
        let keys: std::collections::HashSet<Bytes> = batch
            .records(1 << 20)
            .expect("readable")
            .filter_map(|record| record.expect("readable").key)
            .collect();
        assert_eq!(keys.len(), 50);
    }

    #[test]
    fn values_do_not_compress() {
        let bytes = batch(1_024, 60).expect("builds").bytes;
        let packed = Compression::Zstd.compress(&bytes).expect("compresses");
        assert!(
            packed.len() * 100 > bytes.len() * 95,
            "{} of {}",
            packed.len(),
            bytes.len()
        );
    }

    #[test]
    fn a_frame_says_its_name() {
        let batch = batch(10, 1).expect("builds");
        let template = Template::produce("t", &[0], &batch, 1, 1).expect("encodes");
        let (header, _) = decode::<ProduceRequest>(&template, 1);
        assert_eq!(header.client_id.as_deref(), Some(CLIENT_ID));
        assert!(ProduceRequest::VERSIONS.1 >= PRODUCE_VERSION);
    }
}
