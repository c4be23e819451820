//! Owns the part of the command that others can call: what its configuration file says.
//! Does not know the subcommands, which are the program's own.
//! Invariant: only tests of this repository are its callers; it is no interface to build on.

pub mod config;
pub mod failure;
pub mod host;
pub mod units;
