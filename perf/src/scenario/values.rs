//! Owns the values of a scenario that are more than a number: sizes, rates, acknowledgements.
//! Does not know where in a scenario they are.
//! Invariant: what was written can be read again from what is shown.

use crate::units::{parse_bytes, show_bytes};
use serde::{Deserialize, Serialize};

/// A number of bytes, written as in `64KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

impl Size {
    /// For what is in memory.
    pub fn in_memory(self) -> usize {
        usize::try_from(self.0).expect("a size of this machine")
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Size, String> {
        parse_bytes(&text).map(Size)
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        // Exact, where the larger units would round.
        let shown = show_bytes(size.0).replace(' ', "");
        match parse_bytes(&shown) {
            Ok(bytes) if bytes == size.0 => shown,
            Ok(_) | Err(_) => size.0.to_string(),
        }
    }
}

/// Who must have a record before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub enum Acks {
    #[serde(rename = "0")]
    Nobody,
    #[serde(rename = "1")]
    Leader,
    #[default]
    #[serde(rename = "all")]
    All,
}

impl Acks {
    /// As on the wire.
    pub fn code(self) -> i16 {
        match self {
            Acks::Nobody => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// How fast is produced, all producers together.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rate {
    /// As fast as it is answered.
    Maximum,
    /// Of record values.
    BytesPerSecond(f64),
    RecordsPerSecond(f64),
    /// Of the maximum that was measured just before, on the same broker; 0 to 1.
    ShareOfMaximum(f64),
}

impl Rate {
    pub fn is_share(self) -> bool {
        matches!(self, Rate::ShareOfMaximum(_))
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Rate, String> {
        let wrong =
            || format!("`{text}` is no rate: write maximum, 20MB/s, 20MiB/s, 500 records/s or 50%");
        if text == "maximum" {
            return Ok(Rate::Maximum);
        }
        let number = |text: &str| match text.trim().parse::<f64>() {
            Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
            Ok(_) | Err(_) => Err(wrong()),
        };
        for (unit, bytes) in [("MB/s", 1e6), ("MiB/s", 1_048_576.0), ("KiB/s", 1_024.0)] {
            if let Some(amount) = text.strip_suffix(unit) {
                return Ok(Rate::BytesPerSecond(number(amount)? * bytes));
            }
        }
        if let Some(amount) = text.strip_suffix("records/s") {
            return Ok(Rate::RecordsPerSecond(number(amount)?));
        }
        match text.strip_suffix('%').map(number) {
            Some(Ok(percent)) if percent <= 100.0 => Ok(Rate::ShareOfMaximum(percent / 100.0)),
            Some(_) | None => Err(wrong()),
        }
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        match rate {
            Rate::Maximum => "maximum".into(),
            Rate::BytesPerSecond(bytes) => format!("{} MB/s", bytes / 1e6),
            Rate::RecordsPerSecond(records) => format!("{records} records/s"),
            Rate::ShareOfMaximum(share) => format!("{}%", share * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_shown() {
        for (text, expected) in [
            ("maximum", Some(Rate::Maximum)),
            ("20MB/s", Some(Rate::BytesPerSecond(2e7))),
            ("1 MiB/s", Some(Rate::BytesPerSecond(1_048_576.0))),
            ("500 records/s", Some(Rate::RecordsPerSecond(500.0))),
            ("50%", Some(Rate::ShareOfMaximum(0.5))),
            ("150%", None),
            ("0MB/s", None),
            ("-1MB/s", None),
            ("20", None),
            ("", None),
        ] {
            let read = Rate::try_from(text.to_string());
            assert_eq!(read.clone().ok(), expected, "{text}");
            if let Ok(rate) = read {
                assert_eq!(Rate::try_from(String::from(rate)), Ok(rate));
            }
        }
    }

    #[test]
    fn sizes_are_shown_exactly() {
        for bytes in [0, 100, 1_024, 1_500, 65_536, 10 << 30, (1 << 20) + 1] {
            let shown = String::from(Size(bytes));
            assert_eq!(Size::try_from(shown.clone()), Ok(Size(bytes)), "{shown}");
        }
    }
}
