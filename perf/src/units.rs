//! Owns how sizes are written and read by people.
//! Does not know what is measured.
//! Invariant: units of bytes are powers of two and say so (`KiB`, `MiB`, `GiB`).

/// Reads `65536`, `64KiB`, `1MiB`, `10GiB`; also without the `iB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text} is no size, like 64KiB"))?;
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        other => return Err(format!("{other} is no unit; there are KiB, MiB and GiB")),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text} is too large"))
}

/// As [`parse_bytes`], for sizes in memory.
pub fn parse_size(text: &str) -> Result<usize, String> {
    parse_bytes(text)
        .and_then(|bytes| usize::try_from(bytes).map_err(|_| format!("{text} is too large")))
}

/// A size in the largest unit that leaves at least 1.
pub fn show_bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => {
            let value = bytes as f64 / (1u64 << shift) as f64;
            if value.fract() == 0.0 {
                format!("{value} {unit}")
            } else {
                format!("{value:.1} {unit}")
            }
        }
        None => format!("{bytes} B"),
    }
}

/// Microseconds in the unit that suits them.
pub fn show_us(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 10_000.0 => format!("{:.1} ms", us / 1e3),
        us if us >= 1_000.0 => format!("{:.2} ms", us / 1e3),
        us => format!("{us:.0} us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check =
            |text, expected: Option<u64>| assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        check("0", Some(0));
        check("65536", Some(65_536));
        check("64KiB", Some(65_536));
        check("1 MiB", Some(1 << 20));
        check("10G", Some(10 << 30));
        check("64KB", None);
        check("KiB", None);
        check("-1", None);
        check("99999999999GiB", None);
    }

    #[test]
    fn sizes_and_times_are_shown() {
        assert_eq!(show_bytes(1_023), "1023 B");
        assert_eq!(show_bytes(65_536), "64 KiB");
        assert_eq!(show_bytes(1_610_612_736), "1.5 GiB");
        assert_eq!(show_us(12.4), "12 us");
        assert_eq!(show_us(1_234.0), "1.23 ms");
        assert_eq!(show_us(2_500_000.0), "2.50 s");
    }
}
