//! Topic ids as the text Kafka shows them in: 22 characters of base64url without padding.
//! Knows nothing of what the ids name.
//! Keeps text and id one to one: a text with spare bits set is refused.

use crate::types::TopicId;
use serde::de::{self, Visitor};
use serde::{Deserializer, Serializer};
use std::fmt;

/// The id a text stands for, `None` if it is not one.
pub fn parse(text: &str) -> Option<TopicId> {
    if text.len() != 22 {
        return None;
    }
    let mut bits: u128 = 0;
    for (at, c) in text.bytes().enumerate() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            0..=255 => return None,
        };
        if at < 21 {
            bits = bits << 6 | u128::from(digit);
        } else {
            // 22 digits are 132 bits: the last four must be zero.
            if digit & 0x0f != 0 {
                return None;
            }
            bits = bits << 2 | u128::from(digit >> 4);
        }
    }
    Some(TopicId(bits.to_be_bytes()))
}

pub fn serialize<S: Serializer>(id: &TopicId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TopicId, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = TopicId;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a topic id of 22 base64url characters")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<TopicId, E> {
            parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_id_are_one_to_one() {
        for id in [
            TopicId([0; 16]),
            TopicId([255; 16]),
            TopicId::from_random(1, 2),
            TopicId::from_random(u64::MAX, 77),
        ] {
            assert_eq!(parse(&id.to_string()), Some(id));
        }
        for bad in [
            "",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAA+A",
            "AAAAAAAAAAAAAAAAAAAAé",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
