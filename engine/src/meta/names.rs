//! What a topic may be called: Kafka's rules and Kafka's words.
//! Knows nothing of which topics exist.
//! Keeps every accepted name usable as part of a directory's name.

use super::limits::TOPIC_NAME_LEN_MAX;

/// Apache Kafka's log of the metadata: to tools, a topic of this name is that log.
const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Why a name is refused, or `None` for a good one.
pub fn topic_name_problem(name: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        return Some("Topic name is invalid: the empty string is not allowed".to_string());
    }
    if name == "." || name == ".." {
        return Some(format!("Topic name is invalid: '{name}' is not allowed"));
    }
    let characters = name.chars().count();
    if characters > TOPIC_NAME_LEN_MAX {
        let shown: String = name.chars().take(TOPIC_NAME_LEN_MAX).collect();
        return Some(format!(
            "Topic name is invalid: the length of '{shown}...' is longer than the max allowed length {TOPIC_NAME_LEN_MAX}"
        ));
    }
    if name == CLUSTER_METADATA {
        return Some(format!(
            "Topic name is invalid: '{name}' is reserved for the metadata's log"
        ));
    }
    if !name.chars().all(legal) {
        let shown = name.escape_debug();
        return Some(format!(
            "Topic name is invalid: '{shown}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ));
    }
    None
}

/// The form in which two names collide: Kafka's metrics cannot tell '.' from '_'. `None` for a name without either.
pub(super) fn unified(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

/// Topics of the broker itself.
pub fn is_internal(name: &str) -> bool {
    matches!(
        name,
        "__consumer_offsets" | "__transaction_state" | "__share_group_state"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_in_kafka() {
        let longest = "a".repeat(TOPIC_NAME_LEN_MAX);
        for good in [
            "a",
            "a.b_c-d",
            "...",
            "._",
            "ABC09",
            longest.as_str(),
            "__consumer_offsets",
        ] {
            assert_eq!(topic_name_problem(good), None, "{good}");
        }
        let too_long = "a".repeat(TOPIC_NAME_LEN_MAX + 1);
        for (bad, why) in [
            ("", "empty string"),
            ("__cluster_metadata", "is reserved"),
            (".", "'.' is not allowed"),
            ("..", "'..' is not allowed"),
            (too_long.as_str(), "max allowed length 249"),
            ("a b", "ASCII alphanumerics"),
            ("a/b", "ASCII alphanumerics"),
            ("ä", "ASCII alphanumerics"),
            ("a\0", "ASCII alphanumerics"),
            ("a\n", "ASCII alphanumerics"),
        ] {
            let problem = topic_name_problem(bad).unwrap_or_default();
            assert!(problem.contains(why), "{bad:?}: {problem}");
        }
    }
}
