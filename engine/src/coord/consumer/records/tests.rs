//! Owns the tests of the formats of records of the consumer protocol, against bytes made by hand from Kafka's schemas.
//! Does not know groups.
//! Invariant: what is read and written again is the same, and nothing that is cut short is read.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let bytes = digits.chunks_exact(2);
    bytes.map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn topic() -> TopicId {
    TopicId(std::array::from_fn(|i| i as u8 + 1))
}

fn text(value: &str) -> Option<String> {
    Some(value.to_string())
}

fn member() -> MemberValue {
    MemberValue {
        instance: text("i"),
        rack: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        topics: ["t".to_string()].into(),
        regex: text("t.*"),
        rebalance_timeout_ms: 300_000,
        assignor: text("range"),
        classic: None,
    }
}

fn classic() -> MemberValue {
    let protocol = ("range".to_string(), Bytes::from_static(&[1, 2]));
    MemberValue {
        classic: Some(ClassicValue {
            session_timeout_ms: 45_000,
            protocols: vec![protocol],
        }),
        ..member()
    }
}

fn current() -> Current {
    Current {
        epoch: 5,
        previous_epoch: 4,
        state: MemberState::Unrevoked,
        assigned: [(topic(), [(0, 3), (2, 5)].into())].into(),
        revoking: [(topic(), [(1, 4)].into())].into(),
    }
}

fn resolved() -> Resolved {
    Resolved {
        topics: ["t".to_string()].into(),
        version: 9,
        at_ms: 1_234,
    }
}

const ID: &str = "0102030405060708090a0b0c0d0e0f10";

/// Each record with its key and value.
fn golden() -> Vec<(Record, &'static str, String)> {
    let m = || "m".to_string();
    let member_fields =
        "0000 02 69 00 02 63 03 2f68 02 02 74 04 742e2a 000493e0 06 72616e6765".to_string();
    vec![
        (
            Record::Group(Some((7, 0))),
            "0003 0001 67",
            "0000 00000007 00".into(),
        ),
        (
            Record::Group(Some((7, 258))),
            "0003 0001 67",
            "0000 00000007 01 00 08 0000000000000102".into(),
        ),
        (
            Record::Member(m(), Some(member())),
            "0005 0001 67 0001 6d",
            format!("{member_fields} 00"),
        ),
        (
            Record::Member(m(), Some(classic())),
            "0005 0001 67 0001 6d",
            format!("{member_fields} 01 00 11 01 0000afc8 02 06 72616e6765 03 0102 00 00"),
        ),
        (
            Record::TargetEpoch(Some((7, 1_234))),
            "0006 0001 67",
            "0000 00000007 01 00 08 00000000000004d2".into(),
        ),
        (
            Record::Target(m(), Some([(topic(), [0, 2].into())].into())),
            "0007 0001 67 0001 6d",
            format!("0000 02 {ID} 03 00000000 00000002 00 00"),
        ),
        (
            Record::Current(m(), Some(current())),
            "0008 0001 67 0001 6d",
            format!(
                "0000 00000005 00000004 01
                 02 {ID} 03 00000000 00000002 01 00 09 03 00000003 00000005
                 02 {ID} 02 00000001 01 00 05 02 00000004 00"
            ),
        ),
        (
            Record::Regex("t.*".into(), Some(resolved())),
            "0010 0001 67 0003 742e2a",
            "0000 02 02 74 0000000000000009 00000000000004d2 00".into(),
        ),
    ]
}

#[test]
fn records_are_kafkas() {
    for (record, key, value) in golden() {
        let encoded = record.encode("g");
        assert_eq!(encoded.key, hex(key), "{record:?}");
        assert_eq!(
            encoded.value.as_deref(),
            Some(&hex(&value)[..]),
            "{record:?}"
        );
        let decoded = Record::decode(&hex(key), Some(&hex(&value)));
        assert_eq!(decoded, Ok(Some(("g".to_string(), record))));
    }
}

#[test]
fn tombstones_have_no_value_and_other_types_are_left_alone() {
    for (record, key, _) in golden() {
        let (_, gone) = Record::decode(&hex(key), None).unwrap().unwrap();
        let encoded = gone.encode("g");
        assert_eq!(
            (&encoded.key[..], encoded.value),
            (&hex(key)[..], None),
            "{record:?}"
        );
    }
    let partitions = Record::decode(&hex("0004 0001 67"), Some(&[0, 0, 1, 0]));
    assert_eq!(
        partitions,
        Ok(Some(("g".into(), Record::Partitions(Some(())))))
    );
    for other in [0i16, 1, 2, 9, 15, 17, i16::MAX, -1] {
        assert_eq!(Record::decode(&other.to_be_bytes(), None), Ok(None));
    }
}

#[test]
fn where_epochs_of_partitions_are_not_said_they_are_the_members() {
    let value = format!("0000 00000005 00000004 00 02 {ID} 02 00000003 00 01 00");
    let decoded = Record::decode(&hex("0008 0001 67 0001 6d"), Some(&hex(&value)));
    let Ok(Some((_, Record::Current(_, Some(current))))) = decoded else {
        panic!("{decoded:?}");
    };
    assert_eq!(current.assigned, [(topic(), [(3, 5)].into())].into());
    let wrong = format!("0000 00000005 00000004 00 02 {ID} 02 00000003 01 00 01 01 01 00");
    let decoded = Record::decode(&hex("0008 0001 67 0001 6d"), Some(&hex(&wrong)));
    assert_eq!(decoded, Err(RecordError::Count(0)));
}

#[test]
fn any_damage_gives_a_record_or_an_error() {
    for (_, key, value) in golden() {
        let (key, value) = (hex(key), hex(&value));
        for cut in 0..key.len() {
            assert!(
                Record::decode(&key[..cut], None).is_err(),
                "key cut at {cut}"
            );
        }
        for cut in 0..value.len() {
            let read = Record::decode(&key, Some(&value[..cut]));
            assert!(read.is_err(), "value cut at {cut}");
        }
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _either = Record::decode(&key, Some(&bad));
        }
    }
}
