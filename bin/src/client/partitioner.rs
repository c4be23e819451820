//! Owns the choice of a partition for a record: Java's murmur2 of the key, or one at random for a while.
//! Does not know leaders.
//! Invariant: for a key it chooses the partition that Kafka's Java client would choose.

use std::hash::{BuildHasher, RandomState};

/// The 32-bit murmur2 that Kafka's clients hash keys with.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Chooses for one topic.
pub struct Partitioner {
    /// Partition that records without a key go to until the next batch.
    sticky: usize,
    turns: u64,
    random: RandomState,
}

impl Partitioner {
    pub fn new(partitions: usize) -> Partitioner {
        let mut partitioner = Partitioner {
            sticky: 0,
            turns: 0,
            random: RandomState::new(),
        };
        partitioner.next_batch(partitions);
        partitioner
    }

    /// Place in the list of partitions.
    pub fn choose(&self, key: Option<&[u8]>, partitions: usize) -> usize {
        assert!(partitions > 0);
        match key {
            // Java clears the sign bit rather than taking the absolute value.
            Some(key) => (murmur2(key) & 0x7fff_ffff) as usize % partitions,
            None => self.sticky % partitions,
        }
    }

    /// Records without a key go elsewhere from now on.
    pub fn next_batch(&mut self, partitions: usize) {
        self.turns += 1;
        self.sticky = self.random.hash_one(self.turns) as usize % partitions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafkas_own_tests() {
        // From UtilsTest.testMurmur2 of Apache Kafka.
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn a_key_always_goes_to_one_partition_and_no_key_to_one_per_batch() {
        let mut partitioner = Partitioner::new(7);
        let first = partitioner.choose(Some(b"abc"), 7);
        assert_eq!(first, (479_470_107 & 0x7fff_ffff) % 7);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let sticky = partitioner.choose(None, 7);
            assert_eq!(sticky, partitioner.choose(None, 7));
            seen.insert(sticky);
            partitioner.next_batch(7);
            assert_eq!(partitioner.choose(Some(b"abc"), 7), first);
        }
        assert_eq!(seen.len(), 7);
    }
}
