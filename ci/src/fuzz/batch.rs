//! Owns the target of record batches: the broker's view of one, the client's, and the records of every codec.
//! Does not know topics or logs.
//! Invariant: both views agree on what is a batch and what is in it, and no batch decompresses without a bound.

use bytes::Bytes;
use millrace_engine::formats::{Search, Wanted};
use millrace_engine::types::batch::{crc32c, BatchHeader, Codec, CRC_START, LOG_OVERHEAD};
use millrace_engine::types::limits::BATCH_HEADER_BYTES;
use millrace_net::wire::batch::{Batch, BatchBuilder, ControlKind};
use millrace_net::wire::compress::CompressError;
use millrace_net::wire::record::Record;

/// What a batch may decompress into here.
pub const DECOMPRESSED_BYTES_MAX: usize = 256 << 10;

const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;

/// One batch, as it is and with its length, format and checksum put right.
pub fn batch(data: &[u8]) {
    check(data);
    stream(data);
    if let Some(sealed) = sealed(data) {
        check(&sealed);
    }
}

/// The bytes as a batch whose header fits them; none where there are too few.
pub fn sealed(data: &[u8]) -> Option<Vec<u8>> {
    if data.len() < BATCH_HEADER_BYTES {
        return None;
    }
    let mut batch = data.to_vec();
    let length = (batch.len() - LOG_OVERHEAD) as i32;
    batch[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    batch[MAGIC_AT] = 2;
    let crc = crc32c(&batch[CRC_START..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    Some(batch)
}

/// A client takes batch after batch off what it fetched.
fn stream(data: &[u8]) {
    let mut rest = Bytes::copy_from_slice(data);
    let mut left = rest.len();
    while let Ok(Some(_)) = Batch::take(&mut rest) {
        assert!(rest.len() < left, "a batch of no bytes");
        left = rest.len();
    }
}

fn check(data: &[u8]) {
    // Hostile bytes may be no batch: why is not compared, only that all readers agree.
    let header = BatchHeader::parse(data).ok();
    let whole = header.filter(|h| h.size == data.len() && h.crc_matches(data));
    let stored = BatchHeader::check_from_client(data);
    if stored.is_ok() {
        assert_eq!(stored.ok(), whole);
    }
    let read = Batch::decode(Bytes::copy_from_slice(data)).ok();
    assert_eq!(read.is_some(), whole.is_some(), "one view takes it");
    let (Some(batch), Some(whole)) = (read, whole) else {
        // The broker looks for times in batches that it stored, and believes none of them.
        look(data);
        return;
    };
    let theirs = &batch.header;
    assert_eq!(
        (theirs.base_offset, theirs.record_count, theirs.producer_id),
        (whole.base_offset, whole.record_count, whole.producer_id)
    );
    assert_eq!(
        (theirs.is_control(), theirs.is_append_time()),
        (whole.is_control(), whole.is_log_append_time())
    );
    let records = records(&batch);
    let looked = look(data);
    if stored.is_ok() && whole.codec() == Ok(Codec::None) {
        let read = records.as_ref().map(|records| records.len() as i32);
        assert_eq!(read, Some(whole.record_count), "what is stored can be read");
    }
    let Some(records) = records else { return };
    assert!(records.len() as i64 <= i64::from(theirs.record_count).max(0));
    if theirs.is_control() {
        records.iter().for_each(|record| {
            // Either outcome is right for a key that is none.
            let _ = ControlKind::of(record);
        });
    }
    same_answers(&batch, &records, &looked);
    rebuild(&batch, &records);
}

/// What the broker finds out about times and keys.
struct Looked {
    newest: Option<Option<(i64, i64)>>,
    keyed: Option<bool>,
}

fn look(data: &[u8]) -> Looked {
    let middle = BatchHeader::parse(data).map_or(0, |h| h.max_timestamp);
    // What it finds is compared for another search, which goes through all of the records.
    let _ = search(data, Wanted::AtOrAfter(middle));
    Looked {
        newest: search(data, Wanted::Newest),
        keyed: search(data, Wanted::Keyless).map(|keyless| keyless.is_none()),
    }
}

/// What the broker finds; none where it gives up.
fn search(data: &[u8], wanted: Wanted) -> Option<Option<(i64, i64)>> {
    // Hostile bytes: an error is as good as an answer.
    let mut search = Search::new(data, i64::MIN, wanted).ok()?;
    while !search.step().ok()? {}
    Some(search.found().map(|r| (r.offset, r.timestamp_ms)))
}

/// All records, where all can be read.
fn records(batch: &Batch) -> Option<Vec<Record>> {
    batch
        .records(DECOMPRESSED_BYTES_MAX)
        .ok()?
        .collect::<Result<_, _>>()
        .ok()
}

/// What a client can read the broker finds its way in, and to the same answer.
fn same_answers(batch: &Batch, records: &[Record], looked: &Looked) {
    let header = &batch.header;
    let last = header
        .base_offset
        .saturating_add(header.last_offset_delta.into());
    let outside = |record: &Record| !(header.base_offset..=last).contains(&record.offset);
    if header.record_count < 0 || records.iter().any(outside) {
        return;
    }
    let keyed = records.iter().all(|record| record.key.is_some());
    assert_eq!(looked.keyed, Some(keyed), "whether all have keys");
    if batch.header.is_append_time() {
        return;
    }
    let mut expected: Option<(i64, i64)> = None;
    for record in records {
        if expected.is_none_or(|(_, newest)| record.timestamp_ms > newest) {
            expected = Some((record.offset, record.timestamp_ms));
        }
    }
    assert_eq!(looked.newest, Some(expected), "the newest record");
}

/// The same records in a new batch are the same when read.
fn rebuild(batch: &Batch, records: &[Record]) {
    let compression = match batch.header.compression() {
        Ok(compression) if !records.is_empty() => compression,
        Ok(_) | Err(CompressError::Unknown { .. }) => return,
        Err(error) => panic!("records were read: {error}"),
    };
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        builder
            .push(record)
            .expect("records that were read can be written");
    }
    if builder.bytes_uncompressed() > DECOMPRESSED_BYTES_MAX {
        return;
    }
    let rebuilt = Batch::decode(builder.build().expect("compresses")).expect("just built");
    let mut again = self::records(&rebuilt).expect("just built");
    assert_eq!(again.len(), records.len());
    for (again, record) in again.iter_mut().zip(records) {
        again.offset = record.offset;
        assert_eq!(again, record);
    }
}
