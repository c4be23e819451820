//! Owns the simulation of a whole node: histories of clients, crashes and faults, and what must hold in each.
//! Does not know any one bug; it runs the real engine and the real request handlers on the simulated runtime.
//! Invariant: whatever happens follows from the seed, so that a seed is all there is to report.

pub mod clients;
pub mod damage;
pub mod history;
pub mod invariants;
pub mod model;
pub mod options;
pub mod plants;
pub mod run;
pub mod seeds;
pub mod shrink;
pub mod wire;
pub mod workers;
pub mod world;
