//! Owns a map from offsets to values in which neighbours with the same value are one run.
//! Does not know what the values mean.
//! Invariant: runs do not overlap, and two that touch differ.

use crate::types::Offset;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Runs<T> {
    /// By first offset: last offset and value.
    runs: BTreeMap<Offset, (Offset, T)>,
}

impl<T> Default for Runs<T> {
    fn default() -> Runs<T> {
        Runs {
            runs: BTreeMap::new(),
        }
    }
}

impl<T: Clone + PartialEq> Runs<T> {
    pub fn count(&self) -> usize {
        self.runs.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Offset, Offset, &T)> + '_ {
        self.runs
            .iter()
            .map(|(first, (last, v))| (*first, *last, v))
    }

    /// The parts of runs that lie within these offsets.
    pub fn within(&self, first: Offset, last: Offset) -> Vec<(Offset, Offset, T)> {
        let before = self.runs.range(..first).next_back();
        let before = before.filter(|(_, (end, _))| *end >= first);
        let inside = match first <= last {
            true => Some(self.runs.range(first..=last)),
            false => None,
        };
        let all = before.into_iter().chain(inside.into_iter().flatten());
        all.filter(|_| first <= last)
            .map(|(f, (l, v))| ((*f).max(first), (*l).min(last), v.clone()))
            .collect()
    }

    /// Gives all offsets of a range one value.
    pub fn set(&mut self, first: Offset, last: Offset, value: T) {
        assert!(first <= last, "a range has at least one offset");
        self.clear(first, last);
        let (mut first, mut last) = (first, last);
        if let Some((f, (l, v))) = self.runs.range(..first).next_back() {
            if *l + 1 == first && *v == value {
                first = *f;
                self.runs.remove(&first);
            }
        }
        if let Some((l, v)) = self.runs.get(&(last + 1)) {
            if *v == value {
                let key = last + 1;
                last = *l;
                self.runs.remove(&key);
            }
        }
        self.runs.insert(first, (last, value));
    }

    /// Takes a range out.
    pub fn clear(&mut self, first: Offset, last: Offset) {
        self.split(first);
        self.split(last + 1);
        let gone: Vec<Offset> = self.runs.range(first..=last).map(|(f, _)| *f).collect();
        for first in gone {
            self.runs.remove(&first);
        }
    }

    /// Takes out all that is before an offset.
    pub fn trim(&mut self, before: Offset) {
        self.split(before);
        self.runs = self.runs.split_off(&before);
    }

    /// No run goes across `at`.
    fn split(&mut self, at: Offset) {
        let crossing = self.runs.range(..at).next_back();
        let Some((first, (last, value))) = crossing.filter(|(_, (last, _))| *last >= at) else {
            return;
        };
        let (first, last, value) = (*first, *last, value.clone());
        self.runs.insert(first, (at - 1, value.clone()));
        self.runs.insert(at, (last, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(runs: &Runs<char>) -> String {
        let one = |(first, last, v): (Offset, Offset, &char)| format!("{first}-{last}{v}");
        runs.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ranges_are_split_and_joined() {
        let mut runs = Runs::default();
        runs.set(0, 9, 'a');
        runs.set(3, 5, 'b');
        assert_eq!(text(&runs), "0-2a 3-5b 6-9a");
        runs.set(4, 4, 'a');
        assert_eq!(text(&runs), "0-2a 3-3b 4-4a 5-5b 6-9a");
        runs.set(3, 5, 'a');
        assert_eq!(text(&runs), "0-9a");
        runs.set(10, 12, 'b');
        runs.set(9, 10, 'b');
        assert_eq!(text(&runs), "0-8a 9-12b");
        assert_eq!(runs.within(7, 9), [(7, 8, 'a'), (9, 9, 'b')]);
        assert_eq!(runs.within(13, 20), []);
        runs.trim(2);
        assert_eq!(text(&runs), "2-8a 9-12b");
        runs.clear(8, 10);
        assert_eq!(text(&runs), "2-7a 11-12b");
    }

    /// Against an array of single offsets.
    #[test]
    fn it_is_a_map_of_single_offsets() {
        for seed in 0..200u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % below) as i64
            };
            let mut runs = Runs::default();
            let mut plain = [None; 40];
            for _ in 0..60 {
                let first = next(40);
                let last = (first + next(8)).min(39);
                let value = b"abc"[next(3) as usize] as char;
                match next(6) {
                    0 => {
                        runs.clear(first, last);
                        plain[first as usize..=last as usize].fill(None);
                    }
                    1 if first < 5 => {
                        runs.trim(first);
                        plain[..first as usize].fill(None);
                    }
                    _ => {
                        runs.set(first, last, value);
                        plain[first as usize..=last as usize].fill(Some(value));
                    }
                }
                let mut back = [None; 40];
                for (first, last, v) in runs.iter() {
                    back[first as usize..=last as usize].fill(Some(*v));
                }
                assert_eq!(back, plain, "seed {seed}");
                let all: Vec<_> = runs.iter().collect();
                let differ =
                    |p: &[(Offset, Offset, &char)]| p[0].1 + 1 < p[1].0 || p[0].2 != p[1].2;
                assert!(all.windows(2).all(differ), "seed {seed}");
            }
        }
    }
}
