//! Owns the rules that the source tree itself must keep (layering, style, the README's map), the simulation of a node, and
//! what hostile bytes are fed to.
//! Does not know what any crate does, those two apart: the rules read text and what cargo says of dependencies.
//! Invariant: every rule is a pure function from text to findings, so each is shown to fail beside where it is written.

pub mod fuzz;
pub mod layering;
pub mod readme;
pub mod sim;
pub mod source;
pub mod style;

/// One broken rule: where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path relative to the repository's root, with `:line` where a line is known.
    pub place: String,
    pub what: String,
}

impl Finding {
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Finding {
            place: place.into(),
            what: what.into(),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}
