//! Owns the control thread: admin HTTP, metrics and signals, on a runtime of its own.
//! Does not know the engine: it sees the shards through the trait `Shards`.
//! Invariant: it is never on the path of data; a shard that does not answer delays only the answer about it.

mod http;
pub mod metrics;
pub mod readings;
mod signals;

use crate::failure::Failure;
use metrics::Sample;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A shard that takes longer than this to answer is reported as not answering.
const SHARD_ANSWER_MAX: Duration = Duration::from_secs(2);

/// What a shard is asked; None when the shard has gone.
pub type Answer = Pin<Box<dyn Future<Output = Option<Vec<Sample>>> + Send>>;

/// The running shards as the control thread sees them.
pub trait Shards: Send + Sync + 'static {
    fn count(&self) -> usize;
    /// Asks one shard for its metrics. Must not block; the future runs on the control thread.
    fn ask(&self, shard: usize) -> Answer;
    /// What is known of each shard without asking it, by shard number.
    fn counted(&self) -> Vec<Vec<Sample>>;
    /// Begins a clean stop; called once.
    fn stop(&self);
}

/// Shared between the control thread and whoever starts the shards.
#[derive(Default)]
pub struct State {
    shards: OnceLock<Arc<dyn Shards>>,
    stopping: AtomicBool,
}

impl State {
    /// From now on the shards answer for themselves. Must be called at most once.
    pub fn attach(&self, shards: Arc<dyn Shards>) {
        assert!(
            self.shards.set(shards).is_ok(),
            "the shards are attached once"
        );
    }

    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Asks every shard at once; None where one has not answered in time. Empty while starting.
    async fn ask_all(&self) -> Vec<Option<Vec<Sample>>> {
        let Some(shards) = self.shards.get() else {
            return Vec::new();
        };
        let asked: Vec<_> = (0..shards.count())
            .map(|shard| {
                tokio::task::spawn(tokio::time::timeout(SHARD_ANSWER_MAX, shards.ask(shard)))
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (answer, mut counted) in asked.into_iter().zip(shards.counted()) {
            // A join error is a panic of the asking task: a bug, but of one answer only.
            let answer = answer.await.ok().and_then(|in_time| in_time.ok()).flatten();
            answers.push(answer.map(|asked| {
                counted.extend(asked);
                counted
            }));
        }
        answers
    }
}

/// A control thread that runs until the process ends.
pub struct Control {
    pub state: Arc<State>,
    /// Where the admin HTTP server listens.
    pub address: SocketAddr,
}

/// Starts the thread. From here on SIGTERM and SIGINT stop cleanly what is attached.
pub fn start(listener: TcpListener) -> Result<Control, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot start the control thread: {error}"));
    let address = listener.local_addr().map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let state = Arc::new(State::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let mut signals = {
        let _entered = runtime.enter();
        signals::Signals::install().map_err(failed)?
    };
    let shared = Arc::clone(&state);
    std::thread::Builder::new()
        .name("millrace-control".to_string())
        .spawn(move || {
            runtime.block_on(async move {
                let server = http::serve(listener, Arc::clone(&shared));
                tokio::select! {
                    error = server => tracing::error!("the admin HTTP server ended: {error}"),
                    () = signals.stop(&shared) => {}
                }
                // Without the HTTP server the signals still matter.
                signals.stop(&shared).await;
            })
        })
        .map_err(failed)?;
    Ok(Control { state, address })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Shards of which one may be dead, and one may have a full disk.
    struct Fake {
        dead: Option<usize>,
        full: Option<usize>,
    }

    impl Shards for Fake {
        fn count(&self) -> usize {
            2
        }
        fn ask(&self, shard: usize) -> Answer {
            let answer = (self.dead != Some(shard)).then(|| {
                vec![
                    Sample::level(
                        &metrics::DISK_FULL,
                        f64::from(u8::from(self.full == Some(shard))),
                    ),
                    Sample::count(&metrics::JOURNAL_COMMITS, 7),
                    Sample::count_of(&metrics::REQUESTS, "Produce", 3),
                    Sample::spread_of(
                        &metrics::REQUEST_SECONDS,
                        "Produce",
                        metrics::Spread {
                            sum: 0.5,
                            count: 3,
                            buckets: vec![(0.1, 2), (f64::MAX, 1)],
                        },
                    ),
                ]
            });
            Box::pin(async move { answer })
        }
        fn counted(&self) -> Vec<Vec<Sample>> {
            vec![vec![Sample::level(&metrics::CONNECTIONS, 5.0)]; 2]
        }
        fn stop(&self) {}
    }

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn health_follows_the_shards_and_metrics_carry_their_label() {
        for (dead, full, code, status) in [
            (None, None, "200", "ok"),
            (None, Some(1), "200", "disk full"),
            (Some(1), Some(0), "503", "degraded"),
        ] {
            let control = start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
            let starting = get(control.address, "/health");
            assert!(
                starting.starts_with("HTTP/1.1 503") && starting.contains("starting"),
                "{starting}"
            );

            control.state.attach(Arc::new(Fake { dead, full }));
            let health = get(control.address, "/health");
            assert!(health.starts_with(&format!("HTTP/1.1 {code}")), "{health}");
            assert!(
                health.contains(&format!("\"status\":\"{status}\"")),
                "{health}"
            );

            let metrics = get(control.address, "/metrics");
            assert!(
                metrics.contains("millrace_journal_commits_total{shard=\"0\"} 7"),
                "{metrics}"
            );
            assert!(
                metrics.contains("millrace_requests_total{shard=\"0\",api=\"Produce\"} 3"),
                "{metrics}"
            );
            assert!(
                metrics.contains(
                    "millrace_request_seconds_bucket{le=\"+Inf\",shard=\"0\",api=\"Produce\"} 3"
                ),
                "{metrics}"
            );
            assert!(
                metrics.contains("millrace_connections{shard=\"0\"} 5"),
                "{metrics}"
            );
            let up = if dead.is_none() { 1 } else { 0 };
            assert!(
                metrics.contains(&format!("millrace_shard_up{{shard=\"1\"}} {up}")),
                "{metrics}"
            );
            assert!(metrics.contains("process_cpu_seconds_total"), "{metrics}");
        }
    }

    #[test]
    fn an_unknown_path_is_not_found() {
        let control = start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        assert!(get(control.address, "/nothing").starts_with("HTTP/1.1 404"));
    }
}
