//! Rule tags: what a rule asks of the tags of a series.
//!
//! Why: a site has thousands of rules with a tag or two each, and a node of a tree has room for eleven.
//! How: pairs in the order of their keys, in just as much memory as they take.
//! Invariants: each key once; of pairs with the same key the last one counts, as in a map that is filled with them.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt::{self, Formatter};

/// Tags that a rule asks for: each must be present with an equal value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct RuleTags(Vec<(String, String)>);

impl RuleTags {
    /// The value that is asked of a tag.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(own, _)| own.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Asks for a tag no more; the value that was asked of it.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let at = self.0.binary_search_by(|(own, _)| own.as_str().cmp(key)).ok()?;
        Some(self.0.remove(at).1)
    }

    /// Keys and values, in the order of the keys.
    pub fn iter(&self) -> Pairs<'_> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many tags are asked for.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no tag is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        let texts: usize = self.0.iter().map(|(key, value)| key.capacity() + value.capacity()).sum();
        self.0.capacity() * size_of::<(String, String)>() + texts
    }
}

/// Keys and values of [`RuleTags`].
pub type Pairs<'t> = std::iter::Map<std::slice::Iter<'t, (String, String)>, fn(&(String, String)) -> (&str, &str)>;

impl<'t> IntoIterator for &'t RuleTags {
    type Item = (&'t str, &'t str);
    type IntoIter = Pairs<'t>;

    fn into_iter(self) -> Pairs<'t> {
        self.iter()
    }
}

impl FromIterator<(String, String)> for RuleTags {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> RuleTags {
        let mut tags: Vec<(String, String)> = pairs.into_iter().collect();
        tags.sort_by(|(a, _), (b, _)| a.cmp(b));
        tags.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                std::mem::swap(&mut later.1, &mut kept.1);
            }
            is_same
        });
        tags.shrink_to_fit();
        RuleTags(tags)
    }
}

impl<const N: usize> From<[(String, String); N]> for RuleTags {
    fn from(pairs: [(String, String); N]) -> RuleTags {
        pairs.into_iter().collect()
    }
}

impl<'de> Deserialize<'de> for RuleTags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RuleTags, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = RuleTags;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a map of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RuleTags, A::Error> {
        std::iter::from_fn(|| map.next_entry().transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn tags(pairs: &[(&str, &str)]) -> RuleTags {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    /// Each answer is that of a map which is filled with the same pairs.
    #[test]
    fn they_are_a_map() {
        let check = |pairs: &[(&str, &str)]| {
            let (mut own, mut map) = (tags(pairs), pairs.iter().copied().collect::<BTreeMap<&str, &str>>());
            assert_eq!(own.iter().collect::<Vec<_>>(), map.clone().into_iter().collect::<Vec<_>>());
            assert_eq!((own.len(), own.is_empty()), (map.len(), map.is_empty()));
            for key in ["a", "b", "c", ""] {
                assert_eq!(own.get(key), map.get(key).copied(), "{key}");
            }
            assert_eq!(own.remove("a").as_deref(), map.remove("a"));
            assert_eq!(own.iter().collect::<Vec<_>>(), map.into_iter().collect::<Vec<_>>());
        };
        check(&[]);
        check(&[("b", "2"), ("a", "1")]);
        check(&[("a", "1"), ("c", "3"), ("a", "2"), ("a", "4"), ("b", "1"), ("c", "9")]);
    }

    #[test]
    fn they_take_what_they_hold() {
        assert_eq!(tags(&[]).memory_bytes(), 0);
        let pair = size_of::<(String, String)>();
        assert_eq!(tags(&[("a", "1"), ("a", "22")]).memory_bytes(), pair + 1 + 2);
    }
}
