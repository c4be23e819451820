//! Owns the target of checkpoints. Does not know what recovery does with one.
//! Invariant: a checkpoint that was read is written, and read again as the same.

use millrace_engine::formats::Checkpoint;
use millrace_engine::types::limits::BLOCK_BYTES;

/// Positions in a segment have 31 bits.
const SEGMENT_BYTES_MAX: u64 = 1 << 31;

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
    // Recovery counts commits from here, and takes memory for each block of a segment.
    assert!(read.replay_from > 0);
    for segment in read.partitions.iter().flat_map(|p| &p.segments) {
        assert!(segment.bytes <= SEGMENT_BYTES_MAX);
        assert!(segment.sums.saved as u64 <= SEGMENT_BYTES_MAX / BLOCK_BYTES as u64);
    }
    assert_eq!(Checkpoint::decode(&read.encode()), Ok(read));
}
