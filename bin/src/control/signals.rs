//! Owns SIGTERM and SIGINT: the first stops cleanly, the second at once.
//! Does not know how a shard stops; it only says when, and for how long it waits.
//! Invariant: after a first signal the process ends within the deadline, whatever the shards do.

use super::State;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{signal, Signal, SignalKind};

/// A clean stop that takes longer is given up, within the ten seconds that are promised.
const STOP_MAX: Duration = Duration::from_millis(9_500);

/// A signal this soon after the first is the same wish: some supervisors signal the process and then
/// its whole group.
const SAME_WISH: Duration = Duration::from_millis(300);

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Must be called inside a runtime; from then on the signals no longer kill the process.
    pub fn install() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Gives the number of the next signal.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.interrupt.recv() => libc::SIGINT,
        }
    }

    /// Waits for a signal, stops what runs, and ends the process if that takes too long.
    /// Does not return: the main thread ends the process once the shards have stopped.
    pub async fn stop(&mut self, state: &State) {
        self.next().await;
        state.stopping.store(true, Ordering::Release);
        match state.shards.get() {
            Some(shards) => {
                tracing::info!("stopping: answering what is under way and flushing; a second signal exits at once");
                shards.stop();
            }
            None => {
                // Nothing was acknowledged yet; recovery is safe to cut at any point.
                tracing::info!("stopped while starting");
                std::process::exit(0);
            }
        }
        let begun = tokio::time::Instant::now();
        tokio::time::sleep(SAME_WISH).await;
        while let Ok(_repeated) = tokio::time::timeout(Duration::ZERO, self.next()).await {}
        match tokio::time::timeout_at(begun + STOP_MAX, self.next()).await {
            Ok(number) => {
                tracing::warn!(
                    "second signal: exiting at once; the next start recovers from the journals"
                );
                std::process::exit(128 + number);
            }
            Err(_late) => {
                tracing::error!(
                    "the shards did not stop within {STOP_MAX:?}; exiting, the next start recovers from the journals"
                );
                std::process::exit(1);
            }
        }
    }
}
