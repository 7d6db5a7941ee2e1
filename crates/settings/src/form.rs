//! Form: whether a configuration file is TOML or JSON.
//!
//! Why: Open-Falcon's agents are configured by a cfg.json, and sites bring theirs along. One with a fault in it must be
//! told what is wrong with the JSON.
//! Invariants: no TOML begins with `{`, so a JSON object is known whatever its file is called; a name that ends with
//! `.json` is believed whatever is in the file.

use std::path::Path;

/// Whether a file with this text, called `path` if it has a name, is JSON.
pub fn is_json(path: Option<&Path>, text: &str) -> bool {
    let is_named = path.and_then(Path::extension).is_some_and(|end| end.eq_ignore_ascii_case("json"));
    is_named || without_mark(text).trim_start().starts_with('{')
}

/// The text behind the mark with which editors of Windows begin a file.
pub fn without_mark(text: &str) -> &str {
    text.trim_start_matches('\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_or_a_name_makes_json() {
        let check = |path: &str, text: &str, json: bool| {
            assert_eq!(is_json(Some(Path::new(path)), text), json, "{path} {text:?}");
        };
        check("cfg.json", "a = 1", true);
        check("CFG.JSON", "", true);
        check("agent.toml", "\u{feff}\n  {\"a\": 1", true);
        check("agent.toml", "a = {}", false);
        check("json", "", false);
        assert!(is_json(None, "{") && !is_json(None, "[listen]"));
    }
}
