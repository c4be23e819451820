//! The metadata file: a header, a snapshot, and batches of raft entries; how it is written and how it is read back.
//! Knows nothing of I/O, nor of what commands mean.
//! Keeps a torn tail apart from damage: a batch is written only after every earlier one was flushed, so whatever lies before a
//! valid batch was acknowledged, and only what lies behind the last one may be cut.
//!
//! ```text
//! preamble   magic 8, format version 4, crc of these 12           the same in every version
//! header     node id 4, log id 8, snapshot length 8, snapshot crc 4, header crc 4
//! snapshot   length 4 + raft metadata, length 4 + hard state, the image as JSON
//! batch ...  magic 4, body length 4, sequence 8, position 8, crc of the previous header 4, body crc 4, header crc 4, body
//! body       records: kind 1, length 4, a raft entry or hard state
//! ```
//! Snapshot and batches are padded with zeros to whole blocks, so that no write ever touches a block that was acknowledged.
//! Numbers are little-endian, raft messages protobuf. Every CRC but the preamble's is seeded with the log id, a random number
//! of each file, so that no content can look like a header.

use super::error::MetaError;
use super::limits;
use raft::eraftpb::{ConfState, Entry, HardState, SnapshotMetadata};
use std::ops::Range;

/// The newest format this version reads, and the one it writes.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"MILLMETA";
const PREAMBLE: usize = 16;
const HEADER: usize = PREAMBLE + 28;
const BATCH_MAGIC: &[u8; 4] = b"MBAT";
const BATCH_HEADER: usize = 36;
/// The unit a disk writes or tears.
const BLOCK: usize = 4096;
const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;

/// Where the next batch goes and what it must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    pub log_id: u64,
    /// Length of the valid part of the file.
    pub len: u64,
    /// Length of header and snapshot: what is left when the log is empty.
    pub log_start: u64,
    sequence: u64,
    previous_crc: u32,
}

/// What a file says.
#[derive(Debug)]
pub struct Recovered {
    pub tail: Tail,
    /// Index and term of the last entry in the snapshot, and the members then.
    pub snapshot: SnapshotMetadata,
    pub hard_state: HardState,
    /// The image's JSON, as a part of the file.
    pub image: Range<usize>,
    /// Contiguous from the snapshot's index + 1.
    pub entries: Vec<Entry>,
}

