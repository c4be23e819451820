//! Owns the comparison of the wire codec with an independent one, and its behaviour on hostile input.
//! Does not know handlers; only bytes and values.
//! Keeps: values come from a printed seed, so that every failure can be repeated (`WIRE_SEED=n`).
mod admin_apis;
mod client_apis;
mod cluster_apis;
mod group_apis;
mod headers;
mod hostile;
mod operator_apis;
mod records;
mod refusals;
mod share_apis;
mod support;
mod txn_apis;
