//! Overlay: keys set one by one over a table, by environment variables and flags.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Splits the text of a `--set` flag into key and value.
pub fn pair(text: &str) -> Result<(&str, &str)> {
    text.split_once('=').with_context(|| {
        // What follows the key may be a secret.
        let key = text.split(|c: char| !c.is_alphanumeric() && !"._".contains(c)).next().unwrap_or_default();
        format!("--set {key}: want KEY=VALUE")
    })
}

/// Sets the dotted `path` to `text`: as the TOML value that the whole text is (a number, a list, a boolean, a quoted
/// text), or as the text itself, whichever `T` takes. So digits are a password where a text is wanted.
pub fn overlay<T: DeserializeOwned>(table: &mut toml::Table, path: &str, text: &str) -> Result<()> {
    let plain = toml::Value::String(text.to_string());
    let mut with_text = table.clone();
    set(&mut with_text, path, plain)?;
    let Ok(value) = text.parse::<toml::Value>() else {
        *table = with_text;
        return Ok(());
    };
    let mut with_value = table.clone();
    set(&mut with_value, path, value)?;
    let takes = |table: &toml::Table| table.clone().try_into::<T>().is_ok();
    *table = if !takes(&with_value) && takes(&with_text) { with_text } else { with_value };
    Ok(())
}

fn set(table: &mut toml::Table, path: &str, value: toml::Value) -> Result<()> {
    let (parents, key) = path.rsplit_once('.').map_or(("", path), |(parents, key)| (parents, key));
    let mut current = table;
    for parent in parents.split('.').filter(|part| !part.is_empty()) {
        current = current
            .entry(parent)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .with_context(|| format!("{parent} in {path} is a value, not a section"))?;
    }
    if key.is_empty() {
        bail!("{path:?} names no key");
    }
    if current.get(key).is_some_and(toml::Value::is_table) && !value.is_table() {
        bail!("{path} is a section: name one of its keys");
    }
    current.insert(key.to_string(), value);
    Ok(())
}

/// Sets a key for each of `variables` whose name begins with `prefix`; `__` in the rest of the name separates levels.
pub fn overlay_variables<'v, T: DeserializeOwned>(
    table: &mut toml::Table,
    prefix: &str,
    variables: impl Iterator<Item = (&'v str, &'v str)>,
) -> Result<()> {
    for (name, text) in variables {
        if let Some(key) = name.strip_prefix(prefix) {
            let path = key.to_ascii_lowercase().replace("__", ".");
            overlay::<T>(table, &path, text).with_context(|| format!("environment variable {name}"))?;
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
    use crate::keys::Keys;

    fn laid_over(table: &str, path: &str, text: &str) -> Result<Keys> {
        let mut table: toml::Table = table.parse()?;
        overlay::<Keys>(&mut table, path, text)?;
        Ok(table.try_into()?)
    }

    #[test]
    fn a_key_takes_the_value_that_it_wants() -> Result<()> {
        assert_eq!(laid_over("", "a", "7")?.a, 7);
        assert_eq!(laid_over("", "list", "[1, 2]")?.list, [1, 2]);
        assert!(laid_over("[b]\nc = 1", "b.d", "true")?.b.d);
        for text in
            ["123456", "0x1F", "1e5", "true", "[1]", "2024-01-01", "plain", "a = b", "x\ny = 1", "\"abc\"#def", ""]
        {
            assert_eq!(laid_over("", "text", text)?.text, text);
        }
        assert_eq!(laid_over("", "text", "\"quoted\"")?.text, "quoted");
        Ok(())
    }

    #[test]
    fn errors_name_what_is_no_section_and_no_key() {
        let check = |path: &str, expected: &str| {
            assert_eq!(laid_over("a = 1\n[b]\nc = 1", path, "2").expect_err(path).to_string(), expected);
        };
        check("a.x", "a in a.x is a value, not a section");
        check("b", "b is a section: name one of its keys");
        check("b.", "\"b.\" names no key");
        check("", "\"\" names no key");
    }

    #[test]
    fn variables_with_the_prefix_are_keys() -> Result<()> {
        let mut table = toml::Table::new();
        let variables = [("HAWKEYE_B__C", "1.5"), ("PATH", "/bin")];
        overlay_variables::<Keys>(&mut table, "HAWKEYE_", variables.into_iter())?;
        assert_eq!(table, "[b]\nc = 1.5".parse()?);
        Ok(())
    }
}
