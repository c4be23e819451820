//! Owns the load generator: open-loop producers and consumers over the Kafka wire, and what they measured.
//! Does not know any broker from the inside; it speaks only the wire protocol, so it can measure all of them.
//! Invariant: a latency counts from when the request was *meant* to leave, never from when it could.

pub mod account;
pub mod cli;
pub mod client;
pub mod clock;
pub mod consumer;
pub mod driver;
pub mod error;
pub mod groups;
pub mod html;
pub mod idle;
pub mod limits;
pub mod link;
pub mod measure;
pub mod pace;
pub mod pairing;
pub mod poll;
pub mod process;
pub mod producer;
pub mod report;
pub mod run;
pub mod scan;
pub mod scenario;
pub mod series;
pub mod sink;
mod stalls;
pub mod startup;
pub mod template;
pub mod units;

pub use error::PerfError;
