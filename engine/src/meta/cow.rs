//! A sorted map that is cheap to clone and cheap to change afterwards: chunks shared between the versions of it.
//! Knows nothing of what it stores but the key each value carries in itself.
//! Keeps values sorted by unique key, and every chunk non-empty and at most `CHUNK_MAX` long.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A change copies one chunk of values and the list of chunks: with 100,000 values that is 128 values and 1,500 pointers.
const CHUNK_MAX: usize = 128;

/// The key a value is found by; it must not change while the value is in a map.
pub trait Keyed<K: Ord + ?Sized> {
    /// The key of this value.
    fn key(&self) -> &K;
}

/// A sorted map of values by the key they carry.
pub struct CowMap<K: ?Sized, V> {
    chunks: Vec<Arc<Vec<V>>>,
    len: usize,
    key: PhantomData<fn(&K)>,
}

impl<K: ?Sized, V> Clone for CowMap<K, V> {
    fn clone(&self) -> Self {
        CowMap {
            chunks: self.chunks.clone(),
            len: self.len,
            key: PhantomData,
        }
    }
}

impl<K: ?Sized, V> Default for CowMap<K, V> {
    fn default() -> Self {
        CowMap {
            chunks: Vec::new(),
            len: 0,
            key: PhantomData,
        }
    }
}

impl<K: ?Sized, V: fmt::Debug> fmt::Debug for CowMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.chunks.iter().flat_map(|c| c.iter()))
            .finish()
    }
}

impl<K: ?Sized, V: PartialEq> PartialEq for CowMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && self
                .chunks
                .iter()
                .flat_map(|c| c.iter())
                .eq(other.chunks.iter().flat_map(|c| c.iter()))
    }
}

