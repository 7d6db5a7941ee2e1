//! Pattern: a text with `*` and `?` in an expression's tag `endpoint`, such as `web-*`.
//!
//! Why: "all web servers, also tomorrow's" is asked for often, and the original takes the text literally, so that it
//! never fires.
//! How: `*` stands for any text, `?` for one character; after a mismatch only the last `*` takes one character more, so
//! the time is at most the product of the two lengths. A series is compared when it is bound to rules, never when it
//! has a point.
//! Invariants: nothing is allocated; no pattern panics.

/// Whether a text has a `*` or a `?`.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Whether `text` as a whole is one that `pattern` stands for.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // What stands behind the last `*`, and where in the text it was tried last.
    let mut retry: Option<(&str, &str)> = None;
    loop {
        let (mut wanted, mut got) = (pattern.chars(), text.chars());
        match (wanted.next(), got.next()) {
            (Some('*'), _) => {
                pattern = wanted.as_str();
                retry = Some((pattern, text));
            }
            (None, None) => return true,
            (Some(one), Some(other)) if one == '?' || one == other => (pattern, text) = (wanted.as_str(), got.as_str()),
            _ => {
                let Some((behind, tried)) = retry else { return false };
                let mut tried = tried.chars();
                if tried.next().is_none() {
                    return false;
                }
                (pattern, text) = (behind, tried.as_str());
                retry = Some((behind, text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        };
        check("web-01", "web-01", true);
        check("web-01", "web-011", false);
        check("web-*", "web-01", true);
        check("web-*", "web-", true);
        check("web-*", "db-web-01", false);
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("*.bj.*", "web-01.bj.example.com", true);
        check("*.bj.*", "web-01.sh.example.com", false);
        check("*-01", "web-01-01", true);
        check("web-0?", "web-01", true);
        check("web-0?", "web-0", false);
        check("web-?", "web-\u{738b}", true);
        check("*?", "", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("web-*", "web-*", true);
        check("Web-*", "web-01", false);
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer_than_the_product_of_the_lengths() {
        let pattern = "*a".repeat(500);
        assert!(!matches(&pattern, &format!("{}b", "a".repeat(255))));
    }
}
