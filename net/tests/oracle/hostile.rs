//! Owns the tests with input that no honest peer sends: cut, mutated, with counts out of all proportion.
//! Does not know what the messages mean.
//! Keeps: the memory taken by a decode is counted by the allocator itself, not believed.
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use millrace_net::wire::primitives::{DECODE_MEMORY_FACTOR, DECODE_MEMORY_SLACK};
use millrace_net::wire::{Reader, WireError};

use crate::support::{Case, Rng};
use crate::{
    admin_apis, client_apis, cluster_apis, group_apis, operator_apis, share_apis, txn_apis,
};

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread allocates; nothing is subtracted when it is freed.
struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

fn count(size: usize) {
    // Not available while a thread ends, and of no interest then.
    let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get().saturating_add(size)));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `Bytes` itself allocates to share a buffer.
const SHARING_BYTES: usize = 256;

/// Decodes and checks the memory it took.
fn decode(case: &Case, bytes: Bytes) -> Result<(), WireError> {
    let allowed = bytes.len() * DECODE_MEMORY_FACTOR + DECODE_MEMORY_SLACK + SHARING_BYTES;
    let before = ALLOCATED.get();
    let result = (case.decode)(bytes, case.version);
    let taken = ALLOCATED.get() - before;
    assert!(
        taken <= allowed,
        "{} v{} took {taken} bytes, {allowed} are allowed",
        case.name,
        case.version
    );
    result
}

fn cases(rng: &mut Rng) -> Vec<Case> {
    let mut cases = client_apis::cases(rng);
    cases.append(&mut admin_apis::cases(rng));
    cases.append(&mut group_apis::cases(rng));
    cases.append(&mut cluster_apis::cases(rng));
    cases.append(&mut share_apis::cases(rng));
    cases.append(&mut operator_apis::cases(rng));
    cases.append(&mut txn_apis::cases(rng));
    assert!(cases.len() > 300);
    cases
}

#[test]
fn every_truncation_is_an_error() {
    for case in cases(&mut Rng::seeded("truncation")) {
        assert_eq!(
            decode(&case, case.bytes.clone()),
            Ok(()),
            "{} v{}",
            case.name,
            case.version
        );
        for length in 0..case.bytes.len() {
            let cut = Bytes::copy_from_slice(&case.bytes[..length]);
            assert!(
                decode(&case, cut).is_err(),
                "{} v{} cut at {length}",
                case.name,
                case.version
            );
        }
    }
}

#[test]
fn trailing_bytes_are_an_error() {
    for case in cases(&mut Rng::seeded("trailing")) {
        let mut longer = BytesMut::from(&case.bytes[..]);
        longer.extend_from_slice(&[0]);
        assert_eq!(
            decode(&case, longer.freeze()),
            Err(WireError::TrailingBytes { unread: 1 })
        );
    }
}

#[test]
fn mutations_neither_panic_nor_take_memory() {
    let mut rng = Rng::seeded("mutation");
    for case in cases(&mut rng) {
        if case.bytes.is_empty() {
            continue;
        }
        for _ in 0..200 {
            let mut bytes = case.bytes.to_vec();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len());
                match rng.below(4) {
                    0 => bytes[at] = rng.next() as u8,
                    1 => bytes[at] ^= 1 << rng.below(8),
                    2 => bytes.insert(at, rng.next() as u8),
                    _ if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => bytes[at] = 0xff,
                }
            }
            // Either outcome is right; what counts is that there is one, within the memory allowed.
            let _ = decode(&case, bytes.into());
        }
    }
}

#[test]
fn huge_counts_take_no_memory() {
    // As lengths of four bytes, of two bytes, and compact ones.
    let huge: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x00, 0xff, 0xff, 0xff],
        &[0x80, 0x00, 0x00, 0x00],
        &[0x7f, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ];
    for case in cases(&mut Rng::seeded("counts")) {
        for at in 0..case.bytes.len() {
            for count in huge {
                let mut bytes = case.bytes.to_vec();
                let end = (at + count.len()).min(bytes.len());
                bytes.splice(at..end, count.iter().copied());
                let _ = decode(&case, bytes.into());
            }
        }
    }
}

#[test]
fn random_bytes_neither_panic_nor_take_memory() {
    let mut rng = Rng::seeded("noise");
    for case in cases(&mut rng) {
        for _ in 0..50 {
            let length = rng.below(200);
            // Small bytes make plausible lengths.
            let top = if rng.one_in(2) { 4 } else { 256 };
            let bytes: Vec<u8> = (0..length).map(|_| rng.below(top) as u8).collect();
            let _ = decode(&case, bytes.into());
        }
    }
}

#[test]
fn many_tiny_elements_meet_the_memory_limit() {
    // A metadata request of version 9: an array of structs of an empty string, two bytes each.
    let count = 1_000_000u32;
    let mut bytes = BytesMut::new();
    let mut left = count + 1;
    while left >= 0x80 {
        bytes.extend_from_slice(&[left as u8 | 0x80]);
        left >>= 7;
    }
    bytes.extend_from_slice(&[left as u8]);
    for _ in 0..count {
        bytes.extend_from_slice(&[1, 0]);
    }
    bytes.extend_from_slice(&[0, 0, 0, 0]);
    let bytes = bytes.freeze();
    let before = ALLOCATED.get();
    let result = crate::support::decode::<millrace_net::wire::metadata::MetadataRequest>(bytes, 9);
    assert!(
        matches!(result, Err(WireError::MemoryLimit { .. })),
        "{result:?}"
    );
    assert!(ALLOCATED.get() - before <= SHARING_BYTES);
}

#[test]
fn varints_are_read_to_their_last_bit_and_no_further() {
    let read = |bytes: &[u8]| Reader::new(Bytes::copy_from_slice(bytes)).uvarint();
    assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
    assert_eq!(
        read(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
        Err(WireError::VarintOverflow { bits: 32 })
    );
    assert_eq!(
        read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        Err(WireError::VarintOverflow { bits: 32 })
    );
    assert_eq!(
        read(&[0x80]),
        Err(WireError::Truncated {
            needed: 1,
            remaining: 0
        })
    );
    let read = |bytes: &[u8]| Reader::new(Bytes::copy_from_slice(bytes)).varlong();
    assert_eq!(
        read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        Ok(i64::MIN)
    );
    assert_eq!(
        read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
        Err(WireError::VarintOverflow { bits: 64 })
    );
}

#[test]
fn text_must_be_utf8() {
    let mut reader = Reader::new(Bytes::from_static(&[0, 2, 0xc3, 0x28]));
    assert_eq!(reader.string(false), Err(WireError::InvalidUtf8));
}
