//! Owns what members of consumer groups tell each other through the coordinator: who reads which partitions.
//! Does not know groups or members; other kinds of groups put other bytes in the same place.
//! Invariant: bytes of any shape yield an assignment or None, within memory that their length bounds.

use bytes::Bytes;
use millrace_net::wire::{Reader, WireError};
use std::collections::{BTreeMap, BTreeSet};

/// The kind of group whose assignments these are.
pub const CONSUMER: &str = "consumer";

/// Partitions by topic.
pub type Assignment = BTreeMap<String, BTreeSet<i32>>;

/// Fewest bytes a topic takes: an empty name and no partitions.
const TOPIC_BYTES_MIN: usize = 2 + 4;

/// What an entry of a map or set may cost beyond its value; trees keep their nodes half full at least.
const ENTRY_MEMORY: usize = 96;

/// The assignment of one member; empty bytes mean that it has none yet. None where it cannot be read.
pub fn decode(bytes: &Bytes) -> Option<Assignment> {
    if bytes.is_empty() {
        return Some(Assignment::new());
    }
    read(&mut Reader::new(bytes.clone())).ok().flatten()
}

/// Later versions may only add to the end, so that what follows the known fields is none of our business.
fn read(reader: &mut Reader) -> Result<Option<Assignment>, WireError> {
    if reader.i16()? < 0 {
        return Ok(None);
    }
    let mut assignment = Assignment::new();
    let Some(topics) = reader.count(false, TOPIC_BYTES_MIN, 0)? else {
        return Ok(None);
    };
    for _ in 0..topics {
        let Some(topic) = reader.string(false)? else {
            return Ok(None);
        };
        reader.charge(ENTRY_MEMORY + topic.len())?;
        let Some(count) = reader.count(false, size_of::<i32>(), size_of::<i32>())? else {
            return Ok(None);
        };
        let partitions = assignment.entry(topic.to_string()).or_default();
        for _ in 0..count {
            let partition = reader.i32()?;
            if partition < 0 {
                return Ok(None);
            }
            partitions.insert(partition);
        }
    }
    // What the assignor adds for itself; only its presence matters here.
    reader.bytes(false)?;
    Ok(Some(assignment))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use millrace_net::wire::Writer;

    /// As a leader of a group writes it.
    pub fn encode(version: i16, topics: &[(&str, &[i32])], user_data: Option<&[u8]>) -> Bytes {
        let mut writer = Writer::new();
        writer.i16(version);
        writer.length(false, Some(topics.len())).unwrap();
        for (topic, partitions) in topics {
            writer.string(false, Some(topic)).unwrap();
            writer.length(false, Some(partitions.len())).unwrap();
            partitions.iter().for_each(|p| writer.i32(*p));
        }
        let user_data = user_data.map(Bytes::copy_from_slice);
        writer.bytes(false, user_data.as_ref()).unwrap();
        writer.into_bytes()
    }

    fn assigned(topics: &[(&str, &[i32])]) -> Option<Assignment> {
        let topics = topics.iter();
        Some(
            topics
                .map(|(topic, partitions)| {
                    (topic.to_string(), partitions.iter().copied().collect())
                })
                .collect(),
        )
    }

    const TOPICS: &[(&str, &[i32])] = &[("orders", &[2, 0, 1]), ("audit", &[]), ("u", &[7])];

    #[test]
    fn what_a_leader_writes_is_read() {
        for (version, user_data) in [
            (0, None),
            (1, Some(&b"x"[..])),
            (3, Some(&b""[..])),
            (i16::MAX, None),
        ] {
            assert_eq!(
                decode(&encode(version, TOPICS, user_data)),
                assigned(TOPICS)
            );
        }
        assert_eq!(decode(&encode(0, &[], None)), assigned(&[]));
        assert_eq!(decode(&Bytes::new()), assigned(&[]));
    }

    #[test]
    fn a_topic_named_twice_has_the_partitions_of_both() {
        let bytes = encode(0, &[("t", &[1]), ("t", &[0, 1])], None);
        assert_eq!(decode(&bytes), assigned(&[("t", &[0, 1])]));
    }

    #[test]
    fn fields_of_later_versions_are_passed_by() {
        let mut bytes = encode(9, TOPICS, None).to_vec();
        bytes.extend([1, 2, 3]);
        assert_eq!(decode(&Bytes::from(bytes)), assigned(TOPICS));
    }

    #[test]
    fn cut_off_anywhere_it_is_not_read() {
        let whole = encode(1, TOPICS, Some(b"more"));
        for length in 1..whole.len() {
            assert_eq!(decode(&whole.slice(..length)), None, "{length} bytes");
        }
    }

    #[test]
    fn nonsense_is_not_read() {
        let whole = encode(1, TOPICS, None);
        // A count, a length or a partition at each place becomes negative or very large.
        for at in 0..whole.len() - 3 {
            for value in [i32::MIN, -2, i32::MAX] {
                let mut bytes = whole.to_vec();
                bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
                // Either is fine in the middle of a name or of a number; a panic is not.
                decode(&Bytes::from(bytes));
            }
        }
        for (what, bytes) in [
            ("a negative version", encode(-1, TOPICS, None)),
            ("a negative partition", encode(0, &[("t", &[-1])], None)),
            (
                "null topics",
                Bytes::from_static(&[0, 0, 255, 255, 255, 255]),
            ),
            (
                "more topics than bytes",
                Bytes::from_static(&[0, 0, 127, 255, 255, 255, 0, 0]),
            ),
            (
                "a null name",
                Bytes::from_static(&[0, 0, 0, 0, 0, 1, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]),
            ),
            (
                "a name that is no text",
                Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, 255, 0, 0, 0, 0, 0, 0, 0, 0]),
            ),
        ] {
            assert_eq!(decode(&bytes), None, "{what}");
        }
    }
}
