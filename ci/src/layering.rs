//! Owns the rules of which crate may import what of which other crate.
//! Does not know how files are found or how cargo is asked; it gets both as values.
//! Invariant: what a rule does not name is forbidden, so a new crate or module starts without permissions.

use crate::source::SourceFile;
use crate::Finding;

/// Of the workspace's crates, in code: who may name whom, and which modules of it (`None`: all).
struct Permission {
    importer: &'static str,
    imported: &'static str,
    modules: Option<&'static [&'static str]>,
}

const fn allow(
    importer: &'static str,
    imported: &'static str,
    modules: Option<&'static [&'static str]>,
) -> Permission {
    Permission {
        importer,
        imported,
        modules,
    }
}

const PERMISSIONS: &[Permission] = &[
    allow("net", "millrace_engine", Some(&["api", "rt", "types"])),
    allow("perf", "millrace_net", Some(&["wire"])),
    allow("perf", "millrace_engine", Some(&["types"])),
    allow("bin", "millrace_engine", None),
    allow("bin", "millrace_net", None),
    allow("bin", "millrace_perf", None),
    allow("ci", "millrace_engine", None),
    allow("ci", "millrace_net", None),
    allow("ci", "millrace_perf", None),
    allow("ci", "millrace", None),
    // A package's own tests and binaries name its library.
    allow("bin", "millrace", None),
    allow("engine", "millrace_engine", None),
    allow("net", "millrace_net", None),
    allow("perf", "millrace_perf", None),
    allow("ci", "millrace_ci", None),
];

const CRATES: &[&str] = &[
    "millrace_engine",
    "millrace_net",
    "millrace_perf",
    "millrace_ci",
    "millrace",
];

/// The only place that may name the runtime.
const RUNTIME_FOLDER: &str = "engine/src/rt/";

/// Checks the imports in the code of one file.
pub fn check_file(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in CRATES {
        for at in file.idents(name) {
            if is_crate_path(&file.code, at, name) {
                check_import(file, name, at, &mut findings);
            }
        }
    }
    if !file.path.starts_with(RUNTIME_FOLDER) && file.path != "engine/src/rt.rs" {
        for at in file.idents("glommio") {
            // `rt::glommio` is our own module; what is named there is behind the seam.
            let before = file.code[..at].trim_end();
            if !before.ends_with("rt::") {
                let what = format!("names glommio outside {RUNTIME_FOLDER}");
                findings.push(Finding::new(place(file, at), what));
            }
        }
    }
    for at in file.idents("kafka_protocol") {
        if !file.is_test_at(at) {
            let what =
                "names kafka_protocol outside a test: it is an oracle, unfit for input from peers";
            findings.push(Finding::new(place(file, at), what));
        }
    }
    findings
}

/// `millrace` is also an ordinary word for a variable or a field; it is the crate only in a path or an import.
fn is_crate_path(code: &str, at: usize, name: &str) -> bool {
    let before = code[..at].trim_end();
    let after = code[at + name.len()..].trim_start();
    !before.ends_with('.')
        && !before.ends_with("::")
        && (after.starts_with("::") || before.ends_with("use") || before.ends_with("crate"))
}

fn check_import(file: &SourceFile, name: &str, at: usize, findings: &mut Vec<Finding>) {
    let importer = file.crate_folder();
    let permission = PERMISSIONS
        .iter()
        .find(|p| p.importer == importer && p.imported == name);
    let Some(permission) = permission else {
        let what = format!("`{importer}` may not import `{name}`");
        findings.push(Finding::new(place(file, at), what));
        return;
    };
    let Some(modules) = permission.modules else {
        return;
    };
    for module in modules_named(&file.code[at + name.len()..]) {
        if !modules.contains(&module.as_str()) {
            let listed = modules.join("`, `");
            let what = format!("`{importer}` may use only `{listed}` of `{name}`, not `{module}`");
            findings.push(Finding::new(place(file, at), what));
        }
    }
}

/// The first segments of a path or import after the crate's name: `::a::B` gives `a`; `::{a::B, c}` gives `a`, `c`.
/// A bare or renamed crate gives `self`, which no list holds.
fn modules_named(rest: &str) -> Vec<String> {
    let Some(path) = rest.trim_start().strip_prefix("::") else {
        return vec!["self".to_string()];
    };
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        return vec![first_segment(path)];
    };
    let mut depth = 1;
    let mut names = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(String::new()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if !(c == ',' && depth == 1) {
            names.last_mut().expect("starts with one").push(c);
        }
    }
    names.retain(|n| !n.trim().is_empty());
    names.iter().map(|n| first_segment(n.trim())).collect()
}

fn first_segment(path: &str) -> String {
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    match &path[..end.unwrap_or(path.len())] {
        "" => path.chars().take(1).collect(),
        name => name.to_string(),
    }
}

fn place(file: &SourceFile, at: usize) -> String {
    format!("{}:{}", file.path, file.line_of(at))
}

/// One dependency as cargo reports it: package, what it depends on, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    pub package: String,
    pub on: String,
    pub dev: bool,
}

/// Reads the output of `cargo metadata --no-deps`.
///
/// # Errors
/// Where the JSON lacks what cargo documents.
pub fn dependencies(metadata: &serde_json::Value) -> Result<Vec<Dependency>, String> {
    let text = |value: &serde_json::Value, key: &str| {
        let found = value[key].as_str().map(str::to_string);
        found.ok_or_else(|| format!("cargo metadata has no `{key}` in {value}"))
    };
    let list = |value: &serde_json::Value, key: &str| {
        let found = value[key].as_array().cloned();
        found.ok_or_else(|| format!("cargo metadata has no list `{key}`"))
    };
    let mut found = Vec::new();
    for package in list(metadata, "packages")? {
        for dependency in list(&package, "dependencies")? {
            found.push(Dependency {
                package: text(&package, "name")?,
                on: text(&dependency, "name")?,
                dev: dependency["kind"].as_str() == Some("dev"),
            });
        }
    }
    Ok(found)
}

