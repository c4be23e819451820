//! Owns reading the values of flags.
//! Does not know which flag it reads.
//! Invariant: what is refused is refused with what would be taken.

use std::time::Duration;

pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number of at least 1".into()),
        Ok(number) => Ok(number),
    }
}

/// A day is more than any run needs, and keeps all sums of times small.
const SECONDS_MAX: f64 = 86_400.0;

pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!(
            "must be a number of seconds from 0 to {SECONDS_MAX}"
        )),
    }
}

pub fn some_seconds(text: &str) -> Result<f64, String> {
    seconds(text).and_then(|seconds| {
        if seconds > 0.0 {
            Ok(seconds)
        } else {
            Err("must be above 0".into())
        }
    })
}

pub fn acks(text: &str) -> Result<i16, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        "all" | "-1" => Ok(-1),
        _ => Err("must be 0, 1 or all".into()),
    }
}

pub fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_string(), value.to_string()))
}

pub fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
