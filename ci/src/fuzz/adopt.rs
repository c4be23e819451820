//! Owns the target of the small files that `millrace adopt` reads from a Kafka log directory.
//! Does not know segments, which have a target of their own.
//! Invariant: what they give is no more than what they hold.

use millrace_engine::formats::kafka;
use millrace_engine::types::batch::crc32c;

/// Any of the files: each reader gets the bytes. A producer snapshot also with its checksum put right.
pub fn adopt(data: &[u8]) {
    if let Ok(offsets) = kafka::offsets(data) {
        assert!(offsets.len() <= data.len() / 5);
    }
    if let Ok(Some(epoch)) = kafka::latest_epoch(data) {
        assert!(data.len() > epoch.to_string().len());
    }
    if let Ok(id) = kafka::topic_id(data) {
        assert!(!id.is_nil());
    }
    producers(data);
    if let Some((head, body)) = data.split_at_checked(6) {
        let crc = crc32c(body).to_be_bytes();
        producers(&[&head[..2], &crc, body].concat());
    }
}

fn producers(data: &[u8]) {
    let Ok(found) = kafka::producers(data) else {
        return;
    };
    assert!(found.len() <= data.len() / 46);
    for (_, batch) in found {
        assert!(batch.base_offset >= 0 && batch.base_offset <= batch.last_offset);
        assert!(batch.first_sequence >= 0 && batch.last_sequence >= 0);
    }
}