fn crc(log_id: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&log_id.to_le_bytes());
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn aligned(len: usize) -> usize {
    len.next_multiple_of(BLOCK)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn message(m: &impl protobuf::Message) -> Vec<u8> {
    m.write_to_bytes().expect("a complete message into memory")
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("bounded by the limits of a batch");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A whole new file: a snapshot and no log.
pub fn encode_file(
    node_id: i32,
    log_id: u64,
    snapshot: &SnapshotMetadata,
    hard_state: &HardState,
    image: &[u8],
) -> (Vec<u8>, Tail) {
    let mut body = Vec::with_capacity(image.len() + 128);
    put_sized(&mut body, &message(snapshot));
    put_sized(&mut body, &message(hard_state));
    body.extend_from_slice(image);

    let mut file = Vec::with_capacity(HEADER + body.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    file.extend_from_slice(&crc32fast::hash(&file).to_le_bytes());
    file.extend_from_slice(&node_id.to_le_bytes());
    file.extend_from_slice(&log_id.to_le_bytes());
    file.extend_from_slice(&(body.len() as u64).to_le_bytes());
    file.extend_from_slice(&crc(log_id, &[&body]).to_le_bytes());
    let header_crc = crc(log_id, &[&file]);
    file.extend_from_slice(&header_crc.to_le_bytes());
    assert_eq!(file.len(), HEADER);
    file.extend_from_slice(&body);
    file.resize(aligned(file.len()), 0);
    let len = file.len() as u64;
    (
        file,
        Tail {
            log_id,
            len,
            log_start: len,
            sequence: 1,
            previous_crc: header_crc,
        },
    )
}

/// The records of one batch.
pub fn encode_records(entries: &[Entry], hard_state: Option<&HardState>) -> Vec<u8> {
    let mut body = Vec::new();
    let mut put = |kind: u8, bytes: Vec<u8>| {
        body.push(kind);
        put_sized(&mut body, &bytes);
    };
    entries
        .iter()
        .for_each(|entry| put(KIND_ENTRY, message(entry)));
    if let Some(state) = hard_state {
        put(KIND_HARD_STATE, message(state));
    }
    body
}

impl Tail {
    /// The bytes to append for these records, and the tail once they are durable.
    pub fn batch(&self, body: &[u8]) -> (Vec<u8>, Tail) {
        assert!(!body.is_empty() && body.len() <= limits::BATCH_BODY_BYTES_MAX);
        let mut out = Vec::with_capacity(BATCH_HEADER + body.len());
        out.extend_from_slice(BATCH_MAGIC);
        out.extend_from_slice(
            &u32::try_from(body.len())
                .expect("asserted above")
                .to_le_bytes(),
        );
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.previous_crc.to_le_bytes());
        out.extend_from_slice(&crc(self.log_id, &[body]).to_le_bytes());
        let header_crc = crc(self.log_id, &[&out]);
        out.extend_from_slice(&header_crc.to_le_bytes());
        assert_eq!(out.len(), BATCH_HEADER);
        out.extend_from_slice(body);
        out.resize(aligned(out.len()), 0);
        let next = Tail {
            len: self.len + out.len() as u64,
            sequence: self.sequence + 1,
            previous_crc: header_crc,
            ..self.clone()
        };
        (out, next)
    }

    /// Bytes of the log behind the snapshot.
    pub fn log_bytes(&self) -> u64 {
        self.len - self.log_start
    }
}

/// A header that is whole; says nothing of its body.
struct BatchHeader {
    body_len: usize,
    sequence: u64,
    previous_crc: u32,
    body_crc: u32,
    crc: u32,
}

/// The batch header at this position, if there is one.
fn batch_header(file: &[u8], at: usize, log_id: u64) -> Option<BatchHeader> {
    let bytes = file.get(at..at + BATCH_HEADER)?;
    let stored = u32_at(bytes, 32);
    let whole = &bytes[..4] == BATCH_MAGIC
        && u64_at(bytes, 16) == at as u64
        && crc(log_id, &[&bytes[..32]]) == stored;
    whole.then(|| BatchHeader {
        body_len: u32_at(bytes, 4) as usize,
        sequence: u64_at(bytes, 8),
        previous_crc: u32_at(bytes, 24),
        body_crc: u32_at(bytes, 28),
        crc: stored,
    })
}

/// The node that a file says it belongs to; only [`recover`] tells whether that can be believed.
pub fn stored_node(file: &[u8]) -> Option<i32> {
    let bytes = file.get(PREAMBLE..PREAMBLE + 4)?;
    Some(i32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

/// Reads a file back. `name` is for messages.
///
/// # Errors
/// A newer format, another node's file, or damage to what was acknowledged.
pub fn recover(file: &[u8], name: &str, node_id: i32) -> Result<Recovered, MetaError> {
    let damaged = |what: String| MetaError::Damaged {
        file: name.to_string(),
        what,
    };
    if file.len() < PREAMBLE
        || &file[..8] != MAGIC
        || crc32fast::hash(&file[..12]) != u32_at(file, 12)
    {
        return Err(damaged("it does not begin as a metadata file".to_string()));
    }
    let version = u32_at(file, 8);
    if version > FORMAT_VERSION {
        let file = name.to_string();
        return Err(MetaError::NewerVersion {
            file,
            found: version,
            known: FORMAT_VERSION,
        });
    }
    if version == 0 || file.len() < HEADER {
        return Err(damaged("its header is not whole".to_string()));
    }
    let log_id = u64_at(file, PREAMBLE + 4);
    let header_crc = u32_at(file, HEADER - 4);
    if crc(log_id, &[&file[..HEADER - 4]]) != header_crc {
        return Err(damaged("the checksum of its header is wrong".to_string()));
    }
    let stored = i32::from_le_bytes(file[PREAMBLE..PREAMBLE + 4].try_into().expect("four bytes"));
    if stored != node_id {
        return Err(MetaError::WrongNode {
            file: name.to_string(),
            stored,
            given: node_id,
        });
    }
    let snapshot_len = u64_at(file, PREAMBLE + 12);
    let snapshot_end = usize::try_from(snapshot_len)
        .ok()
        .and_then(|len| len.checked_add(HEADER))
        .filter(|end| *end <= file.len())
        .ok_or_else(|| damaged("it ends within its snapshot".to_string()))?;
    if crc(log_id, &[&file[HEADER..snapshot_end]]) != u32_at(file, PREAMBLE + 20) {
        return Err(damaged("the checksum of its snapshot is wrong".to_string()));
    }
    let mut fields = Fields {
        bytes: &file[HEADER..snapshot_end],
        at: 0,
    };
    let (Some(snapshot), Some(hard_state)) = (
        fields.message::<SnapshotMetadata>(),
        fields.message::<HardState>(),
    ) else {
        return Err(damaged("its snapshot cannot be read".to_string()));
    };
    let image = HEADER + fields.at..snapshot_end;
    if aligned(snapshot_end) > file.len() {
        return Err(damaged("it ends within its snapshot".to_string()));
    }
    let log_start = aligned(snapshot_end) as u64;
    let tail = Tail {
        log_id,
        len: log_start,
        log_start,
        sequence: 1,
        previous_crc: header_crc,
    };
    let mut recovered = Recovered {
        tail,
        snapshot,
        hard_state,
        image,
        entries: Vec::new(),
    };
    while (recovered.tail.len as usize) < file.len() {
        let at = recovered.tail.len as usize;
        match read_batch(file, &recovered.tail).map_err(&damaged)? {
            Some((header, body)) => {
                recovered
                    .take_records(&file[body.clone()])
                    .map_err(|what| damaged(format!("{what} in the batch at {at}")))?;
                recovered.tail.len = aligned(body.end) as u64;
                recovered.tail.sequence += 1;
                recovered.tail.previous_crc = header.crc;
            }
            None => {
                if let Some(later) = later_batch(file, &recovered.tail) {
                    return Err(damaged(format!(
                        "acknowledged commands at {at} cannot be read (the log goes on at {later})"
                    )));
                }
                // Nothing valid follows: a write that never completed, so nobody was told that it did.
                break;
            }
        }
    }
    recovered.check().map_err(damaged)?;
    Ok(recovered)
}

/// The batch at the tail; `None` if it is not whole.
fn read_batch(file: &[u8], tail: &Tail) -> Result<Option<(BatchHeader, Range<usize>)>, String> {
    let at = tail.len as usize;
    let Some(header) = batch_header(file, at, tail.log_id) else {
        return Ok(None);
    };
    if header.sequence != tail.sequence || header.previous_crc != tail.previous_crc {
        // A whole header that does not continue the chain is not what a torn write leaves behind.
        return Err(format!("the batch at {at} does not continue the log"));
    }
    let start = at + BATCH_HEADER;
    let body = start..start + header.body_len;
    // A file that ends within the padding is the work of a write that never completed, too.
    let whole = file.len() >= aligned(body.end);
    match file.get(body.clone()) {
        Some(bytes) if whole && crc(tail.log_id, &[bytes]) == header.body_crc => {
            Ok(Some((header, body)))
        }
        Some(_) | None => Ok(None),
    }
}

/// The position of a whole header behind the tail, of a batch later than the one expected there.
fn later_batch(file: &[u8], tail: &Tail) -> Option<usize> {
    let first = tail.len as usize + BLOCK;
    (first..file.len())
        .step_by(BLOCK)
        .find(|at| batch_header(file, *at, tail.log_id).is_some_and(|h| h.sequence > tail.sequence))
}

/// Reads length-prefixed parts.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn sized(&mut self) -> Option<&'a [u8]> {
        let start = self.at + 4;
        let len = self
            .bytes
            .get(self.at..start)
            .map(|b| u32_at(b, 0) as usize)?;
        let part = self.bytes.get(start..start.checked_add(len)?)?;
        self.at = start + len;
        Some(part)
    }

    fn message<M: protobuf::Message>(&mut self) -> Option<M> {
        M::parse_from_bytes(self.sized()?).ok()
    }
}

impl Recovered {
    fn take_records(&mut self, body: &[u8]) -> Result<(), String> {
        let mut fields = Fields { bytes: body, at: 0 };
        while fields.at < body.len() {
            let kind = body[fields.at];
            fields.at += 1;
            match kind {
                KIND_ENTRY => {
                    let entry = fields.message::<Entry>().ok_or("there is no raft entry")?;
                    self.take_entry(entry)?;
                }
                KIND_HARD_STATE => {
                    self.hard_state = fields
                        .message::<HardState>()
                        .ok_or("there is no raft state")?;
                }
                0 | 3..=255 => return Err(format!("there is a record of unknown kind {kind}")),
            }
        }
        Ok(())
    }

    /// An entry replaces the ones from its index on: a new leader's log is the one that counts.
    fn take_entry(&mut self, entry: Entry) -> Result<(), String> {
        let first = self.snapshot.index + 1;
        let keep = entry
            .index
            .checked_sub(first)
            .and_then(|n| usize::try_from(n).ok());
        match keep {
            Some(keep) if keep <= self.entries.len() => {
                self.entries.truncate(keep);
                self.entries.push(entry);
                Ok(())
            }
            Some(_) | None => Err(format!(
                "the entry {} does not continue the log",
                entry.index
            )),
        }
    }

    /// What the raft library takes for granted and would panic about.
    fn check(&self) -> Result<(), String> {
        let members: &ConfState = self.snapshot.get_conf_state();
        let last = self.snapshot.index + self.entries.len() as u64;
        let terms = self.entries.iter().map(|e| e.term);
        let mut newest = self.snapshot.term;
        for term in terms {
            if term < newest {
                return Err("the terms of its entries go back".to_string());
            }
            newest = term;
        }
        let ids = [
            &members.voters,
            &members.voters_outgoing,
            &members.learners,
            &members.learners_next,
        ];
        if members.voters.is_empty()
            || ids
                .iter()
                .any(|ids| ids.len() > limits::BROKERS_MAX || ids.contains(&0))
        {
            return Err("its list of members is not one".to_string());
        }
        if self.hard_state.commit < self.snapshot.index || self.hard_state.commit > last {
            return Err(format!(
                "it has entries {}..={last} but says that {} is committed",
                self.snapshot.index, self.hard_state.commit
            ));
        }
        if self.hard_state.term < newest {
            return Err("its term is older than that of its entries".to_string());
        }
        Ok(())
    }
}
