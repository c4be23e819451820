//! Owns the target of journals: commit headers, entries, and what recovery and `log dump` make of a whole file.
//! Does not know partitions.
//! Invariant: a scan gives only commits whose bytes it can read back, and ends whatever the file claims.

use super::with_files;
use millrace_engine::formats::{
    body_crc, entries, CarryOver, CommitHeader, EntryKind, JournalId, JournalScan, ENTRY_BYTES,
    HEADER_BYTES,
};
use millrace_engine::inspect::dump::{dump, Item};
use millrace_engine::types::limits::BLOCK_BYTES;
use std::io;
use std::path::Path;

/// Sequences that a journal can reach: a thousand million commits a second for nine years. Recovery begins at one that
/// a checkpoint names, which is none of the journal's bytes.
const SEQUENCE_MAX: u64 = 1 << 58;

/// A journal file, as it is and with all its checksums put right; and its bytes as the body of a commit.
pub fn journal(data: &[u8]) {
    body(data);
    file(data);
    if let Some(sealed) = sealed(data) {
        file(&sealed);
    }
}

fn body(data: &[u8]) {
    if let Some(found) = entries(data) {
        let mut again = Vec::new();
        for (header, payload) in &found {
            assert_eq!(header.payload_bytes as usize, payload.len());
            again.extend_from_slice(&header.encode());
            again.extend_from_slice(payload);
        }
        assert_eq!(entries(&again), Some(found), "entries written again");
        assert_eq!(again.len(), data.len());
    }
    for payload in [data, data.get(ENTRY_BYTES..).unwrap_or(data)] {
        if let Some(carried) = CarryOver::decode(payload) {
            assert_eq!(carried.encode(), payload);
        }
    }
}

/// The id of the journal that the file says it is of, and its first header where that is one.
fn claims(data: &[u8]) -> (JournalId, Option<CommitHeader>) {
    let Some(id) = CommitHeader::claimed_journal(data) else {
        return (JournalId(0), None);
    };
    let decoded = CommitHeader::decode(id, data, 0);
    if let Some((header, _)) = decoded {
        let mut again = [0; HEADER_BYTES];
        let crc = header.encode(id, &mut again);
        assert_eq!(CommitHeader::decode(id, &again, 0), Some((header, crc)));
    }
    (id, decoded.map(|(header, _)| header))
}

fn file(data: &[u8]) {
    let path = Path::new("/journal/0000000000.journal");
    let (id, header) = claims(data);
    let generation = header.map_or(1, |h| h.generation);
    let first = header.map_or(1, |h| h.sequence.clamp(1, SEQUENCE_MAX));
    let dir = path.parent().expect("in a folder");
    with_files(&[(path, data)], async {
        for first in [first, 1] {
            let scan = JournalScan::look(dir, id, generation, first).await?;
            read_all(&scan, first, data.len()).await?;
            scan.close().await?;
        }
        let mut items = 0;
        dump(path, &mut |item| {
            items += 1;
            if let Item::Batch { bytes, .. } = item {
                assert!(bytes.len() <= data.len());
            }
            true
        })
        .await?;
        assert!(items <= data.len(), "more items than bytes");
        io::Result::Ok(())
    })
    .expect("a disk without faults");
}

async fn read_all(scan: &JournalScan, first: u64, len: usize) -> io::Result<()> {
    assert_eq!(scan.end + 1, first + scan.commits() as u64);
    assert!(scan.commits() + scan.commits_beyond() <= len / BLOCK_BYTES);
    if !scan.damaged() {
        assert_eq!(scan.commits_beyond(), 0, "all that counts is in the chain");
    }
    for index in 0..scan.commits() {
        let commit = scan.commit(index).await?;
        let (_, byte) = scan.place(index);
        assert!((byte as usize) < len);
        let Some(entries) = commit.checked_entries() else {
            continue;
        };
        for (entry, payload) in entries {
            let carries = entry.kind == EntryKind::CarryOver;
            if let Some(carried) = carries.then(|| CarryOver::decode(payload)).flatten() {
                assert!(carried.bytes.len() <= BLOCK_BYTES);
            }
        }
    }
    for index in 0..scan.commits_beyond() {
        let commit = scan.commit_beyond(index).await?;
        assert!(commit.checked_entries().is_none_or(|e| e.len() <= len));
    }
    if let Some((_, end)) = scan.chain_end() {
        assert!(end as usize <= len.next_multiple_of(BLOCK_BYTES));
    }
    Ok(())
}

/// The same file with commits where it has blocks, each linked to the one before it.
fn sealed(data: &[u8]) -> Option<Vec<u8>> {
    if data.len() < BLOCK_BYTES {
        return None;
    }
    let mut file = data.to_vec();
    let number = |file: &[u8], at: usize| {
        u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"))
    };
    let id = JournalId(u128::from_le_bytes(
        file[8..24].try_into().expect("sixteen"),
    ));
    let mut previous_crc = 0;
    let mut at = 0;
    while at + BLOCK_BYTES <= file.len() {
        let claimed = number(&file, at + 56) as u32 as usize;
        let body_bytes = claimed.min(file.len() - at - HEADER_BYTES);
        let body = &file[at + HEADER_BYTES..at + HEADER_BYTES + body_bytes];
        let header = CommitHeader {
            generation: number(&file, at + 24),
            sequence: number(&file, at + 32),
            position: at as u64,
            durable_sequence: number(&file, at + 48),
            body_bytes: body_bytes as u32,
            body_crc: body_crc(id, body),
            previous_crc,
        };
        previous_crc = header.encode(id, &mut file[at..]);
        at += header.padded_bytes();
    }
    Some(file)
}
