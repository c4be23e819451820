//! Owns the way of a coordinator's records into a batch and out of it again: keys and values.
//! Does not know what keys and values say, nor which topic they are in.
//! Invariant: whatever a batch claims or inflates to, what is made of it in memory is bounded.

use super::txn::Producer;
use crate::log::inflate::inflate;
use crate::types::batch::build::{self, zigzag};
use crate::types::batch::{BatchHeader, Codec};
use crate::types::limits::BATCH_HEADER_BYTES;
use bytes::Bytes;
use std::io::{self, Read};

/// What the records of a batch may inflate to: more than the largest batch that is not compressed.
const INFLATED_BYTES_MAX: usize = 64 << 20;

/// Records of a batch that are read: each takes some 64 bytes of memory, and may take as few as 7 inflated ones.
const RECORDS_MAX: usize = 1 << 20;

/// A record to be written; without a value it is a tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// In a batch of records that need not be in the same one.
const PART_RECORDS_MAX: usize = 100;
/// The same in bytes, unless one record alone has more.
const PART_BYTES_MAX: usize = 256 << 10;

/// These records in parts for a batch each: all of them may be too much for one.
pub fn parts(records: &[KeyValue]) -> impl Iterator<Item = &[KeyValue]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |record: &&KeyValue| {
            bytes += record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
            bytes <= PART_BYTES_MAX
        };
        let count = rest.iter().take(PART_RECORDS_MAX).take_while(fits).count();
        let (part, more) = rest.split_at(count.max(1).min(rest.len()));
        rest = more;
        (!part.is_empty()).then_some(part)
    })
}

/// One batch of these records with one time, not compressed and of no producer. Whoever stores it stamps offset and
/// epoch.
///
/// # Panics
/// There is no record: Kafka has no batch for that.
pub fn build(records: &[KeyValue], now_ms: i64) -> Bytes {
    Bytes::from(built(records, now_ms, None))
}

/// The same as part of a producer's transaction, without a sequence, as coordinators write.
///
/// # Panics
/// There is no record: Kafka has no batch for that.
pub fn build_of_transaction(records: &[KeyValue], now_ms: i64, producer: Producer) -> Bytes {
    let of = Some((producer.id, producer.epoch, -1));
    Bytes::from(build::transactional(built(records, now_ms, of)))
}

fn built(records: &[KeyValue], now_ms: i64, of: Option<(i64, i16, i32)>) -> Vec<u8> {
    assert!(!records.is_empty(), "a batch has at least one record");
    let count = i32::try_from(records.len()).expect("so many records fit no memory");
    let mut body = Vec::new();
    let mut record = Vec::new();
    for (delta, KeyValue { key, value }) in (0..).zip(records) {
        record.clear();
        // No attributes, and the time of the batch.
        record.extend([0, 0]);
        zigzag(delta, &mut record);
        put_nullable(Some(key), &mut record);
        put_nullable(value.as_deref(), &mut record);
        // No headers.
        record.push(0);
        zigzag(record.len() as i64, &mut body);
        body.extend_from_slice(&record);
    }
    build::batch(count, &body, now_ms, of)
}

fn put_nullable(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    zigzag(bytes.map_or(-1, |bytes| bytes.len() as i64), out);
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Key and value of a record that was read.
pub type StoredRecord = (Option<Bytes>, Option<Bytes>);

/// Key and value of every record of one stored batch, which may be compressed, and from which compaction may have taken
/// records. A control batch has some as well, which are not for a coordinator: its caller leaves them out. The checksum
/// is for whoever reads the log.
///
/// # Errors
/// The batch is cut short, its records do not fit it, or they are more than is read.
pub fn records(batch: &[u8]) -> io::Result<Vec<StoredRecord>> {
    let header = BatchHeader::parse(batch)?;
    let body = batch.get(BATCH_HEADER_BYTES..header.size);
    let body = body.ok_or_else(|| bad("batch is cut short"))?;
    let count = usize::try_from(header.record_count);
    let count = count.map_err(|_| bad("negative record count"))?;
    if count > RECORDS_MAX {
        return Err(bad("batch has more records than are read"));
    }
    let all = match header.codec()? {
        Codec::None => Bytes::copy_from_slice(body),
        codec @ (Codec::Gzip | Codec::Snappy | Codec::Lz4 | Codec::Zstd) => {
            Bytes::from(inflated(codec, body)?)
        }
    };
    let mut rest = &all[..];
    let mut out = Vec::new();
    for _ in 0..count {
        let record = length(&mut rest).and_then(|bytes| rest.split_off(..bytes));
        let record = record.ok_or_else(|| bad("record is cut short"))?;
        let fields = key_and_value(record);
        let [key, value] = fields.ok_or_else(|| bad("record is not as long as what is in it"))?;
        // Parts of one buffer, instead of a copy of each.
        let part = |bytes: &[u8]| all.slice_ref(bytes);
        out.push((key.map(part), value.map(part)));
    }
    match rest {
        [] => Ok(out),
        [..] => Err(bad("batch has more bytes than records")),
    }
}

fn inflated(codec: Codec, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let one_more = INFLATED_BYTES_MAX as u64 + 1;
    inflate(codec, body)?.take(one_more).read_to_end(&mut out)?;
    if out.len() > INFLATED_BYTES_MAX {
        return Err(bad("batch inflates to more than is read"));
    }
    Ok(out)
}

/// Goes through all of a record.
fn key_and_value(mut record: &[u8]) -> Option<[Option<&[u8]>; 2]> {
    let rest = &mut record;
    let _attributes = rest.split_off_first()?;
    let _time_delta = varint(rest)?;
    let _offset_delta = varint(rest)?;
    let key = nullable(rest)?;
    let value = nullable(rest)?;
    // A header takes at least two bytes, so those that are not there end this.
    for _ in 0..length(rest)? {
        let _name = nullable(rest)??;
        let _value = nullable(rest)?;
    }
    record.is_empty().then_some([key, value])
}

/// Bytes behind their length; Some(None) where that is -1.
fn nullable<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint(rest)? {
        -1 => Some(None),
        length => rest.split_off(..usize::try_from(length).ok()?).map(Some),
    }
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(varint(rest)?).ok()
}

