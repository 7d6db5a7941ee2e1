//! Faults: everything that is wrong with a configuration, told at once.
//!
//! Why: who mends one line, starts, and is told of the next, does so for each line.
//! How: [`read`] takes a table apart where it does not fit as a whole, and tries each key alone; what a program checks
//! itself it adds.
//! Invariants: a fault names its key; no text stands twice; a value that should have been a text is not repeated; a key
//! that cannot be read has no second fault, for its default stands in its place and says nothing.

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use std::fmt;
use toml::{Table, Value};

/// The faults found so far.
#[derive(Debug, Default)]
pub struct Faults {
    texts: Vec<String>,
    /// Keys that could not be read.
    unread: Vec<String>,
}

impl Faults {
    /// Adds what is wrong with a key, and the fix; nothing that speaks of a key which could not be read.
    pub fn add(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.texts.contains(&text) && !self.unread.iter().any(|key| names(&text, key)) {
            self.texts.push(text);
        }
    }

    /// Each fault, in the order in which they were found.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Ok when there is none; else the error that tells all.
    pub fn none(self) -> Result<()> {
        if self.texts.is_empty() { Ok(()) } else { Err(self.into()) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = &self.texts[..] {
            return f.write_str(one);
        }
        write!(f, "{} faults: ", self.texts.len())?;
        f.write_str(&self.texts.join("; "))
    }
}

impl std::error::Error for Faults {}

/// Reads `table` as a `T` without the keys that it does not take; each of those is a fault. `T` has a default for every
/// key.
pub fn read<T: DeserializeOwned>(mut table: Table, faults: &mut Faults) -> Result<T> {
    if let Ok(config) = table.clone().try_into() {
        return Ok(config);
    }
    let (mut unknown, mut unread) = (Vec::new(), Vec::new());
    for path in leaves(&table) {
        let Err(error) = keep_only(&table, &path).try_into::<T>() else { continue };
        remove(&mut table, &path);
        // A section that nobody knows is told of once, not for each of its keys.
        // The library repeats a value of another type, and digits without quotes may be a password.
        let text = match error.message() {
            text if text.ends_with("expected a string") => "want a text in quotes",
            text if text.ends_with("expected a boolean") => "want true or false, without quotes",
            text if text.ends_with("expected a sequence") => "want a list in brackets, like [\"one\", \"two\"]",
            text => text,
        };
        let text = text.to_string();
        let is_unknown = text.starts_with("unknown field");
        if !is_unknown || !unknown.contains(&text) {
            faults.add(format!("{}: {text}", path.join(".")));
            unread.push(path.join("."));
        }
        if is_unknown {
            unknown.push(text);
        }
    }
    faults.unread.append(&mut unread);
    table.try_into().context("these keys do not go together")
}

/// Whether a text has `key` as a word of its own; one that may be a word of the language too (`log`) must come first,
/// or before a `=`.
fn names(text: &str, key: &str) -> bool {
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(key).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + key.len()..]);
        let is_word = !before.ends_with(|c| is_of_key(c) || c == '.') && !after.starts_with(is_of_key);
        is_word && (key.contains('.') || before.is_empty() || after.starts_with(" ="))
    })
}

/// The path of each value that is no table, and of each empty one.
fn leaves(table: &Table) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (key, value) in table {
        let below = value.as_table().map(leaves).filter(|below| !below.is_empty());
        for mut path in below.unwrap_or_else(|| vec![Vec::new()]) {
            path.insert(0, key.clone());
            found.push(path);
        }
    }
    found
}

/// A table that has `path` of `table` and nothing else.
fn keep_only(table: &Table, path: &[String]) -> Table {
    let mut alone = Table::new();
    let value = match path {
        [key] => table[key].clone(),
        [key, below @ ..] => Value::Table(keep_only(table[key].as_table().expect("a path of this table"), below)),
        [] => return alone,
    };
    alone.insert(path[0].clone(), value);
    alone
}

fn remove(table: &mut Table, path: &[String]) {
    match path {
        [key] => _ = table.remove(key),
        [key, below @ ..] => {
            if let Some(Value::Table(inner)) = table.get_mut(key) {
                remove(inner, below);
                // A section that nobody knows must not stay behind.
                if inner.is_empty() {
                    table.remove(key);
                }
            }
        }
        [] => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Keys, Section};

    #[test]
    fn all_faults_are_told_and_the_rest_is_read() -> Result<()> {
        let mut faults = Faults::default();
        let text = "a = \"x\"\ntext = \"t\"\nodd = 1\n[tags]\nk = \"v\"\nn = 5\n[b]\nc = 99999\nd = true\n[none]\ne = 1\nf = 2\n[void]";
        let keys: Keys = read(text.parse()?, &mut faults)?;
        let tags = [("k".to_string(), "v".to_string())].into();
        assert_eq!(keys, Keys { text: "t".into(), tags, b: Section { c: 0, d: true }, ..Keys::default() });
        let wanted =
            ["a: invalid", "unknown field `odd`", "tags.n: ", "b.c: ", "unknown field `none`", "unknown field `void`"];
        assert_eq!(faults.texts().len(), wanted.len(), "{faults}");
        for part in wanted {
            assert_eq!(faults.texts().iter().filter(|text| text.contains(part)).count(), 1, "{part}: {faults}");
        }
        assert!(faults.to_string().starts_with("6 faults: ") && !faults.to_string().contains('\n'), "{faults}");
        Ok(())
    }

    #[test]
    fn digits_that_may_be_a_password_are_not_repeated() -> Result<()> {
        let mut faults = Faults::default();
        read::<Keys>("text = 123456\ntags.k = 123456".parse()?, &mut faults)?;
        assert_eq!(faults.texts(), ["tags.k: want a text in quotes", "text: want a text in quotes"]);
        Ok(())
    }

    #[test]
    fn one_fault_is_its_own_text_and_none_is_no_error() {
        let mut faults = Faults::default();
        faults.add("a is 1: give 2");
        faults.add("a is 1: give 2");
        assert_eq!(faults.none().expect_err("a fault").to_string(), "a is 1: give 2");
        assert!(Faults::default().none().is_ok());
    }
}
