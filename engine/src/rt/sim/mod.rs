//! Owns the deterministic simulator: virtual time, seeded scheduling, simulated disks and a simulated network.
//! Does not know the broker; it runs the same code as the real runtime does.
//! Invariant: everything that happens derives from the seed and the code: same seed, same history (see `Sim::trace`).

mod core;
mod disk;
mod file;
mod fsops;
mod net;

pub(super) use self::core::{current, now, splitmix64};
pub(super) use file::SimFile;
pub(super) use net::{DetachedSim, SimListener, SimStream};

use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use self::core::Core;
use super::task::Class;
use super::time::Mono;
use super::Joined;

/// A simulated machine: it has a disk and an address, and its tasks live and die together. Tasks inherit the node of the
/// task that starts them; the future given to [`Sim::block_on`] runs on [`NodeId::FIRST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The node everything runs on unless told otherwise.
    pub const FIRST: NodeId = NodeId(0);
}

/// A uniform choice between two durations, both included.
#[derive(Clone, Copy, Debug)]
pub struct Between(pub Duration, pub Duration);

/// Speeds, sizes and fault rates. Rates are in parts per million of operations, zero by default.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Wall clock at the start, Unix milliseconds.
    pub wall_start_ms: i64,
    /// Time of a disk read.
    pub read: Between,
    /// Time of a disk write.
    pub write: Between,
    /// Time of a flush.
    pub sync: Between,
    /// Time of an open, rename, listing and the like.
    pub metadata: Between,
    /// Time of `rt::blocking`.
    pub blocking: Between,
    /// One-way time of a network packet.
    pub packet: Between,
    /// Operations (disk and network) that take twenty times as long.
    pub slow_ppm: u32,
    /// Reads that fail with EIO.
    pub read_error_ppm: u32,
    /// Writes that fail with EIO, possibly half done.
    pub write_error_ppm: u32,
    /// Flushes that fail with EIO; what they covered is then durable or lost, by chance.
    pub sync_error_ppm: u32,
    /// Network writes that reset their connection.
    pub reset_ppm: u32,
    /// Bytes under way or unread, per direction of a connection.
    pub window_bytes: usize,
    /// How long a connect to an unreachable node takes to fail.
    pub connect_timeout: Duration,
    /// Size of each disk in bytes.
    pub disk_bytes: u64,
    /// Polls after which `block_on` panics: something spins.
    pub polls_max: u64,
}

impl Default for SimConfig {
    fn default() -> Self {
        let us = Duration::from_micros;
        SimConfig {
            wall_start_ms: 1_700_000_000_000,
            read: Between(us(20), us(200)),
            write: Between(us(10), us(120)),
            sync: Between(us(20), us(300)),
            metadata: Between(us(5), us(60)),
            blocking: Between(us(2), us(50)),
            packet: Between(us(10), us(100)),
            slow_ppm: 2_000,
            read_error_ppm: 0,
            write_error_ppm: 0,
            sync_error_ppm: 0,
            reset_ppm: 0,
            window_bytes: 128 << 10,
            connect_timeout: Duration::from_secs(5),
            disk_bytes: 1 << 34,
            polls_max: 200_000_000,
        }
    }
}

/// What a crash does to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// None of it survives.
    Lost,
    /// All of it survives (what was still under way, in part).
    Kept,
    /// A seeded subset survives, down to single sectors of 512 bytes.
    Random,
    /// As `Random`, and a torn sector may also hold garbage.
    Garbage,
}

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// The machine stops: tasks, sockets and whatever was not synced.
    Power {
        /// Fate of unsynced data.
        data: Unsynced,
        /// Fate of unsynced directory entries: `Lost`, `Kept`, or (both others) a seeded subset.
        names: Unsynced,
    },
    /// Only the process dies: completed writes stay (still unsynced); writes under way happen, or not, or in part.
    Process,
}

impl CrashPolicy {
    /// Power loss, a seeded subset of everything unsynced survives.
    pub const POWER: CrashPolicy = CrashPolicy::Power {
        data: Unsynced::Random,
        names: Unsynced::Random,
    };
    /// Power loss, nothing unsynced survives.
    pub const POWER_LOST: CrashPolicy = CrashPolicy::Power {
        data: Unsynced::Lost,
        names: Unsynced::Lost,
    };
    /// Those that differ most, for a history to choose from.
    pub const KINDS: [CrashPolicy; 4] = [
        CrashPolicy::Process,
        CrashPolicy::POWER,
        CrashPolicy::POWER_LOST,
        CrashPolicy::Power {
            data: Unsynced::Garbage,
            names: Unsynced::Random,
        },
    ];
}

