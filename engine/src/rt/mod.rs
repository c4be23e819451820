//! Owns the runtime seam: tasks, time, randomness, files, sockets and the inbox of a shard.
//! Does not know the journal, a partition or the Kafka protocol; everything above runs unchanged on either runtime.
//! Invariant: every call acts on the runtime of the calling thread, glommio on a shard or the simulator inside
//! `sim::Sim::block_on`, and nothing outside this folder names either.

mod file;
pub mod fs;
mod glommio;
mod inbox;
mod join;
pub mod net;
pub mod sim;
mod start;
pub mod sync;
mod task;
#[cfg(test)]
mod tests;
pub mod time;

pub use file::{DirectBuf, File, OpenOptions, ReadBuf, BLOCK};
pub use inbox::{inbox, InboxReceiver, InboxSender};
pub use join::join_all;
pub use net::{DetachedStream, Listener, Peer, Pulse, ReadHalf, TcpStream, WriteHalf};
pub use start::{delay_flushes, run_one, run_shards, warm_iopoll, ShardConfig, ShardThreads};
pub use sync::{oneshot, Notified, Notify, OneReceiver, OneSender, Permit, Semaphore};
pub use task::{
    blocking, random_u64, should_yield, spawn, spawn_joined, yield_if_needed, yield_now, Class,
    Joined,
};
pub use time::{now, sleep, sleep_until, timeout, wall_ms, Mono};
