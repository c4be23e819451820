//! Tests of the simulated disk: what a crash, an error or a full disk leaves.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::super::sim::{CrashPolicy, FaultOn, Sim, SimConfig, Unsynced};
use super::super::*;
use super::filled;

const SECTOR: usize = 512;

fn rw() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

/// A file `/a` of four blocks of 1s, durable.
async fn base() -> File {
    let f = File::open(Path::new("/a"), rw().create(true))
        .await
        .unwrap();
    f.write_at(filled(4 * BLOCK, 1), 0).await.unwrap();
    f.sync().await.unwrap();
    fs::sync_dir(Path::new("/")).await.unwrap();
    f
}

fn after_crash(seed: u64, policy: CrashPolicy, work: impl AsyncFnOnce(File)) -> Option<Vec<u8>> {
    let sim = Sim::new(seed, SimConfig::default());
    sim.block_on(async { work(base().await).await });
    sim.crash(policy);
    sim.disk().read_raw(Path::new("/a"))
}

#[test]
fn synced_data_survives_every_crash() {
    for seed in 0..50 {
        for data in [
            Unsynced::Lost,
            Unsynced::Kept,
            Unsynced::Random,
            Unsynced::Garbage,
        ] {
            let policy = CrashPolicy::Power { data, names: data };
            let left = after_crash(seed, policy, async |f| {
                f.write_at(filled(2 * BLOCK, 2), 0).await.unwrap();
                f.sync().await.unwrap();
            });
            let left = left.expect("the name was synced");
            assert!(left[..2 * BLOCK].iter().all(|b| *b == 2));
            assert!(left[2 * BLOCK..].iter().all(|b| *b == 1));
        }
    }
}

#[test]
fn unsynced_sectors_survive_in_any_subset() {
    let mut seen_first_block = BTreeSet::new();
    let mut overtaken = false;
    for seed in 0..400 {
        let left = after_crash(seed, CrashPolicy::POWER, async |f| {
            f.write_at(filled(BLOCK, 2), 0).await.unwrap();
            f.write_at(filled(BLOCK, 3), BLOCK as u64).await.unwrap();
        });
        let left = left.unwrap();
        assert_eq!(left.len(), 4 * BLOCK);
        let sectors: Vec<u8> = left
            .chunks(SECTOR)
            .map(|s| {
                assert!(s.iter().all(|b| *b == s[0]), "a sector is never torn");
                s[0]
            })
            .collect();
        assert!(sectors[..8].iter().all(|b| [1, 2].contains(b)));
        assert!(sectors[8..16].iter().all(|b| [1, 3].contains(b)));
        assert!(sectors[16..].iter().all(|b| *b == 1));
        overtaken |= sectors[0] == 1 && sectors[8] == 3;
        seen_first_block.insert(sectors[..8].to_vec());
    }
    assert!(overtaken, "a later write may survive an earlier one");
    assert!(seen_first_block.contains(&vec![1; 8]), "lost");
    assert!(seen_first_block.contains(&vec![2; 8]), "kept");
    assert!(seen_first_block.len() > 40, "torn in many ways");
}

#[test]
fn lost_and_kept_are_exact() {
    let write = async |f: File| f.write_at(filled(BLOCK, 2), 0).await.unwrap();
    for seed in 0..20 {
        let policy = |data| CrashPolicy::Power {
            data,
            names: Unsynced::Kept,
        };
        let left = after_crash(seed, policy(Unsynced::Lost), write).unwrap();
        assert!(left.iter().all(|b| *b == 1));
        let left = after_crash(seed, policy(Unsynced::Kept), write).unwrap();
        assert!(left[..BLOCK].iter().all(|b| *b == 2));
        let left = after_crash(seed, CrashPolicy::Process, write).unwrap();
        assert!(left[..BLOCK].iter().all(|b| *b == 2));
    }
}

#[test]
fn garbage_may_fill_a_torn_sector() {
    let garbage = (0..100).any(|seed| {
        let policy = CrashPolicy::Power {
            data: Unsynced::Garbage,
            names: Unsynced::Kept,
        };
        let left = after_crash(seed, policy, async |f| {
            f.write_at(filled(BLOCK, 2), 0).await.unwrap();
        });
        let left = left.unwrap();
        assert!(
            left[BLOCK..].iter().all(|b| *b == 1),
            "only what was written"
        );
        left[..BLOCK].iter().any(|b| *b > 2)
    });
    assert!(garbage);
}

#[test]
fn a_write_under_way_may_land() {
    let outcomes: BTreeSet<u8> = (0..60)
        .map(|seed| {
            let left = after_crash(seed, CrashPolicy::POWER, async |f| {
                spawn(Class::Storage, async move {
                    f.write_at(filled(SECTOR * 8, 2), 0).await.unwrap();
                });
                yield_now().await;
                yield_now().await;
            });
            left.unwrap()[0]
        })
        .collect();
    assert_eq!(outcomes, BTreeSet::from([1, 2]));
}

