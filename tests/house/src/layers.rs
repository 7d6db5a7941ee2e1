//! Layers: arrows between crates, and between the files and folders of a crate, run downward.
//!
//! Why: a newcomer reads a room knowing that nothing above it matters there; one arrow up, and no folder can be read or
//! tested without another.
//! How: the block `layers` in docs/architecture.md is the one table. A line that begins at the margin names a folder;
//! the lines below it name what lies directly in it, from top to bottom. Who stands higher may name who stands lower;
//! neighbours on a line never meet. So there is no circle between rooms. `*` stands for all files that the section does
//! not name; these may name one another. Folders without a section are checked for circles alone (`circles.rs`).
//! Invariants: a name that the table does not have, and one that only the table has, are complaints: table and tree
//! cannot drift apart. Every crate is ranked, and every crate that has folders ranks what lies in its `src`.

use std::collections::{BTreeMap, BTreeSet};

use crate::arrows::{Arrow, Module, arrows, is_test, module_of};

/// Where the table is.
pub const TABLE: &str = "docs/architecture.md";

/// One folder of the table with its layers, from top to bottom.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    pub folder: String,
    pub layers: Vec<Vec<String>>,
}

/// A crate as the check sees it.
pub struct Crate {
    /// Also the name of its folder below `crates/`.
    pub name: String,
    /// Crates of this workspace that it is built with, without those of its tests.
    pub needs: Vec<String>,
    /// Paths below `src`, and their texts.
    pub files: Vec<(String, String)>,
}

/// Reads the table out of the document.
pub fn parse(document: &str) -> Result<Vec<Section>, String> {
    let missing = || format!("{TABLE} has no block that begins with ```layers");
    let (_, rest) = document.split_once("\n```layers\n").ok_or_else(missing)?;
    let (block, _) = rest.split_once("\n```").ok_or_else(missing)?;
    let mut sections: Vec<Section> = Vec::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        let words = line.split_whitespace().map(String::from).collect::<Vec<_>>();
        match (line.starts_with(' '), sections.last_mut()) {
            (true, Some(section)) => section.layers.push(words),
            (true, None) => return Err(format!("{TABLE}: layers begin with a folder at the margin, not with: {line}")),
            (false, _) => sections.push(Section { folder: line.trim_end_matches('/').to_string(), layers: Vec::new() }),
        }
    }
    Ok(sections)
}

/// Everything in which the tree differs from the table.
pub fn check(sections: &[Section], crates: &[Crate]) -> Vec<String> {
    let mut complaints = Vec::new();
    let of_crates = sections.iter().find(|section| section.folder == "crates");
    match of_crates {
        Some(section) => complaints.extend(check_crates(section, crates)),
        None => complaints.push(format!("{TABLE}: the layers have no section `crates`")),
    }
    for section in sections.iter().filter(|section| section.folder != "crates") {
        if !crates.iter().any(|one| below(&section.folder, &src(&one.name)).is_some()) {
            complaints.push(gone(&section.folder));
        }
    }
    for one in crates {
        match arrows(&one.name, &one.files) {
            Ok(arrows) => {
                let of_crate = sections.iter().filter(|section| below(&section.folder, &src(&one.name)).is_some());
                complaints.extend(of_crate.flat_map(|section| check_folder(section, one, &arrows)));
            }
            Err(refused) => complaints.extend(refused.iter().map(|why| format!("{}/{why}", src(&one.name)))),
        }
    }
    for one in crates.iter().filter(|one| has_folders(one)) {
        if !sections.iter().any(|section| section.folder == src(&one.name)) {
            complaints
                .push(format!("{0} has folders: give it a section `{0}` in the layers of {TABLE}", src(&one.name)));
        }
    }
    complaints
}

fn check_crates(section: &Section, crates: &[Crate]) -> Vec<String> {
    let there: BTreeSet<&str> = crates.iter().map(|one| one.name.as_str()).collect();
    let mut complaints = differences(section, &there);
    for one in crates {
        for needed in &one.needs {
            let file = format!("crates/{}/Cargo.toml", one.name);
            complaints.extend(judge(section, &one.name, needed, &format!("{file}: it depends on {needed}")));
        }
    }
    complaints
}

fn check_folder(section: &Section, owner: &Crate, arrows: &[Arrow]) -> Vec<String> {
    let Some(inside) = below(&section.folder, &src(&owner.name)) else { return vec![gone(&section.folder)] };
    let base: Module = inside.split('/').filter(|part| !part.is_empty()).map(String::from).collect();
    let units: BTreeSet<String> = owner.files.iter().filter_map(|(path, _)| unit_of_file(&base, path)).collect();
    if units.is_empty() {
        return vec![gone(&section.folder)];
    }
    let takes_files = section.layers.iter().flatten().any(|name| name == "*");
    let folders = folders(&base, owner);
    let there = units.iter().map(String::as_str).filter(|unit| {
        let is_named = section.layers.iter().flatten().any(|name| name == unit);
        is_named || !takes_files || folders.contains(*unit)
    });
    let mut complaints = differences(section, &there.collect());
    let mut refused: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for arrow in arrows {
        let from = unit_of_file(&base, &arrow.file);
        let (Some(from), Some(to)) = (from, unit_of_module(&base, &arrow.to, root_of(owner))) else { continue };
        let place = format!("{}/{}:{}: `{}`", src(&owner.name), arrow.file, arrow.line, arrow.path);
        if let Some(complaint) = judge(section, &from, &to, &place) {
            refused.entry((from, to)).or_default().push(complaint);
        }
    }
    complaints.extend(refused.into_values().map(|places| match places.len() {
        1 => places[0].clone(),
        count => format!("{} (and {} more places)", places[0], count - 1),
    }));
    complaints
}

