//! Overlay: keys set one by one over a table, by environment variables and flags.

use anyhow::{Context, Result};
use std::path::Path;

/// Splits the text of a `--set` flag into key and value.
pub fn pair(text: &str) -> Result<(&str, &str)> {
    text.split_once('=').with_context(|| format!("--set {text}: want KEY=VALUE"))
}

/// Sets the dotted `path` to `text`, read as a TOML value where that works (numbers, lists, booleans), else as a
/// string.
pub fn overlay(table: &mut toml::Table, path: &str, text: &str) -> Result<()> {
    let value = format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_string()));
    let (parents, key) = path.rsplit_once('.').map_or(("", path), |(parents, key)| (parents, key));
    let mut current = table;
    for parent in parents.split('.').filter(|part| !part.is_empty()) {
        current = current
            .entry(parent)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .with_context(|| format!("{parent} in {path} is a value, not a section"))?;
    }
    current.insert(key.to_string(), value);
    Ok(())
}

/// Sets a key for each of `variables` whose name begins with `prefix`; `__` in the rest of the name separates levels.
pub fn overlay_variables<'v>(
    table: &mut toml::Table,
    prefix: &str,
    variables: impl Iterator<Item = (&'v str, &'v str)>,
) -> Result<()> {
    for (name, text) in variables {
        if let Some(key) = name.strip_prefix(prefix) {
            let path = key.to_ascii_lowercase().replace("__", ".");
            overlay(table, &path, text).with_context(|| format!("environment variable {name}"))?;
        }
    }
    Ok(())
}

/// Names file and line of a parser's error. The parser's own text repeats the line, which may hold a password.
pub fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    anyhow::anyhow!("cannot parse {}: line {line}: {}", path.display(), error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_sets_a_value_and_names_what_is_no_section() -> Result<()> {
        let mut table: toml::Table = "a = 1\n[b]\nc = 2".parse()?;
        overlay(&mut table, "b.c", "[1, 2]")?;
        overlay(&mut table, "b.d.e", "plain text")?;
        let expected: toml::Table = "a = 1\n[b]\nc = [1, 2]\n[b.d]\ne = \"plain text\"".parse()?;
        assert_eq!(table, expected);
        let error = overlay(&mut table, "a.x", "1").expect_err("a is a number").to_string();
        assert_eq!(error, "a in a.x is a value, not a section");
        Ok(())
    }

    #[test]
    fn variables_with_the_prefix_are_keys() -> Result<()> {
        let mut table = toml::Table::new();
        let variables = [("HAWKEYE_LISTEN__API", ":1"), ("PATH", "/bin")];
        overlay_variables(&mut table, "HAWKEYE_", variables.into_iter())?;
        assert_eq!(table, "[listen]\napi = \":1\"".parse()?);
        Ok(())
    }
}
