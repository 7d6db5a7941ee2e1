//! Repository: the files of the working copy, by their paths from its root.
//!
//! How: a walk instead of `git ls-files`, so that an unpacked archive is checked as a clone is, and a new file before
//! its first commit. What programs leave behind ([`MADE`]) is not walked.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are made, not written: of builds, fuzzing, measurements and running servers.
const MADE: [&str; 8] =
    [".git", "target", "data", "bench/results", "fuzz/target", "fuzz/corpus", "fuzz/artifacts", "fuzz/coverage"];

/// Names of folders that are made wherever they are.
const MADE_ANYWHERE: [&str; 2] = ["node_modules", "__pycache__"];

/// Root of the working copy.
pub fn root() -> PathBuf {
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    house.ancestors().nth(2).expect("tests/house lies two folders below the root").to_path_buf()
}

/// Paths of all files, with `/` between their parts, sorted.
pub fn files() -> Vec<String> {
    let mut found = Vec::new();
    walk(&root(), "", &mut found);
    found.sort();
    found
}

/// Text of a file, which must be UTF-8.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("an entry of a folder can be read");
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().expect("the kind of an entry can be read");
        if kind.is_dir() && !is_made(&path) {
            walk(&entry.path(), &format!("{path}/"), found);
        } else if kind.is_file() {
            found.push(path);
        }
    }
}

fn is_made(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    MADE.contains(&path) || MADE_ANYWHERE.contains(&name)
}

#[test]
fn the_walk_finds_this_file_and_nothing_made() {
    let files = files();
    assert!(files.iter().any(|path| path == "tests/house/src/repository.rs"), "{files:?}");
    assert!(!files.iter().any(|path| path.starts_with("target/") || path.starts_with(".git/")));
}
