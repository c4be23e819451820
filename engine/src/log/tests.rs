//! Owns tests of segment files by themselves, on the simulator.
//! Does not know the journal or partitions.
//! Invariant checked: bytes come back as they were written, or an error does.

use super::index::{segment_stem, Index};
use super::segment::{SegmentFiles, UnsavedSums};
use crate::rt::sim::{CrashPolicy, Sim, SimConfig, Unsynced};
use crate::rt::{self, DirectBuf};
use crate::types::limits::BLOCK_BYTES;
use crate::types::Offset;
use std::io;
use std::path::Path;
use std::rc::Rc;

const BLOCK: u64 = BLOCK_BYTES as u64;
const DIR: &str = "/p";
/// Checksums in the first block of their file.
const SUM_BLOCK: usize = (BLOCK_BYTES - 16) / 4;
const LOST: CrashPolicy = CrashPolicy::Power {
    data: Unsynced::Lost,
    names: Unsynced::Lost,
};

fn blocks(count: usize, byte: u8) -> Rc<DirectBuf> {
    let mut buf = DirectBuf::with_len(count * BLOCK_BYTES);
    buf.fill(byte);
    Rc::new(buf)
}

async fn open(bytes: u64, unsaved: &UnsavedSums) -> io::Result<SegmentFiles> {
    rt::fs::create_dir_all(Path::new(DIR)).await?;
    SegmentFiles::open(Path::new(DIR), 7, bytes, unsaved, bytes == 0).await
}

#[test]
fn checksums_come_back_from_their_file_and_from_the_checkpoint() {
    let sim = Sim::new(1, SimConfig::default());
    let unsaved = sim.block_on(async {
        let files = open(0, &UnsavedSums::default()).await.unwrap();
        files.write(0, blocks(SUM_BLOCK + 5, 1)).await.unwrap();
        files.write_settled_sums(SUM_BLOCK + 5).await.unwrap();
        files.sync().await.unwrap();
        let at = (SUM_BLOCK + 5) as u64;
        files.write(at * BLOCK, blocks(3, 2)).await.unwrap();
        files.write_settled_sums(SUM_BLOCK + 8).await.unwrap();
        files.sync().await.unwrap();
        files.unsaved_sums()
    });
    assert_eq!((unsaved.saved, unsaved.sums.len()), (SUM_BLOCK, 8));
    sim.crash(LOST);
    sim.block_on(async {
        let end = (SUM_BLOCK + 8) as u64 * BLOCK;
        let files = open(end, &unsaved).await.unwrap();
        let bytes = files.read(end - 4 * BLOCK, 4 * BLOCK_BYTES).await.unwrap();
        assert_eq!((bytes[0], bytes[3 * BLOCK_BYTES]), (1, 2));
        // A rewritten block is not the file's any more, wherever it lies.
        files.write(2 * BLOCK, blocks(6, 3)).await.unwrap();
        assert_eq!(files.unsaved_sums().saved, 2);
        let short = UnsavedSums {
            saved: 5,
            sums: vec![0; 2],
        };
        assert!(open(8 * BLOCK, &short).await.is_err());
    });
}

