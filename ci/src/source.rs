//! Owns a view of one Rust file for the rules: its code without comments and literals, and which lines are tests.
//! Does not know any rule, and is no parser: it tells tokens apart just well enough to search for names.
//! Invariant: blanking keeps every byte position and line number, so findings point at the real text.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One `.rs` file of the workspace.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Relative to the repository's root, with `/`.
    pub path: String,
    pub text: String,
    /// `text` with comments, strings and character literals blanked out.
    pub code: String,
    /// Only compiled for tests: under a `tests/` folder, or declared by `#[cfg(test)] mod name;`.
    pub test_only: bool,
    /// Byte ranges of `#[cfg(test)]` items in `code`.
    test_ranges: Vec<(usize, usize)>,
}

impl SourceFile {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let code = blank(&text);
        let test_ranges = find_test_ranges(&code);
        let test_only = path.split('/').any(|part| part == "tests");
        SourceFile {
            path,
            text,
            code,
            test_only,
            test_ranges,
        }
    }

    /// The folder directly under the root, which is the crate: `engine`, `net`, ...
    pub fn crate_folder(&self) -> &str {
        self.path.split('/').next().unwrap_or("")
    }

    pub fn line_of(&self, at: usize) -> usize {
        1 + self.code[..at].bytes().filter(|&b| b == b'\n').count()
    }

    pub fn is_test_at(&self, at: usize) -> bool {
        self.test_only || self.test_ranges.iter().any(|&(a, b)| a <= at && at < b)
    }

    /// Lines that are not tests.
    pub fn lines_without_tests(&self) -> usize {
        if self.test_only {
            return 0;
        }
        let tests: usize = self
            .test_ranges
            .iter()
            .map(|&(a, b)| self.line_of(b) - self.line_of(a) + 1)
            .sum();
        self.text.lines().count().saturating_sub(tests)
    }

    /// Positions where `name` stands as a whole identifier in the code.
    pub fn idents(&self, name: &str) -> Vec<usize> {
        find_idents(&self.code, name)
    }

    /// Files that this one declares by `#[cfg(test)] mod name;`, as path prefixes without the extension.
    fn test_module_prefixes(&self) -> Vec<String> {
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = file.trim_end_matches(".rs");
        let base = match stem {
            "lib" | "main" | "mod" => folder.to_string(),
            _ => format!("{folder}/{stem}"),
        };
        let declared = |&(a, b): &(usize, usize)| {
            let item = self.code[a..b].trim_end();
            let name = item.strip_suffix(';')?.rsplit("mod ").next()?.trim();
            name.chars()
                .all(|c| c.is_alphanumeric() || c == '_')
                .then(|| format!("{base}/{name}"))
        };
        self.test_ranges.iter().filter_map(declared).collect()
    }
}

/// All `.rs` files of the workspace's crates under `root`.
pub fn load(root: &Path, crate_folders: &[&str]) -> io::Result<Vec<SourceFile>> {
    let mut paths = Vec::new();
    for folder in crate_folders {
        collect(&root.join(folder), &mut paths)?;
    }
    paths.sort();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let relative = path.strip_prefix(root).expect("collected under the root");
        let name = relative.to_string_lossy().replace('\\', "/");
        files.push(SourceFile::new(name, fs::read_to_string(&path)?));
    }
    mark_test_modules(&mut files);
    Ok(files)
}

/// Marks files declared by `#[cfg(test)] mod name;` in another one, and what lies below them.
pub fn mark_test_modules(files: &mut [SourceFile]) {
    let prefixes: BTreeSet<String> = files
        .iter()
        .flat_map(SourceFile::test_module_prefixes)
        .collect();
    for file in files {
        let of_tests = |prefix: &String| {
            file.path == format!("{prefix}.rs") || file.path.starts_with(&format!("{prefix}/"))
        };
        file.test_only |= prefixes.iter().any(of_tests);
    }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && entry.file_name() != "target" {
            collect(&path, into)?;
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

pub(crate) fn find_idents(code: &str, name: &str) -> Vec<usize> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = code.as_bytes();
    code.match_indices(name)
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || !word(bytes[at - 1]))
        .filter(|&at| bytes.get(at + name.len()).is_none_or(|&b| !word(b)))
        .collect()
}

/// Blanks comments, strings and character literals; keeps newlines and the length in bytes.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => end_of_line(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => end_of_block_comment(bytes, at),
            b'"' => end_of_string(bytes, at),
            b'r' | b'b' | b'c' if !follows_word(bytes, at) => {
                end_of_prefixed(bytes, at).unwrap_or(at)
            }
            b'\'' => end_of_char(bytes, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole literals were blanked, so no character was cut")
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    let rest = bytes[at..].iter().position(|&b| b == b'\n');
    rest.map_or(bytes.len(), |n| at + n)
}

