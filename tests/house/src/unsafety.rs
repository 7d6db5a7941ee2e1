//! Unsafety: `unsafe` stands only in the cores, in `watch/` and in `nvml.rs`, and a SAFETY comment stands above each
//! block.
//!
//! Why: docs/architecture.md promises it, and a promise in prose is broken by the next change.
//! How: tokens instead of lines, so the word in comments and texts does not count; tests and benchmarks may use it.

use proc_macro2::{TokenStream, TokenTree};

/// The cores, in whose sources `unsafe` may stand, as CONTRIBUTING.md and docs/architecture.md list them.
const CORES: [&str; 7] = ["stdx", "model", "wire", "store", "events", "spool", "judge"];

/// The one room of the server in which `unsafe` may stand.
const WATCH: &str = "crates/hawkeye/src/watch/";

/// The one file of the agent: functions of a library that is loaded at run time.
const NVML: &str = "crates/agent/src/collect/nvml.rs";

/// True for a source in which `unsafe` may stand.
fn may_hold(path: &str) -> bool {
    path == NVML || path.starts_with(WATCH) || CORES.iter().any(|core| path.starts_with(&format!("crates/{core}/src/")))
}

/// Lines (from 1) of the word `unsafe` in a Rust source, but for those in attributes.
fn lines(source: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let tokens: TokenStream = source.parse().unwrap_or_else(|error| panic!("not Rust: {error}"));
    collect(tokens, &mut found);
    found
}

fn collect(tokens: TokenStream, found: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect(group.stream(), found),
            TokenTree::Ident(word) if word == "unsafe" => found.push(word.span().start().line),
            _ => {}
        }
    }
}

/// Whether the comment above a line (attributes and the rest of a statement between them allowed) says why it is sound.
fn is_explained(source: &str, line: usize) -> bool {
    const LOOK_BACK: usize = 8;
    let above: Vec<&str> = source.lines().take(line).collect();
    above.iter().rev().take(LOOK_BACK).any(|text| text.contains("SAFETY:") || text.contains("# Safety"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository;

    #[test]
    fn the_word_counts_in_code_only() {
        assert_eq!(lines("// unsafe\nfn a() { let text = \"unsafe\"; }"), [0; 0]);
        assert_eq!(lines("fn a() {\n    unsafe { b() }\n}"), [2]);
        assert!(is_explained("// SAFETY: it is\nunsafe { b() }", 2));
        assert!(!is_explained("fn a() {}\nunsafe { b() }", 2));
    }

    #[test]
    fn documents_list_the_same_cores() {
        let list = CORES.map(|core| format!("`{core}`")).join(", ");
        for document in ["CONTRIBUTING.md", "docs/architecture.md"] {
            assert!(repository::read(document).contains(&list), "{document} does not list the cores as {list}");
        }
    }

    #[test]
    fn unsafe_of_this_repository_has_its_rooms_and_reasons() {
        let sources = repository::files();
        let is_source = |path: &&String| path.starts_with("crates/") && path.contains("/src/") && path.ends_with(".rs");
        let mut complaints = Vec::new();
        let mut seen = 0;
        for path in sources.iter().filter(is_source) {
            let text = repository::read(path);
            for line in lines(&text) {
                seen += 1;
                if !may_hold(path) {
                    complaints.push(format!("{path}:{line}: unsafe outside of the cores, watch/ and nvml.rs"));
                } else if !is_explained(&text, line) {
                    complaints.push(format!("{path}:{line}: say above, after SAFETY:, why this is sound"));
                }
            }
        }
        assert!(seen > 0, "no unsafe was found, where there is some");
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}
