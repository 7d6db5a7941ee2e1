//! Files: regular files that globs name, below the prefix of the host's root.
//!
//! Invariants: a folder that cannot be listed has no files for us; no more than the caller's number are named, and that
//! there are more is a failure.

use crate::roots::{ProbeError, Roots};
use std::io;
use std::path::PathBuf;

/// Paths of the files that match, each once, `max` at most. The globs are absolute and can be read.
pub fn matching_files(roots: &Roots, globs: &[String], max: usize, failures: &mut Vec<ProbeError>) -> Vec<PathBuf> {
    let prefix = glob::Pattern::escape(&roots.prefix.to_string_lossy());
    let mut paths: Vec<PathBuf> = Vec::new();
    for text in globs {
        let pattern = format!("{}/{}", prefix.trim_end_matches('/'), text.trim_start_matches('/'));
        for path in glob::glob(&pattern).into_iter().flatten().flatten() {
            if paths.contains(&path) || !path.is_file() {
                continue;
            }
            if paths.len() == max {
                let error = io::Error::other(format!("more than {max} files match: give narrower globs"));
                failures.push(ProbeError::Unreadable { file: PathBuf::from(text), error });
                return paths;
            }
            paths.push(path);
        }
    }
    paths
}

/// What is wrong with a glob; `**`, which has no bound, is.
pub fn glob_fault(text: &str) -> Option<String> {
    match glob::Pattern::new(text) {
        Err(error) => Some(error.to_string()),
        Ok(_) if text.contains("**") => Some("** has no bound".to_string()),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_bounded() {
        let check = |text: &str, is_fine: bool| assert_eq!(glob_fault(text).is_none(), is_fine, "{text}");
        check("/var/log/*/[a-z]?.log", true);
        check("/var/log/**/x", false);
        check("/var/[", false);
    }
}
