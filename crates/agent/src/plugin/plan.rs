//! Plan: the plugins that should run, from the entries of hbs and what lies in the plugin directory.
//!
//! How: a file that is bound itself runs with its arguments, under the key `path(args)`; a directory stands for the
//! files in it (not below) whose names begin with a cycle, each under its path. A file that is bound itself is left out
//! of its directory.
//! Invariants: reads the file system, and nothing else; at most [`PLUGINS_MAX`], files that are bound themselves first;
//! what cannot run is told with the reason.
//! Compat: docs/open-falcon/agent.md §5.

use super::entry::{Entry, cycle_of};
use super::tree::{self, Found};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Plugins of a host. A guess: hosts of the field have some ten; the bound limits what a wrong hbs can make of a host.
pub const PLUGINS_MAX: usize = 128;
/// Entries that are looked at. A guess: hosts are in some ten groups, which have some ten entries.
const ENTRIES_MAX: usize = 1024;
/// Reasons that are kept for the log.
const REFUSED_MAX: usize = 64;

/// A file that runs once in each cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Path below the plugin directory.
    pub path: String,
    /// Unix seconds; a plugin whose file has changed begins anew.
    pub mtime: i64,
    /// Seconds, from 1 to a month.
    pub cycle_s: i64,
    /// Text between the parentheses.
    pub args: String,
}

/// What should run, by key, and what cannot.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub plugins: BTreeMap<String, Plugin>,
    pub refused: Vec<String>,
}

impl Plan {
    /// Finds the plugins of `entries` below `dir`.
    pub fn new(dir: &Path, entries: &[String]) -> Plan {
        let (mut plan, mut directories, mut bound) = (Plan::default(), Vec::new(), BTreeSet::new());
        if entries.len() > ENTRIES_MAX {
            plan.refuse(
                "further entries",
                &format!("hbs may name {ENTRIES_MAX}: bind directories, not each of their files"),
            );
        }
        for text in entries.iter().take(ENTRIES_MAX) {
            match plan.add_file(dir, text) {
                Ok(Bound::File(path)) => drop(bound.insert(path)),
                Ok(Bound::Directory(path)) => directories.push(path),
                Err(reason) => plan.refuse(text, &reason),
            }
        }
        for directory in directories {
            if let Err(reason) = plan.add_directory(dir, &directory, &bound) {
                plan.refuse(&directory, &reason);
            }
        }
        plan
    }

    fn add_file(&mut self, dir: &Path, text: &str) -> Result<Bound, String> {
        let Entry { path, args } = Entry::parse(text)?;
        let Found::File(mtime) = tree::look(dir, &path)? else { return Ok(Bound::Directory(path)) };
        let name = path.rsplit('/').next().unwrap_or_default();
        match cycle_of(name) {
            Ok(cycle_s) => {
                self.add(format!("{path}({args})"), Plugin { path: path.clone(), mtime, cycle_s, args })?;
            }
            // Bound all the same: its directory leaves the file out.
            Err(reason) => self.refuse(text, reason),
        }
        Ok(Bound::File(path))
    }

    fn add_directory(&mut self, dir: &Path, directory: &str, bound: &BTreeSet<String>) -> Result<(), String> {
        for (path, cycle_s) in tree::plugins_in(dir, directory)? {
            if bound.contains(&path) {
                continue;
            }
            // The directory's own name may be as long as an entry.
            let found = Entry::parse(&path).map_err(String::from).and_then(|_| tree::look(dir, &path));
            match found {
                Ok(Found::File(mtime)) => {
                    self.add(path.clone(), Plugin { path, mtime, cycle_s, args: String::new() })?;
                }
                Ok(Found::Directory) => {}
                Err(reason) => self.refuse(&path, &reason),
            }
        }
        Ok(())
    }

    fn add(&mut self, key: String, plugin: Plugin) -> Result<(), String> {
        if self.plugins.len() >= PLUGINS_MAX && !self.plugins.contains_key(&key) {
            return Err(format!("a host runs {PLUGINS_MAX} plugins at most: bind fewer to its groups"));
        }
        self.plugins.insert(key, plugin);
        Ok(())
    }

    fn refuse(&mut self, what: &str, reason: &str) {
        if self.refused.len() < REFUSED_MAX {
            self.refused.push(format!("{what:?}: {reason}"));
        }
    }
}

