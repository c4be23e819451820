//! Owns Kafka's formats of the records in `__consumer_offsets` that are about classic groups: offsets and groups.
//! Does not know batches, nor what a group does with its records.
//! Invariant: any bytes give a value or an error, and no count or length in them is believed before its bytes are
//! there.
//!
//! Keys begin with the type of the record, values with the version of their schema. Every version is read; what is
//! written is the version that Kafka writes, or an older one that says the same.

use super::codec::*;
use crate::types::TopicId;
use bytes::{BufMut, Bytes, BytesMut};

/// Types of records. The first two mean the same, and the first is written no more.
const OFFSET_OF_OLD: i16 = 0;
const OFFSET: i16 = 1;
const GROUP: i16 = 2;

/// The only version of [`OffsetValue`] that has a time to expire.
const OFFSET_EXPIRES: i16 = 1;
/// The last version of [`OffsetValue`] without tagged fields: all that reads it since Kafka 2.1 knows it.
const OFFSET_PLAIN: i16 = 3;
/// The version of [`GroupValue`] that Kafka writes since 2.3.
const GROUP_WRITTEN: i16 = 3;

/// The tagged field of [`OffsetValue`] that is its topic's id.
const TAG_TOPIC_ID: u32 = 0;

/// Bytes that a member takes at the least, in whichever version has the shortest.
const MEMBER_BYTES_MIN: usize = 15;

/// Why bytes are none of these records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record is cut short")]
    Short,
    #[error("the record goes on for {0} bytes behind its end")]
    Longer(usize),
    #[error("version {0} of the value is not known")]
    Version(i16),
    #[error("length {0} is impossible")]
    Length(i64),
    #[error("a varint is too long")]
    Varint,
    #[error("something that has to be there is null")]
    Null,
    #[error("text is not UTF-8")]
    Text,
    #[error("{0} members do not fit the record")]
    Count(usize),
    #[error("a topic id of {0} bytes")]
    TopicId(usize),
    #[error("a field of {0} bytes that is not of its type")]
    Field(usize),
    #[error("state {0} of a transaction is not kept")]
    State(i8),
}

/// What a record is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// A committed offset; the value is an [`OffsetValue`].
    Offset {
        group: String,
        topic: String,
        partition: i32,
    },
    /// A classic group; the value is a [`GroupValue`].
    Group { group: String },
}

impl Key {
    /// None where the type is not one of a classic group: another protocol's record, or one of the future.
    ///
    /// # Errors
    /// There is no type, or not what belongs to it.
    pub fn decode(key: &[u8]) -> Result<Option<Key>, RecordError> {
        let mut r = Reader::plain(key);
        let key = match r.i16()? {
            OFFSET_OF_OLD | OFFSET => Key::Offset {
                group: r.text()?,
                topic: r.text()?,
                partition: r.i32()?,
            },
            GROUP => Key::Group { group: r.text()? },
            _ => return Ok(None),
        };
        r.end()?;
        Ok(Some(key))
    }

    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Key::Offset {
                group,
                topic,
                partition,
            } => {
                out.put_i16(OFFSET);
                put_text(group, &mut out);
                put_text(topic, &mut out);
                out.put_i32(*partition);
            }
            Key::Group { group } => {
                out.put_i16(GROUP);
                put_text(group, &mut out);
            }
        }
        out.freeze()
    }
}

/// What was committed for a partition (Kafka's `OffsetCommitValue`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetValue {
    pub offset: i64,
    /// -1 where it is not known.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_ms: i64,
    /// -1 where the broker's retention decides.
    pub expire_ms: i64,
    /// NIL where it is not known.
    pub topic_id: TopicId,
}

impl OffsetValue {
    /// # Errors
    /// The bytes are no such value.
    pub fn decode(value: &[u8]) -> Result<OffsetValue, RecordError> {
        let (version, mut r) = Reader::of_value(value)?;
        let mut value = OffsetValue {
            offset: r.i64()?,
            leader_epoch: if version >= 3 { r.i32()? } else { -1 },
            metadata: r.text()?,
            commit_ms: r.i64()?,
            expire_ms: if version == OFFSET_EXPIRES {
                r.i64()?
            } else {
                -1
            },
            topic_id: TopicId::NIL,
        };
        r.tagged_fields(|tag, field| {
            if tag == TAG_TOPIC_ID {
                let id: Result<[u8; 16], _> = field.try_into();
                let id = id.map_err(|_| RecordError::TopicId(field.len()))?;
                value.topic_id = TopicId(id);
            }
            Ok(())
        })?;
        r.end()?;
        Ok(value)
    }