/// A simulation. Clones are handles to the same one; [`Sim::handle`] gives one to code that runs inside.
#[derive(Clone)]
pub struct Sim(Rc<Core>, #[allow(dead_code)] Rc<Owner>);

/// Ends the tasks with the last handle; they may own the core in a cycle.
struct Owner(std::rc::Weak<Core>);

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade() {
            core.drop_tasks(|_| true);
        }
    }
}

impl Sim {
    /// A new world: empty disks, time zero, no tasks.
    pub fn new(seed: u64, cfg: SimConfig) -> Sim {
        let core = Core::new(seed, cfg);
        let owner = Rc::new(Owner(Rc::downgrade(&core)));
        core.set_owner(Rc::downgrade(&owner));
        Sim(core, owner)
    }

    /// The simulation this code runs in.
    ///
    /// # Panics
    /// Outside of one.
    pub fn handle() -> Sim {
        let core = current().expect("not inside a simulation");
        let owner = core.owner().expect("the simulation has ended");
        Sim(core, owner)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.0.seed()
    }

    /// Runs `f`, and the other tasks with it, until `f` is done. Other tasks stay, and go on in the next call.
    ///
    /// # Panics
    /// With any task's panic; when nothing can ever run again (the tasks wait for each other); after
    /// `SimConfig::polls_max` polls. The seed is printed.
    pub fn block_on<T>(&self, f: impl Future<Output = T>) -> T {
        self.0.block_on(f)
    }

    /// The same as [`block_on`](Self::block_on).
    pub fn run<T>(&self, f: impl Future<Output = T>) -> T {
        self.block_on(f)
    }

    /// As [`block_on`](Self::block_on), but ends when the disks have taken `steps` steps since the beginning, with None where
    /// `f` is not done by then: a crash that follows comes right behind that step.
    pub fn block_on_until<T>(&self, steps: u64, f: impl Future<Output = T>) -> Option<T> {
        self.0.block_on_until(steps, f)
    }

    /// Reads, writes, flushes and changes of names that all disks have done so far.
    pub fn disk_steps(&self) -> u64 {
        self.0.disk_steps()
    }

    /// Starts a task on a node: the "shard" of a simulated broker.
    pub fn spawn_on<T: 'static>(
        &self,
        node: NodeId,
        f: impl Future<Output = T> + 'static,
    ) -> Joined<T> {
        self.0
            .with_node(node, || super::spawn_joined(Class::Background, f))
    }

    /// Every node dies.
    pub fn crash(&self, policy: CrashPolicy) {
        for node in self.0.nodes() {
            self.0.crash_node(node, policy);
        }
    }

    /// One node dies: its tasks are dropped (also the caller, if it runs there, when it next waits), its sockets reset,
    /// its disk keeps what `policy` says. The caller of `block_on` is never dropped.
    pub fn crash_node(&self, node: NodeId, policy: CrashPolicy) {
        self.0.crash_node(node, policy);
    }

    /// A number that depends on the seed and on all that happened: every poll, its time, every disk and network event.
    pub fn trace(&self) -> u64 {
        self.0.trace()
    }

    /// Polls so far.
    pub fn polls(&self) -> u64 {
        self.0.polls()
    }

    /// Virtual time.
    pub fn now(&self) -> Mono {
        self.0.now()
    }

    /// Moves the wall clock (not the monotonic one) by `delta_ms`.
    pub fn jump_wall(&self, delta_ms: i64) {
        self.0.jump_wall(delta_ms);
    }

    /// A random number of the simulation's sequence, for a test that makes its own choices.
    pub fn random(&self) -> u64 {
        self.0.random()
    }

    /// The disk of the first node.
    pub fn disk(&self) -> SimDisk {
        self.disk_of(NodeId::FIRST)
    }

    /// The disk of a node.
    pub fn disk_of(&self, node: NodeId) -> SimDisk {
        SimDisk(self.0.clone(), node)
    }

    /// The network.
    pub fn net(&self) -> SimNet {
        SimNet(self.0.clone())
    }
}

