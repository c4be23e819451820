//! Owns what a fetch calls a topic by: its name, and from some version on its id.
//! Does not know which topics there are.
//! Invariant: what was kept is equal to what it was kept from, and hashes like it.

use crate::wire::Str;
use millrace_engine::types::TopicId;
use std::sync::Arc;
use uuid::Uuid;

/// First version in which topics go by id.
pub(crate) const ID_VERSION_MIN: i16 = 13;

/// A topic as a request calls it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Called<'a> {
    Name(&'a str),
    Id(TopicId),
}

impl<'a> Called<'a> {
    /// What a topic of a request of this version is called.
    pub(crate) fn of(name: &'a Str, id: &Uuid, version: i16) -> Called<'a> {
        if version < ID_VERSION_MIN {
            Called::Name(name)
        } else {
            Called::Id(TopicId(id.into_bytes()))
        }
    }
}

/// The same, to be kept. Hashes like [`Called`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kept {
    Name(Arc<str>),
    Id(TopicId),
}

impl Kept {
    pub(crate) fn called(&self) -> Called<'_> {
        match self {
            Kept::Name(name) => Called::Name(name),
            Kept::Id(id) => Called::Id(*id),
        }
    }
}

impl From<Called<'_>> for Kept {
    fn from(called: Called<'_>) -> Kept {
        match called {
            Called::Name(name) => Kept::Name(name.into()),
            Called::Id(id) => Kept::Id(id),
        }
    }
}