    /// A value that expires is written without leader epoch and topic id, as Kafka writes it: no version has all three.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        if self.expire_ms != -1 {
            out.put_i16(OFFSET_EXPIRES);
            out.put_i64(self.offset);
            put_text(&self.metadata, &mut out);
            out.put_i64(self.commit_ms);
            out.put_i64(self.expire_ms);
        } else if self.topic_id.is_nil() {
            out.put_i16(OFFSET_PLAIN);
            out.put_i64(self.offset);
            out.put_i32(self.leader_epoch);
            put_text(&self.metadata, &mut out);
            out.put_i64(self.commit_ms);
        } else {
            out.put_i16(FLEXIBLE);
            out.put_i64(self.offset);
            out.put_i32(self.leader_epoch);
            put_compact_text(&self.metadata, &mut out);
            out.put_i64(self.commit_ms);
            // One tagged field, of 16 bytes.
            out.put_slice(&[1, TAG_TOPIC_ID as u8, 16]);
            out.put_slice(&self.topic_id.0);
        }
        out.freeze()
    }
}

/// A classic group between two rebalances (Kafka's `GroupMetadataValue`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupValue {
    /// Empty where the group has none.
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came to its state; -1 where that is not known.
    pub state_ms: i64,
    pub members: Vec<MemberValue>,
}

/// A member of a [`GroupValue`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberValue {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

impl GroupValue {
    /// # Errors
    /// The bytes are no such value.
    pub fn decode(value: &[u8]) -> Result<GroupValue, RecordError> {
        let (version, mut r) = Reader::of_value(value)?;
        let value = GroupValue {
            protocol_type: r.text()?,
            generation: r.i32()?,
            protocol: r.nullable_text()?,
            leader: r.nullable_text()?,
            state_ms: if version >= 2 { r.i64()? } else { -1 },
            members: {
                let count = r.count(MEMBER_BYTES_MIN)?;
                let members = (0..count).map(|_| MemberValue::read(&mut r, version));
                members.collect::<Result<_, _>>()?
            },
        };
        r.tagged_fields(|_, _| Ok(()))?;
        r.end()?;
        Ok(value)
    }

    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(GROUP_WRITTEN);
        put_text(&self.protocol_type, &mut out);
        out.put_i32(self.generation);
        put_nullable_text(self.protocol.as_deref(), &mut out);
        put_nullable_text(self.leader.as_deref(), &mut out);
        out.put_i64(self.state_ms);
        put_length(self.members.len(), &mut out);
        for member in &self.members {
            member.write(&mut out);
        }
        out.freeze()
    }
}

impl MemberValue {
    fn read(r: &mut Reader, version: i16) -> Result<MemberValue, RecordError> {
        let member = r.text()?;
        let instance = match version {
            3.. => r.nullable_text()?,
            ..3 => None,
        };
        let client_id = r.text()?;
        let client_host = r.text()?;
        let rebalance_timeout_ms = if version >= 1 { r.i32()? } else { -1 };
        let session_timeout_ms = r.i32()?;
        let value = MemberValue {
            member,
            instance,
            client_id,
            client_host,
            // Members that did not say how long they take to rebalance were waited for as long as for a heartbeat.
            rebalance_timeout_ms: match rebalance_timeout_ms {
                -1 => session_timeout_ms,
                timeout_ms => timeout_ms,
            },
            session_timeout_ms,
            subscription: r.bytes()?,
            assignment: r.bytes()?,
        };
        r.tagged_fields(|_, _| Ok(()))?;
        Ok(value)
    }

