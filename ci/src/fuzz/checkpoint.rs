//! Owns the target of checkpoints. Does not know what recovery does with one.
//! Invariant: a checkpoint that was read is written, and read again as the same.

use millrace_engine::formats::Checkpoint;

/// A checkpoint, as it is and with its checksum put right.
pub fn checkpoint(data: &[u8]) {
    check(data);
    if let Some((body, _)) = data.split_last_chunk::<4>() {
        let crc = crc32fast::hash(body).to_le_bytes();
        check(&[body, &crc].concat());
    }
}

fn check(data: &[u8]) {
    let Ok(read) = Checkpoint::decode(data) else {
        return;
    };
    assert_eq!(Checkpoint::decode(&read.encode()), Ok(read));
}
