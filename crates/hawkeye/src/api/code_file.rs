//! Files of a portal as code: names that any disk takes, TOML that is written in one order and read with its lines.
//!
//! How: a name's letters, digits, `.`, `_` and `-` stay, and so do Chinese characters; every other byte is `%XX`. Parts
//! are joined by `~`, which is never a part's own. A name that is too long ends with a hash of the whole; the file
//! holds the whole name anyway, and who writes a file by hand calls it as he likes.
//! Invariants: names that differ in more than case have files that do; equal tables give equal bytes.

use super::body::Fields;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Ending of the files that are ours.
pub const ENDING: &str = ".toml";
/// Bytes of a file's name that disks take.
const FILE_NAME_MAX: usize = 255;
/// Bytes of the name of a file that is written; an ending and a number come behind.
const NAME_BYTES_MAX: usize = 200;
/// Bytes of a long name that stay before its hash.
const NAME_BYTES_KEPT: usize = 160;
/// Names of devices, which Windows takes for no files.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, with the key, and what to do.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// A table of a file, with the lines of its keys.
#[derive(Debug, Default)]
pub struct Table {
    pub line: usize,
    values: Map<String, Value>,
    lines: HashMap<String, usize>,
    /// Tables in it, `[action]` and each `[[strategy]]`, by their names.
    tables: Vec<(String, Table)>,
}

impl Table {
    /// Reads a file; where it is no TOML, the line and why.
    pub fn read(text: &str) -> Result<Table, (usize, String)> {
        let parsed = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (line_of(text, at), error.message().to_string())
        })?;
        Ok(table(text, 1, parsed.get_ref()))
    }

    /// The values as the fields of a request.
    pub fn fields(&self) -> Fields {
        Fields::Json(self.values.clone())
    }

    /// The value of a key, if it is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str().map(str::trim)
    }

    /// The tables of this name, in their order.
    pub fn named<'t>(&'t self, name: &'t str) -> impl Iterator<Item = &'t Table> {
        self.tables.iter().filter(move |(own, _)| own == name).map(|(_, table)| table)
    }

    /// The line of the key with which the text of an error begins, or that of the table.
    pub fn line_of_error(&self, text: &str) -> usize {
        self.lines.get(key_of_error(text)).copied().unwrap_or(self.line)
    }

    /// Keys and tables that are not among these, with their lines.
    pub fn unknown(&self, keys: &[&str], tables: &[&str]) -> Vec<(usize, String)> {
        let is_key = |key: &&String| !keys.contains(&key.as_str());
        let of_keys = self.values.keys().filter(is_key).map(|key| (self.lines[key], key));
        let of_tables = self.tables.iter().filter(|(name, _)| !tables.contains(&name.as_str()));
        let unknown = of_keys.chain(of_tables.map(|(name, table)| (table.line, name)));
        let known: Vec<&str> = keys.iter().chain(tables).copied().collect();
        unknown.map(|(line, key)| (line, format!("{key} is no key here: give some of {}", known.join(", ")))).collect()
    }
}

/// The word with which the text of an error begins, which is its key where it has one.
pub fn key_of_error(text: &str) -> &str {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// What is odd about the path of a file, as what it does; None for `templates/linux.toml`.
pub fn odd_path(path: &str) -> Option<&'static str> {
    let Some((folder, name)) = path.split_once('/') else { return Some("is in no folder") };
    let is_letter = |c: char| !c.is_control() && c != '\\' && c != '\u{7f}';
    if !path.chars().all(is_letter) {
        return Some("has a control character or a `\\`");
    }
    if folder.is_empty() || name.contains('/') {
        return Some("is not in a folder of its kind alone");
    }
    if name.starts_with('.') || name.len() <= ENDING.len() || !name.ends_with(ENDING) {
        return Some("does not end with .toml, or is hidden");
    }
    (name.len() > FILE_NAME_MAX).then_some("is longer than a disk takes")
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn table(text: &str, line: usize, parsed: &DeTable<'_>) -> Table {
    let mut read = Table { line, ..Table::default() };
    for (key, value) in parsed {
        let (name, line) = (key.get_ref().to_string(), line_of(text, key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => read.tables.push((name, table(text, line, inner))),
            DeValue::Array(list)
                if list.iter().next().is_some_and(|one| matches!(one.get_ref(), DeValue::Table(_))) =>
            {
                for one in list.iter() {
                    let DeValue::Table(inner) = one.get_ref() else { continue };
                    read.tables.push((name.clone(), table(text, line_of(text, one.span().start), inner)));
                }
            }
            _ => {
                read.lines.insert(name.clone(), line);
                read.values.insert(name, scalar(value));
            }
        }
    }
    read
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.into(),
            Err(_) => Value::String(number.as_str().to_string()),
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) => number.into(),
            Err(_) => Value::String(number.as_str().to_string()),
        },
        // Flags are 0 or 1, as in the API.
        DeValue::Boolean(is) => i64::from(*is).into(),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(list) => list.iter().map(scalar).collect(),
        DeValue::Table(_) => Value::Null,
    }
}

/// The name of a file, without folder and ending, of a thing that these parts name.
pub fn name(parts: &[String]) -> String {
    let name = parts.iter().map(|part| encoded(part)).collect::<Vec<_>>().join("~");
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let kept = (0..=NAME_BYTES_KEPT).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    let hash = hex::encode(Sha256::digest(parts.join("\0")));
    format!("{}~{}", &name[..kept], &hash[..16])
}

