//! Tests of a node on the simulator: opening, crashes, failing disks, damage, limits.

use super::*;
use crate::meta::format::{encode_records, recover};
use crate::meta::machine::apply;
use crate::meta::{limits, open, MetaError, MetaHandle, MetaOptions, NodeInfo, Outcome};
use crate::rt;
use crate::rt::sim::{CrashPolicy, Sim, SimConfig};
use raft::eraftpb::Entry;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const FILE: &str = "/data/meta/metadata";

fn info(id: i32) -> NodeInfo {
    NodeInfo {
        id,
        host: format!("host{id}"),
        port: 9092,
        rack: None,
    }
}

async fn open_it() -> Result<MetaHandle, MetaError> {
    open(Path::new("/data"), info(1), MetaOptions::default()).await
}

fn sim(seed: u64) -> Sim {
    let sim = Sim::new(seed, SimConfig::default());
    sim.disk().write_raw(Path::new("/data/lock"), b"");
    sim
}

fn file(sim: &Sim) -> Vec<u8> {
    sim.disk()
        .read_raw(Path::new(FILE))
        .expect("the file exists")
}

/// An image without what differs between a recovered and a live one: how many entries it took.
fn timeless(image: &Image) -> Image {
    let mut image = image.clone();
    image.version = 0;
    image
}