/// What an entry is bound to.
enum Bound {
    File(String),
    Directory(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[&str]) -> Folder {
            let dir = tempfile::tempdir().expect("temporary directory");
            for file in files {
                let path = dir.path().join(file);
                fs::create_dir_all(path.parent().expect("below the directory")).expect("room");
                fs::write(path, "").expect("room");
            }
            Folder(dir)
        }

        fn plan(&self, entries: &[&str]) -> Plan {
            Plan::new(self.0.path(), &entries.iter().map(|entry| entry.to_string()).collect::<Vec<_>>())
        }

        fn check(&self, entries: &[&str], keys: &[&str]) {
            let plan = self.plan(entries);
            assert_eq!(plan.plugins.keys().collect::<Vec<_>>(), keys, "{entries:?}");
            assert_eq!(plan.refused, [""; 0], "{entries:?}");
        }
    }

    #[test]
    fn directories_files_and_arguments() {
        let folder = Folder::with(&[
            "sys/60_a.sh",
            "sys/300_b.py",
            "sys/README.md",
            "sys/lib_x.sh",
            "sys/60",
            "sys/60_below/60_c.sh",
            "web/5_args.sh",
        ]);
        folder.check(&["sys"], &["sys/300_b.py", "sys/60_a.sh"]);
        folder.check(&["sys/60"], &["sys/60()"]);
        folder.check(&["sys", "sys/60_a.sh"], &["sys/300_b.py", "sys/60_a.sh()"]);
        folder.check(&["sys/60_a.sh(x)", "/sys/"], &["sys/300_b.py", "sys/60_a.sh(x)"]);
        folder.check(&["web/5_args.sh(a)", "web/5_args.sh(b)"], &["web/5_args.sh(a)", "web/5_args.sh(b)"]);
        folder.check(&["sys/60_below"], &["sys/60_below/60_c.sh"]);
        folder.check(&[], &[]);
        let plan = folder.plan(&["web/5_args.sh(a, \"b c\")"]);
        let plugin = &plan.plugins["web/5_args.sh(a, \"b c\")"];
        assert_eq!((plugin.path.as_str(), plugin.cycle_s, plugin.args.as_str()), ("web/5_args.sh", 5, "a, \"b c\""));
        assert!(plugin.mtime > 1_600_000_000);
    }

    #[test]
    fn what_cannot_run_is_told() {
        let folder = Folder::with(&["sys/60_a.sh", "sys/lib.sh", "sys/0_never.sh"]);
        let check = |entry: &str, part: &str| {
            let plan = folder.plan(&[entry, "sys/60_a.sh"]);
            assert_eq!(plan.plugins.keys().collect::<Vec<_>>(), ["sys/60_a.sh()"], "{entry}");
            assert!(plan.refused.len() == 1 && plan.refused[0].contains(part), "{:?}", plan.refused);
        };
        check("nowhere", "No such file");
        check("../x", "without ..");
        check("sys/lib.sh", "cycle");
        check("sys/0_never.sh(x)", "out of range");
    }

    #[test]
    fn a_file_that_is_bound_itself_is_not_its_directorys_even_if_it_cannot_run() {
        let folder = Folder::with(&["sys/60_a.sh", "sys/0_never.sh"]);
        let plan = folder.plan(&["sys", "sys/0_never.sh"]);
        assert_eq!(plan.plugins.keys().collect::<Vec<_>>(), ["sys/60_a.sh"]);
    }

    #[test]
    fn not_without_end() {
        let names: Vec<String> = (0..PLUGINS_MAX + 5).map(|number| format!("all/60_{number:03}.sh")).collect();
        let folder = Folder::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let plan = folder.plan(&["all", "all/60_132.sh"]);
        assert_eq!(plan.plugins.len(), PLUGINS_MAX);
        assert!(plan.plugins.contains_key("all/60_132.sh()"), "files that are bound themselves come first");
        assert!(plan.refused.len() == 1 && plan.refused[0].contains("bind fewer"), "{:?}", plan.refused);
        let plan = folder.plan(&vec!["nowhere"; ENTRIES_MAX + 1]);
        assert_eq!(plan.refused.len(), REFUSED_MAX);
        assert!(plan.refused[0].contains("bind directories"), "{:?}", plan.refused[0]);
    }
}
