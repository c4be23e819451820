//! Owns the small text forms of the command line: escapes, times, durations, base64, tables.
//! Does not know what the texts are for.
//! Invariant: a time printed is read back to the same millisecond.

use std::io::{self, Write};

/// `\t`, `\n`, `\r`, `\0` and `\\` become what they stand for; anything else stays as it is.
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('0') => out.push('\0'),
            Some('\\') => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

const DAY_MS: i64 = 86_400_000;

/// Days since 1970-01-01 of a date in the Gregorian calendar; counts in years that begin in March,
/// so that a leap day is a year's last.
fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Milliseconds since 1970 as `2026-01-31T12:00:00.000Z`.
pub fn time_text(ms: i64) -> String {
    let (year, month, day) = date_from_days(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
        of_day % 1_000
    )
}

/// RFC 3339 (`2026-01-31T12:00:00Z`, with a fraction or an offset such as +02:00 where wanted), or a
/// date alone for its first moment in UTC. None where it is neither.
pub fn parse_time(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, time),
        None => (text, "00:00:00Z"),
    };
    let date = numbers(date, '-', &[4, 2, 2])?;
    let (year, month, day) = (date[0], date[1], date[2]);
    let (clock, offset_minutes) = split_offset(time)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let clock = numbers(clock, ':', &[2, 2, 2])?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || fraction.is_empty() {
        return None;
    }
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let fraction_ms: i64 = digits.parse().ok()?;
    let days = days_from_date(year, month, day);
    // A date that does not exist comes back as another one. A leap second counts as the next second.
    if date_from_days(days) != (year, month, day) || clock[0] > 23 || clock[1] > 59 || clock[2] > 60
    {
        return None;
    }
    let minutes = clock[0] * 60 + clock[1] - offset_minutes;
    Some(days * DAY_MS + minutes * 60_000 + clock[2] * 1_000 + fraction_ms)
}

/// The clock and how many minutes it is ahead of UTC.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let at = time.rfind(['+', '-'])?;
    let (clock, offset) = time.split_at(at);
    let parts = numbers(&offset[1..], ':', &[2, 2])?;
    if parts[0] > 23 || parts[1] > 59 {
        return None;
    }
    let minutes = parts[0] * 60 + parts[1];
    Some((
        clock,
        if offset.starts_with('-') {
            -minutes
        } else {
            minutes
        },
    ))
}

type Unit = (&'static str, i64);
const WEEK: Unit = ("w", 7 * DAY_MS);
const DAY: Unit = ("d", DAY_MS);
const HOUR: Unit = ("h", 3_600_000);
const MINUTE: Unit = ("m", 60_000);
const SECOND: Unit = ("s", 1_000);
const MILLISECOND: Unit = ("ms", 1);

/// Milliseconds of a duration: numbers with units as in `90s`, `1h30m`, `7d` or `500ms`, or as ISO 8601 has
/// it (`PT1H30M`, `P7D`). None where it is neither, or too long to count.
pub fn parse_duration(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let Some(iso) = lower.strip_prefix('p') else {
        let units = [WEEK, DAY, HOUR, MINUTE, SECOND, MILLISECOND];
        return measured(&lower, &units).filter(|_| !lower.is_empty());
    };
    // A `T` announces hours, minutes or seconds.
    let (days, clock) = match iso.split_once('t') {
        Some((days, clock)) if !clock.is_empty() => (days, clock),
        None if !iso.is_empty() => (iso, ""),
        Some(_) | None => return None,
    };
    measured(days, &[WEEK, DAY])?.checked_add(measured(clock, &[HOUR, MINUTE, SECOND])?)
}

/// The sum of numbers with units; units come in the order given, each at most once.
fn measured(text: &str, units: &[Unit]) -> Option<i64> {
    let (mut rest, mut units, mut sum) = (text, units, 0i64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let name = &tail[..tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len())];
        let at = units.iter().position(|(unit, _)| *unit == name)?;
        sum = sum.checked_add(number.checked_mul(units[at].1)?)?;
        units = &units[at + 1..];
        rest = &tail[name.len()..];
    }
    Some(sum)
}

