//! Owns the scenarios that come with the program.
//! Does not know what they say.
//! Invariant: every file of the folder is here, so the program needs none of them where it runs.

use super::{parse, Scenario, FILE_BYTES_MAX};
use crate::error::PerfError;
use std::path::Path;

macro_rules! scenarios {
    ($($name:literal),+ $(,)?) => {
        /// Name and text of each.
        const BUILT_IN: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),+
        ];
    };
}

scenarios!(
    "max-throughput",
    "max-throughput-100b",
    "partitions-1000-keyed",
    "one-record",
    "fixed-20mb",
    "half-of-maximum",
    "tail-1",
    "tail-10",
    "cold-read",
    "backfill-10gib",
    "flush-2ms",
    "flush-5ms",
    "ext4-loop",
    "xfs-loop",
    "retention",
    "lz4",
    "zstd",
    "mostly-idle-1000",
    "soak-70",
);

/// Names of all scenarios that come with the program.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// The scenario of that name, or in the file at that path; and what to call it.
pub fn find(name: &str) -> Result<(String, Scenario), PerfError> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return Ok((name.to_string(), parse(text, name)?));
    }
    let path = Path::new(name);
    let is_path = name.contains('/') || path.extension().is_some_and(|e| e == "toml");
    if !is_path {
        let known: Vec<&str> = names().collect();
        return Err(PerfError::Usage(format!(
            "there is no scenario {name}; there are {}, or name a file as in ./{name}.toml",
            known.join(", ")
        )));
    }
    let what = || format!("cannot read the scenario {name}");
    let size = std::fs::metadata(path)
        .map_err(PerfError::io(what()))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(PerfError::Scenario {
            origin: name.into(),
            why: format!("it has {size} bytes, more than {FILE_BYTES_MAX}"),
        });
    }
    let text = std::fs::read_to_string(path).map_err(PerfError::io(what()))?;
    // What could be read as a file has a name.
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok((stem.into_owned(), parse(&text, name)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::plan::{Rates, TopicNames};

    #[test]
    fn every_file_is_built_in_and_can_be_planned() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let files = std::fs::read_dir(folder).expect("there").map(|entry| {
            let path = entry.expect("readable").path();
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        });
        let mut files: Vec<String> = files.collect();
        let mut known: Vec<String> = names().map(String::from).collect();
        files.sort();
        known.sort();
        assert_eq!(files, known);
        let topics = TopicNames {
            main: "main".into(),
            history: "history".into(),
        };
        for name in names() {
            let (_, scenario) = find(name).expect("sound");
            let rates = Rates::AsMeant {
                maximum_requests: Some(1_000.0),
            };
            let planned = scenario.workload(&topics, rates);
            assert!(planned.is_ok(), "{name}: {planned:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let error = find("max-thruput").expect_err("misspelt").to_string();
        assert!(error.contains("max-throughput"), "{error}");
        let error = find("./no/such.toml").expect_err("missing").to_string();
        assert!(error.contains("./no/such.toml"), "{error}");
    }
}
