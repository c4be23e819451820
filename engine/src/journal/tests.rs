//! Owns tests of the journal by itself, on the simulator.
//! Does not know partitions. Invariant checked: the recovery rule tells a torn tail from damage.

use super::entry::{CommitHeader, EntryHeader, EntryKind, JournalId};
use super::recover::Scan;
use super::ring::{Ring, RingConfig};
use super::{Durable, Journal};
use crate::rt::sim::{Between, CrashPolicy, FaultOn, Sim, SimConfig};
use crate::rt::{self, Class};
use crate::types::{PartitionId, TopicId};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const ID: JournalId = JournalId(77);
const FILE_BYTES: u64 = 1 << 20;

fn dir() -> PathBuf {
    PathBuf::from("/journal")
}

async fn journal(files_max: usize) -> Rc<Journal> {
    let config = RingConfig {
        dir: dir(),
        first_file_bytes: FILE_BYTES,
        file_bytes: FILE_BYTES,
        files_max,
    };
    let ring = Rc::new(Ring::create(config).await.unwrap());
    let journal = Journal::new(ID, 1, ring, 1 << 20, Box::new(|_| {}));
    journal.ring().start_filler();
    rt::spawn(Class::Storage, journal.clone().run());
    journal
}

fn entry(offset: i64, payload: &[u8]) -> EntryHeader {
    EntryHeader {
        kind: EntryKind::Append,
        partition: PartitionId::new(TopicId([1; 16]), 0),
        leader_epoch: 0,
        truncation: 0,
        base_offset: offset,
        payload_bytes: payload.len() as u32,
    }
}

fn append(journal: &Journal, offset: i64, payload: &[u8]) -> u64 {
    let entry = entry(offset, payload);
    journal.append(&entry, payload, |_| {}, |_| None).sequence
}

/// One durable commit per payload.
async fn commits(journal: &Rc<Journal>, count: i64) {
    for offset in 0..count {
        let sequence = append(journal, offset, &[offset as u8; 5_000]);
        journal.wait_durable(sequence).await.unwrap();
    }
}

async fn offsets(scan: &Scan) -> Vec<i64> {
    let mut out = Vec::new();
    for index in 0..scan.commits() {
        let commit = scan.commit(index).await.unwrap();
        out.extend(
            commit
                .entries()
                .iter()
                .map(|(header, _)| header.base_offset),
        );
    }
    out
}

/// Byte position in the first file of the commit with this sequence.
fn position_of(sim: &Sim, sequence: u64) -> u64 {
    let bytes = sim.disk().read_raw(&first_file()).unwrap();
    (0..bytes.len() / 4096)
        .map(|block| block as u64 * 4096)
        .find(|at| {
            let header = CommitHeader::decode(ID, &bytes[*at as usize..], *at);
            header.is_some_and(|(h, _)| h.sequence == sequence)
        })
        .expect("the commit is there")
}

fn first_file() -> PathBuf {
    Path::new("/journal").join("000000.journal")
}

fn scan<T>(sim: &Sim, first: u64, look: impl AsyncFnOnce(Scan) -> T) -> T {
    sim.block_on(async { look(Scan::read(&dir(), ID, 1, first).await.unwrap()).await })
}

#[test]
fn what_was_durable_is_found_again() {
    for seed in 0..20 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async { commits(&journal(3).await, 12).await });
        sim.crash(CrashPolicy::POWER_LOST);
        scan(&sim, 1, async |scan: Scan| {
            assert_eq!(offsets(&scan).await, (0..12).collect::<Vec<_>>());
            assert!(!scan.damaged() && scan.end >= 12);
        });
        scan(&sim, 5, async |scan: Scan| {
            assert_eq!(offsets(&scan).await[0], 4)
        });
    }
}