/// Numbers of exactly these many digits.
fn numbers(text: &str, separator: char, digits: &[usize]) -> Option<Vec<i64>> {
    let parts: Vec<&str> = text.split(separator).collect();
    let fits = |(part, digits): (&&str, &usize)| {
        part.len() == *digits && part.bytes().all(|b| b.is_ascii_digit())
    };
    if parts.len() != digits.len() || !parts.iter().zip(digits).all(fits) {
        return None;
    }
    parts.iter().map(|part| part.parse().ok()).collect()
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |w, b| (w << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]);
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

/// Columns as wide as their widest cell; numbers and names alike to the left.
pub fn table(
    out: &mut (impl Write + ?Sized),
    head: &[&str],
    rows: Vec<Vec<String>>,
) -> io::Result<()> {
    let width = |i: usize| {
        rows.iter()
            .map(|row| row[i].chars().count())
            .chain([head[i].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, w)| format!("{cell:w$}"))
            .collect();
        writeln!(out, "{}", padded.join("  ").trim_end())
    };
    line(&head.iter().map(|h| h.to_string()).collect::<Vec<_>>())?;
    rows.iter().try_for_each(|row| line(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"a\tb\nc\\t\q\"), "a\tb\nc\\t\\q\\");
    }

    #[test]
    fn times_are_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01", Some(0)),
            ("2000-02-29T12:34:56.789Z", Some(951_827_696_789)),
            ("2026-11-22T19:00:00+02:00", Some(1_795_366_800_000)),
            ("2026-11-22t17:00:00z", Some(1_795_366_800_000)),
            ("1969-12-31T23:59:59.9Z", Some(-100)),
            ("2001-02-29", None),
            ("2001-13-01", None),
            ("2001-01-01T24:00:00Z", None),
            ("2001-01-01T00:00:00", None),
            ("2001-1-1", None),
            ("yesterday", None),
            ("2001-01-01T00:00:00.Z", None),
        ] {
            assert_eq!(parse_time(text), ms, "{text}");
        }
    }

    #[test]
    fn times_print_as_they_are_read() {
        for ms in [
            0,
            -1,
            951_827_696_789,
            1_795_366_800_000,
            4_102_444_800_000,
            -62_135_596_800_000,
        ] {
            assert_eq!(parse_time(&time_text(ms)), Some(ms), "{}", time_text(ms));
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("90s", Some(90_000)),
            ("1h30m", Some(5_400_000)),
            ("7d", Some(604_800_000)),
            ("500ms", Some(500)),
            ("2w1d", Some(1_296_000_000)),
            ("0s", Some(0)),
            ("PT1H30M", Some(5_400_000)),
            ("P7D", Some(604_800_000)),
            ("P1DT2H", Some(93_600_000)),
            ("pt5s", Some(5_000)),
            ("", None),
            ("P", None),
            ("PT", None),
            ("P1DT", None),
            ("P1H", None),
            ("PT1D", None),
            ("90", None),
            ("s", None),
            ("-5s", None),
            ("5s5s", None),
            ("1m1h", None),
            ("1.5h", None),
            ("5 s", None),
            ("1y", None),
            ("9223372036854775807w", None),
            ("9223372036854775807ms", Some(i64::MAX)),
            ("9223372036854775808ms", None),
            ("1s9223372036854775807ms", None),
            ("\u{130}5s", None),
            ("5\u{e4}", None),
        ] {
            assert_eq!(parse_duration(text), ms, "{text}");
        }
    }

    #[test]
    fn base64_pads() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        table(
            &mut out,
            &["A", "LONG"],
            vec![vec!["wide".into(), "1".into()]],
        )
        .unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A     LONG\nwide  1\n");
    }
}
