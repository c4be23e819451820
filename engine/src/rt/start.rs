//! Owns starting and joining the shard threads, and the single executor of a tool.
//! Does not know what a shard does.
//! Invariant: every shard's executor has warmed each given directory's device before the shard's own code runs.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::glommio;

/// One shard thread.
#[derive(Debug, Clone, Default)]
pub struct ShardConfig {
    /// Passed to the shard's function.
    pub id: usize,
    /// The core to pin the thread to, if any.
    pub cpu: Option<usize>,
    /// Name of the thread.
    pub name: String,
    /// Existing directories the shard will open files in, on whatever devices (see [`warm_iopoll`]).
    pub dirs: Vec<PathBuf>,
    /// End parked tasks when the shard's function returns, instead of leaking them and the executor: for tests and tools.
    /// A process that exits then does not need it, and each spawn costs more with it.
    pub drain: bool,
}

/// The running shard threads.
#[must_use = "the threads run detached unless joined"]
pub struct ShardThreads<T = ()>(Vec<glommio::Thread<io::Result<T>>>)
where
    T: Send + 'static;

impl<T: Send + 'static> ShardThreads<T> {
    /// Waits for all of them: what each returned, or why it could not start or that it panicked.
    pub fn join(self) -> Vec<io::Result<T>> {
        self.0
            .into_iter()
            .map(|t| glommio::join_thread(t).and_then(|r| r))
            .collect()
    }
}

/// Starts one executor thread per entry and runs `f(id)` on it. The thread ends when that future does.
///
/// # Errors
/// When a thread or its placement is refused. A missing io_uring or too little locked memory shows in
/// [`ShardThreads::join`].
pub fn run_shards<F, Fut>(cfgs: Vec<ShardConfig>, f: F) -> io::Result<ShardThreads<Fut::Output>>
where
    F: Fn(usize) -> Fut + Send + Clone + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let threads = cfgs.into_iter().map(|cfg| {
        let f = f.clone();
        glommio::start_thread(cfg.cpu, &cfg.name, cfg.drain, move || async move {
            for dir in &cfg.dirs {
                warm_iopoll(dir).await?;
            }
            Ok(f(cfg.id).await)
        })
    });
    Ok(ShardThreads(threads.collect::<io::Result<Vec<_>>>()?))
}

/// Makes every flush of a file take so much longer from now on, in this whole process: plays a slower disk, to measure.
/// The simulator has delays of its own.
pub fn delay_flushes(delay: Duration) {
    glommio::file::delay_flushes(delay);
}

/// Runs `f` on an executor of its own on this thread, unpinned; tasks still parked when it returns are ended.
///
/// # Errors
/// When the kernel refuses an io_uring.
pub fn run_one<T>(f: impl Future<Output = T>) -> io::Result<T> {
    glommio::run_here(f)
}

/// Lets the executor of this shard learn, with a harmless file in `dir`, how the device of `dir` works. Without it the
/// first `File::open` on that device does the same.
pub async fn warm_iopoll(dir: &Path) -> io::Result<()> {
    glommio::file::warm(dir).await
}
