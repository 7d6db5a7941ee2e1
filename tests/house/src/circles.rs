//! Circles: no folder of a crate meets itself by way of what lies beside it.
//!
//! Why: the table of layers ranks some folders only; in every other one a folder and a file that name each other are
//! one room with a wall through it, and neither can be read alone.
//! How: in each folder of `src` the files and folders that lie directly in it are the members (`mod`, `lib` or `main`
//! is the folder's own file), and the arrows between them are walked from each folder until one leads back.
//! Invariants: needs no table. Files of one folder may name each other: a circle of files alone is none here.

use std::collections::{BTreeMap, BTreeSet};

use crate::arrows::{Arrow, Module};
use crate::layers::{Crate, folders, root_of, src, unit_of_file, unit_of_module};

/// Members that each member names, with the first place where it does.
type Named = BTreeMap<String, BTreeMap<String, String>>;

/// Complaints about a crate whose arrows are these.
pub fn circles(owner: &Crate, arrows: &[Arrow]) -> Vec<String> {
    let mut complaints = Vec::new();
    for base in bases(owner) {
        let named = named(owner, &base, arrows);
        let mut seen: BTreeSet<BTreeSet<String>> = BTreeSet::new();
        for folder in folders(&base, owner) {
            let Some(circle) = way_back(&named, &folder) else { continue };
            if seen.insert(circle.iter().cloned().collect()) {
                complaints.push(complaint(owner, &base, &named, &circle));
            }
        }
    }
    complaints
}

/// Folders of `src` that hold files, `src` first.
fn bases(owner: &Crate) -> BTreeSet<Module> {
    let mut found = BTreeSet::from([Module::new()]);
    for (path, _) in &owner.files {
        let parts: Module = path.split('/').map(String::from).collect();
        found.extend((1..parts.len()).map(|length| parts[..length].to_vec()));
    }
    found
}

fn named(owner: &Crate, base: &Module, arrows: &[Arrow]) -> Named {
    let mut named = Named::new();
    for arrow in arrows {
        let from = unit_of_file(base, &arrow.file);
        let (Some(from), Some(to)) = (from, unit_of_module(base, &arrow.to, root_of(owner))) else { continue };
        if from != to {
            let place = || format!("{}:{}: `{}`", arrow.file, arrow.line, arrow.path);
            named.entry(from).or_default().entry(to).or_insert_with(place);
        }
    }
    named
}

/// Members of a shortest circle through `start`, which stands first.
fn way_back(named: &Named, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_string()]];
    let mut at = 0;
    while let Some(way) = ways.get(at).cloned() {
        at += 1;
        for next in way.last().and_then(|last| named.get(last)).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(way);
            }
            if !ways.iter().any(|other| other.last() == Some(next)) {
                ways.push([way.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

fn complaint(owner: &Crate, base: &Module, named: &Named, circle: &[String]) -> String {
    let folder = [&[src(&owner.name)], base.as_slice()].concat().join("/");
    let steps = circle.iter().zip(circle.iter().cycle().skip(1));
    let places: Vec<&str> = steps.map(|(from, to)| named[from][to].as_str()).collect();
    format!(
        "{folder}: a circle through a folder, {} -> {}: move what both need below both, or all into one folder ({})",
        circle.join(" -> "),
        circle[0],
        places.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::circles;
    use crate::arrows::arrows;
    use crate::layers::Crate;

    fn complaints(files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
        let own = Crate { name: "own".into(), needs: vec![], files };
        let arrows = arrows(&own.name, &own.files).expect("the made-up crate is Rust");
        circles(&own, &arrows)
    }

    #[test]
    fn a_folder_and_a_file_that_name_each_other_are_refused() {
        let found = complaints(&[
            ("lib.rs", ""),
            ("top/a.rs", "use super::b::c::C;"),
            ("top/b/mod.rs", ""),
            ("top/b/c.rs", "\nuse crate::top::a::A;"),
        ]);
        assert_eq!(
            found,
            [
                "crates/own/src/top: a circle through a folder, b -> a -> b: move what both need below both, or all into \
                 one folder (top/b/c.rs:2: `crate::top::a::A`; top/a.rs:1: `super::b::c::C`)"
            ]
        );
    }

    #[test]
    fn a_circle_of_three_is_said_once() {
        let found = complaints(&[
            ("lib.rs", ""),
            ("a/x.rs", "use crate::b::B;"),
            ("b/x.rs", "use crate::c::C;"),
            ("b/mod.rs", "use crate::c::C;"),
            ("c.rs", "use crate::a::A;"),
        ]);
        assert!(found.len() == 1 && found[0].contains(", a -> b -> c -> a: "), "{found:#?}");
    }

    #[test]
    fn a_folders_own_file_is_a_member() {
        let found = complaints(&[("lib.rs", "use a::x::X;\npub struct L;"), ("a/x.rs", "use crate::L;")]);
        assert!(found.len() == 1 && found[0].contains("a -> lib -> a"), "{found:#?}");
    }

    #[test]
    fn no_circle_of_this_repository_crosses_a_folder() {
        let crates = crate::crates::all();
        let of_crate =
            |one: &Crate| arrows(&one.name, &one.files).map_or_else(|refused| refused, |found| circles(one, &found));
        let complaints: Vec<String> = crates.iter().flat_map(of_crate).collect();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }

    #[test]
    fn files_of_one_folder_may_name_each_other() {
        let ring = [
            ("lib.rs", "use a::x::X;"),
            ("a/mod.rs", "pub use y::Y;"),
            ("a/x.rs", "use super::Y;"),
            ("a/y.rs", "use super::x::X;"),
        ];
        assert_eq!(complaints(&ring), Vec::<String>::new());
    }
}
