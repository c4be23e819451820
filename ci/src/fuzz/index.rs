//! Owns the target of index files. Does not know segments.
//! Invariant: an index that is believed grows, is written as it was read, and never points behind what is asked for.

use super::{take, take_u16};
use millrace_engine::formats::Index;

/// The length of the segment, three bytes; the length of `.index`, two; `.index`; `.timeindex`.
pub fn index(data: &[u8]) {
    let mut rest = data;
    let high = take(&mut rest, 1).first().copied().unwrap_or(0);
    let bytes = u64::from(high) << 16 | take_u16(&mut rest) as u64;
    let length = take_u16(&mut rest);
    let offsets = take(&mut rest, length);
    let Some(index) = Index::decode(offsets, rest, bytes) else {
        return;
    };
    assert_eq!(index.encode_offsets(), offsets);
    assert_eq!(index.encode_times(), rest);
    for entry in index.offsets() {
        for relative in [entry.relative, entry.relative.saturating_add(1)] {
            let position = index.entry_for(relative).map_or(0, |e| e.position);
            assert!(u64::from(position) < bytes.max(1));
            let before = index.offsets().iter().rfind(|e| e.relative < relative);
            assert_eq!(position, before.map_or(0, |e| e.position));
        }
    }
    for entry in index.times() {
        let found = index.before_time(entry.timestamp_ms);
        let before = index
            .times()
            .iter()
            .rfind(|e| e.timestamp_ms < entry.timestamp_ms);
        assert_eq!(found.as_ref(), before);
    }
    let mut longer = index.clone();
    longer.append(index.clone());
    assert_eq!(longer.offsets(), index.offsets(), "nothing is there twice");
}

/// The input of this target for these files.
pub fn pack(bytes: usize, offsets: &[u8], times: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes).expect("a small segment").to_be_bytes();
    let length = u16::try_from(offsets.len()).expect("a small file");
    [&size[1..], &length.to_be_bytes(), offsets, times].concat()
}
