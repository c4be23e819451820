//! Owns the Kafka wire protocol and everything that speaks it.
//! Does not know files, segments or how records are stored.
//! Keeps: nothing read from a peer is trusted before it has been checked.
pub mod wire;
