//! Owns the ways in which a measurement can fail.
//! Does not know how they are shown to a person.
//! Invariant: a failure names what was being done; a measurement that failed yields no figures.

use millrace_net::wire::batch::BatchError;
use millrace_net::wire::error_code;
use millrace_net::wire::WireError;
use std::io;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum PerfError {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("the broker sent what is no Kafka answer: {0}")]
    Wire(#[from] WireError),
    #[error("cannot build a record batch: {0}")]
    Batch(#[from] BatchError),
    #[error("the broker closed the connection")]
    Closed,
    #[error("{what}: the broker answered {}", error_code::describe(*.code))]
    Refused { what: String, code: i16 },
    #[error("the broker serves {api} {min} to {max}, and {wanted} is needed")]
    Version {
        api: &'static str,
        min: i16,
        max: i16,
        wanted: i16,
    },
    #[error("an answer to request {got} came where {expected} was next")]
    Order { expected: i32, got: i32 },
    #[error("scenario {origin}: {why}")]
    Scenario { origin: String, why: String },
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    TimedOut(String),
}

impl PerfError {
    /// Names what was being done when `source` happened; for `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> PerfError {
        let what = what.into();
        move |source| PerfError::Io { what, source }
    }
}
