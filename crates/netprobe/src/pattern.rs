//! Pattern: regular expressions of definitions.
//!
//! Why this library: it has no automaton that grows while it matches. A thousand patterns of the usual one would hold
//! megabytes of caches, and its tables are ten times the code; what is matched here are some kilobytes a minute. The
//! time of a match is at most pattern times text.
//! Invariants: a pattern is compiled for each run and kept by nobody. Bytes that are no UTF-8 count as U+FFFD.

use regex_lite::{Regex, RegexBuilder};

/// Bytes of a pattern.
const BYTES_MAX: usize = 1024;
/// Bytes of a compiled pattern: a hundred times what a page's words need, and `(a{1000}){1000}` has none.
const COMPILED_MAX: usize = 256 << 10;

/// Compiles a pattern; an error says what to give.
pub(crate) fn compile(text: &str) -> Result<Regex, String> {
    if text.is_empty() || text.len() > BYTES_MAX {
        return Err(format!("a pattern of {} bytes: give 1 to {BYTES_MAX}", text.len()));
    }
    let compiled = RegexBuilder::new(text).size_limit(COMPILED_MAX).build();
    compiled
        .map_err(|error| format!("{:?} is no pattern ({error}): give a regular expression", crate::fault::short(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_bounds() {
        assert!(compile("^220 .*ready$").is_ok_and(|pattern| pattern.is_match("220 mx1 ready")));
        assert!(compile("正常").is_ok_and(|pattern| pattern.is_match("状态：正常")));
        for text in ["", "(", "((((a{100}){100}){100}){100})", &"a".repeat(2000)] {
            assert!(compile(text).is_err_and(|error| error.contains("give")), "{text}");
        }
    }
}