#[test]
fn a_fresh_node_founds_a_cluster_at_once() {
    let sim = sim(1);
    let (handle, took) = sim.block_on(async {
        let start = rt::now();
        let handle = open_it().await.expect("a fresh directory");
        (handle, rt::now() - start)
    });
    let image = handle.image();
    assert_eq!(image.cluster_id.len(), 22);
    assert_eq!(
        image.broker(1).map(|b| (b.host.as_str(), b.port)),
        Some(("host1", 9092))
    );
    // Virtual time: an election by timer would take hundreds of times that.
    assert!(took < Duration::from_millis(20), "{took:?}");
    sim.block_on(async {
        handle.propose(create(1, "a", 3)).await.expect("created");
        handle.close().await.expect("closed");
        assert_eq!(handle.propose(register(1)).await, Err(MetaError::Closed));
        let again = open_it().await.expect("its own directory");
        assert_eq!(again.image().cluster_id, image.cluster_id);
        let topic = again.image().topic("a").expect("it survived").clone();
        assert!(
            topic.partitions.iter().all(|p| p.leader_epoch == 1),
            "a start bumps epochs"
        );
        again.close().await.expect("closed");
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = |seed| {
        let sim = sim(seed);
        sim.block_on(async {
            let handle = open_it().await.expect("fresh");
            for n in 0..20 {
                handle
                    .propose(create(n, &format!("t{n}"), 1))
                    .await
                    .expect("created");
            }
            handle.close().await.expect("closed");
        });
        (sim.trace(), file(&sim))
    };
    assert!(run(3) == run(3));
    assert!(run(3) != run(4));
}

#[test]
fn subscribers_see_every_change_before_it_is_answered() {
    sim(2).block_on(async {
        let handle = open_it().await.expect("fresh");
        let seen: Rc<RefCell<Vec<(u64, usize)>>> = Rc::default();
        let log = seen.clone();
        handle.subscribe(move |image| log.borrow_mut().push((image.version, image.topic_count())));
        assert_eq!(seen.borrow().len(), 1, "the current one at once");
        for n in 0..5u64 {
            handle
                .propose(create(n, &format!("t{n}"), 1))
                .await
                .expect("created");
            assert_eq!(seen.borrow().last().map(|s| s.1), Some(n as usize + 1));
            assert_eq!(handle.image().topic_count(), n as usize + 1);
        }
        assert!(seen.borrow().windows(2).all(|w| w[0].0 < w[1].0));
        let refused = handle.propose(create(0, "t0", 1)).await;
        assert!(matches!(refused, Err(MetaError::Refused(_))), "{refused:?}");
        assert_eq!(
            handle.check(&create(9, "t9", 1)).is_ok(),
            handle.image().topic("t9").is_none()
        );
    });
}

#[test]
fn proposals_made_together_share_their_writes() {
    let sim = sim(5);
    sim.block_on(async {
        let handle = open_it().await.expect("fresh");
        let tasks: Vec<_> = (0..10_000u64)
            .map(|n| {
                let handle = handle.clone();
                rt::spawn_joined(rt::Class::Network, async move {
                    handle.propose(create(n, &format!("t{n}"), 1)).await
                })
            })
            .collect();
        for task in tasks {
            assert!(matches!(task.await, Ok(Outcome::Topic(_))));
        }
        assert_eq!(handle.image().topic_count(), 10_000);
        handle.close().await.expect("closed");
    });
    // One block each would be 40 MB.
    let len = file(&sim).len();
    assert!(len < 5 << 20, "{len} bytes");
    sim.block_on(async {
        let handle = open_it().await.expect("its own directory");
        assert_eq!(handle.image().topic_count(), 10_000);
    });
}

#[test]
fn the_log_is_replaced_by_a_snapshot() {
    let sim = sim(6);
    let most = Rc::new(Cell::new(0));
    let live = sim.block_on(async {
        let handle = open_it().await.expect("fresh");
        handle.propose(create(1, "a", 3)).await.expect("created");
        for n in 0..6_000u64 {
            handle
                .propose(set(1, "retention.ms", Some(&n.to_string())))
                .await
                .expect("set");
            if n % 50 == 0 {
                let len = file(&Sim::handle()).len();
                most.set(most.get().max(len));
            }
        }
        let live = handle.image();
        handle.close().await.expect("closed");
        live
    });
    // 6,000 blocks would be 24 MB.
    let bound = limits::COMPACT_LOG_BYTES as usize;
    assert!(
        most.get() < bound + (1 << 20) && most.get() > bound / 2,
        "{}",
        most.get()
    );
    let again = sim.block_on(open_it()).expect("its own directory");
    let mut expected = timeless(&live);
    apply(&mut expected, &Command::BumpLeaderEpochs { node: 1 }).expect("registered");
    assert_eq!(timeless(&again.image()), expected);
}

/// Random commands from several tasks, a crash at a random moment, again and again. What was acknowledged is there, what is
/// there is what was asked for, in order, and nothing else.
#[test]
fn acknowledged_commands_survive_crashes() {
    for seed in 0..100 {
        let sim = sim(1_000 + seed);
        let mut model = empty_image();
        for round in 0..4 {
            model = one_life(&sim, model, round);
        }
    }
}

fn one_life(sim: &Sim, before: Image, round: u32) -> Image {
    type Log = Rc<RefCell<Vec<Command>>>;
    let submitted: Log = Rc::default();
    let acknowledged = Rc::new(Cell::new(0usize));
    let opened: Rc<RefCell<Option<Result<Image, MetaError>>>> = Rc::default();
    let tasks = 1 + sim.random() % 3;
    let lifetime =
        Duration::from_micros(sim.random() % [800, 8_000, 80_000][(sim.random() % 3) as usize]);
    {
        let (submitted, acknowledged, opened) =
            (submitted.clone(), acknowledged.clone(), opened.clone());
        sim.block_on(async move {
            rt::spawn(rt::Class::Storage, async move {
                let result = open_it().await;
                *opened.borrow_mut() = Some(
                    result
                        .as_ref()
                        .map(|h| timeless(&h.image()))
                        .map_err(MetaError::clone),
                );
                let Ok(handle) = result else { return };
                for _ in 0..tasks {
                    let (handle, submitted, acknowledged) =
                        (handle.clone(), submitted.clone(), acknowledged.clone());
                    rt::spawn(rt::Class::Network, async move {
                        loop {
                            let command = some_command(&mut rt::random_u64);
                            let at = submitted.borrow().len();
                            submitted.borrow_mut().push(command.clone());
                            match handle.propose(command).await {
                                Ok(_) | Err(MetaError::Refused(_)) => {
                                    acknowledged.set(acknowledged.get().max(at + 1));
                                }
                                Err(other) => panic!("a disk without faults: {other}"),
                            }
                        }
                    });
                }
            });
            rt::sleep(lifetime).await;
        });
    }
    sim.crash(CrashPolicy::KINDS[(sim.random() % 4) as usize]);

    // What this life began with: the last model, or a cluster founded just now.
    let start = |mut image: Image| {
        apply(&mut image, &register(1)).expect("valid");
        apply(&mut image, &Command::BumpLeaderEpochs { node: 1 }).expect("registered");
        timeless(&image)
    };
    let opened = opened
        .borrow_mut()
        .take()
        .map(|r| r.unwrap_or_else(|e| panic!("seed {}: {e}", sim.seed())));
    let founded = before.brokers.is_empty();
    let same_cluster = |mut model: Image, as_in: &Image| {
        if founded {
            model.cluster_id = as_in.cluster_id.clone();
        }
        model
    };
    let started = opened.is_some();
    let mut model = before;
    if let Some(image) = &opened {
        model = start(same_cluster(model, image));
        assert_eq!(*image, model, "seed {} round {round}", sim.seed());
    }
    let recovered = sim.block_on(async {
        let handle = open_it()
            .await
            .unwrap_or_else(|e| panic!("seed {}: {e}", sim.seed()));
        let image = timeless(&handle.image());
        handle.close().await.expect("a disk without faults");
        image
    });
    let submitted = submitted.borrow();
    model = same_cluster(model, &recovered);
    // A start that crashed between its write and its answer left its registration and bump behind.
    let matches = |model: &Image| {
        let once = start(model.clone());
        once == recovered || !started && start(once) == recovered
    };
    let mut applied = 0;
    while applied < acknowledged.get() || applied < submitted.len() && !matches(&model) {
        drop(apply(&mut model, &submitted[applied]));
        applied += 1;
    }
    assert!(
        matches(&model),
        "seed {} round {round}: {} submitted, {} acknowledged, none of the states after that is {recovered:?} but {model:?} started {started} founded {founded}",
        sim.seed(),
        submitted.len(),
        acknowledged.get()
    );
    recovered
}

#[test]
fn a_failed_write_ends_it_and_loses_nothing_acknowledged() {
    for seed in 0..40 {
        let sim = sim(2_000 + seed);
        sim.block_on(async {
            let handle = open_it().await.expect("fresh");
            handle.propose(create(1, "kept", 1)).await.expect("created");
            if seed % 2 == 0 {
                Sim::handle().disk().fail_next_writes(1);
            } else {
                Sim::handle().disk().fail_next_syncs(1);
            }
            let failed = handle.propose(create(2, "maybe", 1)).await;
            assert!(matches!(failed, Err(MetaError::Failed(_))), "{failed:?}");
            let refused = handle.propose(create(3, "never", 1)).await;
            assert!(matches!(refused, Err(MetaError::Failed(_))), "{refused:?}");
            assert!(matches!(handle.failure().await, MetaError::Io { .. }));
            assert!(matches!(handle.close().await, Err(MetaError::Io { .. })));
        });
        sim.crash(CrashPolicy::POWER);
        let image = sim.block_on(open_it()).expect("it recovers").image();
        assert!(image.topic("kept").is_some());
        assert!(image.topic("never").is_none());
    }
}

#[test]
fn unreadable_files_are_reported_and_left_alone() {
    let sim = sim(7);
    sim.block_on(async {
        let handle = open_it().await.expect("fresh");
        for n in 0..5 {
            handle
                .propose(create(n, &format!("t{n}"), 1))
                .await
                .expect("created");
        }
        handle.close().await.expect("closed");
    });
    let good = file(&sim);
    let write = |bytes: &[u8]| sim.disk().write_raw(Path::new(FILE), bytes);
    for at in (0..good.len()).step_by(331) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        write(&bad);
        match sim.block_on(open_it()) {
            // Padding, or the witness of a clean end: nothing is missing.
            Ok(handle) => {
                assert_eq!(handle.image().topic_count(), 5, "byte {at}");
                sim.block_on(handle.close()).expect("closed");
            }
            Err(MetaError::Damaged { .. }) => assert_eq!(file(&sim), bad, "nothing was changed"),
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    write(&good);
    let other = sim.block_on(open(Path::new("/data"), info(2), MetaOptions::default()));
    assert!(matches!(
        other.err(),
        Some(MetaError::WrongNode {
            stored: 1,
            given: 2,
            ..
        })
    ));
    sim.disk().fail_next_reads(1);
    assert!(matches!(
        sim.block_on(open_it()).err(),
        Some(MetaError::Io { .. })
    ));
    assert_eq!(
        sim.block_on(open_it())
            .expect("the disk is well again")
            .image()
            .topic_count(),
        5
    );
}

#[test]
fn damage_to_the_last_command_is_found_after_a_witness() {
    let sim = sim(8);
    let before = sim.block_on(async {
        let handle = open_it().await.expect("fresh");
        let before = file(&Sim::handle()).len();
        handle.propose(create(1, "a", 1)).await.expect("created");
        rt::sleep(limits::WITNESS_DELAY * 2).await;
        before
    });
    sim.crash(CrashPolicy::Process);
    assert_eq!(
        file(&sim).len(),
        before + 2 * 4096,
        "the command, and its witness"
    );
    sim.disk().flip_bit(Path::new(FILE), before as u64 + 100, 0);
    let error = sim
        .block_on(open_it())
        .err()
        .expect("acknowledged metadata is damaged");
    assert!(matches!(error, MetaError::Damaged { .. }), "{error}");
}

#[test]
fn commands_of_a_newer_version_are_not_skipped() {
    let sim = sim(9);
    sim.block_on(async {
        let handle = open_it().await.expect("fresh");
        handle.close().await.expect("closed");
    });
    let mut bytes = file(&sim);
    let recovered = recover(&bytes, FILE, 1).expect("whole");
    let last = recovered.entries.last().expect("the registration");
    let data = br#"{"paint_topic":{"colour":"red"}}"#;
    let entry = Entry {
        index: last.index + 1,
        term: last.term,
        data: data.to_vec().into(),
        ..Entry::default()
    };
    let (batch, _) = recovered.tail.batch(&encode_records(&[entry], None));
    bytes.extend_from_slice(&batch);
    sim.disk().write_raw(Path::new(FILE), &bytes);
    let error = sim.block_on(open_it()).err().expect("an unknown command");
    assert!(matches!(error, MetaError::UnknownCommand { .. }), "{error}");
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[test]
fn options_are_checked() {
    let sim = sim(10);
    let with = |name: &str, value: &str| MetaOptions {
        fixed_config: [(name.to_string(), value.to_string())].into(),
        ..MetaOptions::default()
    };
    let attempt = |node: NodeInfo, options: MetaOptions| {
        let opened = sim.block_on(open(Path::new("/data"), node, options));
        opened.map(|handle| {
            let image = handle.image();
            sim.block_on(handle.close()).expect("closed");
            image
        })
    };
    let missing = MetaOptions {
        must_exist: true,
        ..MetaOptions::default()
    };
    assert!(matches!(
        attempt(info(1), missing.clone()),
        Err(MetaError::Missing { .. })
    ));
    assert!(matches!(
        attempt(info(1), with("num.partitions", "no")),
        Err(MetaError::Config(_))
    ));
    assert!(matches!(
        attempt(info(1), with("nope", "1")),
        Err(MetaError::Config(_))
    ));
    assert!(matches!(
        attempt(info(-1), MetaOptions::default()),
        Err(MetaError::Refused(_))
    ));
    assert!(
        sim.disk().read_raw(Path::new(FILE)).is_none(),
        "nothing was founded"
    );

    let image = attempt(info(1), with("log.retention.hours", "1")).expect("valid");
    assert_eq!(image.default_topic_config.retention_ms, Some(3_600_000));
    let image = attempt(info(1), missing).expect("it exists now");
    assert_eq!(
        image.default_topic_config.retention_ms,
        Some(604_800_000),
        "not stored"
    );
}

#[test]
fn a_full_disk_refuses_what_grows_first() {
    let sim = sim(11);
    sim.block_on(async {
        let handle = open_it().await.expect("fresh");
        handle.propose(create(1, "a", 1)).await.expect("created");
        let disk = Sim::handle().disk();
        disk.set_capacity(disk.used() + limits::DISK_RESERVE_BYTES - 4096);
        let refused = handle.propose(create(2, "b", 1)).await;
        assert!(
            matches!(refused, Err(MetaError::DiskFull { .. })),
            "{refused:?}"
        );
        handle
            .propose(set(1, "retention.ms", Some("1")))
            .await
            .expect("this frees space");
        handle
            .propose(Command::DeleteTopic { id: topic_id(1) })
            .await
            .expect("so does this");
        disk.set_capacity(disk.used() + limits::DISK_FLOOR_BYTES - 4096);
        let refused = handle.propose(register(1)).await;
        assert!(
            matches!(refused, Err(MetaError::DiskFull { .. })),
            "{refused:?}"
        );
        disk.set_capacity(1 << 34);
        handle
            .propose(create(2, "b", 1))
            .await
            .expect("there is room again");
    });
}

#[test]
fn oversized_commands_never_reach_the_log() {
    let sim = sim(12);
    sim.block_on(async {
        let handle = open_it().await.expect("fresh");
        let len = file(&Sim::handle()).len();
        let mut huge = create(1, "a", -1);
        if let Command::CreateTopic { assignment, .. } = &mut huge {
            *assignment = vec![vec![i32::MAX; 16]; limits::COMMAND_BYTES_MAX / 100];
        }
        let refused = handle.propose(huge).await;
        assert!(
            matches!(refused, Err(MetaError::TooLarge { .. })),
            "{refused:?}"
        );
        assert_eq!(file(&Sim::handle()).len(), len);
    });
}

/// The same code on the real runtime.
#[test]
fn it_runs_on_the_real_runtime() {
    let dir = std::env::temp_dir().join(format!("millrace-meta-{}", std::process::id()));
    let path = dir.clone();
    let topics = rt::run_one(async move {
        let open = || open(&path, info(1), MetaOptions::default());
        let handle = open().await.expect("a fresh directory");
        handle
            .propose(create(1, "a", 10_000))
            .await
            .expect("created");
        handle.close().await.expect("closed");
        let again = open().await.expect("its own directory");
        let topic = again.image().topic("a").expect("it survived").clone();
        again.close().await.expect("closed");
        topic.partitions.len()
    });
    std::fs::remove_dir_all(&dir).expect("ours");
    assert_eq!(topics.expect("a runtime"), 10_000);
}
