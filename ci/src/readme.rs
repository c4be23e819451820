//! Owns the check of the README's architecture map against the tree.
//! Does not know what the README should say, only that the paths it names are there and no crate is forgotten.
//! Invariant: a path is whatever starts with a crate's folder, inline or as the first word of a line in a code block.

use crate::Finding;

/// Checks `text` of the README; `exists` answers for a path relative to the root.
pub fn check(text: &str, crate_folders: &[&str], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let named = paths_named(text, crate_folders);
    let mut findings = Vec::new();
    for (line, path) in &named {
        if !exists(path) {
            let what = format!("names `{path}`, which is not there");
            findings.push(Finding::new(format!("README.md:{line}"), what));
        }
    }
    for folder in crate_folders {
        let is_of = |path: &str| path.split('/').next() == Some(folder);
        if !named.iter().any(|(_, path)| is_of(path)) {
            findings.push(Finding::new(
                "README.md",
                format!("its map lacks `{folder}`"),
            ));
        }
    }
    findings
}

/// Line number and path, without a trailing `/`.
fn paths_named(text: &str, crate_folders: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_block = false;
    // Folders that the lines of a tree in a code block are nested in, with their indentation.
    let mut parents: Vec<(usize, String)> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            parents.clear();
            continue;
        }
        if !in_block {
            let inline = line.split('`').skip(1).step_by(2);
            let paths = inline.filter(|token| is_path(token, crate_folders));
            found.extend(paths.map(|p| (n + 1, p.trim_end_matches('/').to_string())));
            continue;
        }
        let Some(word) = line.split_whitespace().next() else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        while parents.last().is_some_and(|(i, _)| *i >= indent) {
            parents.pop();
        }
        let full = match parents.last() {
            Some((_, parent)) if word.ends_with('/') || word.ends_with(".rs") => {
                format!("{parent}/{word}")
            }
            None if is_path(word, crate_folders) => word.to_string(),
            _ => continue,
        };
        let full = full.trim_end_matches('/').to_string();
        parents.push((indent, full.clone()));
        found.push((n + 1, full));
    }
    found
}

fn is_path(token: &str, crate_folders: &[&str]) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let first = token.split('/').next().unwrap_or("");
    crate_folders.contains(&first) && token.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDERS: &[&str] = &["engine", "net"];

    fn missing(text: &str, there: &[&str]) -> Vec<String> {
        let found = check(text, FOLDERS, |path| there.contains(&path));
        found.into_iter().map(|f| f.to_string()).collect()
    }

    #[test]
    fn trees_and_inline_paths_are_followed() {
        let text = "See `net/src/wire` and `net::wire`, `cargo run`.\n```\nengine/src/\n  rt/   the seam\n    sim.rs\n\
                    \x20 api.rs  the face\nnet       words\n```\n";
        let there = [
            "net/src/wire",
            "engine/src",
            "engine/src/rt",
            "engine/src/rt/sim.rs",
            "engine/src/api.rs",
            "net",
        ];
        assert_eq!(missing(text, &there), Vec::<String>::new());
        let found = missing(text, &there[..3]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("README.md:5") && found[0].contains("engine/src/rt/sim.rs"));
    }

    #[test]
    fn a_forgotten_crate_is_found() {
        let found = missing("`net/`\n", &["net"]);
        assert_eq!(found, ["README.md: its map lacks `engine`"]);
    }
}
