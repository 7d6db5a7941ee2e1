//! Arrows: which module of a crate names which other one, found in the code itself.
//!
//! Why: `use` lines alone miss paths in the code (`crate::a::b()`), and lines of text find paths in comments and
//! strings.
//! How: the files are split into tokens; a first pass notes the modules and what each `use` brings in under which name,
//! a second one resolves every path through both, so `crate::Error` that the root takes from `error` leads to `error`.
//! Invariants: tests are left out: `#[cfg(test)]` items, files called `tests.rs` and folders called `tests`. A path
//! that leads out of the crate, or that begins with a local name, is no arrow. What would hide an arrow from this check
//! (a name of the crate that a macro puts together, code of a file elsewhere) is refused.

mod scan;

use std::collections::{HashMap, HashSet};

use scan::{Scan, scan};

/// A module, by its names from the crate's root; the root is empty.
pub type Module = Vec<String>;

/// A path in the code of `from` that leads to the module `to`.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrow {
    pub from: Module,
    pub to: Module,
    pub file: String,
    pub line: usize,
    pub path: String,
}

/// Arrows of one crate, or what hides them. `files` are the paths below its `src` with their texts; `name` is how its
/// own binaries call it.
pub fn arrows(name: &str, files: &[(String, String)]) -> Result<Vec<Arrow>, Vec<String>> {
    let mut scans = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".rs") && !is_test(path)) {
        scans.push((path, scan(module_of(path), text).map_err(|error| vec![format!("{path}: {error}")])?));
    }
    let hidden: HashSet<Module> = scans.iter().flat_map(|(_, scan)| scan.test_modules.iter().cloned()).collect();
    scans.retain(|(path, _)| !(1..=module_of(path).len()).any(|length| hidden.contains(&module_of(path)[..length])));
    let refused = scans.iter().flat_map(|(path, scan)| scan.refused.iter().map(move |one| (path, one)));
    let refused: Vec<String> = refused.map(|(path, (line, why))| format!("{path}:{line}: {why}")).collect();
    if !refused.is_empty() {
        return Err(refused);
    }

    let names = Names::new(name, scans.iter().map(|(path, scan)| (path.as_str(), scan)));
    let mut found = Vec::new();
    for (file, scan) in &scans {
        for path in &scan.paths {
            let Some(to) = names.resolve(&path.module, &path.segments) else { continue };
            let (from, path, line) = (path.module.clone(), path.segments.join("::"), path.line);
            found.push(Arrow { from, to, file: file.to_string(), line, path });
        }
    }
    Ok(found)
}

/// Module that a file is: `a/b.rs` and `a/b/mod.rs` are both `a::b`, `lib.rs` and `main.rs` the root.
pub fn module_of(path: &str) -> Module {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(String::from).collect();
    let last = parts.last().map(String::as_str);
    if last == Some("mod") || (parts.len() == 1 && matches!(last, Some("lib" | "main"))) {
        parts.pop();
    }
    parts
}

/// True for a file of tests only.
pub fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Modules of a crate, and what each of them calls by another name.
struct Names {
    own: String,
    modules: HashSet<Module>,
    aliases: HashMap<Module, HashMap<String, Vec<String>>>,
}

/// Aliases followed for one path; a chain of re-exports is short, and a circle of them must end.
const ALIASES_MAX: usize = 16;

impl Names {
    fn new<'a>(own: &str, scans: impl Iterator<Item = (&'a str, &'a Scan)>) -> Names {
        let mut names = Names { own: own.to_string(), modules: HashSet::new(), aliases: HashMap::new() };
        for (file, scan) in scans {
            let module = module_of(file);
            names.modules.extend((0..=module.len()).map(|length| module[..length].to_vec()));
            names.modules.extend(scan.inline_modules.iter().cloned());
            for alias in &scan.aliases {
                let of_module = names.aliases.entry(alias.module.clone()).or_default();
                of_module.insert(alias.name.clone(), alias.segments.clone());
            }
        }
        names
    }

    /// Deepest module that the path leads through, or nothing where it does not begin in this crate.
    fn resolve(&self, module: &[String], segments: &[String]) -> Option<Module> {
        self.follow(module, segments, ALIASES_MAX)
    }

    fn follow(&self, module: &[String], segments: &[String], aliases_left: usize) -> Option<Module> {
        let first = segments.first()?;
        let (mut at, mut rest) = match first.as_str() {
            "crate" => (Vec::new(), &segments[1..]),
            "self" => up(module, &segments[1..]),
            "super" => up(module, segments),
            name if self.knows(module, name) => (module.to_vec(), segments),
            name if name == self.own => (Vec::new(), &segments[1..]),
            _ => return None,
        };
        while let Some(name) = rest.first() {
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if self.modules.contains(&child) {
                (at, rest) = (child, &rest[1..]);
                continue;
            }
            let alias = self.aliases.get(&at).and_then(|names| names.get(name)).filter(|_| aliases_left > 0);
            let Some(alias) = alias else { break };
            let whole = [alias.as_slice(), &rest[1..]].concat();
            return self.follow(&at, &whole, aliases_left - 1);
        }
        Some(at)
    }

    /// True where `name` is a child of `module` or was brought in by a `use`.
    fn knows(&self, module: &[String], name: &str) -> bool {
        let child = [module, &[name.to_string()]].concat();
        self.modules.contains(&child) || self.aliases.get(module).is_some_and(|names| names.contains_key(name))
    }
}

/// Follows the leading `super`s, which may stand behind a `self`.
fn up<'a>(module: &[String], segments: &'a [String]) -> (Module, &'a [String]) {
    let steps = segments.iter().take_while(|name| *name == "super").count();
    (module[..module.len().saturating_sub(steps)].to_vec(), &segments[steps..])
}

#[cfg(test)]
mod tests;