/// Complains where `from` may not name `to`. Names that have no rank are complained about elsewhere.
fn judge(section: &Section, from: &str, to: &str, place: &str) -> Option<String> {
    let (above, under) = (rank(section, from)?, rank(section, to)?);
    let is_room = from == to || (above == under && is_other(section, from) && is_other(section, to));
    if is_room || above < under {
        return None;
    }
    let kind = if above == under { "neighbours never meet" } else { "an arrow up" };
    Some(format!(
        "{place}: {from} -> {to} in {}: {kind}. Move what both need below both, or hand it in as an argument; \
         the layers are in {TABLE}",
        section.folder
    ))
}

/// Layer of a name, counted from the top.
fn rank(section: &Section, name: &str) -> Option<usize> {
    let of = |wanted: &str| section.layers.iter().position(|layer| layer.iter().any(|one| one == wanted));
    of(name).or_else(|| of("*"))
}

/// True for a file that only `*` stands for.
fn is_other(section: &Section, name: &str) -> bool {
    !section.layers.iter().flatten().any(|one| one == name)
}

/// What the tree has and the table does not, what only the table has, and what it has twice.
fn differences(section: &Section, there: &BTreeSet<&str>) -> Vec<String> {
    let folder = &section.folder;
    let named: Vec<&str> = section.layers.iter().flatten().map(String::as_str).filter(|name| *name != "*").collect();
    let unranked = there.iter().filter(|name| !named.contains(name)).map(|name| {
        format!(
            "{folder}/{name} has no rank: in the section `{folder}` of the layers in {TABLE}, put `{name}` on a line \
             below all that name it and above all that it names"
        )
    });
    let absent = named.iter().filter(|name| !there.contains(*name)).map(|name| {
        format!(
            "{TABLE}: the layers name `{name}` in {folder}, where it is not: take it out, or spell it as the tree does"
        )
    });
    let twice = named
        .iter()
        .enumerate()
        .filter(|(at, name)| named[..*at].contains(name))
        .map(|(_, name)| format!("{TABLE}: the layers name `{name}` twice in {folder}"));
    unranked.chain(absent).chain(twice).collect()
}

fn gone(folder: &str) -> String {
    format!("{TABLE}: the layers name the folder {folder}, which is not there")
}

/// Path of a crate's sources.
pub fn src(name: &str) -> String {
    format!("crates/{name}/src")
}

/// What is left of `folder` below `base`; empty for `base` itself.
fn below<'a>(folder: &'a str, base: &str) -> Option<&'a str> {
    folder.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Name of the file that is the crate's root for all others.
pub fn root_of(owner: &Crate) -> &'static str {
    if owner.files.iter().any(|(path, _)| path == "lib.rs") { "lib" } else { "main" }
}

/// What lies directly in `base` and holds this file: a file or a folder; `mod`, `lib` or `main` for the folder's own
/// file.
pub fn unit_of_file(base: &Module, path: &str) -> Option<String> {
    if !path.ends_with(".rs") || is_test(path) {
        return None;
    }
    let own = if path == "main.rs" { "main" } else { "lib" };
    unit_of_module(base, &module_of(path), own)
}

/// What lies directly in `base` and holds this module; `root` is what the crate's root is called.
pub fn unit_of_module(base: &Module, module: &Module, root: &str) -> Option<String> {
    let rest = module.strip_prefix(base.as_slice())?;
    match rest.first() {
        Some(first) => Some(first.clone()),
        None if base.is_empty() => Some(root.to_string()),
        None => Some("mod".to_string()),
    }
}

/// Names of the folders directly in `base` that hold more than tests.
pub fn folders(base: &Module, owner: &Crate) -> BTreeSet<String> {
    let modules = owner.files.iter().filter(|(path, _)| path.ends_with(".rs") && !is_test(path));
    let deeper = modules.filter_map(|(path, _)| {
        let parts: Vec<String> = path.split('/').map(String::from).collect();
        let rest = parts.strip_prefix(base.as_slice())?;
        (rest.len() > 1).then(|| rest[0].clone())
    });
    deeper.collect()
}

fn has_folders(one: &Crate) -> bool {
    !folders(&Vec::new(), one).is_empty()
}

#[cfg(test)]
mod tests;
