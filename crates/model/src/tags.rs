//! Tags: one canonical string, `k=v,k2=v2`, keys in byte order; never a map.
//!
//! Why: decoding a tag map for every item of every RPC was half of the original's memory. A string is compared, hashed
//! and interned whole; the few who need a single tag iterate over it.
//! Compat: docs/open-falcon/wire.md §2. All spaces are removed; pieces split at `,`, each at its first `=`; a piece
//! without `=` is dropped; of equal keys the last wins. A rule's tags are read the same way ([`wanted`]), so a rule
//! with any text matches a point that was pushed with this text. (The original's hbs leaves the spaces in: such a rule
//! never fired.)

use crate::rule_tags::RuleTags;

/// A canonical tag string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tags<'a>(&'a str);

impl<'a> Tags<'a> {
    /// Tags of a series that has none.
    pub const EMPTY: Tags<'static> = Tags("");

    /// Canonicalises `raw`. Borrows it when it already is canonical (the steady state), otherwise writes to `scratch`,
    /// which is cleared first. Allocates nothing once `scratch` has grown, up to [`FEW`] tags.
    pub fn canonical(raw: &'a str, scratch: &'a mut String) -> Tags<'a> {
        if is_canonical(raw) {
            return Tags(raw);
        }
        let begin = canonicalise(raw, scratch);
        Tags(&scratch[begin..])
    }

    /// Takes a string that was canonicalised before: read back from the series table, or written as a literal in a
    /// test.
    pub fn assume_canonical(text: &'a str) -> Tags<'a> {
        debug_assert!(is_canonical(text), "not canonical: {text:?}");
        Tags(text)
    }

    /// Canonical text, `k=v,k2=v2`.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether there are no tags.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values in the order of the text.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split(',').filter_map(|piece| piece.split_once('='))
    }

    /// The value of a tag.
    pub fn find(self, key: &str) -> Option<&'a str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Whether each of a rule's tags is here with an equal value.
    pub fn have(self, wanted: &RuleTags) -> bool {
        wanted.iter().all(|(key, value)| self.find(key) == Some(value))
    }
}

/// The tags that a rule's text asks for, as the tags of a point of the same text would be.
pub fn wanted(raw: &str) -> RuleTags {
    let mut scratch = String::new();
    let tags = Tags::canonical(raw, &mut scratch);
    tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
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

/// Pieces that are sorted without a list on the heap; agents send two.
const FEW: usize = 16;

/// `key=value` in the text without spaces: where the key begins and ends, and where the value ends.
#[derive(Clone, Copy, Default)]
struct Pair {
    start: usize,
    equals: usize,
    end: usize,
}

impl Pair {
    fn key(self, text: &str) -> &str {
        &text[self.start..self.equals]
    }
}

/// Writes the text without spaces to `out`, and the canonical text behind it; answers where the latter begins.
fn canonicalise(raw: &str, out: &mut String) -> usize {
    out.clear();
    raw.split(' ').for_each(|part| out.push_str(part));
    let begin = out.len();
    let (mut few, mut many) = ([Pair::default(); FEW], Vec::new());
    let count = out.split(',').count();
    let pairs: &mut [Pair] = if count <= FEW {
        &mut few[..count]
    } else {
        many.resize(count, Pair::default());
        &mut many
    };
    let pairs = sort_pairs(out, pairs);
    for (i, pair) in pairs.iter().enumerate() {
        if pairs.get(i + 1).is_some_and(|next| next.key(out) == pair.key(out)) {
            continue;
        }
        if out.len() > begin {
            out.push(',');
        }
        out.extend_from_within(pair.start..pair.end);
    }
    begin
}

/// Fills `pairs` with what `text` has, by key. Stable: of equal keys the last stays last, and is the one kept.
fn sort_pairs<'p>(text: &str, pairs: &'p mut [Pair]) -> &'p [Pair] {
    let (mut count, mut start) = (0, 0);
    for piece in text.split(',') {
        let end = start + piece.len();
        if let Some(equals) = piece.find('=') {
            pairs[count] = Pair { start, equals: start + equals, end };
            count += 1;
        }
        start = end + 1;
    }
    let pairs = &mut pairs[..count];
    // Short lists are sorted in place.
    pairs.sort_by(|a, b| a.key(text).cmp(b.key(text)));
    pairs
}

/// The canonical form of `raw`, as a string of its own.
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
        let many =
            |keys: &mut dyn Iterator<Item = u32>| keys.map(|i| format!("k{i:02}={i}")).collect::<Vec<_>>().join(",");
        check(&many(&mut (0..40).rev()), &many(&mut (0..40)));
    }

    /// The tags of a text by Open-Falcon's rules, written down a second time.
    fn by_the_rules(raw: &str) -> RuleTags {
        let without_spaces = raw.replace(' ', "");
        let pairs = without_spaces.split(',').filter_map(|piece| piece.split_once('='));
        pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn what_a_rule_wants() {
        let check = |raw: &str, expected: &[(&str, &str)]| {
            let expected = expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            assert_eq!(wanted(raw), expected, "of {raw:?}");
        };
        check("", &[]);
        check("mount=/data, fstype=ext4", &[("fstype", "ext4"), ("mount", "/data")]);
        check(" module=x ", &[("module", "x")]);
        check("mount=/my disk", &[("mount", "/mydisk")]);
        check("k = v,novalue,x=y=z,k=w", &[("k", "w"), ("x", "y=z")]);
    }

    #[test]
    fn rules_want_tags_with_equal_values() {
        let check = |point: &str, rule: &str, expected: bool| {
            assert_eq!(Tags::assume_canonical(point).have(&wanted(rule)), expected, "{point:?} {rule:?}");
        };
        check("a=1,b=2", "", true);
        check("a=1,b=2", "b=2", true);
        check("a=1,b=2", "b = 2, a=1", true);
        check("a=1,b=2", "b=3", false);
        check("a=1,b=2", "c=1", false);
        check("a=1", "a=1,b=2", false);
        check("", "a=", false);
    }

    proptest::proptest! {
        /// Any text, and texts made of what matters.
        #[test]
        fn a_rule_matches_the_point_of_its_text(any in ".*", raw in "[ab=, \t\u{e4}\u{3000}]{0,40}") {
            for raw in [any, raw] {
                let mut scratch = String::new();
                let wanted = wanted(&raw);
                proptest::prop_assert!(Tags::canonical(&raw, &mut scratch).have(&wanted), "{:?}", raw);
                proptest::prop_assert_eq!(wanted, by_the_rules(&raw), "{:?}", raw);
            }
        }
    }

    #[test]
    fn lookup() {
        let tags = Tags::assume_canonical("a=1,b=x=y");
        assert_eq!(tags.find("b"), Some("x=y"));
        assert_eq!(tags.find("c"), None);
        assert_eq!(tags.iter().count(), 2);
    }
}