fn end_of_block_comment(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        match &bytes[at..(at + 2).min(bytes.len())] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn end_of_string(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Raw, byte and C strings and byte characters: `r#".."#`, `b".."`, `br".."`, `b'x'`.
fn end_of_prefixed(bytes: &[u8], at: usize) -> Option<usize> {
    let mut from = at;
    while from < bytes.len() && from < at + 2 && matches!(bytes[from], b'r' | b'b' | b'c') {
        from += 1;
    }
    let raw = bytes[at..from].contains(&b'r');
    let hashes = bytes[from..].iter().take_while(|&&b| b == b'#').count();
    match bytes.get(from + hashes)? {
        b'"' if raw => {
            let close = format!("\"{}", "#".repeat(hashes));
            let rest = &bytes[from + hashes + 1..];
            let found = rest
                .windows(close.len())
                .position(|w| w == close.as_bytes());
            Some(found.map_or(bytes.len(), |n| from + hashes + 1 + n + close.len()))
        }
        b'"' if hashes == 0 => Some(end_of_string(bytes, from)),
        b'\'' if hashes == 0 && bytes[at] == b'b' => end_of_char(bytes, from),
        _ => None,
    }
}

/// A character literal; `None` for a lifetime.
fn end_of_char(bytes: &[u8], quote: usize) -> Option<usize> {
    if bytes.get(quote + 1) == Some(&b'\\') {
        let rest = bytes[quote + 3..].iter().position(|&b| b == b'\'')?;
        return Some(quote + 3 + rest + 1);
    }
    // One character is at most four bytes of UTF-8; a quote right after it closes the literal.
    let text = std::str::from_utf8(&bytes[quote + 1..]).ok()?;
    let len = text.chars().next()?.len_utf8();
    (bytes.get(quote + 1 + len) == Some(&b'\'')).then_some(quote + len + 2)
}

/// `#[cfg(test)]` (alone or inside `all`/`any`) up to the end of the item that it stands before.
fn find_test_ranges(code: &str) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let Some(close) = code[start..].find(']').map(|n| start + n) else {
            continue;
        };
        let condition = &code[start..close];
        if find_idents(condition, "test").is_empty() || condition.contains("not(") {
            continue;
        }
        if ranges.last().is_some_and(|&(_, end)| start < end) {
            continue;
        }
        ranges.push((start, end_of_item(code, close + 1)));
    }
    ranges
}

fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (n, byte) in code[from..].bytes().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && byte == b'}' {
                    return from + n + 1;
                }
            }
            b';' if depth == 0 => return from + n + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_comments_and_literals_but_not_lifetimes() {
        let file = SourceFile::new(
            "engine/src/a.rs",
            "// glommio\nlet s = \"glommio \\\" glommio\"; /* glommio /* x */ glommio */\n\
             let r = r#\"glommio \" glommio\"#; let c = '\"'; fn f<'a>(x: &'a u8) { glommio::x(b'\\'', b\"glommio\") }",
        );
        let found = file.idents("glommio");
        assert_eq!(found.len(), 1, "{}", file.code);
        assert_eq!(file.line_of(found[0]), 3);
        assert_eq!(file.code.len(), file.text.len());
    }

    #[test]
    fn an_identifier_is_whole() {
        assert_eq!(find_idents("my_glommio glommios glommio", "glommio"), [20]);
    }

    #[test]
    fn test_modules_are_told_apart() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { c() }\n}\nfn d() {}\n";
        let file = SourceFile::new("net/src/a.rs", text);
        assert!(file.is_test_at(file.idents("c")[0]));
        assert!(!file.is_test_at(file.idents("d")[0]));
        assert_eq!(file.lines_without_tests(), 2);
    }

    #[test]
    fn cfg_not_test_is_no_test() {
        let file = SourceFile::new("net/src/a.rs", "#[cfg(not(test))]\nmod real { fn c() {} }");
        assert!(!file.is_test_at(file.idents("c")[0]));
    }

    #[test]
    fn a_test_module_in_its_own_file_is_a_test() {
        let mut files = vec![
            SourceFile::new(
                "net/src/wire/mod.rs",
                "#[cfg(test)]\nmod oracle;\nmod frame;",
            ),
            SourceFile::new("net/src/wire/oracle.rs", "fn a() {}"),
            SourceFile::new("net/src/wire/oracle/deep.rs", "fn a() {}"),
            SourceFile::new("net/src/wire/frame.rs", "#[cfg(test)]\nmod cases;"),
            SourceFile::new("net/src/wire/frame/cases.rs", "fn a() {}"),
        ];
        mark_test_modules(&mut files);
        let tests: Vec<bool> = files.iter().map(|f| f.test_only).collect();
        assert_eq!(tests, [false, true, true, false, true]);
    }
}
