//! Owns the small values people write: HOST:PORT, byte sizes, CPU lists, as text and in TOML.
//! Does not know which setting they belong to.
//! Invariant: what `Display` prints parses back to the same value.

use serde::Deserialize;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// A host (name or address, IPv6 without brackets) and a port.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    pub fn new(host: impl Into<String>, port: u16) -> HostPort {
        HostPort {
            host: host.into(),
            port,
        }
    }

    /// The address to bind or connect to; IPv4 is preferred where a name has both, because that is
    /// what `localhost` means to most clients.
    pub fn resolve(&self) -> std::io::Result<SocketAddr> {
        let found: Vec<SocketAddr> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        let best = found.iter().find(|a| a.is_ipv4()).or(found.first());
        best.copied()
            .ok_or_else(|| std::io::Error::other(format!("{} has no address", self.host)))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let wrong =
            |why: &str| format!("`{text}` is not HOST:PORT ({why}); for example 127.0.0.1:9092");
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("the port is missing"))?;
        let port = port
            .parse()
            .map_err(|_| wrong("the port is a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .ok_or_else(|| wrong("the bracket is not closed"))?,
            None if host.contains(':') => return Err(wrong("an IPv6 address needs brackets")),
            None => host,
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        if host.contains(['[', ']']) {
            return Err(wrong("a bracket is out of place"));
        }
        Ok(HostPort::new(host, port))
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<HostPort, String> {
        text.parse()
    }
}

/// One HOST:PORT or a list of them, as TOML may give either.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Deserializes `"host:port"` or `["host:port", ..]`.
pub fn host_ports<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<HostPort>, D::Error> {
    let texts = match OneOrMany::deserialize(from)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    };
    texts
        .iter()
        .map(|t| t.parse().map_err(serde::de::Error::custom))
        .collect()
}

/// `NAME=VALUE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameValue {
    pub name: String,
    pub value: String,
}

impl FromStr for NameValue {
    type Err = String;

    fn from_str(text: &str) -> Result<NameValue, String> {
        let wrong = || format!("`{text}` is not NAME=VALUE; for example num.partitions=3");
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let name = name.trim();
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(NameValue {
            name: name.to_string(),
            value: value.trim().to_string(),
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Switch(bool),
    Number(i64),
    Fraction(f64),
    Text(String),
}

/// Deserializes a table of names and values: texts, numbers or switches.
pub fn name_values<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<NameValue>, D::Error> {
    let table = std::collections::BTreeMap::<String, Scalar>::deserialize(from)?;
    let pair = |(name, value)| {
        let value = match value {
            Scalar::Switch(switch) => switch.to_string(),
            Scalar::Number(number) => number.to_string(),
            Scalar::Fraction(number) => number.to_string(),
            Scalar::Text(text) => text,
        };
        NameValue { name, value }
    };
    Ok(table.into_iter().map(pair).collect())
}

/// A number of bytes; written as a plain number or with a unit (`512MiB`, `2g`, `1.5GiB`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(try_from = "NumberOrText")]
pub struct ByteSize(pub u64);

/// Units, largest first so that printing finds the best; single letters are powers of 1024.
const UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS
            .iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
        {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl ByteSize {
    /// Rounded for reading, one decimal: `15.6 GiB`.
    pub fn human(&self) -> String {
        match UNITS.iter().find(|(_, size)| self.0 >= *size) {
            Some((name, size)) => format!("{:.1} {name}", self.0 as f64 / *size as f64),
            None => format!("{} bytes", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        let wrong =
            || format!("`{text}` is not a number of bytes; for example 536870912, 512MiB or 2GiB");
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim());
        let scale: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(scale).map(ByteSize).ok_or_else(wrong);
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        Ok(ByteSize((number * scale as f64) as u64))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl TryFrom<NumberOrText> for ByteSize {
    type Error = String;

    fn try_from(value: NumberOrText) -> Result<ByteSize, String> {
        match value {
            NumberOrText::Number(bytes) => Ok(ByteSize(bytes)),
            NumberOrText::Text(text) => text.parse(),
        }
    }
}

/// CPU numbers, ascending as written, none twice: `0-3,8`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "ListOrText")]
pub struct CpuList(pub Vec<usize>);

/// Linux has no larger CPU numbers than this; it bounds what `0-N` can allocate.
const CPU_MAX: usize = 8_191;

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<CpuList, String> {
        let wrong = || format!("`{text}` is not a list of CPUs; for example 0-3,8");
        let number = |t: &str| {
            t.trim()
                .parse::<usize>()
                .ok()
                .filter(|n| *n <= CPU_MAX)
                .ok_or_else(wrong)
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(wrong());
            }
            cpus.extend(first..=last);
            if cpus.len() > CPU_MAX + 1 {
                break; // some are there twice; a long text of ranges may not take memory
            }
        }
        CpuList::checked(cpus)
    }
}

impl CpuList {
    fn checked(cpus: Vec<usize>) -> Result<CpuList, String> {
        let mut sorted = cpus.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|w| w[0] == w[1]) {
            return Err(format!("CPU {} is listed twice", twice[0]));
        }
        if let Some(large) = sorted.last().filter(|n| **n > CPU_MAX) {
            return Err(format!("there is no CPU {large}"));
        }
        if cpus.is_empty() {
            return Err("the list of CPUs is empty".to_string());
        }
        Ok(CpuList(cpus))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ListOrText {
    List(Vec<usize>),
    Text(String),
}

impl TryFrom<ListOrText> for CpuList {
    type Error = String;

    fn try_from(value: ListOrText) -> Result<CpuList, String> {
        match value {
            ListOrText::List(cpus) => CpuList::checked(cpus),
            ListOrText::Text(text) => text.parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_read_and_print_alike() {
        for text in ["127.0.0.1:9092", "broker-1.example:0", "[::1]:9092"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in [
            "9092",
            "host",
            "host:",
            ":9092",
            "::1:9092",
            "[::1:9092",
            "host:65536",
            "[[x]:1",
            "[a]b:1",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn byte_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("512MiB", 512 << 20),
            ("2g", 2 << 30),
            ("1.5 GiB", 3 << 29),
            ("1MB", 1_000_000),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "12 parsecs", "-1", "99999999999TiB", "1.2.3k"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize(512 << 20).to_string(), "512MiB");
        assert_eq!(ByteSize(1_000).to_string(), "1000");
    }

    #[test]
    fn cpu_lists() {
        assert_eq!("0-2,8".parse::<CpuList>(), Ok(CpuList(vec![0, 1, 2, 8])));
        for text in [
            "",
            "a",
            "3-1",
            "0,0",
            "0-99999999",
            "1-",
            "-1",
            "0-8191,0-8191",
        ] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }
}
