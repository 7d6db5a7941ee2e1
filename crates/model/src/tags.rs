//! Tags: one canonical string, `k=v,k2=v2`, keys in byte order; never a map.
//!
//! Why: decoding a tag map for every item of every RPC was half of the original's memory. A string is compared, hashed
//! and interned whole; the few who need a single tag iterate over it.
//! Compat: spec/wire.md §2. All spaces are removed; pieces split at `,`, each at its first `=`; a piece without `=` is
//! dropped; of equal keys the last wins.

/// A canonical tag string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tags<'a>(&'a str);

impl<'a> Tags<'a> {
    pub const EMPTY: Tags<'static> = Tags("");

    /// Canonicalises `raw`. Borrows it when it already is canonical (the steady state), otherwise writes to `scratch`,
    /// which is cleared first.
    pub fn canonical(raw: &'a str, scratch: &'a mut String) -> Tags<'a> {
        if is_canonical(raw) {
            return Tags(raw);
        }
        canonicalise(raw, scratch);
        Tags(scratch)
    }

    /// For strings that were canonicalised before: read back from the series table, or written as literals in tests.
    pub fn assume_canonical(text: &'a str) -> Tags<'a> {
        debug_assert!(is_canonical(text), "not canonical: {text:?}");
        Tags(text)
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split(',').filter_map(|piece| piece.split_once('='))
    }

    pub fn find(self, key: &str) -> Option<&'a str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }
}

/// True when `canonicalise` would return `raw` unchanged.
fn is_canonical(raw: &str) -> bool {
    if raw.is_empty() {
        return true;
    }
    let mut previous: Option<&str> = None;
    for piece in raw.split(',') {
        let Some((key, _)) = piece.split_once('=') else { return false };
        if previous.is_some_and(|p| p >= key) {
            return false;
        }
        previous = Some(key);
    }
    !raw.as_bytes().contains(&b' ')
}

fn canonicalise(raw: &str, out: &mut String) {
    let spaceless: String = raw.chars().filter(|c| *c != ' ').collect();
    let mut pairs: Vec<(&str, &str)> = spaceless.split(',').filter_map(|piece| piece.split_once('=')).collect();
    // Stable: of equal keys the last stays last, and is the one kept below.
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    out.clear();
    for (i, (key, value)) in pairs.iter().enumerate() {
        if pairs.get(i + 1).is_some_and(|next| next.0 == *key) {
            continue;
        }
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(key);
        out.push('=');
        out.push_str(value);
    }
}

/// Canonicalises into a string of its own.
pub fn canonical_string(raw: &str) -> String {
    let mut scratch = String::new();
    Tags::canonical(raw, &mut scratch).as_str().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expected: &str) {
        assert_eq!(canonical_string(raw), expected, "of {raw:?}");
        assert!(is_canonical(expected), "{expected:?}");
    }

    #[test]
    fn canonical_form() {
        check("", "");
        check("a=1", "a=1");
        check("b=2,a=1", "a=1,b=2");
        check(" b = 2 , a=1 ", "a=1,b=2");
        check("a=1,a=2", "a=2");
        check("a=1,b,c=3", "a=1,c=3");
        check("novalue", "");
        check("a=x=y", "a=x=y");
        check("a=,=b", "=b,a=");
        check("a=1,", "a=1");
    }

    #[test]
    fn lookup() {
        let tags = Tags::assume_canonical("a=1,b=x=y");
        assert_eq!(tags.find("b"), Some("x=y"));
        assert_eq!(tags.find("c"), None);
        assert_eq!(tags.iter().count(), 2);
    }
}