#[test]
fn a_sync_covers_only_what_was_complete_when_it_began() {
    let mut lost = false;
    for seed in 0..200 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async {
            let f = base().await;
            let g = f.clone();
            let write = spawn_joined(Class::Storage, async move {
                g.write_at(filled(BLOCK, 2), 0).await.unwrap();
            });
            f.sync().await.unwrap();
            write.await;
        });
        sim.crash(CrashPolicy::POWER_LOST);
        lost |= sim.disk().read_raw(Path::new("/a")).unwrap()[0] == 1;
    }
    assert!(lost);
}

#[test]
fn written_through_is_durable_and_stays() {
    for seed in 0..100 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async {
            let f = base().await;
            f.write_at(filled(BLOCK, 2), 0).await.unwrap();
            let o = rw().direct_sync(true);
            let through = File::open(Path::new("/a"), o).await.unwrap();
            through.write_at(filled(BLOCK, 3), 0).await.unwrap();
            if seed % 2 == 0 {
                f.sync().await.unwrap();
            }
        });
        sim.crash(CrashPolicy::POWER);
        let left = sim.disk().read_raw(Path::new("/a")).unwrap();
        assert!(left[..BLOCK].iter().all(|b| *b == 3));
    }
}

#[test]
fn lengths_and_names_need_their_sync() {
    let mut lengths = BTreeSet::new();
    let mut names = BTreeSet::new();
    for seed in 0..200 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async {
            let f = base().await;
            f.truncate(BLOCK as u64).await.unwrap();
            f.truncate(8 * BLOCK as u64).await.unwrap();
            fs::append_sync(Path::new("/kept"), b"x").await.unwrap();
            let o = rw().create_new(true);
            let new = File::open(Path::new("/new"), o).await.unwrap();
            new.write_at(filled(BLOCK, 1), 0).await.unwrap();
            new.sync().await.unwrap();
            fs::rename(Path::new("/kept"), Path::new("/moved"))
                .await
                .unwrap();
        });
        sim.crash(CrashPolicy::POWER);
        let disk = sim.disk();
        let left = disk.read_raw(Path::new("/a")).unwrap();
        lengths.insert(left.len() / BLOCK);
        if left.len() == 8 * BLOCK {
            assert!(left[BLOCK..].iter().all(|b| *b == 0), "cut before grown");
        }
        let there = |p: &str| disk.read_raw(Path::new(p)).is_some();
        assert!(there("/kept") != there("/moved"), "a rename is atomic");
        names.insert((there("/new"), there("/moved")));
    }
    assert_eq!(lengths, BTreeSet::from([1, 4, 8]));
    assert_eq!(names.len(), 4);
}

#[test]
fn a_sync_of_the_file_system_covers_every_file_and_name() {
    for seed in 0..50 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async {
            let f = base().await;
            f.write_at(filled(BLOCK, 2), 0).await.unwrap();
            fs::create_dir_all(Path::new("/d")).await.unwrap();
            let new = File::open(Path::new("/d/new"), rw().create_new(true));
            let new = new.await.unwrap();
            new.write_at(filled(BLOCK, 3), 0).await.unwrap();
            fs::sync_file_system(Path::new("/d")).await.unwrap();
            new.write_at(filled(BLOCK, 4), BLOCK as u64).await.unwrap();
        });
        sim.crash(CrashPolicy::Power {
            data: Unsynced::Lost,
            names: Unsynced::Lost,
        });
        let disk = sim.disk();
        assert_eq!(disk.read_raw(Path::new("/a")).unwrap()[..BLOCK], [2; BLOCK]);
        let new = disk.read_raw(Path::new("/d/new")).unwrap();
        assert_eq!(new[..BLOCK], [3; BLOCK]);
        assert!(new[BLOCK..].iter().all(|b| *b != 4), "written after it");
    }
}

#[test]
fn a_failed_sync_of_the_file_system_says_nothing() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..50 {
        let sim = Sim::new(seed, SimConfig::default());
        let disk = sim.disk();
        let f = sim.block_on(async {
            let f = base().await;
            f.write_at(filled(BLOCK, 2), 0).await.unwrap();
            disk.fail_next_syncs(1);
            fs::sync_file_system(Path::new("/")).await.unwrap_err();
            f
        });
        if seed.is_multiple_of(2) {
            // It still can be made durable.
            sim.block_on(async { f.sync().await.unwrap() });
        }
        sim.crash(CrashPolicy::POWER_LOST);
        match disk.read_raw(Path::new("/a")).unwrap()[0] {
            2 => new += 1,
            _ if seed.is_multiple_of(2) => panic!("seed {seed}: lost"),
            _ => old += 1,
        }
    }
    assert!(old > 5 && new > 30, "{old} old, {new} new");
}