/// Power that fails while checksums are written may leave garbage in the blocks written. What the checkpoint of before
/// says of them must be enough: in a growing segment, in one that is finished, and in one that grows again after a
/// clean stop.
#[test]
fn garbage_where_checksums_were_written_costs_none() {
    const GARBAGE: CrashPolicy = CrashPolicy::Power {
        data: Unsynced::Garbage,
        names: Unsynced::Random,
    };
    for seed in 0..120 {
        let sim = Sim::new(seed, SimConfig::default());
        // The boundary between two blocks of checksums is passed on the way, or lies behind the padded block.
        let first = SUM_BLOCK - [0, 3][seed as usize % 2];
        let kept = sim.block_on(async move {
            let files = open(0, &UnsavedSums::default()).await.unwrap();
            files.write(0, blocks(first, 1)).await.unwrap();
            files.write_settled_sums(first - 1).await.unwrap();
            files.sync().await.unwrap();
            if seed % 3 > 0 {
                files.cut(first as u64 * BLOCK - 10).await.unwrap();
            }
            files.unsaved_sums_of_growing(first - 1)
        });
        assert_eq!((kept.saved, kept.sums.len()), (0, first));
        let before = kept.clone();
        sim.block_on(async move {
            let work = rt::spawn_joined(rt::Class::Storage, async move {
                let bytes = (first - 1) as u64 * BLOCK;
                let files = open(bytes, &before).await.unwrap();
                files.write(bytes, blocks(9, 2)).await.unwrap();
                files.write_settled_sums(first + 8).await.unwrap();
                files.sync().await.unwrap();
                files.cut(bytes + 9 * BLOCK - 100).await.unwrap();
                files.cut(bytes + 9 * BLOCK - 100).await.unwrap();
            });
            let moment = std::time::Duration::from_micros(rt::random_u64() % 3_000);
            // Whether it gets done in time is the point.
            let _done = rt::timeout(moment, work).await;
        });
        sim.crash(GARBAGE);
        sim.block_on(async move {
            // The block that was rewritten is the journal's to bring back.
            let bytes = (first - 1) as u64 * BLOCK;
            let files = open(bytes, &kept).await.unwrap();
            for at in (0..bytes).step_by(64 * BLOCK_BYTES) {
                let len = (bytes - at).min(64 * BLOCK) as usize;
                files.read(at, len).await.unwrap();
            }
        });
    }
}

#[test]
fn damage_is_seen_whoever_keeps_the_checksum() {
    let last = SUM_BLOCK as u64 + 7;
    for block in [0, 4, last - 3, last] {
        let sim = Sim::new(block, SimConfig::default());
        let unsaved = sim.block_on(async {
            let files = open(0, &UnsavedSums::default()).await.unwrap();
            files.write(0, blocks(SUM_BLOCK + 5, 1)).await.unwrap();
            files.write_settled_sums(SUM_BLOCK + 5).await.unwrap();
            files.sync().await.unwrap();
            let at = (SUM_BLOCK + 5) as u64;
            files.write(at * BLOCK, blocks(3, 2)).await.unwrap();
            files.sync().await.unwrap();
            files.unsaved_sums()
        });
        let path = Path::new(DIR).join(segment_stem(7)).with_extension("log");
        sim.disk().flip_bit(&path, block * BLOCK + 9, 3);
        sim.block_on(async {
            let files = open((last + 1) * BLOCK, &unsaved).await.unwrap();
            let at = block / 8 * 8 * BLOCK;
            let error = files.read(at, 8 * BLOCK_BYTES).await.unwrap_err();
            assert!(error.to_string().contains(&format!("block {block} ")));
        });
    }
}

fn batch(offset: Offset, bytes: usize) -> Vec<u8> {
    let mut b = vec![0; bytes];
    b[..8].copy_from_slice(&offset.to_be_bytes());
    b[8..12].copy_from_slice(&(bytes as i32 - 12).to_be_bytes());
    b[16] = 2;
    b[35..43].copy_from_slice(&offset.to_be_bytes());
    b[57..61].copy_from_slice(&1i32.to_be_bytes());
    b
}

/// After a clean stop, more appends and a crash, the index file covers only the first part.
#[test]
fn an_index_that_ends_early_or_points_nowhere_is_completed() {
    let sim = Sim::new(3, SimConfig::default());
    sim.block_on(async {
        let all: Vec<u8> = (7..407).flat_map(|offset| batch(offset, 1_024)).collect();
        let files = open(0, &UnsavedSums::default()).await.unwrap();
        let mut buf = DirectBuf::with_len(all.len());
        buf.copy_from_slice(&all);
        files.write(0, Rc::new(buf)).await.unwrap();
        let bytes = all.len() as u64;
        let whole = (*files.index(bytes, 4_096).await.unwrap()).clone();
        assert!(whole.entry_for(399).is_some_and(|e| e.position > 390 << 10));
        let quarter = files.extend_index(Index::default(), bytes / 4, 4_096);
        files.write_index(quarter.await.unwrap().0).await.unwrap();

        let again = open(bytes, &files.unsaved_sums()).await.unwrap();
        let completed = again.index(bytes, 4_096).await.unwrap();
        assert_eq!(completed.encode_offsets(), whole.encode_offsets());
        // The first part ended with a time entry of its own, as a roll writes it.
        for time in [20, 150, 200, 300, 406] {
            let same = whole.before_time(time);
            assert_eq!(completed.before_time(time), same, "{time}");
        }

        let stem = Path::new(DIR).join(segment_stem(7));
        let nowhere = [0, 0, 0, 9, 0, 0, 17, 17];
        rt::fs::write_atomic(&stem.with_extension("index"), &nowhere)
            .await
            .unwrap();
        let again = open(bytes, &files.unsaved_sums()).await.unwrap();
        let rebuilt = again.index(bytes, 4_096).await.unwrap();
        assert_eq!(rebuilt.encode_offsets(), whole.encode_offsets());
    });
}

