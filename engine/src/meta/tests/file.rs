//! Tests of the file: what is written is read back; torn tails are cut, damage is reported, nothing panics.

use super::*;
use crate::meta::format::{encode_file, encode_records, recover, Recovered, Tail};
use crate::meta::member::first_snapshot;
use crate::meta::{snapshot, MetaError};
use raft::eraftpb::{Entry, HardState};

const LOG_ID: u64 = 0x1234_5678_9abc_def0;

fn entry(index: u64, len: usize) -> Entry {
    Entry {
        index,
        term: 2,
        data: vec![b'x'; len].into(),
        ..Entry::default()
    }
}

fn state(commit: u64) -> HardState {
    HardState {
        term: 2,
        vote: 2,
        commit,
        ..HardState::default()
    }
}

/// A file with a snapshot and batches; gives the length after each.
fn sample() -> (Vec<u8>, Vec<usize>) {
    let (metadata, hard_state) = first_snapshot(1);
    let mut image = empty_image();
    image.version = 1;
    let (mut file, mut tail) =
        encode_file(1, LOG_ID, &metadata, &hard_state, &snapshot::encode(&image));
    let mut ends = vec![file.len()];
    let batches = [
        encode_records(&[entry(2, 10), entry(3, 0)], Some(&state(1))),
        encode_records(&[entry(4, 9_000)], None),
        encode_records(&[], Some(&state(4))),
        encode_records(&[entry(5, 1), entry(6, 4_000)], Some(&state(4))),
    ];
    for body in batches {
        let (bytes, next) = tail.batch(&body);
        file.extend_from_slice(&bytes);
        tail = next;
        assert_eq!(tail.len, file.len() as u64);
        ends.push(file.len());
    }
    (file, ends)
}

fn read(file: &[u8]) -> Result<Recovered, MetaError> {
    recover(file, "metadata", 1)
}

#[test]
fn what_is_written_is_read_back() {
    let (file, _) = sample();
    let recovered = read(&file).expect("whole");
    assert_eq!(recovered.tail.len, file.len() as u64);
    assert_eq!(
        recovered
            .entries
            .iter()
            .map(|e| e.index)
            .collect::<Vec<_>>(),
        [2, 3, 4, 5, 6]
    );
    assert_eq!(recovered.entries[2].data.len(), 9_000);
    assert_eq!(recovered.hard_state, state(4));
    assert_eq!(recovered.snapshot.index, 1);
    let image = snapshot::decode(&file[recovered.image.clone()], 1, Arc::default());
    assert_eq!(image.expect("an image").version, 1);
    // The tail goes on where the writer's would have.
    let (bytes, _) = recovered.tail.batch(&encode_records(&[entry(7, 1)], None));
    let longer = [file, bytes].concat();
    assert_eq!(read(&longer).expect("whole").entries.len(), 6);
}

#[test]
fn every_truncation_gives_an_earlier_state_or_an_error() {
    let (file, ends) = sample();
    for len in 0..file.len() {
        match read(&file[..len]) {
            Ok(recovered) => {
                let end = ends.iter().rev().find(|end| **end <= len);
                assert_eq!(
                    Some(recovered.tail.len as usize),
                    end.copied(),
                    "cut at {len}"
                );
            }
            Err(MetaError::Damaged { .. }) => assert!(len < ends[0], "cut at {len}"),
            Err(other) => panic!("cut at {len}: {other}"),
        }
    }
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let (file, ends) = sample();
    let whole = read(&file).expect("whole");
    let last_batch = ends[ends.len() - 2];
    for at in 0..file.len() {
        // Padding and long payloads behave alike: not every one of their bytes is needed.
        if at % 7 != 0
            && file[at] == file[at.saturating_sub(1)]
            && file[at] == file[(at + 1).min(file.len() - 1)]
        {
            continue;
        }
        for bit in [0, 3, 7] {
            let mut bad = file.clone();
            bad[at] ^= 1 << bit;
            match read(&bad) {
                Err(MetaError::Damaged { .. }) => {}
                Err(other) => panic!("bit {bit} of {at}: {other}"),
                Ok(recovered) if recovered.tail == whole.tail => {
                    assert_eq!(recovered.entries, whole.entries, "bit {bit} of {at}");
                    assert_eq!(recovered.hard_state, whole.hard_state, "bit {bit} of {at}");
                    assert_eq!(bad[recovered.image.clone()], file[whole.image.clone()]);
                }
                // The last batch has nothing behind it: damage there cannot be told from a torn write.
                Ok(recovered) => {
                    assert_eq!(recovered.tail.len as usize, last_batch, "bit {bit} of {at}");
                    assert!(at >= last_batch);
                }
            }
        }
    }
}

