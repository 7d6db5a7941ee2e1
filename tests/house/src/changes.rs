//! Changes: the table "To change X, touch Y" of CONTRIBUTING.md answers for each kind of change.
//!
//! Why: a stranger with a small change must find its room within a minute, and the table is the first thing to rot.
//! How: every kind that [`KINDS`] names has a row, and every path of the table begins at the root and exists.

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

/// A row: what is changed, and the paths to touch.
struct Row<'a> {
    kind: &'a str,
    paths: Vec<&'a str>,
}

/// Rows of the table, without its head.
fn rows(text: &str) -> Vec<Row<'_>> {
    let section = text.split_once(HEADING).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    let rows = lines.filter_map(|line| line.trim_matches('|').split_once('|'));
    rows.map(|(kind, rest)| Row { kind: kind.trim(), paths: rest.split('`').skip(1).step_by(2).collect() }).collect()
}

/// Complaints about the table, in a tree where `exists` says what is there.
fn check(text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let rows = rows(text);
    let missing = KINDS.iter().filter(|kind| !rows.iter().any(|row| row.kind == **kind && !row.paths.is_empty()));
    let missing = missing.map(|kind| format!("CONTRIBUTING.md: \"{HEADING}\" has no row with paths for {kind}"));
    let paths = rows.iter().flat_map(|row| row.paths.iter().map(|path| (row.kind, *path)));
    let absent = paths.filter(|(_, path)| !exists(path));
    let absent = absent
        .map(|(kind, path)| format!("CONTRIBUTING.md: to change {kind}, `{path}` is named, which does not exist"));
    missing.chain(absent).collect()
}

#[cfg(test)]
mod tests {
    use super::{HEADING, KINDS, check};
    use crate::repository;

    /// A table with a row for each of `kinds`, all of which name `there.rs`.
    fn table(kinds: &[&str]) -> String {
        let rows: String = kinds.iter().map(|kind| format!("| {kind} | `there.rs` and more |\n")).collect();
        format!("# Contributing\n\n{HEADING}\n\n| X | Y |\n| --- | --- |\n{rows}\n## Next\n\n| a | `gone.rs` |\n")
    }

    #[test]
    fn a_table_answers_for_every_kind_with_paths_that_exist() {
        let exists = |path: &str| path == "there.rs";
        assert_eq!(check(&table(&KINDS), &exists), Vec::<String>::new());
        assert_eq!(check(&table(&KINDS[1..]), &exists).len(), 1);
        assert_eq!(check(&table(&KINDS).replacen("there.rs", "gone.rs", 1), &exists).len(), 1);
        assert_eq!(check("# Contributing", &exists).len(), KINDS.len());
    }

    #[test]
    fn the_table_of_this_repository_answers() {
        let root = repository::root();
        let complaints = check(&repository::read("CONTRIBUTING.md"), &|path| root.join(path).exists());
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}
