use super::{Crate, Section, TABLE, check, parse};
use crate::{crates, repository};

const DOCUMENT: &str = "# Layers\n\n```layers\ncrates\n  top\n  left right\n  low\n\ncrates/top/src\n  main\n  cli\n  role\n  \
    rules low\n\ncrates/top/src/role\n  mod\n  alarm graph\n```\n";

fn sections() -> Vec<Section> {
    parse(DOCUMENT).expect("the made-up table can be read")
}

/// A sound tree of the table above; `changed` are files that are added to `top` or replaced in it.
fn tree(changed: &[(&str, &str)]) -> Vec<Crate> {
    let sound = [
        ("main.rs", "mod cli;\nmod low;\nmod role;\nmod rules;\nfn main() { cli::run() }"),
        ("cli.rs", "use crate::role::alarm;\nuse low::Other;"),
        ("role/mod.rs", "pub mod alarm;\npub mod graph;"),
        ("role/alarm.rs", "use crate::rules::Rule;"),
        ("role/graph/mod.rs", "use crate::low::Low;"),
        ("rules.rs", ""),
        ("low.rs", ""),
    ];
    let kept = sound.iter().filter(|(path, _)| !changed.iter().any(|(other, _)| other == path));
    let files = kept.chain(changed).map(|(path, text)| (path.to_string(), text.to_string())).collect();
    vec![
        Crate { name: "top".into(), needs: vec!["left".into(), "low".into()], files },
        Crate { name: "left".into(), needs: vec!["low".into()], files: vec![("lib.rs".into(), String::new())] },
        Crate { name: "right".into(), needs: vec![], files: vec![("lib.rs".into(), String::new())] },
        Crate { name: "low".into(), needs: vec![], files: vec![("lib.rs".into(), String::new())] },
    ]
}

/// Wants exactly one complaint, which begins so.
fn one(complaints: &[String], begins: &str) {
    assert!(complaints.len() == 1 && complaints[0].starts_with(begins), "{complaints:#?}");
}

#[test]
fn a_sound_tree_passes() {
    assert_eq!(check(&sections(), &tree(&[])), Vec::<String>::new());
}

#[test]
fn the_table_is_read() {
    let section = &sections()[1];
    assert_eq!(section.folder, "crates/top/src");
    assert_eq!(section.layers, [vec!["main"], vec!["cli"], vec!["role"], vec!["rules", "low"]]);
    assert!(parse("# Layers\n").is_err());
    assert!(parse("\n```layers\n  main\n```\n").is_err());
}

#[test]
fn an_arrow_up_is_refused() {
    let complaints = check(&sections(), &tree(&[("rules.rs", "fn f() { super::role::alarm::ring() }")]));
    one(
        &complaints,
        "crates/top/src/rules.rs:1: `super::role::alarm::ring`: rules -> role in crates/top/src: an arrow up",
    );
}

#[test]
fn a_circle_is_refused() {
    let changed = [("rules.rs", "use crate::low::A;"), ("low.rs", "\nuse crate::rules::B;")];
    let complaints = check(&sections(), &tree(&changed));
    assert_eq!(complaints.len(), 2, "{complaints:#?}");
    assert!(complaints.iter().all(|complaint| complaint.contains("neighbours never meet")));
}

#[test]
fn a_room_names_nothing_in_the_root() {
    let complaints = check(&sections(), &tree(&[("low.rs", "use crate::VERSION;")]));
    one(&complaints, "crates/top/src/low.rs:1: `crate::VERSION`: low -> main");
}

#[test]
fn siblings_of_a_folder_never_meet() {
    let complaints = check(&sections(), &tree(&[("role/alarm.rs", "use super::graph::Text;")]));
    one(&complaints, "crates/top/src/role/alarm.rs:1: `super::graph::Text`: alarm -> graph in crates/top/src/role");
    let complaints = check(&sections(), &tree(&[("role/graph/mod.rs", "use super::Role;")]));
    one(
        &complaints,
        "crates/top/src/role/graph/mod.rs:1: `super::Role`: graph -> mod in crates/top/src/role: an arrow up",
    );
}

