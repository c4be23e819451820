//! Owns the end-to-end tests of the network side on the simulator, with the real engine behind it.
//! Does not know the real runtime (a test of its own).
//! Invariant: one binary, so that what the tests share is compiled once and used by all.

mod allowed;
mod bounds;
mod configs;
mod connection;
mod consumer_groups;
mod cores;
mod describe;
mod fetch;
mod groups;
mod leaders_and_moves;
mod metadata;
mod offsets;
mod operators;
mod placement;
mod produce;
mod share;
mod support;
mod topic_ids;
mod topics;
mod transactions;
