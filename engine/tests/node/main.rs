//! Owns the tests of a whole engine on the simulator: adoption, inspection, damage, settings, disks, lookups.
//! Does not know the wire; random histories are `ci/sim`'s.
//! Invariant: one topic and two partitions are enough here.

mod adopt;
mod commits;
mod compaction;
mod damage;
mod deleted;
mod fetches;
mod folders;
mod groups;
mod inspect;
mod manifest;
mod node;
mod rebalances;
mod settings;
mod shares;
mod space;
mod times;
mod transactions;
