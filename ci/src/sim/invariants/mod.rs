//! Owns the list of what must hold in every history; one file for each.
//! Does not know how histories are made or run: a check sees what clients saw, and the model.
//! Invariant: a check never changes the model, so their order decides only which one speaks first.

pub mod acknowledged;
pub mod bounds;
pub mod corruption;
pub mod dense;
pub mod duplicates;
pub mod durable_points;
pub mod invented;
pub mod liveness;
pub mod log_start;
pub mod recovery;
pub mod retention;
pub mod sessions;
pub mod stable;
pub mod times;

use super::model::Model;
use super::model::{Acked, Read};

/// What was broken, and how it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: String,
    pub what: String,
}

impl Violation {
    pub fn new(invariant: &str, what: impl Into<String>) -> Violation {
        Violation {
            invariant: invariant.to_string(),
            what: what.into(),
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

pub type Check = Result<(), Violation>;

/// Everything that one answer to a fetch must keep.
pub fn check_read(model: &Model, read: &Read) -> Check {
    durable_points::on_read(model, read)?;
    log_start::on_read(model, read)?;
    corruption::on_read(read)?;
    dense::on_read(read)?;
    invented::on_read(model, read)?;
    duplicates::on_read(model, read)?;
    stable::on_read(model, read)?;
    acknowledged::on_read(model, read)
}

/// Everything that one acknowledged batch must keep.
pub fn check_acked(model: &Model, acked: &Acked) -> Check {
    duplicates::on_acked(model, acked)?;
    log_start::on_acked(model, acked)?;
    stable::on_acked(model, acked)?;
    durable_points::on_acked(model, acked)
}
