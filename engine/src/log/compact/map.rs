//! Owns the map from the keys of dirty records to their last offsets, in memory that is bounded.
//! Does not know records, nor what the offsets are for.
//! Invariant: of two keys one is never taken for the other: 128 bits of a keyed hash stand for each.

use crate::types::Offset;
use std::hash::{DefaultHasher, Hasher};

/// Two words of hash, and the offset plus one: zeros are a free slot.
const SLOT_WORDS: usize = 3;
pub const SLOT_BYTES: u64 = SLOT_WORDS as u64 * 8;
/// So many of ten slots are used at most: probing stays short.
const LOAD_TENTHS: u64 = 9;

pub struct OffsetMap {
    words: Vec<u64>,
    slots: u64,
    keys: u64,
    seeds: [u64; 2],
}

impl OffsetMap {
    /// With room for `keys` keys, as far as `bytes_max` allows it. `seeds` are nobody else's to know: whoever can choose
    /// keys must not choose two that look the same.
    pub fn new(bytes_max: u64, keys: u64, seeds: [u64; 2]) -> OffsetMap {
        let wanted = keys.saturating_mul(10) / LOAD_TENTHS + 2;
        let slots = wanted.min(bytes_max / SLOT_BYTES).max(2);
        OffsetMap {
            // Zeros come from the kernel as they are first touched.
            words: vec![0; slots as usize * SLOT_WORDS],
            slots,
            keys: 0,
            seeds,
        }
    }

    /// Keys that it has.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    fn is_full(&self) -> bool {
        self.keys + 1 > (self.slots * LOAD_TENTHS / 10).max(1)
    }

    /// Notes that `key` is at `offset`; false where there is no room for one more key.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        let stored = u64::try_from(offset).expect("offsets are not negative") + 1;
        if self.words[at + 2] == 0 {
            if self.is_full() {
                return false;
            }
            self.keys += 1;
            self.words[at..at + 2].copy_from_slice(&hash);
        }
        self.words[at + 2] = self.words[at + 2].max(stored);
        true
    }

    /// The last offset of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let at = self.find(self.hash(key));
        self.words[at + 2].checked_sub(1).map(|o| o as Offset)
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        self.seeds.map(|seed| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(seed);
            hasher.write(key);
            hasher.finish()
        })
    }

    /// Where the words of a hash are, or would go. There is always a free slot.
    fn find(&self, hash: [u64; 2]) -> usize {
        let mut slot = hash[0] % self.slots;
        loop {
            let at = slot as usize * SLOT_WORDS;
            if self.words[at + 2] == 0 || self.words[at..at + 2] == hash {
                return at;
            }
            slot = (slot + 1) % self.slots;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_of_each_key_is_known() {
        let mut map = OffsetMap::new(1 << 20, 5_000, [1, 2]);
        for round in 0..3i64 {
            for key in 0..5_000i64 {
                assert!(map.put(&key.to_be_bytes(), round * 5_000 + key));
            }
        }
        assert_eq!(map.keys(), 5_000);
        for key in 0..5_000i64 {
            assert_eq!(map.get(&key.to_be_bytes()), Some(10_000 + key));
        }
        assert_eq!(map.get(b"another"), None);
    }

    #[test]
    fn memory_is_bounded_and_a_full_map_says_so() {
        let mut map = OffsetMap::new(100 * SLOT_BYTES, u64::MAX, [1, 2]);
        let fit = (0..1_000i64).take_while(|key| map.put(&key.to_be_bytes(), *key));
        assert_eq!(fit.count(), 90);
        assert!(map.put(&7i64.to_be_bytes(), 5_000), "a known key has room");
        assert_eq!(map.get(&7i64.to_be_bytes()), Some(5_000));
        assert_eq!(map.get(&999i64.to_be_bytes()), None);
        let mut smallest = OffsetMap::new(0, 0, [1, 2]);
        assert!(smallest.put(b"", 0) && !smallest.put(b"k", 1));
        assert_eq!(smallest.get(b""), Some(0));
    }
}
