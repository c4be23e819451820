//! Owns the admin HTTP server: /health and /metrics.
//! Does not know what a metric means.
//! Invariant: at most `CONNECTIONS_MAX` connections are open; more wait to be accepted.

use super::{metrics, State};
use axum::extract::State as Shared;
use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const CONNECTIONS_MAX: usize = 64;

/// A connection on which nothing comes or goes for so long is closed: its peer may be gone, and there are not many.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Pause after a failed accept (no descriptors left, say), so that it is not retried in a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves for ever; gives the error that ended it.
pub async fn serve(listener: std::net::TcpListener, state: Arc<State>) -> io::Error {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let bounded = Bounded {
        listener,
        permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    let app = axum::Router::new()
        .route("/health", get(health))
        .route("/metrics", get(scrape))
        .with_state(state);
    match axum::serve(bounded, app).await {
        Ok(()) => io::Error::other("it ended without an error"),
        Err(error) => error,
    }
}

#[derive(serde::Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    /// Whether each shard answered, by its number.
    shards: Vec<bool>,
}

async fn health(Shared(state): Shared<Arc<State>>) -> Response {
    let answers = state.ask_all().await;
    let shards: Vec<bool> = answers.iter().map(Option::is_some).collect();
    let mut samples = answers.iter().flatten().flatten();
    let disk_full = samples.any(|s| s.level_of(&metrics::DISK_FULL) == Some(1.0));
    let status = if state.stopping() {
        "stopping"
    } else if shards.is_empty() {
        "starting"
    } else if !shards.iter().all(|answers| *answers) {
        "degraded"
    } else if disk_full {
        "disk full"
    } else {
        "ok"
    };
    // With a full disk it serves readers and accepts deletions: whoever restarts or avoids it for this makes it no better.
    let code = if matches!(status, "ok" | "disk full") {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = Health {
        status,
        version: env!("CARGO_PKG_VERSION"),
        shards,
    };
    let text = serde_json::to_string(&body).expect("plain fields have a JSON form");
    (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn scrape(Shared(state): Shared<Arc<State>>) -> Response {
    match metrics::render(&state.ask_all().await) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot render: {error}\n"),
        )
            .into_response(),
    }
}

/// A listener that accepts only while a permit is free.
struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

/// A connection and the permit that it gives back when it closes, which it does after some silence.
struct Held {
    stream: TcpStream,
    silent: Pin<Box<tokio::time::Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Held {
    fn moved<T>(&mut self, done: Poll<T>) -> Poll<T> {
        if done.is_ready() {
            let until = tokio::time::Instant::now() + SILENCE_MAX;
            self.silent.as_mut().reset(until);
        }
        done
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    return (
                        Held {
                            stream,
                            silent: Box::pin(tokio::time::sleep(SILENCE_MAX)),
                            _permit: permit,
                        },
                        peer,
                    )
                }
                Err(error) => {
                    tracing::warn!("admin HTTP: accept failed: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        match self.moved(read) {
            Poll::Pending if self.silent.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            read => read,
        }
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        match self.moved(written) {
            Poll::Pending if self.silent.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
