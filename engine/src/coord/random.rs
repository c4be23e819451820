//! Owns what random histories of coordinators are made from: which seeds, and the numbers of each.
//! Does not know what the numbers are used for.
//! Invariant: a history is a function of its seed.

/// The seeds of a test: so many, or `COORDINATOR_SEEDS` of them where that is set. A gate has thousands; whoever works on a
/// coordinator has an answer in seconds.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("COORDINATOR_SEEDS") else {
        return 0..usual;
    };
    0..asked.parse().expect("COORDINATOR_SEEDS is a number")
}

/// Numbers of 53 bits.
pub fn random_of(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    }
}
