//! Owns the rules of form that rustfmt and clippy do not have: headers, sizes, stubs, ignored tests.
//! Does not know what a file is about.
//! Invariant: each rule is about one file by itself.

use crate::source::SourceFile;
use crate::Finding;

/// Lines of a file, its tests not counted. Past this it is two files.
pub const FILE_LINES_MAX: usize = 800;

/// Checks the form of one file.
pub fn check_file(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !file.text.starts_with("//!") {
        let what = "does not open with `//!`: what it owns, what it does not know, its invariant";
        findings.push(Finding::new(format!("{}:1", file.path), what));
    }
    let lines = file.lines_without_tests();
    if lines > FILE_LINES_MAX {
        let what = format!("has {lines} lines without its tests; split it by {FILE_LINES_MAX}");
        findings.push(Finding::new(file.path.clone(), what));
    }
    for name in ["todo", "unimplemented"] {
        for at in file.idents(name) {
            if file.code[at + name.len()..].starts_with('!') {
                findings.push(at_line(file, at, &format!("`{name}!` is a stub")));
            }
        }
    }
    for at in file.idents("ignore") {
        // Reasons are strings, which the code does not show, so look at what follows in it: `]` or `=`.
        let attribute = file.code[..at].trim_end().ends_with("#[");
        if attribute
            && file.code[at + "ignore".len()..]
                .trim_start()
                .starts_with(']')
        {
            findings.push(at_line(file, at, "`#[ignore]` gives no reason"));
        }
    }
    findings
}

fn at_line(file: &SourceFile, at: usize, what: &str) -> Finding {
    Finding::new(format!("{}:{}", file.path, file.line_of(at)), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let found = check_file(&SourceFile::new("net/src/a.rs", text));
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (finding, part) in found.iter().zip(expected) {
            assert!(finding.what.contains(part), "{finding}");
        }
    }

    #[test]
    fn a_file_opens_with_its_header() {
        check("//! Owns a.\nfn a() {}\n", &[]);
        check("// Owns a.\nfn a() {}\n", &["does not open"]);
        check("", &["does not open"]);
    }

    #[test]
    fn long_files_are_split_and_tests_do_not_count() {
        let body = "fn a() {}\n".repeat(FILE_LINES_MAX);
        check(&format!("//! Owns a.\n{body}"), &["801 lines"]);
        let tests = format!("//! Owns a.\n#[cfg(test)]\nmod tests {{\n{body}}}\n");
        check(&tests, &[]);
    }

    #[test]
    fn stubs_are_found_outside_of_text() {
        check("//! Owns a.\nfn a() { todo!() }\n", &["todo"]);
        check(
            "//! Owns a.\nfn a() { unimplemented!(\"x\") }\n",
            &["unimplemented"],
        );
        check(
            "//! Owns a.\n// todo!()\nfn todo() { print(\"todo!()\") }\n",
            &[],
        );
    }

    #[test]
    fn ignored_tests_give_a_reason() {
        check("//! Owns a.\n#[ignore]\nfn a() {}\n", &["no reason"]);
        check(
            "//! Owns a.\n#[ignore = \"needs a disk\"]\nfn a() {}\n",
            &[],
        );
    }
}
