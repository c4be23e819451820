//! Owns the target of manifests. Does not know what recovery does with one.
//! Invariant: a manifest that was read is written, and read again as the same.

use millrace_engine::formats::Manifest;

/// A manifest, as it is and with its checksum put right.
pub fn manifest(data: &[u8]) {
    check(data);
    let end = data.windows(7).rposition(|w| w == b"\ncrc32 ");
    let json = &data[..end.unwrap_or(data.len())];
    let crc = crc32fast::hash(json);
    check(&[json, format!("\ncrc32 {crc:08x}\n").as_bytes()].concat());
}

fn check(data: &[u8]) {
    let Ok(read) = Manifest::decode(data) else {
        return;
    };
    read.journals.iter().for_each(|journal| {
        let _ = journal.journal_id();
    });
    assert_eq!(Manifest::decode(&read.encode()), Ok(read));
}