fn encoded(part: &str) -> String {
    let mut name = String::new();
    let last = part.chars().count().saturating_sub(1);
    let beginning = part.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_device = DEVICES.contains(&beginning.trim_end_matches(|c: char| c.is_ascii_digit()));
    for (at, c) in part.chars().enumerate() {
        let stays = c.is_ascii_alphanumeric() || "_-.".contains(c) || ('\u{4e00}'..='\u{9fff}').contains(&c);
        // A name that begins with a dot is hidden, one that ends with it loses it on Windows.
        let is_dot_at_end = c == '.' && (at == 0 || at == last);
        if stays && !is_dot_at_end && !(at == 0 && (is_device || c == '-')) {
            name.push(c);
            continue;
        }
        let mut bytes = [0; 4];
        c.encode_utf8(&mut bytes).bytes().for_each(|byte| name.push_str(&format!("%{byte:02X}")));
    }
    if name.is_empty() { "%".to_string() } else { name }
}

/// Appends those of `keys` that say something: a text that is not empty, a number that is not 0, a list with elements;
/// and the priority, whose 0 is the highest.
pub fn push_values(out: &mut String, view: &Map<String, Value>, keys: &[&str]) {
    for key in keys {
        let text = match view.get(*key) {
            Some(Value::String(text)) if !text.is_empty() => quoted(text),
            Some(Value::Number(number)) => match number.as_i64() {
                Some(0) if *key != "priority" => continue,
                Some(number) => number.to_string(),
                None if number.as_f64() == Some(0.0) => continue,
                None => toml::Value::Float(number.as_f64().unwrap_or_default()).to_string(),
            },
            Some(Value::Array(list)) if !list.is_empty() => array(list),
            _ => continue,
        };
        out.push_str(&format!("{key} = {text}\n"));
    }
}

/// A text as files write it.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// A list in one line, or an element a line where that would be long.
fn array(list: &[Value]) -> String {
    const LINE_MAX: usize = 80;
    let elements: Vec<String> = list.iter().map(|one| quoted(one.as_str().unwrap_or_default())).collect();
    let line = elements.join(", ");
    if line.len() <= LINE_MAX {
        return format!("[{line}]");
    }
    let lines: String = elements.iter().map(|one| format!("    {one},\n")).collect();
    format!("[\n{lines}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_by_any_disk() {
        let check = |parts: &[&str], expected: &str| {
            let parts: Vec<String> = parts.iter().map(|part| part.to_string()).collect();
            assert_eq!(name(&parts), expected);
        };
        check(&["linux"], "linux");
        check(&["Linux web_01-a.b"], "Linux%20web_01-a.b");
        check(&["基础监控"], "基础监控");
        check(&["a/b", "c~d"], "a%2Fb~c%7Ed");
        check(&["é"], "%C3%A9");
        check(&[".hidden."], "%2Ehidden%2E");
        check(&["-rf"], "%2Drf");
        check(&["CON"], "%43ON");
        check(&["com1.txt"], "%63om1.txt");
        check(&["console"], "console");
        check(&[""], "%");
        check(&["..", "*"], "%2E%2E~%2A");
        let (a, b) = (name(&["x".repeat(300)]), name(&[format!("{}y", "x".repeat(299))]));
        assert!(a != b && a.len() <= NAME_BYTES_MAX && b.starts_with("xxx"), "{a} {b}");
    }

    #[test]
    fn odd_paths_are_none() {
        for path in ["groups/web.toml", "groups/基础监控.toml", "groups/%43ON.toml", "x/a b.toml"] {
            assert_eq!(odd_path(path), None, "{path}");
        }
        let long = format!("groups/{}.toml", "x".repeat(260));
        for path in [
            "",
            "x.toml",
            "/etc/x.toml",
            "groups/../../x.toml",
            "groups/a/b.toml",
            "groups/a\\b.toml",
            "groups/a\n.toml",
            "groups/a\u{85}.toml",
            "groups/.toml",
            "groups/.a.toml",
            "groups/a.sh",
            "groups/a.TOML",
            "groups/",
            &long,
        ] {
            assert!(odd_path(path).is_some(), "{path:?}");
        }
    }

    #[test]
    fn tables_know_their_lines() {
        let text = "name = \"a\"\n\n[action]\ncallback = true\n\n[[strategy]]\nmetric = \"m\"\n\n[[strategy]]\nright_value = 5\n\
                    [[strategy.exception]]\nkind = \"host\"\n";
        let table = Table::read(text).expect("TOML");
        assert_eq!((table.text("name"), table.line), (Some("a"), 1));
        let strategies: Vec<&Table> = table.named("strategy").collect();
        assert_eq!(strategies.len(), 2);
        assert_eq!(strategies[1].line_of_error("right_value's formating is not vaild"), 10);
        assert_eq!(strategies[1].named("exception").next().map(|one| one.line_of_error("kind is x")), Some(12));
        let unknown = table.unknown(&["nam"], &["strategy"]);
        assert_eq!(unknown[0], (1, "name is no key here: give some of nam, strategy".to_string()));
        assert_eq!(unknown.len(), 2);
        assert_eq!(Table::read("a = 1\nb = \n").expect_err("no TOML").0, 2);
    }
}
