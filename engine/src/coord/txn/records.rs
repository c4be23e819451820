//! Owns Kafka's formats of the records in `__transaction_state`: an id, and what is known of its transactions.
//! Does not know batches, nor how a transaction goes.
//! Invariant: any bytes give a value or an error, and no count or length in them is believed before its bytes are
//! there.

use super::super::codec::*;
use super::super::records::RecordError;
use super::types::{Producer, TopicPartitions, TxnState};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeSet;

/// The type of record that this topic has.
const TRANSACTION: i16 = 0;

/// Version 1 has compact lengths and tagged fields; it is the newest, and the one that is written.
const FLEXIBLE: i16 = 1;

const TAG_PREVIOUS_PRODUCER_ID: u32 = 0;
const TAG_NEXT_PRODUCER_ID: u32 = 1;
const TAG_CLIENT_VERSION: u32 = 2;

/// Bytes that a topic takes at the least, in whichever version has the shortest.
const TOPIC_BYTES_MIN: usize = 3;

/// The transactional id of a key; None where the key is of another kind, one of the future.
///
/// # Errors
/// There is no type, or not what belongs to it.
pub fn decode_key(key: &[u8]) -> Result<Option<String>, RecordError> {
    let mut r = Reader::plain(key);
    if r.i16()? != TRANSACTION {
        return Ok(None);
    }
    let id = r.text()?;
    r.end()?;
    Ok(Some(id))
}

pub fn encode_key(transactional_id: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(TRANSACTION);
    put_text(transactional_id, &mut out);
    out.freeze()
}

/// What is kept of a transactional id (Kafka's `TransactionLogValue`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnValue {
    pub producer: Producer,
    /// The producer id before the last change; -1 where there was none.
    pub previous_producer_id: i64,
    /// The producer id from the end of this transaction on, where the epochs of this one are used up; else -1.
    pub next_producer_id: i64,
    pub timeout_ms: i32,
    pub state: TxnState,
    pub partitions: TopicPartitions,
    pub updated_ms: i64,
    /// -1 where nothing was begun yet.
    pub started_ms: i64,
    /// Level of `transaction.version` by which the client works.
    pub client_version: i16,
}

impl TxnValue {
    /// Whether this is who the client is once the transaction is over: a new id, because the epochs of its old one are used
    /// up. The client knows as soon as its end is decided.
    pub fn is_next(&self, producer: Producer) -> bool {
        let next = Producer {
            id: self.next_producer_id,
            epoch: 0,
        };
        self.state.is_prepared() && producer == next
    }

    /// # Errors
    /// The bytes are no such value.
    pub fn decode(value: &[u8]) -> Result<TxnValue, RecordError> {
        let (_, mut r) = Reader::of_versions(value, FLEXIBLE, FLEXIBLE)?;
        let mut value = TxnValue {
            producer: Producer {
                id: r.i64()?,
                epoch: r.i16()?,
            },
            previous_producer_id: -1,
            next_producer_id: -1,
            timeout_ms: r.i32()?,
            state: state_of(r.i8()?)?,
            partitions: partitions(&mut r)?,
            updated_ms: r.i64()?,
            started_ms: r.i64()?,
            client_version: 0,
        };
        r.tagged_fields(|tag, field| {
            match tag {
                TAG_PREVIOUS_PRODUCER_ID => value.previous_producer_id = i64_of(field)?,
                TAG_NEXT_PRODUCER_ID => value.next_producer_id = i64_of(field)?,
                TAG_CLIENT_VERSION => {
                    let bytes = field.try_into();
                    let bytes = bytes.map_err(|_| RecordError::Field(field.len()))?;
                    value.client_version = i16::from_be_bytes(bytes);
                }
                // Of a newer Kafka.
                3.. => {}
            }
            Ok(())
        })?;
        r.end()?;
        Ok(value)
    }

    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(FLEXIBLE);
        out.put_i64(self.producer.id);
        out.put_i16(self.producer.epoch);
        out.put_i32(self.timeout_ms);
        out.put_i8(self.state.code());
        self.put_partitions(&mut out);
        out.put_i64(self.updated_ms);
        out.put_i64(self.started_ms);
        let ids = [
            (TAG_PREVIOUS_PRODUCER_ID, self.previous_producer_id),
            (TAG_NEXT_PRODUCER_ID, self.next_producer_id),
        ];
        let said = ids.into_iter().filter(|(_, id)| *id != -1);
        let has_version = self.client_version != 0;
        put_uvarint(
            said.clone().count() as u32 + u32::from(has_version),
            &mut out,
        );
        for (tag, id) in said {
            put_uvarint(tag, &mut out);
            put_uvarint(8, &mut out);
            out.put_i64(id);
        }
        if has_version {
            put_uvarint(TAG_CLIENT_VERSION, &mut out);
            put_uvarint(2, &mut out);
            out.put_i16(self.client_version);
        }
        out.freeze()
    }

    fn put_partitions(&self, out: &mut BytesMut) {
        if self.state == TxnState::Empty {
            // Null, as Kafka has it before anything was begun.
            return put_uvarint(0, out);
        }
        put_uvarint(self.partitions.len() as u32 + 1, out);
        for (topic, indexes) in &self.partitions {
            put_compact_text(topic, out);
            put_uvarint(indexes.len() as u32 + 1, out);
            indexes.iter().for_each(|index| out.put_i32(*index));
            // No tagged fields.
            put_uvarint(0, out);
        }
    }
}

