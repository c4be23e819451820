//! Owns the target of segments: `.log`, `.sum` and index files as `log verify`, `log dump` and reads meet them.
//! Does not know journals; a segment stands by itself here.
//! Invariant: what verify calls sound is read whole; whatever the bytes, nothing is read that is not there.

use super::{take, take_u16, with_files};
use millrace_engine::formats::{
    block_sum, check_segment, segment_stem, Contents, EpochHistory, Expected, Seen, SegmentFiles,
    SegmentScan, UnsavedSums, Walker,
};
use millrace_engine::inspect::dump::{dump, Item};
use millrace_engine::inspect::{Finding, Level};
use millrace_engine::types::limits::BLOCK_BYTES;
use millrace_engine::types::{PartitionId, TopicId};
use std::io;
use std::path::{Path, PathBuf};

/// First offset of the segment.
pub const BASE: i64 = 0;

const DIR: &str = "/topics/t-0";
const FINISHED: u8 = 1;
const CLEAN: u8 = 2;
/// The checksums are those of the log; else they are what the input says.
const SEALED: u8 = 4;

/// A byte of flags; the lengths of `.sum`, `.index` and `.timeindex`, two bytes each; these; and the log.
pub fn segment(data: &[u8]) {
    let mut rest = data;
    let flags = take(&mut rest, 1).first().copied().unwrap_or(0);
    let lengths = [(); 3].map(|()| take_u16(&mut rest));
    let [sum, index, timeindex] = lengths.map(|length| take(&mut rest, length));
    let input = Input {
        flags,
        index,
        timeindex,
        log: rest,
    };
    walk(input.log);
    let made = sums(input.log);
    input.check(&made, true);
    if flags & SEALED == 0 {
        input.check(sum, false);
    }
}

/// The input of this target for these files.
pub fn pack(flags: u8, sum: &[u8], index: &[u8], timeindex: &[u8], log: &[u8]) -> Vec<u8> {
    let mut out = vec![flags];
    for part in [sum, index, timeindex] {
        let length = u16::try_from(part.len()).expect("a small file");
        out.extend_from_slice(&length.to_be_bytes());
    }
    [&out, sum, index, timeindex, log].concat()
}

/// A checksum file for a log.
fn sums(log: &[u8]) -> Vec<u8> {
    let mut out = b"MLSUM\0\0\x01".to_vec();
    out.extend_from_slice(&BASE.to_le_bytes());
    for (number, block) in (0..).zip(log.chunks(BLOCK_BYTES)) {
        out.extend_from_slice(&block_sum(BASE, number, block).to_le_bytes());
    }
    out
}

/// Batches are told apart in the same way however the bytes come.
fn walk(log: &[u8]) {
    let walked = |step: usize| {
        let mut walker = Walker::new();
        let mut seen: Vec<Seen> = Vec::new();
        for part in log.chunks(step) {
            walker.feed(part, |s| seen.push(s));
        }
        (seen, walker.unfinished(), walker.lost())
    };
    let whole = walked(log.len().max(1));
    assert!(whole.0.len() <= log.len() / 61 + 1);
    for step in [7, BLOCK_BYTES] {
        assert_eq!(walked(step), whole, "in steps of {step}");
    }
}

struct Input<'a> {
    flags: u8,
    index: &'a [u8],
    timeindex: &'a [u8],
    log: &'a [u8],
}

impl Input<'_> {
    /// `sealed`: the checksums are those of the log.
    fn check(&self, sum: &[u8], sealed: bool) {
        let stem = Path::new(DIR).join(segment_stem(BASE));
        let path = |extension: &str| stem.with_extension(extension);
        let names: [PathBuf; 4] = ["log", "sum", "index", "timeindex"].map(path);
        let contents = [self.log, sum, self.index, self.timeindex];
        let files: Vec<(&Path, &[u8])> = names.iter().map(PathBuf::as_path).zip(contents).collect();
        with_files(&files, async {
            let (contents, findings) = self.verify().await?;
            let read = self.read().await;
            if sealed && !findings.iter().any(|f| f.level == Level::Damage) {
                let batches = read.expect("verify finds no damage");
                assert_eq!(batches, contents.batches, "verify and a reader");
            }
            dump(&names[0], &mut |item| {
                if let Item::Batch { bytes, .. } = item {
                    assert!(bytes.len() <= self.log.len());
                }
                true
            })
            .await
        })
        .expect("a disk without faults");
    }

    async fn verify(&self) -> io::Result<(Contents, Vec<Finding>)> {
        let bytes = self.log.len() as u64;
        let expected = Expected {
            partition: PartitionId::new(TopicId([1; 16]), 0),
            dir: Path::new(DIR),
            base: BASE,
            bytes,
            sums: &UnsavedSums::none(bytes),
            finished: self.flags & FINISHED != 0,
            clean: self.flags & CLEAN != 0,
            carried: None,
            epochs: &EpochHistory::default(),
            gaps_below: 0,
            next_offset: BASE,
            unmoved: &[],
        };
        let mut findings = Vec::new();
        let mut batches = 0;
        let contents = check_segment(&expected, &mut |_| batches += 1, &mut findings).await?;
        assert_eq!(batches, contents.batches);
        assert!(contents.batches <= bytes / 61);
        assert!(contents.next_offset >= BASE);
        assert!(contents.first_bad.is_none() || !findings.is_empty());
        Ok((contents, findings))
    }

    /// Reads as a broker does: block by block against the checksums, then from header to header, then by the index.
    async fn read(&self) -> io::Result<u64> {
        let bytes = self.log.len() as u64;
        let unsaved = UnsavedSums::none(bytes);
        let files = SegmentFiles::open(Path::new(DIR), BASE, bytes, &unsaved, false).await?;
        let mut scan = SegmentScan::new(&files, 0, bytes);
        let mut batches = 0;
        while let Some((position, header)) = scan.next().await? {
            assert!(position + header.size as u64 <= bytes);
            batches += 1;
        }
        let index = files.index(bytes, 256).await?;
        let noted = self.index.len() as u64 / 8;
        assert!(index.offsets().len() as u64 <= bytes / 61 + noted);
        Ok(batches)
    }
}
