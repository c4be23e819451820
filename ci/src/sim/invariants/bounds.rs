//! Owns: memory, queues and files stay within their bounds at every moment looked at.
//! Does not know what fills them.
//! Invariant checked: the figures of each shard against the sizes it was given.

use super::{Check, Violation};
use crate::sim::history::Settings;
use millrace_engine::api::ShardMetrics;

const NAME: &str = "memory and queues are bounded";
/// Files a ring may have beyond its bound while the freeing of files needs them.
const EXTRA_FILES: u64 = 4;
/// What may be appended at once beyond the backlog: one request, or one group entered again.
const ONE_STEP_BYTES: u64 = 2 << 20;

pub fn on_metrics(settings: &Settings, metrics: &ShardMetrics) -> Check {
    let ring_bytes = settings.file_bytes * (settings.files_max as u64 + EXTRA_FILES);
    let figures = [
        ("journal files", metrics.journal_file_bytes, ring_bytes),
        (
            "commit buffers",
            metrics.cache_bytes as u64,
            settings.cache_bytes + ring_bytes + ONE_STEP_BYTES,
        ),
        (
            "backlog",
            metrics.backlog_bytes as u64,
            settings.backlog_bytes as u64 + ONE_STEP_BYTES,
        ),
        (
            "request memory",
            metrics.request_bytes,
            metrics.request_bytes_max,
        ),
    ];
    for (name, is, max) in figures {
        if is > max {
            let what = format!("shard {}: {name} {is} bytes, at most {max}", metrics.shard);
            return Err(Violation::new(NAME, what));
        }
    }
    Ok(())
}
