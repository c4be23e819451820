//! Owns reading the small files of an Apache Kafka log directory: what they say, and nothing they imply.
//! Does not know segments or our own files.
//! Invariant: any bytes give a value or an error, and no count in them is believed before its bytes are there.

use crate::log::producers::StoredBatch;
use crate::meta::id_text;
use crate::types::batch::crc32c;
use crate::types::{LeaderEpoch, Offset, TopicId};
use hashbrown::HashMap;

/// `log-start-offset-checkpoint` and its like: offsets by topic and partition.
pub type Offsets = HashMap<(String, i32), Offset>;

/// The lines behind version and count of one of Kafka's checkpoint files.
fn checkpoint_lines(bytes: &[u8]) -> Result<Vec<&str>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_string())?;
    let mut lines = text.lines();
    match lines.next().map(str::trim) {
        Some("0") => {}
        Some(other) => return Err(format!("has version `{other}`, only 0 is known")),
        None => return Err("is empty".to_string()),
    }
    let count: usize = lines
        .next()
        .and_then(|l| l.trim().parse().ok())
        .ok_or("does not say how many lines it has")?;
    let rest: Vec<&str> = lines.filter(|l| !l.trim().is_empty()).collect();
    if rest.len() != count {
        return Err(format!("says {count} lines and has {}", rest.len()));
    }
    Ok(rest)
}

/// Lines of topic, partition and offset.
pub fn offsets(bytes: &[u8]) -> Result<Offsets, String> {
    let mut out = Offsets::new();
    for line in checkpoint_lines(bytes)? {
        let mut fields = line.split_whitespace();
        let parsed = (|| {
            let topic = fields.next()?.to_string();
            let partition = fields.next()?.parse().ok()?;
            let offset: Offset = fields.next()?.parse().ok()?;
            Some(((topic, partition), offset))
        })();
        let (key, offset) = parsed.ok_or_else(|| format!("has a line `{line}`"))?;
        out.insert(key, offset);
    }
    Ok(out)
}

/// `cleaner-offset-checkpoint`: Kafka makes it without content, and writes it when a log was compacted first. To take a lost
/// one for that is safe, as gaps are refused then.
pub fn cleaner_offsets(bytes: &[u8]) -> Result<Offsets, String> {
    if bytes.is_empty() {
        return Ok(Offsets::new());
    }
    offsets(bytes)
}

/// The newest epoch of a `leader-epoch-checkpoint`, also of one that has no record; None without any.
pub fn latest_epoch(bytes: &[u8]) -> Result<Option<LeaderEpoch>, String> {
    let mut latest = None;
    for line in checkpoint_lines(bytes)? {
        let epoch = line.split_whitespace().next().and_then(|e| e.parse().ok());
        let epoch: LeaderEpoch = epoch.ok_or_else(|| format!("has a line `{line}`"))?;
        latest = latest.max(Some(epoch));
    }
    Ok(latest)
}

/// The topic that a `partition.metadata` names.
pub fn topic_id(bytes: &[u8]) -> Result<TopicId, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_string())?;
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name)?.trim_start().strip_prefix(':'))
            .map(str::trim)
    };
    if field("version") != Some("0") {
        return Err("has no version 0".to_string());
    }
    let id = field("topic_id").and_then(id_text::parse);
    id.filter(|id| !id.is_nil())
        .ok_or_else(|| "names no topic id".to_string())
}

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_HEADER_BYTES: usize = 10;
const SNAPSHOT_ENTRY_BYTES: usize = 46;

/// The last batch of each producer in a `.snapshot` file; those without one are left out.
pub fn producers(bytes: &[u8]) -> Result<Vec<(i64, StoredBatch)>, String> {
    let head = bytes
        .first_chunk::<SNAPSHOT_HEADER_BYTES>()
        .ok_or("ends too early")?;
    if i16::from_be_bytes([head[0], head[1]]) != SNAPSHOT_VERSION {
        return Err("has a version other than 1".to_string());
    }
    if crc32c(&bytes[6..]) != u32::from_be_bytes([head[2], head[3], head[4], head[5]]) {
        return Err("checksum does not match".to_string());
    }
    let count = u32::from_be_bytes([head[6], head[7], head[8], head[9]]) as usize;
    let entries = &bytes[SNAPSHOT_HEADER_BYTES..];
    if entries.len() / SNAPSHOT_ENTRY_BYTES != count
        || !entries.len().is_multiple_of(SNAPSHOT_ENTRY_BYTES)
    {
        return Err(format!("says {count} producers and has others"));
    }
    let known = entries.chunks_exact(SNAPSHOT_ENTRY_BYTES).filter_map(entry);
    Ok(known.collect())
}