#[test]
fn damage_before_a_later_batch_is_never_cut() {
    let (file, ends) = sample();
    for (batch, start) in ends[..ends.len() - 2].iter().enumerate() {
        let mut bad = file.clone();
        let end = ends[batch + 1];
        bad[*start..end].fill(0);
        let error = read(&bad).expect_err("acknowledged commands are gone");
        assert!(error.to_string().contains("the log goes on at"), "{error}");
    }
    let mut swapped = file[..ends[1]].to_vec();
    swapped.extend_from_slice(&file[ends[2]..]);
    assert!(
        matches!(read(&swapped), Ok(r) if r.tail.len as usize == ends[1]),
        "another position"
    );
}

#[test]
fn torn_tails_are_cut() {
    let (file, ends) = sample();
    let start = ends[ends.len() - 2];
    for fill in [0u8, 0xff, b'M'] {
        for sector in (start..file.len()).step_by(512) {
            if file[sector..sector + 512].iter().all(|b| *b == fill) {
                continue;
            }
            let mut torn = file.clone();
            torn[sector..sector + 512].fill(fill);
            let recovered = read(&torn).expect("a torn tail is no damage");
            let (len, end) = (recovered.tail.len as usize, file.len());
            assert!(len == start || len == end, "either the whole batch or none");
            assert_eq!(recovered.entries.len(), if len == end { 5 } else { 3 });
        }
    }
    let mut longer = file.clone();
    longer.extend_from_slice(&[0; 10_000]);
    assert_eq!(
        read(&longer).expect("zeros behind").tail.len as usize,
        file.len()
    );
    // A header from another position or another file is no later batch.
    let mut copied = file[..start].to_vec();
    copied.extend_from_slice(&[0; 4096]);
    copied.extend_from_slice(&file[start..]);
    assert_eq!(read(&copied).expect("a torn tail").tail.len as usize, start);
}

#[test]
fn foreign_files_are_refused() {
    let (file, _) = sample();
    let error = recover(&file, "metadata", 2).expect_err("another node's");
    assert_eq!(
        error,
        MetaError::WrongNode {
            file: "metadata".to_string(),
            stored: 1,
            given: 2
        }
    );

    let mut newer = file.clone();
    newer[8..12].copy_from_slice(&2u32.to_le_bytes());
    let crc = crc32fast::hash(&newer[..12]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    let error = read(&newer).expect_err("a newer version's");
    assert_eq!(error.to_string(), "metadata has format version 2, this version reads up to 1: use the newer version of Millrace that wrote it");

    for bytes in [
        &b""[..],
        b"x",
        &[0; 4096],
        &[0xff; 20_000],
        b"{\"json\":true}    and more of it",
    ] {
        assert!(matches!(read(bytes), Err(MetaError::Damaged { .. })));
    }
}

/// Batches whose checksums are right and whose content is not.
#[test]
fn well_formed_nonsense_is_refused() {
    let (metadata, hard_state) = first_snapshot(1);
    let image = snapshot::encode(&empty_image());
    let (file, tail) = encode_file(1, LOG_ID, &metadata, &hard_state, &image);
    let with = |tail: &Tail, body: &[u8]| [file.clone(), tail.batch(body).0].concat();
    let old_term = Entry {
        term: 0,
        ..entry(2, 0)
    };
    let bodies: Vec<(Vec<u8>, &str)> = vec![
        (vec![9], "unknown kind 9"),
        (vec![0; 100], "unknown kind 0"),
        (vec![1], "no raft entry"),
        (vec![1, 0xff, 0xff, 0xff, 0xff, 1], "no raft entry"),
        (vec![1, 2, 0, 0, 0, 0xff, 0xff], "no raft entry"),
        (vec![2, 3, 0, 0, 0, 0x0a, 0xff, 0xff], "no raft state"),
        (
            encode_records(&[entry(3, 1)], None),
            "does not continue the log",
        ),
        (
            encode_records(&[entry(1, 1)], None),
            "does not continue the log",
        ),
        (
            encode_records(&[entry(0, 1)], None),
            "does not continue the log",
        ),
        (
            encode_records(&[old_term], None),
            "terms of its entries go back",
        ),
        (
            encode_records(&[], Some(&state(2))),
            "says that 2 is committed",
        ),
        (
            encode_records(&[], Some(&state(0))),
            "says that 0 is committed",
        ),
        (encode_records(&[entry(2, 0)], None), "its term is older"),
    ];
    for (body, expected) in bodies {
        let error = read(&with(&tail, &body)).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error} is not about {expected}");
    }
    let mut nobody = metadata.clone();
    nobody.mut_conf_state().voters.clear();
    let (file, _) = encode_file(1, LOG_ID, &nobody, &hard_state, &image);
    assert!(read(&file)
        .expect_err("no members")
        .to_string()
        .contains("list of members"));
}