impl<K: Ord + ?Sized, V: Keyed<K> + Clone> CowMap<K, V> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunk that has the key or would take it: the last that starts at or before it.
    fn chunk_for(&self, key: &K) -> usize {
        self.chunks
            .partition_point(|c| c[0].key() <= key)
            .saturating_sub(1)
    }

    fn find(&self, key: &K) -> Option<(usize, usize)> {
        let chunk = self.chunk_for(key);
        let at = self
            .chunks
            .get(chunk)?
            .binary_search_by(|v| v.key().cmp(key))
            .ok()?;
        Some((chunk, at))
    }

    /// The value with this key.
    pub fn get<Q: Borrow<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        let (chunk, at) = self.find(key.borrow())?;
        Some(&self.chunks[chunk][at])
    }

    /// Puts a value in and returns the one it takes the place of.
    pub fn insert(&mut self, value: V) -> Option<V> {
        if self.chunks.is_empty() {
            self.chunks.push(Arc::new(vec![value]));
            self.len = 1;
            return None;
        }
        let index = self.chunk_for(value.key());
        let last_chunk = index + 1 == self.chunks.len();
        let chunk = Arc::make_mut(&mut self.chunks[index]);
        let at = match chunk.binary_search_by(|v| v.key().cmp(value.key())) {
            Ok(at) => return Some(std::mem::replace(&mut chunk[at], value)),
            Err(at) => at,
        };
        chunk.insert(at, value);
        self.len += 1;
        if chunk.len() > CHUNK_MAX {
            // Keys that come in ascending order would leave half-full chunks behind a split in the middle.
            let at_end = last_chunk && at + 1 == chunk.len();
            let split = if at_end { CHUNK_MAX } else { CHUNK_MAX / 2 };
            let upper = chunk.split_off(split);
            self.chunks.insert(index + 1, Arc::new(upper));
        }
        None
    }

    /// Takes the value with this key out.
    pub fn remove<Q: Borrow<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        let (index, at) = self.find(key.borrow())?;
        let chunk = Arc::make_mut(&mut self.chunks[index]);
        let value = chunk.remove(at);
        let left = chunk.len();
        self.len -= 1;
        if left == 0 {
            self.chunks.remove(index);
        } else if let Some(next) = self.chunks.get(index + 1) {
            // Many removals must not leave a long list of tiny chunks.
            if left + next.len() <= CHUNK_MAX / 2 {
                let next = self.chunks.remove(index + 1);
                Arc::make_mut(&mut self.chunks[index]).extend(next.iter().cloned());
            }
        }
        Some(value)
    }

    /// All values in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &V> + '_ {
        self.chunks.iter().flat_map(|c| c.iter())
    }

    /// The values whose key is `from` or after it, in order.
    pub fn iter_from<'a>(&'a self, from: &K) -> impl Iterator<Item = &'a V> + 'a {
        let first = self.chunk_for(from);
        let skip = self
            .chunks
            .get(first)
            .map_or(0, |c| c.partition_point(|v| v.key() < from));
        self.chunks[first.min(self.chunks.len())..]
            .iter()
            .flat_map(|c| c.iter())
            .skip(skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Keyed<u32> for (u32, u32) {
        fn key(&self) -> &u32 {
            &self.0
        }
    }

    /// A small generator: these tests compare with a model, they need no good randomness.
    fn next(state: &mut u64) -> u32 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as u32
    }

    fn same(map: &CowMap<u32, (u32, u32)>, model: &BTreeMap<u32, u32>) {
        assert_eq!(map.len(), model.len());
        assert_eq!(map.is_empty(), model.is_empty());
        assert!(map
            .iter()
            .map(|v| (v.0, v.1))
            .eq(model.iter().map(|(k, v)| (*k, *v))));
        assert!(map
            .chunks
            .iter()
            .all(|c| !c.is_empty() && c.len() <= CHUNK_MAX));
    }

    #[test]
    fn behaves_as_a_sorted_map() {
        for seed in 0..20u64 {
            let mut state = seed;
            let (mut map, mut model) = (CowMap::default(), BTreeMap::new());
            let range = [10, 300, 5_000][seed as usize % 3];
            for step in 0..4_000u32 {
                let key = next(&mut state) % range;
                if next(&mut state).is_multiple_of(3) {
                    assert_eq!(
                        map.remove(&key).map(|v: (u32, u32)| v.1),
                        model.remove(&key)
                    );
                } else {
                    assert_eq!(
                        map.insert((key, step)).map(|v| v.1),
                        model.insert(key, step)
                    );
                }
                let probe = next(&mut state) % range;
                assert_eq!(map.get(&probe).map(|v| v.1), model.get(&probe).copied());
                if step.is_multiple_of(97) {
                    same(&map, &model);
                    assert!(map
                        .iter_from(&probe)
                        .map(|v| v.0)
                        .eq(model.range(probe..).map(|(k, _)| *k)));
                }
            }
            for key in 0..range {
                assert_eq!(map.remove(&key).is_some(), model.remove(&key).is_some());
            }
            same(&map, &model);
        }
    }

    #[test]
    fn a_clone_keeps_what_it_was() {
        let mut map: CowMap<u32, (u32, u32)> = CowMap::default();
        for key in 0..1_000 {
            map.insert((key, 0));
        }
        let before = map.clone();
        map.insert((500, 1));
        map.remove(&700);
        assert_eq!(before.get(&500), Some(&(500, 0)));
        assert_eq!(before.get(&700), Some(&(700, 0)));
        assert_eq!(before.len(), 1_000);
        assert_ne!(before, map);
        let shared = map
            .chunks
            .iter()
            .filter(|c| before.chunks.iter().any(|b| Arc::ptr_eq(b, c)));
        assert!(shared.count() >= map.chunks.len() - 2);
    }

    #[test]
    fn ascending_keys_fill_their_chunks() {
        let mut map: CowMap<u32, (u32, u32)> = CowMap::default();
        for key in 0..10_000 {
            map.insert((key, key));
        }
        assert!(map.chunks.len() <= 10_000 / CHUNK_MAX + 1);
    }
}