fn entry(bytes: &[u8]) -> Option<(i64, StoredBatch)> {
    let i32_at = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let i64_at = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (last_sequence, last_offset) = (i32_at(10), i64_at(14));
    let (delta, timestamp_ms) = (i32_at(22), i64_at(26));
    if last_sequence < 0 || last_offset < 0 || delta < 0 || i64::from(delta) > last_offset {
        return None; // only a transaction marker, or nothing
    }
    // Sequences wrap from the largest to 0.
    let first_sequence = match last_sequence - delta {
        first if first >= 0 => first,
        wrapped => wrapped.wrapping_add(i32::MAX).wrapping_add(1),
    };
    let batch = StoredBatch {
        epoch: i16::from_be_bytes([bytes[8], bytes[9]]),
        first_sequence,
        last_sequence,
        base_offset: last_offset - i64::from(delta),
        last_offset,
        timestamp_ms,
    };
    Some((i64_at(0), batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_read_and_broken_ones_refused() {
        let offsets = offsets(b"0\n2\nt 0 5\nother-topic 12 0\n").unwrap();
        assert_eq!(offsets[&("other-topic".to_string(), 12)], 0);
        assert_eq!(offsets[&("t".to_string(), 0)], 5);
        assert_eq!(latest_epoch(b"0\n2\n0 0\n7 100\n"), Ok(Some(7)));
        assert_eq!(latest_epoch(b"0\n0\n"), Ok(None));
        for bad in [
            "",
            "1\n0\n",
            "0\n",
            "0\n1\n",
            "0\n1\nx y\n",
            "0\n9\n0 0\n",
            "0\n-1\n",
        ] {
            assert!(latest_epoch(bad.as_bytes()).is_err(), "{bad:?}");
            assert!(super::offsets(bad.as_bytes()).is_err(), "{bad:?}");
            let cleaned = cleaner_offsets(bad.as_bytes());
            assert_eq!(cleaned.is_ok(), bad.is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn a_topic_id_is_read() {
        let id = TopicId([7; 16]);
        let text = format!("version: 0\ntopic_id: {id}\n");
        assert_eq!(topic_id(text.as_bytes()), Ok(id));
        assert!(topic_id(b"version: 0\n").is_err());
        assert!(topic_id(format!("version: 0\ntopic_id: {}", TopicId::NIL).as_bytes()).is_err());
    }

    fn snapshot(entries: &[(i64, i32, i64, i32)]) -> Vec<u8> {
        let mut body = (entries.len() as u32).to_be_bytes().to_vec();
        for (id, last_sequence, last_offset, delta) in entries {
            body.extend(id.to_be_bytes());
            body.extend(3i16.to_be_bytes());
            body.extend(last_sequence.to_be_bytes());
            body.extend(last_offset.to_be_bytes());
            body.extend(delta.to_be_bytes());
            body.extend(99i64.to_be_bytes());
            body.extend((-1i32).to_be_bytes());
            body.extend((-1i64).to_be_bytes());
        }
        let mut out = 1i16.to_be_bytes().to_vec();
        out.extend(crc32c(&body).to_be_bytes());
        out.extend(body);
        out
    }

    #[test]
    fn producers_are_read_and_damage_is_seen() {
        let bytes = snapshot(&[(5, 11, 40, 1), (6, -1, 41, 0), (7, 0, 50, 1)]);
        let found = producers(&bytes).unwrap();
        let batch = found[0].1;
        assert_eq!((found[0].0, batch.epoch), (5, 3));
        assert_eq!((batch.first_sequence, batch.last_sequence), (10, 11));
        assert_eq!((batch.base_offset, batch.last_offset), (39, 40));
        assert_eq!(found.len(), 2, "a producer without a batch is left out");
        assert_eq!(found[1].1.first_sequence, i32::MAX, "sequences wrap");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(producers(&bad).is_err(), "byte {at}");
            assert!(producers(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