#[test]
fn a_process_crash_keeps_what_was_complete() {
    for seed in 0..20 {
        let sim = Sim::new(seed, SimConfig::default());
        let f = sim.block_on(async {
            let f = base().await;
            f.write_at(filled(BLOCK, 2), 0).await.unwrap();
            assert!(f.try_lock().await.unwrap());
            f
        });
        sim.crash(CrashPolicy::Process);
        sim.block_on(async {
            let e = f.read_at(0, BLOCK).await.unwrap_err();
            assert_eq!(e.raw_os_error(), Some(libc::EBADF), "an old descriptor");
            let g = File::open(Path::new("/a"), rw()).await.unwrap();
            assert!(g.try_lock().await.unwrap(), "the lock died too");
            assert_eq!(g.read_at(0, BLOCK).await.unwrap()[..], [2; BLOCK]);
        });
        // It is still not durable.
        sim.crash(CrashPolicy::POWER_LOST);
        assert_eq!(sim.disk().read_raw(Path::new("/a")).unwrap()[0], 1);
    }
}

#[test]
fn write_atomic_is_old_or_new() {
    let path = Path::new("/d/meta");
    let (mut old, mut new) = (0, 0);
    for seed in 0..300 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async {
            fs::create_dir_all(Path::new("/d")).await.unwrap();
            fs::write_atomic(path, &[1; 3000]).await.unwrap();
            spawn(Class::Background, async move {
                fs::write_atomic(path, &[2; 5000]).await.unwrap();
            });
            // Crash at any step of it.
            sleep(Duration::from_micros(random_u64() % 800)).await;
        });
        sim.crash(CrashPolicy::POWER);
        let left = sim.block_on(fs::read(path, 1 << 20)).unwrap();
        if left == [1; 3000] {
            old += 1;
        } else {
            assert!(left == [2; 5000], "neither old nor new");
            new += 1;
        }
        // And it can be written again.
        sim.block_on(fs::write_atomic(path, b"3")).unwrap();
        sim.crash(CrashPolicy::POWER_LOST);
        assert_eq!(sim.disk().read_raw(path).unwrap(), b"3");
    }
    assert!(old > 10 && new > 10, "{old} old, {new} new");
}

#[test]
fn append_sync_keeps_what_it_acknowledged() {
    let path = Path::new("/log");
    for seed in 0..200 {
        let sim = Sim::new(seed, SimConfig::default());
        let acked = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = acked.clone();
        sim.block_on(async move {
            spawn(Class::Background, async move {
                for i in 0..50u8 {
                    fs::append_sync(path, &[i; 700]).await.unwrap();
                    count.set(count.get() + 1);
                }
            });
            sleep(Duration::from_micros(random_u64() % 20_000)).await;
        });
        sim.crash(CrashPolicy::POWER);
        let left = sim.disk().read_raw(path).unwrap_or_default();
        assert!(left.len() >= acked.get() * 700);
        for (i, record) in left.chunks(700).take(acked.get()).enumerate() {
            assert!(record.iter().all(|b| *b == i as u8));
        }
    }
}

#[test]
fn errors_on_demand() {
    let sim = Sim::new(7, SimConfig::default());
    let disk = sim.disk();
    sim.block_on(async {
        let f = base().await;
        let eio = |r: std::io::Result<()>| assert_eq!(r.unwrap_err().raw_os_error(), Some(5));
        disk.fail_next_reads(2);
        eio(f.read_at(0, BLOCK).await.map(drop));
        eio(f.read_at(0, BLOCK).await.map(drop));
        f.read_at(0, BLOCK).await.unwrap();
        disk.fail_next_writes(1);
        eio(f.write_at(filled(BLOCK, 2), 0).await);
        f.write_at(filled(BLOCK, 2), 0).await.unwrap();
        disk.fail_next_syncs(1);
        eio(f.sync().await);
        f.sync().await.unwrap();

        fs::append_sync(Path::new("/other"), b"x").await.unwrap();
        disk.fail_next_on(Path::new("/other"), FaultOn::Sync, 1);
        f.sync().await.unwrap();
        eio(fs::append_sync(Path::new("/other"), b"x").await);
    });
}

