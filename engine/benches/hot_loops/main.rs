//! Owns the times of the engine's hot loops, each by itself, for whoever changes one of them.
//! Does not know what a broker makes of them: `perf` measures that, and `ci/harness/instructions.py` counts a whole request.
//! Invariant: only what brokers run is within the time; inputs are made before, by numbers that never change.

mod append;
mod batches;
mod image;
mod index;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    hot_loops,
    batches::crc,
    batches::header,
    batches::framing,
    batches::check,
    index::lookup,
    image::lookup,
    append::hand_over,
);
criterion_main!(hot_loops);

/// Numbers without a pattern that a branch predictor or a prefetcher could learn; the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
