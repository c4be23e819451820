//! Owns the tests of the runtime seam; those of the shared behaviour run on both runtimes by the same bodies.
//! Does not know the rest of the engine.
//! Invariant: no test is decided by how long something takes.

mod files;
mod net;
mod real;
mod sim_disk;
mod sim_run;
mod sync;
mod tasks;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::sim::{Sim, SimConfig};
use super::{run_one, DirectBuf};

/// Runs the body on an executor of the real runtime and under several seeds of the simulator, each time with a
/// directory of its own.
fn both<F: Future<Output = ()>>(name: &str, body: impl Fn(PathBuf) -> F) {
    let dir = Scratch::new(name);
    run_one(body(dir.0.clone())).expect("an executor");
    for seed in 0..8 {
        sim(seed, || {
            let path = PathBuf::from("/data").join(name);
            let body = body(path.clone());
            async move {
                super::fs::create_dir_all(&path).await.unwrap();
                body.await;
            }
        });
    }
}

fn sim<F: Future<Output = ()>>(seed: u64, body: impl FnOnce() -> F) -> Sim {
    let sim = Sim::new(seed, SimConfig::default());
    sim.block_on(async { body().await });
    sim
}

/// A directory of the real file system that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("millrace-rt-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {e}", self.0.display());
        }
    }
}

fn filled(len: usize, byte: u8) -> Rc<DirectBuf> {
    let mut b = DirectBuf::with_len(len);
    b.fill(byte);
    Rc::new(b)
}

/// Bytes that tell their position.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}