/// What the index file leaves out of the bytes before a start may be later than all that is appended after it.
#[test]
fn entries_of_later_bytes_stand_behind_a_whole_index() {
    let sim = Sim::new(3, SimConfig::default());
    sim.block_on(async {
        let late = 50;
        let stamped = |offset: Offset| {
            let mut batch = batch(offset, 1_024);
            if offset == late {
                batch[35..43].copy_from_slice(&9_000i64.to_be_bytes());
            }
            batch
        };
        let all: Vec<u8> = (7..67).flat_map(stamped).collect();
        let files = open(0, &UnsavedSums::default()).await.unwrap();
        let mut buf = DirectBuf::with_len(all.len());
        buf.copy_from_slice(&all);
        files.write(0, Rc::new(buf)).await.unwrap();
        let bytes = all.len() as u64;
        let first = files.extend_index(Index::default(), bytes / 2, 4_096);
        files.write_index(first.await.unwrap().0).await.unwrap();

        let again = open(bytes, &files.unsaved_sums()).await.unwrap();
        // So little is left out that a reader looks through it.
        let read = again.index(bytes, 4_096).await.unwrap();
        assert!(read.times().iter().all(|t| t.timestamp_ms < 9_000));
        let (mut index, whole) = again.index_of_all(bytes, 4_096).await.unwrap();
        assert!(whole);
        let mut later = Index::default();
        for (relative, position) in (60..100).zip((bytes as u32..).step_by(1_024)) {
            later.note(relative, position, 1_024, 5_000, 4_096);
        }
        index.append(later);
        let before = index.before_time(8_000).expect("there is an entry");
        assert!(i64::from(before.relative) < late - 7, "{before:?}");
        assert_eq!(index.before_time(10_000).unwrap().timestamp_ms, 9_000);
        assert!(index.entry_for(99).is_some_and(|e| e.relative > 90));
    });
}

/// The checkpoint still describes the whole block when a cut is repeated after a crash.
#[test]
fn a_cut_inside_a_block_can_be_repeated_after_every_crash() {
    let bytes = 2 * BLOCK + 100;
    for seed in 0..200 {
        let sim = Sim::new(seed, SimConfig::default());
        let unsaved = sim.block_on(async {
            let files = open(0, &UnsavedSums::default()).await.unwrap();
            files.write(0, blocks(3, 9)).await.unwrap();
            files.sync().await.unwrap();
            files.unsaved_sums()
        });
        for _ in 0..3 {
            let unsaved = unsaved.clone();
            sim.block_on(async move {
                let cut = rt::spawn_joined(rt::Class::Storage, async move {
                    let files = open(bytes, &unsaved).await.unwrap();
                    files.cut(bytes).await.unwrap();
                });
                let moment = std::time::Duration::from_micros(rt::random_u64() % 2_000);
                // Whether it gets done in time is the point.
                let _done = rt::timeout(moment, cut).await;
            });
            sim.crash(CrashPolicy::POWER);
        }
        sim.block_on(async {
            let files = open(bytes, &unsaved).await.unwrap();
            files.cut(bytes).await.unwrap();
            let read = files.read(0, 3 * BLOCK_BYTES).await.unwrap();
            assert_eq!(read.len() as u64, bytes);
            assert!(read.iter().all(|b| *b == 9));
        });
    }
}
