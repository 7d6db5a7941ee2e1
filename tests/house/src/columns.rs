//! Columns: a comment ends at column 120, where rustfmt ends the code.
//!
//! Why: rustfmt leaves comments alone, and a line that runs off the window is not read.
//! How: by lines, in Rust, Python and shell. What stands in a string is not measured: a recorded answer may be long.

use crate::repository;

/// Last column that a comment may use, in characters; `max_width` of rustfmt.toml.
const LAST: usize = 120;

/// How a language marks comments.
#[derive(Clone, Copy)]
struct Marks {
    line: &'static str,
    /// Quotes around the texts that document a Python function.
    block: Option<&'static str>,
}

/// Marks of a file, by its name; scripts without an ending are told by their first line.
fn marks(path: &str, text: &str) -> Option<Marks> {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("rs") => Some(Marks { line: "//", block: None }),
        Some("py") => Some(Marks { line: "#", block: Some("\"\"\"") }),
        Some("sh") => Some(Marks { line: "#", block: None }),
        _ => text.starts_with("#!").then_some(Marks { line: "#", block: None }),
    }
}

/// Numbers of the lines whose comment is too long, with their widths.
fn too_long(text: &str, marks: Marks) -> Vec<(usize, usize)> {
    let mut in_block = false;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let quotes = marks.block.map_or(0, |quote| line.matches(quote).count());
        let begins_block = marks.block.is_some_and(|quote| line.trim_start().starts_with(quote));
        let width = line.chars().count();
        if width > LAST && (in_block || begins_block || has_comment(line, marks.line)) {
            found.push((at + 1, width));
        }
        in_block ^= quotes % 2 == 1 && (in_block || begins_block);
    }
    found
}

/// True where a comment stands alone on its line, or behind code and no quote follows that could make it a text.
fn has_comment(line: &str, mark: &str) -> bool {
    let behind_code =
        || line.rsplit_once(&format!(" {mark} ")).is_some_and(|(_, comment)| !comment.contains(['"', '\'']));
    line.trim_start().starts_with(mark) || behind_code()
}

#[cfg(test)]
mod tests {
    use super::{marks, repository, too_long};

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let marks = marks(path, text).expect("the language is known");
        too_long(text, marks).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn long_comments_are_found_and_long_texts_are_not() {
        let long = "x".repeat(115);
        assert_eq!(lines("a.rs", &format!("/// {long}\n//! {long}y\n    // {long}")), [3]);
        assert_eq!(lines("a.rs", &format!("let a = 1; // {long}\nlet a = \"http://{long} // {long}\";")), [1]);
        assert_eq!(
            lines(
                "a.py",
                &format!("def a():\n    \"\"\"{long}\n\n    {long}y{long}\n    \"\"\"\n    b = \"{long}{long}\"")
            ),
            [2, 4]
        );
        assert_eq!(lines("a.sh", &format!("# {long}{long}\necho {long}{long}\necho # {long}")), [1, 3]);
        assert_eq!(lines("run", &format!("#!/bin/sh\n# {long}{long}")), [2]);
        assert!(marks("a.json", "{}").is_none());
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert_eq!(lines("a.rs", &format!("// {}", "é".repeat(117))), [0; 0]);
        assert_eq!(lines("a.rs", &format!("// {}", "é".repeat(118))), [1]);
    }

    #[test]
    fn comments_of_this_repository_end_at_column_120() {
        let mut found = Vec::new();
        for path in repository::files().iter().filter(|path| !path.contains("testdata/") && is_text(path)) {
            let text = repository::read(path);
            let Some(marks) = marks(path, &text) else { continue };
            found.extend(too_long(&text, marks).iter().map(|(line, width)| format!("{path}:{line}: {width} columns")));
        }
        assert!(found.is_empty(), "{} comments beyond column 120: break them\n{}", found.len(), found.join("\n"));
    }

    /// True for Rust and scripts, by their ending or, without one, by how they begin.
    fn is_text(path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        match name.rsplit_once('.') {
            Some((_, ending)) => matches!(ending, "rs" | "py" | "sh"),
            None => std::fs::read(repository::root().join(path)).is_ok_and(|bytes| bytes.starts_with(b"#!")),
        }
    }
}
