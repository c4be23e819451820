//! Owns how a consumed record is printed: a text template or one JSON object a line.
//! Does not know where records come from or where they go.
//! Invariant: JSON output is valid whatever bytes a record holds.

use crate::text::{base64, time_text, unescape};
use bytes::Bytes;
use millrace_net::wire::record::{Header, Record};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::io::{self, Write};

#[derive(Clone, PartialEq, Debug)]
enum Piece {
    Text(String),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Time,
    Key,
    Value,
    Headers,
}

/// How to print records.
#[derive(Clone, PartialEq, Debug)]
pub struct Format(Form);

#[derive(Clone, PartialEq, Debug)]
enum Form {
    Json,
    Template(Vec<Piece>),
}

impl std::str::FromStr for Format {
    type Err = String;

    /// `json`, or text with names in braces; `{{` stands for a brace.
    fn from_str(text: &str) -> Result<Format, String> {
        if text == "json" {
            return Ok(Format(Form::Json));
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let template = unescape(text);
        let mut rest = template.as_str();
        while let Some(at) = rest.find('{') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('{') {
                literal.push('{');
                rest = after;
                continue;
            }
            let (name, after) = rest
                .split_once('}')
                .ok_or_else(|| format!("`{text}` has an open brace"))?;
            rest = after;
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(match name {
                "topic" => Piece::Topic,
                "partition" => Piece::Partition,
                "offset" => Piece::Offset,
                "timestamp" => Piece::Timestamp,
                "time" => Piece::Time,
                "key" => Piece::Key,
                "value" => Piece::Value,
                "headers" => Piece::Headers,
                _ => {
                    return Err(format!(
                        "`{{{name}}}` is not known; there are topic, partition, offset, timestamp, time, key, value \
                         and headers"
                    ))
                }
            });
        }
        literal.push_str(rest);
        literal.push('\n');
        pieces.push(Piece::Text(literal));
        Ok(Format(Form::Template(pieces)))
    }
}

impl Format {
    pub fn write(
        &self,
        out: &mut dyn Write,
        topic: &str,
        partition: i32,
        record: &Record,
    ) -> io::Result<()> {
        match &self.0 {
            Form::Json => {
                serde_json::to_writer(
                    &mut *out,
                    &Json {
                        topic,
                        partition,
                        record,
                    },
                )?;
                out.write_all(b"\n")
            }
            Form::Template(pieces) => pieces
                .iter()
                .try_for_each(|piece| write_piece(out, piece, topic, partition, record)),
        }
    }
}

/// Null shows as nothing in a template; JSON tells it from no bytes.
fn plain(bytes: Option<&[u8]>) -> &[u8] {
    bytes.unwrap_or(b"")
}

fn write_piece(
    out: &mut dyn Write,
    piece: &Piece,
    topic: &str,
    partition: i32,
    record: &Record,
) -> io::Result<()> {
    match piece {
        Piece::Text(text) => out.write_all(text.as_bytes()),
        Piece::Topic => out.write_all(topic.as_bytes()),
        Piece::Partition => write!(out, "{partition}"),
        Piece::Offset => write!(out, "{}", record.offset),
        Piece::Timestamp => write!(out, "{}", record.timestamp_ms),
        Piece::Time => out.write_all(time_text(record.timestamp_ms).as_bytes()),
        Piece::Key => out.write_all(plain(record.key.as_deref())),
        Piece::Value => out.write_all(plain(record.value.as_deref())),
        Piece::Headers => {
            for (i, header) in record.headers.iter().enumerate() {
                out.write_all(if i == 0 { b"" } else { b"," })?;
                out.write_all(&header.key)?;
                out.write_all(b"=")?;
                out.write_all(plain(header.value.as_deref()))?;
            }
            Ok(())
        }
    }
}

/// One record as a JSON object, its fields in the order a person looks for them.
struct Json<'a> {
    topic: &'a str,
    partition: i32,
    record: &'a Record,
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_map(None)?;
        object.serialize_entry("topic", self.topic)?;
        object.serialize_entry("partition", &self.partition)?;
        object.serialize_entry("offset", &self.record.offset)?;
        object.serialize_entry("timestamp", &self.record.timestamp_ms)?;
        put(&mut object, ["key", "key_base64"], self.record.key.as_ref())?;
        put(
            &mut object,
            ["value", "value_base64"],
            self.record.value.as_ref(),
        )?;
        let headers: Vec<JsonHeader<'_>> = self.record.headers.iter().map(JsonHeader).collect();
        object.serialize_entry("headers", &headers)?;
        object.end()
    }
}

struct JsonHeader<'a>(&'a Header);

impl Serialize for JsonHeader<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_map(None)?;
        put(&mut object, ["key", "key_base64"], Some(&self.0.key))?;
        put(
            &mut object,
            ["value", "value_base64"],
            self.0.value.as_ref(),
        )?;
        object.end()
    }
}

/// Bytes that are text go under the first name, others as base64 under the second.
fn put<M: SerializeMap>(
    object: &mut M,
    names: [&str; 2],
    bytes: Option<&Bytes>,
) -> Result<(), M::Error> {
    match bytes.map(|b| std::str::from_utf8(b).map_err(|_| b)) {
        None => object.serialize_entry(names[0], &None::<&str>),
        Some(Ok(text)) => object.serialize_entry(names[0], text),
        Some(Err(raw)) => object.serialize_entry(names[1], &base64(raw)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    fn record() -> Record {
        Record {
            offset: 7,
            timestamp_ms: 0,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(&[0xff])),
            headers: vec![Header {
                key: Bytes::from_static(b"h"),
                value: None,
            }],
        }
    }

    fn print(format: &str) -> String {
        let mut out = Vec::new();
        let format: Format = format.parse().unwrap();
        format.write(&mut out, "t", 3, &record()).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn templates() {
        assert_eq!(
            print(r"{topic}-{partition}@{offset}\t{key}{{x} {headers}"),
            "t-3@7\tk{x} h=\n"
        );
        assert_eq!(print("{time} {timestamp}"), "1970-01-01T00:00:00.000Z 0\n");
        assert!("{nothing}".parse::<Format>().is_err() && "{open".parse::<Format>().is_err());
    }

    #[test]
    fn json_holds_any_bytes() {
        let value: Value = serde_json::from_str(&print("json")).unwrap();
        assert_eq!(value["key"], "k");
        assert_eq!(value["value_base64"], "/w==");
        assert_eq!(value["headers"], json!([{"key": "h", "value": null}]));
    }
}