/// A zigzag varint of up to 64 bits.
fn varint(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const CODECS: std::ops::RangeInclusive<u8> = 0..=4;

    fn pair(key: &'static str, value: Option<&'static str>) -> KeyValue {
        KeyValue {
            key: Bytes::from(key),
            value: value.map(Bytes::from),
        }
    }

    fn some() -> Vec<KeyValue> {
        vec![
            pair("key", Some("value")),
            pair("gone", None),
            pair("", Some("")),
        ]
    }

    fn stored(records: &[KeyValue]) -> Vec<StoredRecord> {
        let pair = |r: &KeyValue| (Some(r.key.clone()), r.value.clone());
        records.iter().map(pair).collect()
    }

    /// A batch around `body`, compressed as the attributes say.
    fn compressed(codec: u8, count: i32, body: &[u8]) -> Vec<u8> {
        let body = match codec {
            1 => {
                let mut e = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                e.write_all(body).unwrap();
                e.finish().unwrap()
            }
            2 => snap::raw::Encoder::new().compress_vec(body).unwrap(),
            3 => {
                let mut e = lz4_flex::frame::FrameEncoder::new(Vec::new());
                e.write_all(body).unwrap();
                e.finish().unwrap()
            }
            4 => zstd::encode_all(body, 1).unwrap(),
            _ => body.to_vec(),
        };
        let mut batch = build::batch(count, &body, 1_000, None);
        batch[22] = codec;
        batch
    }

    fn error_of(batch: &[u8]) -> String {
        records(batch).unwrap_err().to_string()
    }

    /// A record with offset delta 0 and what follows that.
    fn record(key_and_more: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        zigzag(3 + key_and_more.len() as i64, &mut out);
        out.extend([0, 0, 0]);
        out.extend_from_slice(key_and_more);
        out
    }

    #[test]
    fn records_are_parted_so_that_each_part_fits_a_batch() {
        let of = |bytes: usize| KeyValue {
            key: vec![b'k'; bytes].into(),
            value: None,
        };
        let counts =
            |records: &[KeyValue]| -> Vec<usize> { parts(records).map(<[_]>::len).collect() };
        assert_eq!(counts(&[]), [0; 0]);
        assert_eq!(counts(&vec![of(10); 250]), [100, 100, 50]);
        assert_eq!(counts(&vec![of(100_000); 5]), [2, 2, 1]);
        let huge = of(PART_BYTES_MAX + 1);
        assert_eq!(counts(&[of(1), huge.clone(), huge, of(1)]), [1, 1, 1, 1]);
    }

    #[test]
    fn what_is_built_is_what_a_client_could_have_sent() {
        let batch = build(&some(), 1_234);
        let header = BatchHeader::check_from_client(&batch).unwrap();
        assert_eq!((header.base_offset, header.last_offset()), (0, 2));
        let times = (header.base_timestamp, header.max_timestamp);
        assert_eq!(times, (1_234, 1_234));
        assert_eq!((header.leader_epoch, header.attributes), (-1, 0));
        assert_eq!((header.producer_id, header.producer_epoch), (-1, -1));
        assert_eq!((header.base_sequence, header.record_count), (-1, 3));
        assert_eq!(records(&batch).unwrap(), stored(&some()));
    }

    #[test]
    fn records_are_written_as_kafka_writes_them() {
        let batch = build(&[pair("k", None), pair("k", Some("v"))], 5);
        let first = [14, 0, 0, 0, 2, b'k', 1, 0];
        let second = [16, 0, 0, 2, 2, b'k', 2, b'v', 0];
        assert_eq!(batch[BATCH_HEADER_BYTES..], [&first[..], &second].concat());
    }

    #[test]
    fn large_and_many_records_come_back() {
        let large = KeyValue {
            key: Bytes::from(vec![b'k'; 300]),
            value: Some(Bytes::from(vec![b'v'; 3_000_000])),
        };
        let many = [vec![large], vec![pair("key", Some("value")); 20_000]].concat();
        let batch = build(&many, 1);
        assert!(BatchHeader::check_from_client(&batch).is_ok());
        assert_eq!(records(&batch).unwrap(), stored(&many));
    }

    #[test]
    fn compressed_records_are_read_in_every_codec() {
        let body = &build(&some(), 1)[BATCH_HEADER_BYTES..];
        for codec in CODECS {
            let batch = compressed(codec, 3, body);
            assert_eq!(records(&batch).unwrap(), stored(&some()), "codec {codec}");
        }
        let error = error_of(&compressed(5, 3, body));
        assert!(error.contains("codec 5"), "{error}");
    }

    #[test]
    fn holes_null_keys_and_headers_are_read() {
        let mut body = record(&[1, 2, b'a', 4, 2, b'h', 1, 0, 2, b'x']);
        let mut later = record(&[2, b'k', 2, b'b', 0]);
        later[3] = 10;
        body.extend(later);
        let mut batch = build::batch(2, &body, 1, None);
        batch[23..27].copy_from_slice(&5i32.to_be_bytes());
        let text = |text: &'static str| Some(Bytes::from(text));
        let expected = [(None, text("a")), (text("k"), text("b"))];
        assert_eq!(records(&batch).unwrap(), expected);
    }

    #[test]
    fn a_batch_that_compaction_emptied_has_no_records() {
        let empty = build::batch(0, b"", 1, None);
        assert!(records(&empty).unwrap().is_empty());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let batch = build(&some(), 1);
        for cut in 0..batch.len() {
            assert!(records(&batch[..cut]).is_err(), "cut at {cut}");
        }
        let body = &batch[BATCH_HEADER_BYTES..];
        for codec in CODECS {
            for cut in 0..body.len() {
                let cut_short = compressed(codec, 3, &body[..cut]);
                assert_eq!(error_of(&cut_short), "record is cut short", "cut at {cut}");
            }
        }
    }

    #[test]
    fn records_that_do_not_fit_are_errors() {
        let endless = [0xff; 12];
        let mut smallest = Vec::new();
        zigzag(i64::MIN, &mut smallest);
        let mut largest = Vec::new();
        zigzag(i64::MAX, &mut largest);
        for length in [&smallest[..], &largest, &endless, &[1]] {
            let batch = build::batch(1, length, 1, None);
            assert_eq!(error_of(&batch), "record is cut short");
        }
        let misfit = |what: &str, fields: &[u8]| {
            let batch = build::batch(1, &record(fields), 1, None);
            let expected = "record is not as long as what is in it";
            assert_eq!(error_of(&batch), expected, "{what}");
        };
        misfit("a key of -2 bytes", &[3, 1, 0]);
        misfit("a value of -2 bytes", &[1, 3, 0]);
        misfit("-1 headers", &[1, 1, 1]);
        misfit("a header without a name", &[1, 1, 2, 1, 1]);
        misfit("a byte too many", &[1, 1, 0, 0]);
        misfit("a huge key", &[&largest[..], &[1, 0]].concat());
        misfit("huge headers", &[&[1, 1][..], &largest].concat());
        let one = record(&[1, 1, 0]);
        let twice = build::batch(1, &one.repeat(2), 1, None);
        assert_eq!(error_of(&twice), "batch has more bytes than records");
    }

    #[test]
    fn no_more_is_read_than_is_allowed() {
        let count = |count: i32| error_of(&build::batch(count, &record(&[1, 1, 0]), 1, None));
        assert_eq!(count(i32::MAX), "batch has more records than are read");
        assert_eq!(count(RECORDS_MAX as i32), "record is cut short");
        assert_eq!(count(-1), "negative record count");

        let value_bytes = INFLATED_BYTES_MAX as i64 - 13;
        let mut fields = vec![1];
        zigzag(value_bytes, &mut fields);
        fields.resize(fields.len() + value_bytes as usize + 1, 0);
        let mut body = record(&fields);
        assert_eq!(body.len(), INFLATED_BYTES_MAX);
        let read = records(&compressed(4, 1, &body)).unwrap();
        assert_eq!(read[0].1.as_ref().unwrap().len(), value_bytes as usize);
        body.push(0);
        let error = error_of(&compressed(4, 1, &body));
        assert_eq!(error, "batch inflates to more than is read");
    }

    #[test]
    fn any_damage_gives_records_or_an_error() {
        let body = &build(&some(), 1)[BATCH_HEADER_BYTES..];
        for codec in CODECS {
            let good = compressed(codec, 3, body);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                if let Ok(read) = records(&bad) {
                    assert!(read.len() <= body.len(), "bit {bit} of codec {codec}");
                }
            }
        }
    }
}
