//! Changes: the table "To change X, touch Y" of CONTRIBUTING.md answers for each kind of change.
//!
//! Why: a stranger with a small change must find its room within a minute, and the table is the first thing to rot.
//! How: every kind that [`KINDS`] names has a row, every path of the table begins at the root and exists, and every
//! name behind a file's path stands in that file. A span with a `/` or `.` is a path, but for what begins with `[` (a
//! section of TOML) or `/` (a file of the machine).

/// Heading of the section with the table.
const HEADING: &str = "## To change X, touch Y";

/// What the table has a row for.
const KINDS: [&str; 11] = [
    "a collector",
    "a judge function",
    "a REST route",
    "a role",
    "a door",
    "a channel",
    "a column",
    "an on-disk format",
    "a configuration key",
    "a metric",
    "a page",
];

/// A row: what is changed, the paths to touch, and the names to look for, each with the path before it.
struct Row<'a> {
    kind: &'a str,
    paths: Vec<&'a str>,
    names: Vec<(&'a str, &'a str)>,
}

impl<'a> Row<'a> {
    fn new(kind: &'a str, text: &'a str) -> Row<'a> {
        let mut row = Row { kind: kind.trim(), paths: Vec::new(), names: Vec::new() };
        for span in text.split('`').skip(1).step_by(2).filter(|span| !span.starts_with(['[', '/'])) {
            match row.paths.last() {
                Some(path) if !span.contains(['/', '.']) => row.names.push((path, span)),
                _ => row.paths.push(span),
            }
        }
        row
    }
}

/// Rows of the table, without its head.
fn rows(text: &str) -> Vec<Row<'_>> {
    let section = text.split_once(HEADING).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    let rows = lines.filter_map(|line| line.trim_matches('|').split_once('|'));
    rows.map(|(kind, rest)| Row::new(kind, rest)).collect()
}

/// Complaints about the table, in a tree where `exists` says what is there, and `has` whether a name stands in a file.
fn check(text: &str, exists: &dyn Fn(&str) -> bool, has: &dyn Fn(&str, &str) -> bool) -> Vec<String> {
    let rows = rows(text);
    let missing = KINDS.iter().filter(|kind| !rows.iter().any(|row| row.kind == **kind && !row.paths.is_empty()));
    let missing = missing.map(|kind| format!("CONTRIBUTING.md: \"{HEADING}\" has no row with paths for {kind}"));
    let paths = rows.iter().flat_map(|row| row.paths.iter().map(|path| (row.kind, *path)));
    let absent = paths.filter(|(_, path)| !exists(path));
    let absent = absent
        .map(|(kind, path)| format!("CONTRIBUTING.md: to change {kind}, `{path}` is named, which does not exist"));
    let names = rows.iter().flat_map(|row| row.names.iter().map(|name| (row.kind, *name)));
    let lost = names.filter(|(_, (path, name))| exists(path) && !has(path, name));
    let lost = lost.map(|(kind, (path, name))| {
        format!("CONTRIBUTING.md: to change {kind}, `{name}` is named, which does not stand in {path}")
    });
    missing.chain(absent).chain(lost).collect()
}

#[cfg(test)]
mod tests {
    use super::{HEADING, KINDS, check};
    use crate::repository;

    /// A table with a row for each of `kinds`, all of which name `there.rs`.
    fn table(kinds: &[&str]) -> String {
        let rows: String = kinds.iter().map(|kind| format!("| {kind} | `there.rs` (`Name`), `[[x]]` |\n")).collect();
        format!("# Contributing\n\n{HEADING}\n\n| X | Y |\n| --- | --- |\n{rows}\n## Next\n\n| a | `gone.rs` |\n")
    }

    #[test]
    fn a_table_answers_for_every_kind_with_paths_that_exist() {
        let exists = |path: &str| path == "there.rs";
        let has = |path: &str, name: &str| (path, name) == ("there.rs", "Name");
        assert_eq!(check(&table(&KINDS), &exists, &has), Vec::<String>::new());
        assert_eq!(check(&table(&KINDS[1..]), &exists, &has).len(), 1);
        assert_eq!(check(&table(&KINDS).replacen("there.rs", "gone.rs", 1), &exists, &has).len(), 1);
        assert_eq!(check(&table(&KINDS).replacen("Name", "Gone", 1), &exists, &has).len(), 1);
        assert_eq!(check("# Contributing", &exists, &has).len(), KINDS.len());
    }

    #[test]
    fn the_table_of_this_repository_answers() {
        let root = repository::root();
        let exists = |path: &str| root.join(path).exists();
        let has = |path: &str, name: &str| root.join(path).is_file() && repository::read(path).contains(name);
        let complaints = check(&repository::read("CONTRIBUTING.md"), &exists, &has);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}
