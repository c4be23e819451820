//! Owns making hostile inputs of good ones: flipped bits, numbers at their limits, cuts, splices.
//! Does not know formats.
//! Invariant: the same numbers make the same input, and none outgrows [`BYTES_MAX`].

use crate::sim::seeds::Rng;

/// Longest input that is made.
pub const BYTES_MAX: usize = 64 << 10;

/// Changes made to one input at the most.
const CHANGES_MAX: u64 = 5;

/// Numbers at which lengths, counts and offsets go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    7,
    60,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// A few changes to `input`; `other` is an input of the same format to take parts of.
pub fn mutate(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.between(1, CHANGES_MAX) {
        change(rng, &mut bytes, other);
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

/// A place in `bytes`, its end included. Often near the front, where headers are.
fn place(rng: &mut Rng, bytes: &[u8]) -> usize {
    let end = bytes.len() as u64 + 1;
    let end = if rng.one_in(2) { end.min(128) } else { end };
    rng.below(end) as usize
}

/// A stretch of `bytes`, mostly short.
fn stretch(rng: &mut Rng, bytes: &[u8]) -> std::ops::Range<usize> {
    let from = place(rng, bytes);
    let longest = (bytes.len() - from) as u64;
    let longest = if rng.one_in(4) {
        longest
    } else {
        longest.min(16)
    };
    from..from + rng.between(0, longest) as usize
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    match rng.below(10) {
        0 | 1 if !bytes.is_empty() => {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        2 if !bytes.is_empty() => {
            let at = place(rng, bytes).min(bytes.len() - 1);
            bytes[at] = rng.draw() as u8;
        }
        3 => {
            let at = place(rng, bytes);
            overwrite(bytes, at, &number(rng));
        }
        4 => {
            let at = place(rng, bytes);
            bytes.splice(at..at, number(rng));
        }
        5 => nudge(rng, bytes),
        6 => bytes.truncate(place(rng, bytes)),
        7 => {
            let range = stretch(rng, bytes);
            bytes.drain(range);
        }
        8 => {
            let range = stretch(rng, bytes);
            let copy = bytes[range].to_vec();
            let at = place(rng, bytes);
            bytes.splice(at..at, copy);
        }
        _ => {
            let range = stretch(rng, other);
            let at = place(rng, bytes);
            if rng.one_in(2) {
                overwrite(bytes, at, &other[range]);
            } else {
                bytes.splice(at..at, other[range].iter().copied());
            }
        }
    }
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, with: &[u8]) {
    let end = (at + with.len()).min(bytes.len());
    bytes.splice(at..end, with.iter().copied());
}

/// A number of one to eight bytes in either order, or of variable length.
fn number(rng: &mut Rng) -> Vec<u8> {
    let number = rng.pick(&NUMBERS);
    let width = 1 << rng.below(4);
    match rng.below(3) {
        0 => number.to_be_bytes()[8 - width..].to_vec(),
        1 => number.to_le_bytes()[..width].to_vec(),
        _ => varint(number),
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// Makes a number of four bytes, a length perhaps, a little larger or smaller.
fn nudge(rng: &mut Rng, bytes: &mut [u8]) {
    let at = place(rng, bytes);
    let Some(word) = bytes.get_mut(at..at + 4) else {
        return;
    };
    let by = (rng.below(33) as u32).wrapping_sub(16);
    let old: [u8; 4] = (&*word).try_into().expect("four bytes");
    let new = if rng.one_in(2) {
        u32::from_be_bytes(old).wrapping_add(by).to_be_bytes()
    } else {
        u32::from_le_bytes(old).wrapping_add(by).to_le_bytes()
    };
    word.copy_from_slice(&new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_they_differ() {
        let made = |seed| -> Vec<Vec<u8>> {
            let mut rng = Rng::new(seed);
            (0..500)
                .map(|_| mutate(&mut rng, b"some input", b"another"))
                .collect()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        let different: std::collections::BTreeSet<_> = made(1).into_iter().collect();
        assert!(different.len() > 400, "{} of 500", different.len());
    }

    #[test]
    fn nothing_to_change_is_no_trouble_and_nothing_outgrows_the_bound() {
        let mut rng = Rng::new(3);
        for _ in 0..2_000 {
            mutate(&mut rng, &[], &[]);
            let long = vec![1; BYTES_MAX];
            assert!(mutate(&mut rng, &long, &long).len() <= BYTES_MAX);
        }
    }
}
