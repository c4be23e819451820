//! Storage, replication and coordination of Millrace.

pub mod rt;