#[test]
fn a_damaged_last_commit_is_a_torn_tail_and_all_behind_it_is_void() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async { commits(&journal(3).await, 6).await });
    sim.crash(CrashPolicy::POWER_LOST);
    // Nothing says that commit 6 was flushed: only its successor would.
    sim.disk()
        .flip_bit(&first_file(), position_of(&sim, 6) + 300, 3);
    scan(&sim, 1, async |scan: Scan| {
        assert_eq!((scan.end, scan.durable, scan.damaged()), (5, 5, false));
        assert_eq!(offsets(&scan).await, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_damaged_commit_below_the_known_durable_point_is_damage_not_a_tail() {
    let sim = Sim::new(2, SimConfig::default());
    sim.block_on(async { commits(&journal(3).await, 6).await });
    sim.crash(CrashPolicy::POWER_LOST);
    sim.disk()
        .flip_bit(&first_file(), position_of(&sim, 3) + 300, 3);
    scan(&sim, 1, async |scan: Scan| {
        assert_eq!((scan.end, scan.durable, scan.damaged()), (2, 5, true));
        assert_eq!(offsets(&scan).await, [0, 1]);
        assert_eq!(
            scan.commits_beyond(),
            3,
            "4 and 5 are whole, 6 goes on from them"
        );
        assert!((0..3).all(|index| scan.is_behind_all_damage(index)));
    });
    // What lies before the last damage proves nothing, and a damaged commit behind D is a torn tail.
    for place in [5, 6] {
        sim.disk()
            .flip_bit(&first_file(), position_of(&sim, place) + 300, 3);
    }
    scan(&sim, 1, async |scan: Scan| {
        assert_eq!((scan.end, scan.durable, scan.commits_beyond()), (2, 5, 1));
        assert!(!scan.is_behind_all_damage(0));
    });
    sim.disk()
        .flip_bit(&first_file(), position_of(&sim, 5) + 300, 3);
    // Also where its header is what is damaged.
    sim.disk()
        .flip_bit(&first_file(), position_of(&sim, 3) + 40, 3);
    scan(&sim, 1, async |scan: Scan| {
        assert!(scan.damaged() && scan.end == 2)
    });
}

#[test]
fn an_idle_journal_witnesses_its_last_commit() {
    let sim = Sim::new(3, SimConfig::default());
    sim.block_on(async {
        commits(&journal(3).await, 3).await;
        rt::sleep(Duration::from_millis(200)).await;
    });
    sim.crash(CrashPolicy::POWER_LOST);
    sim.disk()
        .flip_bit(&first_file(), position_of(&sim, 3) + 300, 3);
    scan(&sim, 1, async |scan: Scan| {
        assert_eq!((scan.end, scan.durable, scan.damaged()), (2, 3, true));
    });
}

#[test]
fn files_are_used_again_only_after_they_were_given_back() {
    let sim = Sim::new(4, SimConfig::default());
    let (given_back, last) = sim.block_on(async {
        let journal = journal(3).await;
        let mut given_back = 0;
        let mut last = 0;
        for offset in 0..600 {
            last = append(&journal, offset, &[1; 9_000]);
            if offset % 3 > 0 {
                continue;
            }
            // A commit that waits shows that the ring is full: only then give back the oldest.
            while rt::timeout(Duration::from_millis(50), journal.wait_durable(last))
                .await
                .is_none()
            {
                given_back = journal
                    .ring()
                    .oldest_full()
                    .expect("a full ring has a full file");
                assert!(given_back < last);
                journal.ring().recycle(given_back);
                journal.set_flushed(given_back);
            }
        }
        journal.wait_durable(last).await.unwrap();
        assert_eq!(
            journal.ring().bytes(),
            3 * FILE_BYTES,
            "the ring stayed within its bound"
        );
        (given_back, last)
    });
    assert!(given_back > 0, "the ring came round");
    sim.crash(CrashPolicy::POWER_LOST);
    scan(&sim, given_back + 1, async |scan: Scan| {
        assert!(
            scan.end >= last && !scan.damaged(),
            "{} of {last}",
            scan.end
        );
    });
}

async fn ring_with_small_first() -> Rc<Ring> {
    let config = RingConfig {
        dir: dir(),
        first_file_bytes: FILE_BYTES / 4,
        file_bytes: FILE_BYTES,
        files_max: 3,
    };
    let ring = Rc::new(Ring::create(config).await.unwrap());
    ring.start_filler();
    ring
}

#[test]
fn the_small_first_file_takes_the_place_of_no_other() {
    let sim = Sim::new(5, SimConfig::default());
    sim.block_on(async {
        let ring = ring_with_small_first().await;
        assert_eq!(
            ring.place(1, FILE_BYTES / 4).await.unwrap().0.bytes,
            FILE_BYTES / 4
        );
        assert_eq!(ring.place(2, FILE_BYTES).await.unwrap().0.bytes, FILE_BYTES);
        // Given back while there is no other; the next one is being made.
        ring.recycle(1);
        rt::sleep(Duration::from_secs(1)).await;
        assert_eq!(ring.bytes(), 2 * FILE_BYTES);
        assert_eq!(ring.place(3, 4096).await.unwrap().0.bytes, FILE_BYTES);
        assert!(!ring.is_full(0));
        assert_eq!(sim.disk().files().len(), 2);
        ring.close();
    });
}

#[test]
fn the_small_first_file_is_beside_those_that_the_ring_may_have() {
    let sim = Sim::new(5, SimConfig::default());
    sim.block_on(async {
        let ring = ring_with_small_first().await;
        ring.place(1, FILE_BYTES / 4).await.unwrap();
        for sequence in 2..5 {
            // Soon, though nothing was given back.
            let placed = rt::timeout(Duration::from_secs(60), ring.place(sequence, FILE_BYTES));
            assert_eq!(placed.await.unwrap().unwrap().0.bytes, FILE_BYTES);
        }
        assert!(ring.is_full(0));
        ring.recycle(1);
        assert_eq!(ring.bytes(), 3 * FILE_BYTES);
        ring.recycle(2);
        assert_eq!(ring.bytes(), 3 * FILE_BYTES);
        ring.close();
    });
}

#[test]
fn appends_may_fill_half_of_the_last_file() {
    let sim = Sim::new(5, SimConfig::default());
    sim.block_on(async {
        let ring = ring_with_small_first().await;
        for sequence in 1..3 {
            ring.place(sequence, FILE_BYTES).await.unwrap();
            assert!(!ring.is_full(0));
        }
        ring.place(3, FILE_BYTES / 2 - 4096).await.unwrap();
        rt::sleep(Duration::from_secs(1)).await;
        assert!(!ring.is_full(0));
        assert!(ring.is_full(4096));
        ring.place(4, 4096).await.unwrap();
        assert!(ring.is_full(0));
        ring.recycle(1);
        assert!(!ring.is_full(0));
        ring.close();
    });
}

#[test]
fn a_full_ring_grows_for_what_the_freeing_of_files_waits_for_and_shrinks_again() {
    let sim = Sim::new(5, SimConfig::default());
    sim.block_on(async {
        let journal = journal(3).await;
        let ring = journal.ring().clone();
        let mut last = 0;
        while !journal.is_full() {
            last = append(&journal, 0, &[1; 9_000]);
            let fits = rt::timeout(Duration::from_millis(50), journal.wait_durable(last));
            if fits.await.is_none() {
                break;
            }
        }
        // As much as several files hold, of which none comes free before all of it is durable.
        for _ in 0..5 * FILE_BYTES / 9_000 {
            last = append(&journal, 0, &[2; 9_000]);
        }
        let stuck = rt::timeout(Duration::from_secs(60), journal.wait_durable(last));
        assert!(stuck.await.is_none(), "nobody asked for more files yet");
        let urgent = ring.urgent(5 * FILE_BYTES);
        journal.wait_durable(last).await.unwrap();
        drop(urgent);
        assert!(ring.bytes() > 3 * FILE_BYTES);
        ring.recycle(last);
        assert!(ring.bytes() <= 3 * FILE_BYTES, "{} bytes", ring.bytes());
    });
}

#[test]
fn after_a_failed_flush_nothing_is_acknowledged() {
    let sim = Sim::new(5, SimConfig::default());
    let disk = sim.disk();
    sim.block_on(async move {
        let journal = journal(3).await;
        commits(&journal, 2).await;
        disk.fail_next_on(&first_file(), FaultOn::Sync, 1);
        let sequence = append(&journal, 2, b"lost");
        assert!(journal.wait_durable(sequence).await.is_err());
        let sequence = append(&journal, 3, b"later");
        assert!(
            journal.wait_durable(sequence).await.is_err(),
            "never retried"
        );
        assert_eq!(journal.durable_sequence(), 2);
    });
}

/// What an owner was told, in order.
#[derive(Default)]
struct Told(RefCell<Vec<u64>>);

impl Durable for Told {
    fn durable_through(&self, sequence: u64) {
        self.0.borrow_mut().push(sequence);
    }
}

#[test]
fn groups_are_under_way_together_and_count_in_their_order() {
    let us = Duration::from_micros;
    let config = SimConfig {
        sync: Between(us(100), us(5_000)),
        ..SimConfig::default()
    };
    Sim::new(7, config).block_on(async move {
        let journal = journal(32).await;
        let told = Rc::new(Told::default());
        let began = rt::now();
        for offset in 0..40 {
            let payload = [offset as u8; 20_000];
            let entry = entry(offset, &payload);
            journal.append(&entry, &payload, |_| {}, |_| Some(told.clone()));
            rt::sleep(us(200)).await;
        }
        journal.wait_all_durable().await.unwrap();
        let took = rt::now() - began;

        let told = told.0.borrow();
        assert!(told.is_sorted(), "{told:?}");
        assert_eq!(told.last(), Some(&journal.durable_sequence()));
        assert_eq!(journal.backlog_bytes(), 0);
        let stats = journal.stats();
        let one_by_one = us((stats.flush_ns.mean() / 1e3) as u64) * stats.groups as u32;
        assert!(one_by_one > took * 2, "{one_by_one:?} in {took:?}");
    });
}

#[test]
fn of_groups_under_way_only_those_before_the_first_that_fails_count() {
    let us = Duration::from_micros;
    let config = SimConfig {
        write: Between(us(100), us(5_000)),
        ..SimConfig::default()
    };
    let mut some_counted = false;
    for seed in 0..40 {
        let sim = Sim::new(seed, config.clone());
        let disk = sim.disk();
        let told = sim.block_on(async move {
            let journal = journal(3).await;
            commits(&journal, 2).await;
            disk.fail_next_on(&first_file(), FaultOn::Write, 1);
            let mut last = 0;
            for offset in 2..12 {
                last = append(&journal, offset, &[7; 20_000]);
                rt::sleep(us(20)).await;
            }
            assert!(journal.wait_durable(last).await.is_err(), "seed {seed}");
            journal.durable_sequence()
        });
        some_counted |= told > 2;
        sim.crash(CrashPolicy::POWER_LOST);
        scan(&sim, 1, async |scan: Scan| {
            assert!(!scan.damaged() && scan.end >= told, "seed {seed}")
        });
    }
    assert!(some_counted);
}

#[test]
fn an_owner_is_asked_with_the_sequence_its_entry_got() {
    let sim = Sim::new(6, SimConfig::default());
    sim.block_on(async {
        let journal = journal(3).await;
        let mut sequences = std::collections::BTreeSet::new();
        for offset in 0..20 {
            let payload = vec![offset as u8; 150_000];
            let entry = entry(offset, &payload);
            let mut asked = 0;
            let owner = |sequence| {
                asked = sequence;
                None
            };
            let location = journal.append(&entry, &payload, |_| {}, owner);
            assert_eq!(asked, location.sequence);
            sequences.insert(asked);
        }
        assert!(sequences.len() > 2, "several commits began in between");
    });
}

#[test]
fn single_batches_behind_a_burst_do_not_pin_its_large_buffers() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let journal = journal(32).await;
        let mut last = 0;
        for offset in 0..40 {
            last = append(&journal, offset, &[1; 20_000]);
        }
        journal.wait_durable(last).await.unwrap();
        let (kept, mut written) = (journal.retained_bytes(), 0);
        for offset in 40..60 {
            let sequence = append(&journal, offset, &[2; 66_000]);
            journal.wait_durable(sequence).await.unwrap();
            written += 66_000;
        }
        let more = journal.retained_bytes() - kept;
        assert!(more >= written && more < written * 5 / 4, "{more}");
    });
}
