//! Owns the bounded run of every fuzz target: the corpus, and mutations that are the same in every run.
//! Does not know formats; `ci/fuzz/run` and `ci/night` search for longer.
//! Invariant: heap is counted by the allocator itself, and every version of every key is met.

use bytes::Bytes;
use millrace_ci::fuzz::{heap, request, trial, Target, TARGETS};
use millrace_net::wire::versions::SERVED;
use std::fs;
use std::path::Path;

/// Files of a corpus are read by people and by every run.
const CORPUS_FILE_BYTES_MAX: u64 = 32 << 10;
/// Two or three for each request that is served.
const CORPUS_FILES_MAX: usize = 200;

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

fn try_out(name: &str) {
    let target = Target::named(name).expect("a target");
    let seeds = trial::corpus(target).expect("a corpus");
    let evidence = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    let tried =
        trial::run(target, target.mutations, 1, &evidence, &mut heap::measured).expect("a corpus");
    println!("{name}: {tried:?}");
    assert_eq!(tried.inputs, seeds.len() as u64 + target.mutations);
}

macro_rules! bounded_runs {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                try_out(stringify!($name));
            }
        )*

        #[test]
        fn every_target_has_a_bounded_run() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}
bounded_runs! {
    frame request connection batch journal segment index checkpoint manifest metadata config adopt
}

#[test]
fn every_key_and_version_reads_every_body_of_the_corpus() {
    let target = Target::named("request").expect("a target");
    for seed in trial::corpus(target).expect("a corpus") {
        let body = Bytes::from(seed.bytes).slice(2..);
        for row in SERVED {
            for version in row.min..=row.max {
                for response in [false, true] {
                    // Either outcome is right; that there is one is what counts.
                    let _ = request::message(row.key, version, response, body.clone());
                }
            }
        }
    }
}

#[test]
fn every_target_has_a_small_corpus_and_a_door_for_the_fuzzer() {
    for target in TARGETS {
        let dir = trial::corpus_dir();
        let files: Vec<_> = fs::read_dir(dir.join(target.name))
            .expect("a corpus")
            .map(|entry| entry.expect("readable").path())
            .collect();
        assert!(!files.is_empty() && files.len() <= CORPUS_FILES_MAX);
        for file in files {
            let size = fs::metadata(&file).expect("readable").len();
            assert!(size <= CORPUS_FILE_BYTES_MAX, "{}", file.display());
        }
        let door = dir.join(format!("../fuzz_targets/{}.rs", target.name));
        let text = fs::read_to_string(&door).expect("a fuzz target");
        assert!(text.contains(&format!("fuzz::{0}::{0}(", target.name)));
        let manifest = fs::read_to_string(dir.join("../Cargo.toml")).expect("a manifest");
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)));
    }
}

#[test]
fn the_corpus_has_every_request_that_is_served() {
    for served in SERVED {
        let name = format!("{}-v{}-request", served.key.name(), served.max);
        let path = trial::corpus_dir().join("request").join(name);
        let again = "make it again: cargo run -p millrace-ci --bin fuzz -- corpus";
        assert!(path.exists(), "{} is missing; {again}", path.display());
    }
}

#[test]
fn the_allocator_counts_what_is_in_use_at_once() {
    let target = Target {
        name: "none",
        run: |data| {
            drop(vec![0u8; 1 << 20]);
            let kept: Vec<Vec<u8>> = (0..3).map(|_| vec![1; data.len()]).collect();
            assert_eq!(kept.len(), 3);
        },
        heap_per_byte: 0,
        heap_fixed: 0,
        mutations: 0,
    };
    assert_eq!(heap::measured(&target, &[]), 1 << 20);
    let three = heap::measured(&target, &vec![0; 1 << 20]);
    assert!((3 << 20..(3 << 20) + 1_000).contains(&three), "{three}");
}