#[test]
fn a_crate_that_needs_one_above_is_refused() {
    let mut tree = tree(&[]);
    tree[3].needs.push("left".into());
    one(&check(&sections(), &tree), "crates/low/Cargo.toml: it depends on left: low -> left in crates: an arrow up");
    tree[3].needs.clear();
    tree[2].needs.push("left".into());
    one(&check(&sections(), &tree), "crates/right/Cargo.toml: it depends on left: right -> left in crates: neighbours");
}

#[test]
fn what_has_no_rank_is_told_where_to_get_one() {
    one(
        &check(&sections(), &tree(&[("new/mod.rs", "")])),
        "crates/top/src/new has no rank: in the section `crates/top/src`",
    );
    one(&check(&sections(), &tree(&[("new.rs", "")])), "crates/top/src/new has no rank");
    one(&check(&sections(), &tree(&[("role/new.rs", "")])), "crates/top/src/role/new has no rank");
    let mut more = tree(&[]);
    more.push(Crate { name: "new".into(), needs: vec![], files: vec![("lib.rs".into(), String::new())] });
    one(&check(&sections(), &more), "crates/new has no rank");
}

#[test]
fn what_the_table_alone_has_is_refused() {
    let mut tree = tree(&[("role/alarm.rs", "")]);
    tree[0].files.retain(|(path, _)| path != "rules.rs");
    one(&check(&sections(), &tree), "docs/architecture.md: the layers name `rules` in crates/top/src, where it is not");
    tree[0].files.retain(|(path, _)| path != "role/alarm.rs");
    tree[0].files.push(("rules.rs".into(), String::new()));
    one(&check(&sections(), &tree), "docs/architecture.md: the layers name `alarm` in crates/top/src/role");
    tree[0].files.retain(|(path, _)| !path.starts_with("role/"));
    let complaints = check(&sections(), &tree);
    assert!(
        complaints.contains(
            &"docs/architecture.md: the layers name the folder crates/top/src/role, which is not there".into()
        )
    );
}

#[test]
fn a_name_has_one_rank() {
    let twice = DOCUMENT.replace("rules low", "rules low cli");
    let sections = parse(&twice).expect("the made-up table can be read");
    one(&check(&sections, &tree(&[])), "docs/architecture.md: the layers name `cli` twice in crates/top/src");
}

#[test]
fn a_crate_with_folders_needs_a_section() {
    let mut tree = tree(&[]);
    tree[1].files.push(("deep/file.rs".into(), String::new()));
    one(&check(&sections(), &tree), "crates/left/src has folders: give it a section");
    tree[1].files[1].0 = "deep/tests.rs".into();
    assert_eq!(check(&sections(), &tree), Vec::<String>::new());
}

#[test]
fn a_star_stands_for_all_other_files_but_for_no_folder() {
    let more = DOCUMENT.replace("crates/top/src\n", "crates/left/src\n  lib\n  deep\n  *\n\ncrates/top/src\n");
    let sections = parse(&more).expect("the made-up table can be read");
    let left = |text: &str, folder: &str| {
        let mut tree = tree(&[]);
        tree[1].files.push(("a.rs".into(), text.into()));
        tree[1].files.push(("b.rs".into(), "use crate::a::A;".into()));
        tree[1].files.push((folder.into(), "use crate::b::B;".into()));
        check(&sections, &tree)
    };
    assert_eq!(left("use crate::b::B;", "deep/c.rs"), Vec::<String>::new());
    one(&left("use crate::deep::c::C;", "deep/c.rs"), "crates/left/src/a.rs:1: `crate::deep::c::C`: a -> deep");
    let complaints = left("", "other/c.rs");
    assert!(complaints.iter().any(|complaint| complaint.starts_with("crates/left/src/other has no rank")));
}

#[test]
fn arrows_of_this_repository_run_downward() {
    let sections = parse(&repository::read(TABLE)).unwrap_or_else(|error| panic!("{error}"));
    let complaints = check(&sections, &crates::all());
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}
