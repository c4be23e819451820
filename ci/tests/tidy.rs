//! Owns running the rules of this crate over the real tree.
//! Does not know the rules.
//! Invariant: it only reads, and it fails on a tree it cannot read rather than pass over it.

use millrace_ci::{layering, readme, source, style, Finding};
use std::path::{Path, PathBuf};
use std::process::Command;

const CRATE_FOLDERS: &[&str] = &["engine", "net", "bin", "perf", "ci"];

fn root() -> PathBuf {
    let ci = Path::new(env!("CARGO_MANIFEST_DIR"));
    ci.parent().expect("ci lies in the workspace").to_path_buf()
}

fn demand_none(mut findings: Vec<Finding>) {
    findings.sort();
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} findings:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

fn files() -> Vec<source::SourceFile> {
    let files = source::load(&root(), CRATE_FOLDERS).expect("the crates' folders are readable");
    for folder in CRATE_FOLDERS {
        let present = files.iter().any(|f| f.crate_folder() == *folder);
        assert!(present, "no source of `{folder}` was read");
    }
    files
}

#[test]
fn imports_keep_the_layering() {
    demand_none(files().iter().flat_map(layering::check_file).collect());
}

#[test]
fn dependencies_keep_the_layering() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let dependencies = layering::dependencies(&metadata).expect("cargo's format");
    assert!(!dependencies.is_empty(), "cargo reports no dependencies");
    demand_none(layering::check_dependencies(&dependencies));
}

#[test]
fn files_keep_the_style() {
    demand_none(files().iter().flat_map(style::check_file).collect());
}

#[test]
fn the_readme_names_what_is_there() {
    let path = root().join("README.md");
    if !path.exists() {
        return;
    }
    let text = std::fs::read_to_string(path).expect("README.md is text");
    demand_none(readme::check(&text, CRATE_FOLDERS, |path| {
        root().join(path).exists()
    }));
}
