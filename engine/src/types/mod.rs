//! Owns the vocabulary of the engine: offsets, epochs, ids, the record batch header and every bound.
//! Does not know files, sockets, runtimes or the wire protocol.
//! Invariant: a value of one of these newtypes is never silently mixed with another one.

pub mod batch;
pub mod framing;
pub mod limits;

use std::fmt;

/// Offset of a record in a partition; also "one past the last record" where a bound is meant.
pub type Offset = i64;

/// Position in the partition's leadership history (Kafka's leader epoch). -1 means unknown.
pub type LeaderEpoch = i32;

/// Identity of a topic across renames of nothing: 16 random bytes, shown in Kafka's base64url form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// The id that Kafka uses for "no id".
    pub const NIL: TopicId = TopicId([0; 16]);

    /// A version 4 UUID from 128 random bits. Never nil.
    pub fn from_random(hi: u64, lo: u64) -> TopicId {
        let bits = (u128::from(hi) << 64) | u128::from(lo);
        TopicId(
            uuid::Builder::from_random_bytes(bits.to_be_bytes())
                .into_uuid()
                .into_bytes(),
        )
    }

    pub fn is_nil(&self) -> bool {
        *self == TopicId::NIL
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(&self.0))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// Base64url without padding: 22 characters for 16 bytes, as Kafka prints UUIDs.
pub fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |w, b| (w << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
        }
    }
    out
}

/// One partition of one topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId {
    pub topic: TopicId,
    pub index: i32,
}

impl PartitionId {
    pub const fn new(topic: TopicId, index: i32) -> PartitionId {
        PartitionId { topic, index }
    }

    /// The shard that owns this partition when there are `shards` of them.
    ///
    /// Neighbouring partitions of one topic land on different shards, so that even a topic with as
    /// many partitions as there are cores keeps all of them busy.
    pub fn shard(&self, shards: usize) -> usize {
        assert!(shards > 0);
        let seed = u64::from_be_bytes(self.topic.0[8..16].try_into().expect("eight bytes"));
        (seed.wrapping_add(self.index as u64) % shards as u64) as usize
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_print_as_kafka_does() {
        // java: new Uuid(0x0123456789abcdefL, 0xfedcba9876543210L).toString()
        let id = TopicId([
            0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54,
            0x32, 0x10,
        ]);
        assert_eq!(id.to_string(), "ASNFZ4mrze_-3LqYdlQyEA");
        assert_eq!(TopicId::NIL.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
    }

    #[test]
    fn neighbouring_partitions_spread_over_shards() {
        let topic = TopicId::from_random(7, 9);
        for shards in 1..9 {
            let mut seen: Vec<usize> = (0..shards as i32)
                .map(|i| PartitionId::new(topic, i).shard(shards))
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..shards).collect::<Vec<_>>());
        }
    }
}
