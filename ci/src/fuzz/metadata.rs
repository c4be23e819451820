//! Owns the target of the metadata file: header, snapshot, raft log, and the commands in it.
//! Does not know the raft library beyond what the file gives it.
//! Invariant: what was read can be gone on with: the log takes one more batch, the image every command.

use millrace_engine::meta::format::{encode_records, recover, stored_node, Recovered};
use millrace_engine::meta::{machine, snapshot, Command, Image};
use std::sync::Arc;

const PREAMBLE: usize = 16;
const HEADER: usize = 44;
const BATCH_HEADER: usize = 36;
const BLOCK: usize = 4096;

/// Entries that are applied: one may be as much work as a command for a hundred thousand partitions.
const COMMANDS_MAX: usize = 32;

/// A metadata file, as it is and with all its checksums put right; and its bytes as a snapshot and as a command.
pub fn metadata(data: &[u8]) {
    file(data);
    if let Some(sealed) = sealed(data) {
        file(&sealed);
    }
    image(data, 1);
    command(data);
}

fn file(data: &[u8]) {
    let node = stored_node(data).unwrap_or(1);
    let Ok(recovered) = recover(data, "metadata", node) else {
        return;
    };
    assert!(recovered.tail.log_start <= recovered.tail.len);
    assert!(recovered.tail.len <= data.len() as u64);
    goes_on(data, &recovered, node);
    let Some(mut image) = image(&data[recovered.image.clone()], node) else {
        return;
    };
    let commands = recovered.entries.iter().take(COMMANDS_MAX);
    for command in commands.filter_map(|entry| command(&entry.data)) {
        let before = image.clone();
        if machine::apply(&mut image, &command).is_err() {
            assert_eq!(image, before, "a refused command changed something");
        }
    }
    let text = snapshot::encode(&image);
    let again = snapshot::decode(&text, node, Arc::default());
    assert_eq!(again.as_ref(), Ok(&image), "an image written and read");
}

/// The next batch goes where the tail is, and everything before it stays.
fn goes_on(data: &[u8], recovered: &Recovered, node: i32) {
    let (batch, _) = recovered
        .tail
        .batch(&encode_records(&[], Some(&recovered.hard_state)));
    let longer = [&data[..recovered.tail.len as usize], &batch].concat();
    let again = recover(&longer, "metadata", node).expect("a batch more");
    assert_eq!(again.entries, recovered.entries);
    assert_eq!(again.tail.len, longer.len() as u64);
}

fn image(text: &[u8], node: i32) -> Option<Image> {
    let image = snapshot::decode(text, node, Arc::default()).ok()?;
    let again = snapshot::decode(&snapshot::encode(&image), node, Arc::default());
    assert_eq!(
        again.as_ref(),
        Ok(&image),
        "an image read, written and read"
    );
    Some(image)
}

fn command(bytes: &[u8]) -> Option<Command> {
    let command = Command::decode(bytes).ok()?;
    let again = command.encode().and_then(|bytes| Command::decode(&bytes));
    assert_eq!(again.as_ref(), Ok(&command));
    Some(command)
}

fn crc(log_id: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(log_id);
    hasher.update(bytes);
    hasher.finalize()
}

/// The same file with every length within it and every checksum as it should be.
fn sealed(data: &[u8]) -> Option<Vec<u8>> {
    if data.len() < HEADER {
        return None;
    }
    let mut file = data.to_vec();
    let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut file, 0, b"MILLMETA");
    put(&mut file, 8, &1u32.to_le_bytes());
    let preamble = crc32fast::hash(&file[..12]).to_le_bytes();
    put(&mut file, 12, &preamble);
    let log_id: [u8; 8] = file[PREAMBLE + 4..PREAMBLE + 12].try_into().expect("eight");
    let length = &file[PREAMBLE + 12..PREAMBLE + 20];
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    let length = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .min(file.len() - HEADER);
    put(&mut file, PREAMBLE + 12, &(length as u64).to_le_bytes());
    let snapshot_crc = crc(&log_id, &file[HEADER..HEADER + length]).to_le_bytes();
    put(&mut file, PREAMBLE + 20, &snapshot_crc);
    let mut previous = crc(&log_id, &file[..HEADER - 4]).to_le_bytes();
    put(&mut file, HEADER - 4, &previous);
    let mut at = (HEADER + length).next_multiple_of(BLOCK);
    for sequence in 1u64.. {
        if file.get(at..at + 4) != Some(b"MBAT") || at + BATCH_HEADER >= file.len() {
            break;
        }
        let claimed: [u8; 4] = file[at + 4..at + 8].try_into().expect("four bytes");
        let length = (u32::from_le_bytes(claimed) as usize).min(file.len() - at - BATCH_HEADER);
        let body = at + BATCH_HEADER..at + BATCH_HEADER + length;
        put(&mut file, at + 4, &(length as u32).to_le_bytes());
        put(&mut file, at + 8, &sequence.to_le_bytes());
        put(&mut file, at + 16, &(at as u64).to_le_bytes());
        put(&mut file, at + 24, &previous);
        let body_crc = crc(&log_id, &file[body.clone()]).to_le_bytes();
        put(&mut file, at + 28, &body_crc);
        previous = crc(&log_id, &file[at..at + 32]).to_le_bytes();
        put(&mut file, at + 32, &previous);
        at = body.end.next_multiple_of(BLOCK);
    }
    let whole = file.len().next_multiple_of(BLOCK);
    file.resize(whole, 0);
    Some(file)
}
