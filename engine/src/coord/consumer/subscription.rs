//! Owns what members subscribe to: names, and regular expressions matched against all topics.
//! Does not know members' places or assignments.
//! Invariant: an expression takes time in line with the text it is matched against, and bounded memory.

use super::records::{MemberValue, Resolved};
use super::types::Topics;
use crate::coord::types::GroupError;
use crate::types::limits::{GROUP_REGEX_BYTES_MAX, GROUP_REGEX_PROGRAM_BYTES_MAX};
use regex::{Regex, RegexBuilder};

/// An expression that has to match all of a name, as Kafka has it.
///
/// # Errors
/// It is none, or too large.
fn compiled(text: &str) -> Result<Regex, GroupError> {
    let invalid = |_| GroupError::InvalidRegularExpression;
    if text.len() > GROUP_REGEX_BYTES_MAX {
        return Err(GroupError::InvalidRegularExpression);
    }
    // Alone first: with what is put around it, something else could become whole.
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(GROUP_REGEX_PROGRAM_BYTES_MAX);
        builder.dfa_size_limit(GROUP_REGEX_PROGRAM_BYTES_MAX);
        builder.build()
    };
    build(text).map_err(invalid)?;
    build(&format!("\\A(?:{text})\\z")).map_err(invalid)
}

/// The topics that an expression matches now.
///
/// # Errors
/// It is none, or too large.
pub fn resolve(text: &str, topics: &dyn Topics, wall_ms: i64) -> Result<Resolved, GroupError> {
    let regex = compiled(text)?;
    let mut resolved = Resolved {
        version: i64::try_from(topics.version()).unwrap_or(i64::MAX),
        at_ms: wall_ms,
        ..Resolved::default()
    };
    topics.each_name(&mut |name| {
        if regex.is_match(name) {
            resolved.topics.insert(name.to_string());
        }
    });
    Ok(resolved)
}

/// All names that a member wants, some of them perhaps twice. `matched` gives what an expression stands for.
pub fn names<'a>(
    value: &'a MemberValue,
    matched: impl Fn(&str) -> Option<&'a Resolved>,
) -> impl Iterator<Item = &'a str> {
    let resolved = value.regex.as_deref().and_then(matched);
    let by_regex = resolved.into_iter().flat_map(|r| &r.topics);
    value.topics.iter().chain(by_regex).map(String::as_str)
}