    /// As version 3 of the group has it.
    fn write(&self, out: &mut BytesMut) {
        put_text(&self.member, out);
        put_nullable_text(self.instance.as_deref(), out);
        put_text(&self.client_id, out);
        put_text(&self.client_host, out);
        out.put_i32(self.rebalance_timeout_ms);
        out.put_i32(self.session_timeout_ms);
        for bytes in [&self.subscription, &self.assignment] {
            put_length(bytes.len(), out);
            out.put_slice(bytes);
        }
    }
}

/// The topics in a subscription of the classic consumer protocol, read no further than that: what follows them depends
/// on the version, and newer versions keep what older ones begin with. None where they cannot be read.
pub fn subscribed_topics(subscription: &[u8]) -> Option<Vec<String>> {
    let mut r = Reader::plain(subscription);
    let _version = r.i16().ok().filter(|version| *version >= 0)?;
    // The length of each takes two bytes.
    let count = r.count(2).ok()?;
    (0..count).map(|_| r.text().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSET_KEY: &str = "0001 0002 6731 0001 74 00000005";
    const GROUP_KEY: &str = "0002 0002 6731";
    /// Versions 0 to 4 of an offset of 100 with metadata "m", committed at 1234; leader epoch 10 and expiry at 5678
    /// where the version has them.
    const OFFSETS: [&str; 5] = [
        "0000 0000000000000064 0001 6d 00000000000004d2",
        "0001 0000000000000064 0001 6d 00000000000004d2 000000000000162e",
        "0002 0000000000000064 0001 6d 00000000000004d2",
        "0003 0000000000000064 0000000a 0001 6d 00000000000004d2",
        "0004 0000000000000064 0000000a 02 6d 00000000000004d2
         01 00 10 0102030405060708090a0b0c0d0e0f10",
    ];
    /// Versions 0 to 4 of generation 7 of a group of consumers with one member.
    const GROUPS: [&str; 5] = [
        "0000 0008 636f6e73756d6572 00000007 0005 72616e6765 0003 6d2d31 00000001
         0003 6d2d31 0001 63 0002 2f68 0000afc8 00000003 010203 00000001 09",
        "0001 0008 636f6e73756d6572 00000007 0005 72616e6765 0003 6d2d31 00000001
         0003 6d2d31 0001 63 0002 2f68 000493e0 0000afc8 00000003 010203 00000001 09",
        "0002 0008 636f6e73756d6572 00000007 0005 72616e6765 0003 6d2d31 00000000000004d2 00000001
         0003 6d2d31 0001 63 0002 2f68 000493e0 0000afc8 00000003 010203 00000001 09",
        "0003 0008 636f6e73756d6572 00000007 0005 72616e6765 0003 6d2d31 00000000000004d2 00000001
         0003 6d2d31 0001 69 0001 63 0002 2f68 000493e0 0000afc8 00000003 010203 00000001 09",
        "0004 09 636f6e73756d6572 00000007 06 72616e6765 04 6d2d31 00000000000004d2 02
         04 6d2d31 02 69 02 63 03 2f68 000493e0 0000afc8 04 010203 02 09 00 00",
    ];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        let bytes = digits.chunks_exact(2);
        bytes.map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    fn offset_value(leader_epoch: i32, expire_ms: i64, topic_id: TopicId) -> OffsetValue {
        OffsetValue {
            offset: 100,
            leader_epoch,
            metadata: "m".to_string(),
            commit_ms: 1_234,
            expire_ms,
            topic_id,
        }
    }

    fn topic_id() -> TopicId {
        TopicId(std::array::from_fn(|i| i as u8 + 1))
    }

    fn group_value() -> GroupValue {
        GroupValue {
            protocol_type: "consumer".to_string(),
            generation: 7,
            protocol: Some("range".to_string()),
            leader: Some("m-1".to_string()),
            state_ms: 1_234,
            members: vec![MemberValue {
                member: "m-1".to_string(),
                instance: Some("i".to_string()),
                client_id: "c".to_string(),
                client_host: "/h".to_string(),
                rebalance_timeout_ms: 300_000,
                session_timeout_ms: 45_000,
                subscription: Bytes::from_static(&[1, 2, 3]),
                assignment: Bytes::from_static(&[9]),
            }],
        }
    }

    #[test]
    fn keys_are_kafkas() {
        let offset = Key::Offset {
            group: "g1".to_string(),
            topic: "t".to_string(),
            partition: 5,
        };
        let group = Key::Group {
            group: "g1".to_string(),
        };
        for (key, bytes) in [(&offset, hex(OFFSET_KEY)), (&group, hex(GROUP_KEY))] {
            assert_eq!(key.encode(), bytes);
            assert_eq!(Key::decode(&bytes), Ok(Some(key.clone())));
        }
        let of_old = [&[0, 0][..], &hex(OFFSET_KEY)[2..]].concat();
        assert_eq!(Key::decode(&of_old), Ok(Some(offset)));
        for other in [3i16, 18, i16::MAX, -1] {
            assert_eq!(Key::decode(&other.to_be_bytes()), Ok(None));
        }
    }

    #[test]
    fn offsets_are_read_in_every_version_and_written_as_kafka_writes_them() {
        let decoded = OFFSETS.map(|text| OffsetValue::decode(&hex(text)).unwrap());
        let plain = offset_value(-1, -1, TopicId::NIL);
        let expected = [
            plain.clone(),
            offset_value(-1, 5_678, TopicId::NIL),
            plain,
            offset_value(10, -1, TopicId::NIL),
            offset_value(10, -1, topic_id()),
        ];
        assert_eq!(decoded, expected);
        for version in [1, 3, 4] {
            assert_eq!(expected[version].encode(), hex(OFFSETS[version]));
        }
        let all_three = offset_value(10, 5_678, topic_id());
        assert_eq!(all_three.encode(), hex(OFFSETS[1]));
    }

    #[test]
    fn groups_are_read_in_every_version_and_written_as_kafka_writes_them() {
        let mut expected = group_value();
        assert_eq!(expected.encode(), hex(GROUPS[3]));
        for version in [4, 3, 2, 1, 0] {
            match version {
                2 => expected.members[0].instance = None,
                1 => expected.state_ms = -1,
                0 => expected.members[0].rebalance_timeout_ms = 45_000,
                _ => {}
            }
            let decoded = GroupValue::decode(&hex(GROUPS[version]));
            assert_eq!(decoded.as_ref(), Ok(&expected), "version {version}");
        }
        let empty = GroupValue {
            protocol_type: String::new(),
            generation: 0,
            protocol: None,
            leader: None,
            state_ms: 1_234,
            members: Vec::new(),
        };
        let bytes = hex("0003 0000 00000000 ffff ffff 00000000000004d2 00000000");
        assert_eq!(empty.encode(), bytes);
        assert_eq!(GroupValue::decode(&bytes), Ok(empty));
    }

    #[test]
    fn tagged_fields_that_are_not_known_are_passed_over() {
        let none = hex("0004 0000000000000064 0000000a 02 6d 00000000000004d2 00");
        let expected = offset_value(10, -1, TopicId::NIL);
        assert_eq!(OffsetValue::decode(&none).as_ref(), Ok(&expected));
        let other = hex("0004 0000000000000064 0000000a 02 6d 00000000000004d2 01 8101 02 ffff");
        assert_eq!(OffsetValue::decode(&other), Ok(expected));
        let short = hex("0004 0000000000000064 0000000a 02 6d 00000000000004d2 01 00 02 ffff");
        assert_eq!(OffsetValue::decode(&short), Err(RecordError::TopicId(2)));
    }

    #[test]
    fn every_truncation_and_every_byte_too_many_is_an_error() {
        fn check<T>(texts: &[&str], decode: fn(&[u8]) -> Result<T, RecordError>) {
            for text in texts {
                let mut bytes = hex(text);
                for cut in 0..bytes.len() {
                    assert!(decode(&bytes[..cut]).is_err(), "{text} cut at {cut}");
                }
                bytes.push(0);
                assert_eq!(decode(&bytes).err(), Some(RecordError::Longer(1)));
            }
        }
        check(&[OFFSET_KEY, GROUP_KEY], Key::decode);
        check(&OFFSETS, OffsetValue::decode);
        check(&GROUPS, GroupValue::decode);
    }

    #[test]
    fn lengths_and_counts_that_lie_are_errors() {
        let check = |text: &str, expected: RecordError| {
            assert_eq!(GroupValue::decode(&hex(text)), Err(expected), "{text}");
        };
        check("0005", RecordError::Version(5));
        check("ffff", RecordError::Version(-1));
        check("0000 ffff", RecordError::Null);
        check("0000 fffe", RecordError::Length(-2));
        check("0000 7fff 61", RecordError::Short);
        check("0000 0001 ff", RecordError::Text);
        check("0004 00", RecordError::Null);
        check("0004 818002 61", RecordError::Length(0x8000));
        check("0004 ffffffff1f", RecordError::Varint);
        check("0004 808080808001", RecordError::Varint);

        let behind_group = |rest: &str, expected: RecordError| {
            check(&format!("0000 0000 00000007 ffff ffff {rest}"), expected);
        };
        behind_group("7fffffff", RecordError::Count(0x7fff_ffff));
        behind_group("ffffffff", RecordError::Null);
        behind_group("fffffffe", RecordError::Length(-2));
        let member = "00000001 0000 0000 0000 00000000";
        let huge = format!("{member} 7fffffff 00000000");
        behind_group(&huge, RecordError::Short);

        let behind_group = |rest: &str, expected: RecordError| {
            check(&format!("0004 01 00000007 00 00 {rest}"), expected);
        };
        let most = RecordError::Count(0xffff_fffe);
        behind_group("00000000000004d2 ffffffff0f", most);
        let many_tags = "00000000000004d2 01 ffffffff0f";
        behind_group(many_tags, RecordError::Short);
        let huge_tag = "00000000000004d2 01 01 00 ffffffff0f";
        behind_group(huge_tag, RecordError::Short);
    }

    #[test]
    fn whatever_is_read_of_damage_is_written_so_that_it_is_read_again() {
        let flipped = |text: &str| {
            let bytes = hex(text);
            (0..bytes.len() * 8).map(move |bit| {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                bad
            })
        };
        for bad in OFFSETS.into_iter().flat_map(flipped) {
            if let Ok(value) = OffsetValue::decode(&bad) {
                assert_eq!(OffsetValue::decode(&value.encode()), Ok(value), "{bad:?}");
            }
        }
        for bad in GROUPS.into_iter().flat_map(flipped) {
            if let Ok(value) = GroupValue::decode(&bad) {
                assert_eq!(GroupValue::decode(&value.encode()), Ok(value), "{bad:?}");
            }
        }
    }

    #[test]
    fn text_that_is_too_long_is_cut_between_characters() {
        let written = |text: String| {
            let key = Key::Group { group: text }.encode();
            match Key::decode(&key) {
                Ok(Some(Key::Group { group })) => group.len(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(written("x".repeat(TEXT_BYTES_MAX)), TEXT_BYTES_MAX);
        assert_eq!(written("x".repeat(TEXT_BYTES_MAX + 1)), TEXT_BYTES_MAX);
        assert_eq!(written("é".repeat(TEXT_BYTES_MAX)), TEXT_BYTES_MAX - 1);
        let mut long = offset_value(10, -1, topic_id());
        long.metadata = "x".repeat(300);
        assert_eq!(OffsetValue::decode(&long.encode()), Ok(long));
    }

    #[test]
    fn subscribed_topics_are_read_whatever_follows_them() {
        let topics = |text: &str| subscribed_topics(&hex(text));
        let two = Some(vec!["a".to_string(), "bc".to_string()]);
        assert_eq!(topics("0000 00000002 0001 61 0002 6263 ffffffff"), two);
        let newer = "0003 00000002 0001 61 0002 6263 00000000 00000000 0000000a ff";
        assert_eq!(topics(newer), two);
        assert_eq!(topics("0001 00000000"), Some(Vec::new()));
        for bad in [
            "",
            "00",
            "0000",
            "0000 ffffffff",
            "0000 00000001",
            "0000 00000001 0002 61",
            "0000 00000001 ffff",
            "0000 00000001 0001 ff",
            "0000 7fffffff 0001 61",
            "ffff 00000000",
        ] {
            assert_eq!(topics(bad), None, "{bad}");
        }
    }
}
