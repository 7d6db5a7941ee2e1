//! Named: every path of ours that a document names exists, and every test that it names is there.
//!
//! Why: documents are how a stranger finds the room for a change; a path that has moved away sends him nowhere.
//! How: links and `code spans` of all documents. A word that looks like a path (a known ending, or the name of a folder
//! of ours before the first `/`, or a `/` at its end) is looked up below the root, beside the document, and as the end
//! of any path of the tree: `queue/tests.rs` names a file of that name in a folder of that name. `{a,b}` is each, `*`
//! any text. Behind `::` is the name of a test or function in that file, which `…` may cut short; `points::name`
//! without an ending is one of `crates/hawkeye/tests/it`. In blocks of commands only paths from a folder of the root
//! count.
//! Invariants: docs/open-falcon names the original's paths and is left out; other words that look like ours and are not
//! stand in [`NOT_OURS`], each with its reason.

mod words;

use std::collections::BTreeSet;

use words::{Word, words};

/// Words that look like a path of this repository, and what they are instead.
const NOT_OURS: [(&str, &str); 5] = [
    ("cfg.json", "the configuration of Open-Falcon's programs"),
    ("notify/", "Alertmanager's folder of channels"),
    ("data/", "the server's files, which it makes itself"),
    ("buffer/", "a folder of these"),
    ("target/", "what builds make"),
];

/// Endings of files that this repository has.
const ENDINGS: [&str; 15] =
    ["csv", "css", "html", "js", "json", "lock", "md", "py", "rs", "sh", "snap", "sql", "toml", "txt", "yml"];

/// Paths of the tree, and how the files' texts are read.
pub struct Tree<'a> {
    paths: BTreeSet<String>,
    read: &'a dyn Fn(&str) -> String,
}

impl<'a> Tree<'a> {
    /// Knows the files and every folder above one of them; a folder ends in `/`.
    pub fn new(files: &[String], read: &'a dyn Fn(&str) -> String) -> Tree<'a> {
        let mut paths: BTreeSet<String> = files.iter().cloned().collect();
        for file in files {
            paths.extend(file.match_indices('/').map(|(at, _)| file[..=at].to_string()));
        }
        Tree { paths, read }
    }

    /// Complaints about one document.
    pub fn check(&self, document: &str, text: &str) -> Vec<String> {
        let complaints = words(text).into_iter().filter_map(|word| {
            let reason = self.objection(document, &word)?;
            Some(format!("{document}:{}: `{}`: {reason}", word.line, word.text))
        });
        complaints.collect()
    }

    fn objection(&self, document: &str, word: &Word) -> Option<String> {
        if NOT_OURS.iter().any(|(text, _)| word.text == *text || (text.ends_with('/') && word.text.starts_with(text))) {
            return None;
        }
        let (path, function) = match word.text.split_once("::") {
            Some((path, function)) => (path, Some(function)),
            None => (word.text.as_str(), None),
        };
        let path = path.strip_prefix("./").unwrap_or(path);
        if word.is_link || self.is_path(path, word.is_command) {
            let found = expand(path).into_iter().map(|path| (self.find(document, &path, word.is_link), path));
            let found: Vec<_> = found.collect();
            if let Some((_, absent)) = found.iter().find(|(paths, _)| paths.is_empty()) {
                return Some(format!(
                    "{absent} does not exist; name it as it is called now, or say in NOT_OURS what it is"
                ));
            }
            let files: Vec<&String> = found.iter().flat_map(|(paths, _)| paths).collect();
            return function.and_then(|name| self.lacks(&files, name));
        }
        let file = format!("crates/hawkeye/tests/it/{path}.rs");
        function.filter(|_| self.paths.contains(&file)).and_then(|name| self.lacks(&[&file], name))
    }

    /// True for a word that can only be a path of this repository.
    fn is_path(&self, word: &str, is_command: bool) -> bool {
        let is_spelled = word.chars().all(|sign| sign.is_ascii_alphanumeric() || "./_-{},*".contains(sign));
        if !is_spelled || word.starts_with(['/', '*', '-']) || word.ends_with(".*") {
            return false;
        }
        let begins_in_root = word.split_once('/').is_some_and(|(first, _)| self.paths.contains(&format!("{first}/")));
        let has_ending =
            word.rsplit_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && ENDINGS.contains(&ending));
        begins_in_root || (!is_command && (has_ending || (word.ends_with('/') && word.len() > 1)))
    }

    /// Paths that a word may mean. A link is meant from its document, as a reader's program follows it.
    fn find(&self, document: &str, word: &str, is_link: bool) -> Vec<String> {
        let (folder, _) = document.rsplit_once('/').unwrap_or(("", document));
        let beside = join(folder, word);
        let anywhere = word.trim_start_matches("../");
        let matches = |path: &&String| {
            let path = if word.ends_with('/') { path.as_str() } else { path.trim_end_matches('/') };
            fits(path, &beside) || (!is_link && (fits(path, word) || ends(path, anywhere)))
        };
        self.paths.iter().filter(matches).cloned().collect()
    }

    /// Complains where none of the files has such a function. `…` stands for any text at either end.
    fn lacks(&self, files: &[&String], name: &str) -> Option<String> {
        let wanted = name.trim_matches('…');
        let (front, back) = (name.starts_with('…'), name.ends_with('…'));
        let is_it = |found: &str| match (front, back) {
            (false, false) => found == wanted,
            (false, true) => found.starts_with(wanted),
            (true, false) => found.ends_with(wanted),
            (true, true) => found.contains(wanted),
        };
        let has = files.iter().any(|file| functions((self.read)(file).as_str()).any(is_it));
        (!has).then(|| format!("no function {name} there"))
    }
}

/// All names in a text; not only those behind `fn `, since macros make tests, too.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '_')).filter(|name| !name.is_empty())
}

/// Each path that `{a,b}` stands for.
fn expand(word: &str) -> Vec<String> {
    let Some((before, rest)) = word.split_once('{') else { return vec![word.to_string()] };
    let Some((choices, after)) = rest.split_once('}') else { return vec![word.to_string()] };
    choices.split(',').flat_map(|choice| expand(&format!("{before}{choice}{after}"))).collect()
}

/// A path from a folder, with its `..` walked.
fn join(folder: &str, word: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in word.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// True where the path's last parts fit.
fn ends(path: &str, pattern: &str) -> bool {
    let starts = std::iter::once(0).chain(path.match_indices('/').map(|(at, _)| at + 1));
    starts.into_iter().any(|at| fits(&path[at..], pattern))
}

/// True where the path is the pattern, in which `*` stands for any text within a part.
fn fits(path: &str, pattern: &str) -> bool {
    let (path, pattern): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), pattern.split('/').collect());
    path.len() == pattern.len() && path.iter().zip(pattern).all(|(part, pattern)| part_fits(part, pattern))
}

fn part_fits(part: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => part == pattern,
        Some((front, rest)) => part.strip_prefix(front).is_some_and(|left| {
            let cuts = left.char_indices().map(|(at, _)| at).chain([left.len()]);
            cuts.into_iter().any(|at| part_fits(&left[at..], rest))
        }),
    }
}

#[cfg(test)]
mod tests;