/// Checks what the packages depend on, which code alone can hide (renamed dependencies, re-exports).
pub fn check_dependencies(all: &[Dependency]) -> Vec<Finding> {
    let folder_of = |package: &str| match package {
        "millrace" => "bin".to_string(),
        other => other.trim_start_matches("millrace-").to_string(),
    };
    let mut findings = Vec::new();
    for d in all {
        let folder = folder_of(&d.package);
        let place = format!("{folder}/Cargo.toml");
        let imported = d.on.replace('-', "_");
        if CRATES.contains(&imported.as_str()) {
            let allowed = PERMISSIONS
                .iter()
                .any(|p| p.importer == folder && p.imported == imported);
            if !allowed {
                findings.push(Finding::new(place, format!("may not depend on `{}`", d.on)));
            }
        } else if d.on == "glommio" && folder != "engine" {
            findings.push(Finding::new(place, "only `engine` may depend on glommio"));
        } else if d.on == "kafka-protocol" && !d.dev {
            findings.push(Finding::new(
                place,
                "kafka-protocol is for dev-dependencies",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of `text` in a file at `path` breaks a rule, as a count.
    fn check(path: &str, text: &str, expected: usize) {
        let found = check_file(&SourceFile::new(path, text));
        assert_eq!(found.len(), expected, "{path}: {text}\n{found:?}");
    }

    #[test]
    fn engine_imports_no_other_crate() {
        check("engine/src/a.rs", "use millrace_net::wire;", 1);
        check("engine/src/a.rs", "let x = millrace_perf::run();", 1);
        check("engine/src/a.rs", "// millrace_net::wire", 0);
        check("engine/tests/a.rs", "use millrace_engine::types;", 0);
    }

    #[test]
    fn net_sees_three_modules_of_engine() {
        check("net/src/a.rs", "use millrace_engine::api::Engine;", 0);
        check(
            "net/src/a.rs",
            "use millrace_engine::{api::{A, B}, rt, types::C};",
            0,
        );
        check("net/src/a.rs", "use millrace_engine::log::Log;", 1);
        check(
            "net/src/a.rs",
            "use millrace_engine::{api, log::{A, B}, journal};",
            2,
        );
        check("net/src/a.rs", "use millrace_engine as e;", 1);
        check("net/src/a.rs", "use millrace_engine::*;", 1);
        check(
            "net/src/a.rs",
            "fn f(x: millrace_engine::shard::Shard) {}",
            1,
        );
    }

    #[test]
    fn perf_sees_the_wire_and_types() {
        check("perf/src/a.rs", "use millrace_net::wire::frame;", 0);
        check("perf/src/a.rs", "use millrace_engine::types::Offset;", 0);
        check("perf/src/a.rs", "use millrace_net::handlers;", 1);
        check("perf/src/a.rs", "use millrace_engine::api;", 1);
    }

    #[test]
    fn nothing_imports_bin_or_ci() {
        check("perf/src/a.rs", "use millrace::config;", 1);
        check("bin/src/a.rs", "use millrace_ci::Finding;", 1);
        check(
            "bin/src/a.rs",
            "let millrace = start(); millrace.stop();",
            0,
        );
    }

    #[test]
    fn the_runtime_is_named_behind_its_seam_only() {
        check("engine/src/rt/glommio.rs", "use glommio::io::DmaFile;", 0);
        check("engine/src/journal/a.rs", "use glommio::io::DmaFile;", 1);
        check("bin/src/a.rs", "use millrace_engine::rt::glommio::run;", 0);
        check("net/src/a.rs", "glommio::spawn_local(x)", 1);
    }

    #[test]
    fn the_oracle_is_for_tests_only() {
        check("net/src/a.rs", "use kafka_protocol::messages::ApiKey;", 1);
        check("net/tests/a.rs", "use kafka_protocol::messages::ApiKey;", 0);
        check(
            "net/src/a.rs",
            "#[cfg(test)]\nmod tests { use kafka_protocol::messages; }",
            0,
        );
    }

    #[test]
    fn dependencies_follow_the_same_rules() {
        let metadata = serde_json::json!({"packages": [
            {"name": "millrace-engine", "dependencies": [{"name": "millrace-net", "kind": "dev"}, {"name": "glommio", "kind": null}]},
            {"name": "millrace-net", "dependencies": [{"name": "millrace-engine", "kind": null}, {"name": "kafka-protocol", "kind": null},
                {"name": "glommio", "kind": null}]},
            {"name": "millrace", "dependencies": [{"name": "millrace-net", "kind": null}, {"name": "millrace-ci", "kind": "dev"},
                {"name": "kafka-protocol", "kind": "dev"}]},
        ]});
        let found = check_dependencies(&dependencies(&metadata).unwrap());
        let places: Vec<&str> = found.iter().map(|f| f.place.as_str()).collect();
        let expected = [
            "engine/Cargo.toml",
            "net/Cargo.toml",
            "net/Cargo.toml",
            "bin/Cargo.toml",
        ];
        assert_eq!(places, expected, "{found:?}");
    }

    #[test]
    fn metadata_of_another_shape_is_an_error() {
        assert!(dependencies(&serde_json::json!({"packages": [{"name": "x"}]})).is_err());
    }
}