#[test]
fn a_failed_sync_is_not_repaired_by_the_next() {
    let survived: BTreeSet<u8> = (0..40)
        .map(|seed| {
            let sim = Sim::new(seed, SimConfig::default());
            sim.block_on(async {
                let f = base().await;
                f.write_at(filled(BLOCK, 2), 0).await.unwrap();
                sim.disk().fail_next_syncs(1);
                f.sync().await.unwrap_err();
                f.sync().await.unwrap();
                assert_eq!(f.read_at(0, BLOCK).await.unwrap()[0], 2, "in memory");
            });
            sim.crash(CrashPolicy::POWER);
            sim.disk().read_raw(Path::new("/a")).unwrap()[0]
        })
        .collect();
    assert_eq!(survived, BTreeSet::from([1, 2]));
}

#[test]
fn errors_by_chance() {
    let cfg = SimConfig {
        read_error_ppm: 200_000,
        write_error_ppm: 200_000,
        sync_error_ppm: 200_000,
        ..SimConfig::default()
    };
    let sim = Sim::new(1, cfg);
    sim.block_on(async {
        let f = File::open(Path::new("/a"), rw().create(true))
            .await
            .unwrap();
        let mut failed = [0; 3];
        for _ in 0..200 {
            failed[0] += u32::from(f.write_at(filled(BLOCK, 1), 0).await.is_err());
            failed[1] += u32::from(f.sync().await.is_err());
            failed[2] += u32::from(f.read_at(0, BLOCK).await.is_err());
        }
        assert!(failed.iter().all(|n| (10..100).contains(n)), "{failed:?}");
    });
}

#[test]
fn a_full_disk() {
    let cfg = SimConfig {
        disk_bytes: 64 * BLOCK as u64,
        ..SimConfig::default()
    };
    let sim = Sim::new(1, cfg);
    let disk = sim.disk();
    sim.block_on(async {
        let root = Path::new("/");
        let f = base().await;
        let blocks = |n: usize| (n * BLOCK) as u64;
        let (total, free) = (blocks(64), blocks(60));
        assert_eq!(
            fs::space(root).await.unwrap(),
            fs::Space {
                total,
                free,
                device: 0
            }
        );
        f.allocate(60 * BLOCK as u64).await.unwrap();
        let g = File::open(Path::new("/b"), rw().create(true))
            .await
            .unwrap();
        g.write_at(filled(4 * BLOCK, 1), 0).await.unwrap();
        let full = |r: std::io::Result<()>| {
            assert_eq!(r.unwrap_err().kind(), ErrorKind::StorageFull);
        };
        full(g.write_at(filled(BLOCK, 1), 4 * BLOCK as u64).await);
        full(g.allocate(6 * BLOCK as u64).await);
        full(fs::write_atomic(Path::new("/c"), b"x").await);
        // Inside of what is allocated there is always room.
        f.write_at(filled(BLOCK, 1), 50 * BLOCK as u64)
            .await
            .unwrap();
        fs::remove_file(Path::new("/a")).await.unwrap();
        full(g.allocate(6 * BLOCK as u64).await);
        f.close().await.unwrap();
        g.allocate(6 * BLOCK as u64).await.unwrap();
        disk.set_capacity(4 * BLOCK as u64);
        full(g.allocate(7 * BLOCK as u64).await);
        g.truncate(0).await.unwrap();
        g.allocate(4 * BLOCK as u64).await.unwrap();
        assert_eq!(disk.used(), 4 * BLOCK as u64);
    });
}

#[test]
fn bits_flip() {
    let sim = Sim::new(1, SimConfig::default());
    let disk = sim.disk();
    sim.block_on(async {
        let f = base().await;
        disk.flip_bit(Path::new("/a"), 5000, 3);
        let b = f.read_at(BLOCK as u64, BLOCK).await.unwrap();
        let wrong: Vec<_> = b.iter().enumerate().filter(|(_, b)| **b != 1).collect();
        assert_eq!(wrong, [(5000 - BLOCK, &9)]);
    });
    sim.crash(CrashPolicy::POWER_LOST);
    assert_eq!(disk.read_raw(Path::new("/a")).unwrap()[5000], 9);
    assert_eq!(disk.read_durable(Path::new("/a")).unwrap()[5000], 9);
    disk.write_raw(Path::new("/x/y"), b"planted");
    assert_eq!(disk.files(), [Path::new("/a"), Path::new("/x/y")]);
    sim.crash(CrashPolicy::POWER_LOST);
    let left = sim.block_on(fs::read(Path::new("/x/y"), 100)).unwrap();
    assert_eq!(left, b"planted");
}

#[test]
fn spikes_of_latency() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let f = base().await;
        let (extra, lasting) = (Duration::from_secs(2), Duration::from_secs(3));
        sim.disk().latency_spike(extra, lasting);
        let t = now();
        f.sync().await.unwrap();
        assert!(now() - t >= extra);
        sleep(lasting).await;
        let t = now();
        f.sync().await.unwrap();
        assert!(now() - t < extra);
    });
}
