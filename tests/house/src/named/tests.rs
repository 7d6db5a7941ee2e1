use super::{NOT_OURS, Tree};
use crate::repository;

const FILES: [&str; 6] = [
    "README.md",
    "docs/compat.md",
    "docs/format/log.md",
    "crates/a/src/queue/tests.rs",
    "crates/a/testdata/range_1.txt",
    "crates/hawkeye/tests/it/points.rs",
];

/// Complaints about a document that says `text`, in a tree of [`FILES`] whose Rust has the function `is_kept_whole`.
fn complaints(text: &str) -> Vec<String> {
    let read = |_: &str| "fn is_kept_whole() {}".to_string();
    Tree::new(&FILES.map(String::from), &read).check("docs/compat.md", text)
}

fn passes(text: &str) {
    assert_eq!(complaints(text), Vec::<String>::new());
}

fn fails(text: &str) {
    assert_eq!(complaints(text).len(), 1, "{text}: {:?}", complaints(text));
}

#[test]
fn paths_are_found_from_the_root_from_the_document_and_by_their_end() {
    passes("`docs/format/log.md`, `format/log.md`, `queue/tests.rs`, `tests.rs`, `queue/`, `../README.md`, `docs/`");
    passes("[log](format/log.md), [readme](../README.md#start), [formats](format/)");
    passes("`./docs/compat.md`, `crates/a/src`, `cat docs/compat.md`");
}

#[test]
fn what_has_moved_away_is_said() {
    fails("`docs/format/block.md`");
    fails("`stack/tests.rs`");
    fails("`ueue/tests.rs`");
    fails("`stack/`");
    fails("`docs/fuzz`");
    fails("[log](log.md)");
    fails("[log](docs/format/log.md)");
    fails("[tests](tests.rs)");
    let expected = "docs/compat.md:2: `stack.rs`: stack.rs does not exist; name it as it is called now, or say in \
        NOT_OURS what it is";
    assert_eq!(complaints("\n`stack.rs`"), [expected]);
}

#[test]
fn choices_and_stars_are_paths() {
    passes("`format/{log,log}.md`, `range_*.txt`, `crates/*/src/`");
    fails("`format/{log,block}.md`");
    fails("`rang*_2.txt`");
}

#[test]
fn named_tests_are_looked_for() {
    passes("`queue/tests.rs::is_kept_whole`, `queue/tests.rs::is_kept_…`, `points::…_whole`, `points::is_kept_whole`");
    fails("`queue/tests.rs::is_kept`");
    fails("`queue/tests.rs::was_…`");
    fails("`points::is_lost`");
    fails("`stack/tests.rs::is_kept_whole`");
}

#[test]
fn what_is_no_path_of_ours_passes() {
    passes("`/api/v1/host`, `net/rpc`, `graph.index_url`, `*.tmp`, `1.5`, `a::b`, `POST /v1/push`, `/`, `ss.*`, `.rs`");
    passes("```\nlog.rs\nsome/where.rs\n```");
    fails("```\ncat docs/where.md\n```");
    for (word, _) in NOT_OURS {
        passes(&format!("`{word}`"));
    }
}

/// Documents that name paths of this repository.
fn documents(files: &[String]) -> Vec<&String> {
    let is_other = |path: &str| path.starts_with("docs/open-falcon/") || path.contains("testdata/");
    files.iter().filter(|path| path.ends_with(".md") && !is_other(path)).collect()
}

#[test]
fn paths_that_documents_name_exist() {
    let files = repository::files();
    let documents = documents(&files);
    for expected in ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/compat.md", "fuzz/README.md"] {
        assert!(documents.iter().any(|path| *path == expected), "{expected} is not among {documents:?}");
    }
    let tree = Tree::new(&files, &repository::read);
    let complaints: Vec<String> = documents.iter().flat_map(|path| tree.check(path, &repository::read(path))).collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}
