//! Owns the names on a simulated disk, and their changes that are not durable yet.
//! Does not know what files hold.
//! Invariant: a move is one change, whichever of its two directories is synced.

use super::Ino;
use std::collections::BTreeMap;
use std::ffi::OsString;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::rt) enum Entry {
    Dir(Ino),
    File(Ino),
}

pub(super) type Name = (Ino, OsString);

#[derive(Clone, Debug)]
/// A change of names that a sync of their directory makes durable.
pub(super) enum NameOp {
    Set(Name, Entry),
    Unset(Name),
    Move(Name, Name, Entry),
}

impl NameOp {
    pub(super) fn apply(&self, names: &mut BTreeMap<Name, Entry>) {
        match self {
            NameOp::Set(n, e) => {
                names.insert(n.clone(), *e);
            }
            NameOp::Unset(n) => {
                names.remove(n);
            }
            NameOp::Move(from, to, e) => {
                if names.get(from) == Some(e) {
                    names.remove(from);
                }
                names.insert(to.clone(), *e);
            }
        }
    }

    pub(super) fn entry(&self) -> Option<Entry> {
        match self {
            NameOp::Set(_, e) | NameOp::Move(_, _, e) => Some(*e),
            NameOp::Unset(_) => None,
        }
    }

    /// Whether a sync of `dir` makes it durable.
    pub(super) fn is_in(&self, dir: Ino) -> bool {
        match self {
            NameOp::Set(n, _) | NameOp::Unset(n) => n.0 == dir,
            NameOp::Move(from, to, _) => from.0 == dir || to.0 == dir,
        }
    }

    /// Whether a file may have lost its last name by it: what had the new name before a move is gone, too.
    pub(super) fn removes(&self) -> bool {
        !matches!(self, NameOp::Set(..))
    }
}