/// Hooks into a simulated disk.
#[derive(Clone)]
pub struct SimDisk(Rc<Core>, NodeId);

impl SimDisk {
    /// The next `n` reads fail with EIO.
    pub fn fail_next_reads(&self, n: u32) {
        self.fail(disk::FaultOp::Read, None, n, libc::EIO);
    }

    /// The next `n` writes fail with EIO, each perhaps half done.
    pub fn fail_next_writes(&self, n: u32) {
        self.fail(disk::FaultOp::Write, None, n, libc::EIO);
    }

    /// The next `n` flushes fail with EIO; what they covered becomes durable or is lost, by chance, and no later flush
    /// brings it back.
    pub fn fail_next_syncs(&self, n: u32) {
        self.fail(disk::FaultOp::Sync, None, n, libc::EIO);
    }

    /// The same, for operations on `path` only.
    pub fn fail_next_on(&self, path: &Path, op: FaultOn, n: u32) {
        let op = match op {
            FaultOn::Read => disk::FaultOp::Read,
            FaultOn::Write => disk::FaultOp::Write,
            FaultOn::Sync => disk::FaultOp::Sync,
        };
        self.fail(op, Some(path.to_owned()), n, libc::EIO);
    }

    fn fail(&self, op: disk::FaultOp, path: Option<PathBuf>, n: u32, errno: i32) {
        self.0
            .with_disk(self.1, |d| d.add_fault(op, path, n, errno));
    }

    /// Takes back every fault that has not happened yet.
    pub fn heal(&self) {
        self.0.with_disk(self.1, |d| d.clear_faults());
    }

    /// Inverts one bit (0..8) of a file, on the platter and in memory.
    ///
    /// # Panics
    /// If the file or the byte does not exist.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) {
        self.0.with_disk(self.1, |d| d.flip_bit(path, byte, bit));
    }

    /// Sets the size of the disk. Less than is used: every growth fails until enough is freed.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.with_disk(self.1, |d| d.set_capacity(bytes));
    }

    /// Adds `extra` to every operation that starts within the next `lasting`.
    pub fn latency_spike(&self, extra: Duration, lasting: Duration) {
        let until = self.0.now() + lasting;
        self.0.with_disk(self.1, |d| d.set_spike(extra, until));
    }

    /// All files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.with_disk(self.1, |d| d.files())
    }

    /// Content as a reader would see it now; None if there is no such file.
    pub fn read_raw(&self, path: &Path) -> Option<Vec<u8>> {
        self.0.with_disk(self.1, |d| d.read_raw(path))
    }

    /// Content that is certain to survive a crash, if the name does; None if there is no such file.
    pub fn read_durable(&self, path: &Path) -> Option<Vec<u8>> {
        self.0.with_disk(self.1, |d| d.read_durable(path))
    }

    /// Replaces (or creates) a file, durably, behind the back of whoever runs. Parent directories are made.
    pub fn write_raw(&self, path: &Path, content: &[u8]) {
        self.0.with_disk(self.1, |d| d.write_raw(path, content));
    }

    /// How often something failed with ENOSPC since the disk is there.
    pub fn refused(&self) -> u64 {
        self.0.with_disk(self.1, |d| d.refused())
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.0.with_disk(self.1, |d| d.used())
    }
}

/// Kind of operation to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOn {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Flushes.
    Sync,
}

/// Hooks into the simulated network.
#[derive(Clone)]
pub struct SimNet(Rc<Core>);

impl SimNet {
    /// Nothing passes between the two nodes, either way, until healed. Connections stay, their bytes wait.
    pub fn partition(&self, a: NodeId, b: NodeId) {
        self.0.net_partition(a, b);
    }

    /// Ends one partition.
    pub fn heal(&self, a: NodeId, b: NodeId) {
        self.0.net_heal(a, b);
    }

    /// Ends every partition.
    pub fn heal_all(&self) {
        self.0.net_heal_all();
    }

    /// Resets every connection between the two nodes (or within one).
    pub fn reset_between(&self, a: NodeId, b: NodeId) {
        self.0.net_reset_between(a, b);
    }

    /// Connections (each end counts).
    pub fn open_ends(&self) -> usize {
        self.0.net_open_ends()
    }
}