fn partitions(r: &mut Reader) -> Result<TopicPartitions, RecordError> {
    let mut partitions = TopicPartitions::new();
    for _ in 0..r.nullable_count(TOPIC_BYTES_MIN)?.unwrap_or(0) {
        let topic = r.text()?;
        let count = r.count(size_of::<i32>())?;
        let indexes: Result<BTreeSet<i32>, RecordError> = (0..count).map(|_| r.i32()).collect();
        partitions.entry(topic).or_default().extend(indexes?);
        r.tagged_fields(|_, _| Ok(()))?;
    }
    Ok(partitions)
}

fn state_of(code: i8) -> Result<TxnState, RecordError> {
    let kept = |state: &TxnState| match state {
        TxnState::Empty
        | TxnState::Ongoing
        | TxnState::PrepareCommit
        | TxnState::PrepareAbort
        | TxnState::CompleteCommit
        | TxnState::CompleteAbort => state.code() == code,
        TxnState::Dead | TxnState::PrepareEpochFence => false,
    };
    let found = TxnState::ALL.into_iter().find(kept);
    found.ok_or(RecordError::State(code))
}

fn i64_of(field: &[u8]) -> Result<i64, RecordError> {
    let bytes = field.try_into();
    bytes
        .map(i64::from_be_bytes)
        .map_err(|_| RecordError::Field(field.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 0, and version 1 with all its tagged fields, of an ongoing transaction over t-0, t-2 and u-1.
    const VALUES: [&str; 2] = [
        "0000 0000000000000007 0003 0000ea60 01 00000002 0001 74 00000002 00000000 00000002
         0001 75 00000001 00000001 00000000000004d2 00000000000004d1",
        "0001 0000000000000007 0003 0000ea60 01 03 02 74 03 00000000 00000002 00
         02 75 02 00000001 00 00000000000004d2 00000000000004d1
         03 00 08 0000000000000006 01 08 0000000000000008 02 02 0002",
    ];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits
            .chunks(2)
            .map(|pair| (pair[0] * 16 + pair[1]) as u8)
            .collect()
    }

    fn value() -> TxnValue {
        TxnValue {
            producer: Producer { id: 7, epoch: 3 },
            previous_producer_id: 6,
            next_producer_id: 8,
            timeout_ms: 60_000,
            state: TxnState::Ongoing,
            partitions: [
                ("t".to_string(), BTreeSet::from([0, 2])),
                ("u".to_string(), BTreeSet::from([1])),
            ]
            .into(),
            updated_ms: 1_234,
            started_ms: 1_233,
            client_version: 2,
        }
    }

    #[test]
    fn both_versions_are_read_and_the_newer_is_written() {
        let old = TxnValue {
            previous_producer_id: -1,
            next_producer_id: -1,
            client_version: 0,
            ..value()
        };
        assert_eq!(TxnValue::decode(&hex(VALUES[0])), Ok(old.clone()));
        assert_eq!(TxnValue::decode(&hex(VALUES[1])), Ok(value()));
        assert_eq!(value().encode(), hex(VALUES[1]));
        assert_eq!(TxnValue::decode(&old.encode()), Ok(old));
    }

    #[test]
    fn an_empty_one_has_null_for_its_partitions() {
        let empty = TxnValue {
            state: TxnState::Empty,
            partitions: TopicPartitions::new(),
            ..value()
        };
        assert_eq!(empty.encode()[17..18], [0]);
        assert_eq!(TxnValue::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn keys_are_kafkas() {
        assert_eq!(encode_key("id"), hex("0000 0002 6964"));
        assert_eq!(decode_key(&hex("0000 0002 6964")), Ok(Some("id".into())));
        assert_eq!(decode_key(&hex("0001 0002 6964")), Ok(None));
        assert_eq!(decode_key(&hex("0000 0003 6964")), Err(RecordError::Short));
        assert_eq!(decode_key(&hex("00")), Err(RecordError::Short));
    }

    #[test]
    fn what_is_no_value_is_an_error() {
        let error = |text: &str| TxnValue::decode(&hex(text)).unwrap_err();
        assert_eq!(error("0002"), RecordError::Version(2));
        let begin = "0000 0000000000000007 0003 0000ea60";
        assert_eq!(error(&format!("{begin} 06")), RecordError::State(6));
        assert_eq!(error(&format!("{begin} 08")), RecordError::State(8));
        let huge = format!("{begin} 01 7fffffff");
        assert_eq!(error(&huge), RecordError::Count(0x7fff_ffff));
        let tags = |text: &str| VALUES[1].replace("02 02 0002", text);
        assert_eq!(error(&tags("02 01 02")), RecordError::Field(1));
        assert!(TxnValue::decode(&hex(&tags("09 01 02"))).is_ok());
    }

    #[test]
    fn whatever_is_read_of_damage_is_written_so_that_it_is_read_again() {
        for text in VALUES {
            let good = hex(text);
            for cut in 0..good.len() {
                assert!(TxnValue::decode(&good[..cut]).is_err(), "cut at {cut}");
            }
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let Ok(read) = TxnValue::decode(&bad) else {
                    continue;
                };
                let again = TxnValue::decode(&read.encode()).unwrap();
                if read.state != TxnState::Empty {
                    assert_eq!(again, read, "bit {bit}");
                }
            }
        }
    }
}
