//! Owns what hostile bytes are fed to: one function for each format that a peer, a disk or an operator may send.
//! Does not know where the bytes come from: the corpus in `ci/fuzz`, its mutations, or libFuzzer.
//! Invariant: any input comes back without a panic, within the heap its target allows; what can be read can be written
//! and read again, and is the same.

pub mod adopt;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod connection;
pub mod corpus;
pub mod frame;
pub mod heap;
pub mod index;
pub mod journal;
pub mod manifest;
pub mod metadata;
pub mod mutate;
pub mod request;
pub mod segment;
pub mod trial;

use millrace_engine::rt::sim::{Sim, SimConfig};
use std::future::Future;
use std::path::Path;

/// One format, and what reading it may cost.
pub struct Target {
    /// Of the function, of its fuzz target and of its folder in the corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Most bytes of heap in use at once: so many for each byte of input,
    pub heap_per_byte: usize,
    /// and so many whatever the input is.
    pub heap_fixed: usize,
    /// Mutations in every run of the gates: about a second's worth.
    pub mutations: u64,
}

impl Target {
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Bytes of heap that an input of `len` bytes may take at once.
    pub fn heap_max(&self, len: usize) -> usize {
        self.heap_fixed + self.heap_per_byte * len
    }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Every target. What a target does with its input (several passes, a simulated disk with the files on it, the value
/// read twice) is part of its figures.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frame",
        run: frame::frame,
        heap_per_byte: 64,
        // The room made for a frame that has been announced, and read blocks.
        heap_fixed: frame::SIZE_MAX + 2 * MIB,
        mutations: 1_000,
    },
    Target {
        name: "request",
        run: request::request,
        // Two values in memory, each of `DECODE_MEMORY_FACTOR`, and their bytes.
        heap_per_byte: 48,
        heap_fixed: 16 * KIB,
        mutations: 6_000,
    },
    Target {
        name: "connection",
        run: connection::connection,
        heap_per_byte: 256,
        // A node, and what one request may make it create.
        heap_fixed: 64 * MIB,
        mutations: 100,
    },
    Target {
        name: "batch",
        run: batch::batch,
        // Snappy claims up to 22 times its size, a record takes 100 bytes of memory for 7 of its own; both lists.
        heap_per_byte: 128,
        // What a batch may decompress into, as bytes and as records, twice; and the blocks that lz4 announces.
        heap_fixed: 96 * batch::DECOMPRESSED_BYTES_MAX + 24 * MIB,
        mutations: 300,
    },
    Target {
        name: "journal",
        run: journal::journal,
        heap_per_byte: 16,
        heap_fixed: 256 * KIB,
        mutations: 300,
    },
    Target {
        name: "segment",
        run: segment::segment,
        heap_per_byte: 32,
        heap_fixed: 128 * KIB,
        mutations: 200,
    },
    Target {
        name: "index",
        run: index::index,
        heap_per_byte: 16,
        heap_fixed: 4 * KIB,
        mutations: 5_000,
    },
    Target {
        name: "checkpoint",
        run: checkpoint::checkpoint,
        heap_per_byte: 48,
        heap_fixed: 8 * KIB,
        mutations: 5_000,
    },
    Target {
        name: "manifest",
        run: manifest::manifest,
        heap_per_byte: 64,
        heap_fixed: 8 * KIB,
        mutations: 5_000,
    },
    Target {
        name: "metadata",
        run: metadata::metadata,
        heap_per_byte: 256,
        // One command may ask for as many partitions as a cluster may have.
        heap_fixed: 128 * MIB,
        mutations: 300,
    },
    Target {
        name: "config",
        run: config::config,
        heap_per_byte: 256,
        heap_fixed: 512 * KIB,
        mutations: 3_000,
    },
    Target {
        name: "adopt",
        run: adopt::adopt,
        heap_per_byte: 64,
        heap_fixed: 4 * KIB,
        mutations: 5_000,
    },
];

/// Polls after which something spins: a thousand times what the largest input takes.
const POLLS_MAX: u64 = 2_000_000;

/// Runs `work` on a simulated machine that has these files.
fn with_files<T>(files: &[(&Path, &[u8])], work: impl Future<Output = T>) -> T {
    let config = SimConfig {
        polls_max: POLLS_MAX,
        ..SimConfig::default()
    };
    let sim = Sim::new(1, config);
    for (path, content) in files {
        sim.disk().write_raw(path, content);
    }
    sim.block_on(work)
}

/// Takes `count` bytes off the front, or what there is.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    front
}

/// Takes a number of two bytes off the front; missing bytes are zeros.
fn take_u16(bytes: &mut &[u8]) -> usize {
    take(bytes, 2)
        .iter()
        .fold(0, |n, byte| n << 8 | usize::from(*byte))
}
