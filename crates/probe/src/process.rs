//! proc.num: how many processes match a name and a piece of the command line.
//!
//! Compat: docs/open-falcon/agent.md §4. The name is that of `/proc/PID/status`, the command line has its NULs removed,
//! both must match; a process without a command line (a kernel thread) never counts; other keys are no condition, so a
//! strategy without either counts every process.
//! Memory: one reused buffer of at most one command line.

use crate::reading::Reading;
use crate::roots::{ProbeError, Roots, read_into};
use std::path::Path;

/// The processes that a strategy's tags ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessMatch {
    /// The tags as configured, canonical: they name the series.
    tags: String,
    name: Option<String>,
    cmdline: Option<String>,
}

impl ProcessMatch {
    /// Reads the tags `name` and `cmdline` of a strategy; others are kept as a part of the series' name.
    pub fn parse(tags: &str) -> ProcessMatch {
        let value = |key: &str| {
            let piece = tags.split(',').rev().find_map(|piece| piece.trim_start().strip_prefix(key)?.strip_prefix('='));
            piece.map(|value| value.trim().to_string())
        };
        ProcessMatch { tags: model::tags::canonical_string(tags), name: value("name"), cmdline: value("cmdline") }
    }

    fn matches(&self, name: &[u8], cmdline: &[u8]) -> bool {
        self.name.as_ref().is_none_or(|wanted| wanted.as_bytes() == name)
            && self.cmdline.as_ref().is_none_or(|wanted| contains(cmdline, wanted.as_bytes()))
    }
}

pub(crate) fn collect(roots: &Roots, wanted: &[ProcessMatch], out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut counts = vec![0_u64; wanted.len()];
    let unreadable = |error| ProbeError::Unreadable { file: roots.proc.clone(), error };
    let mut buffer = Vec::new();
    for entry in std::fs::read_dir(&roots.proc).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            count(&entry.path(), wanted, &mut counts, &mut buffer);
        }
    }
    for (wanted, count) in wanted.iter().zip(counts) {
        out.push(Reading::gauge("proc.num", &wanted.tags, count as f64));
    }
    Ok(())
}

/// Counts a process for each match. One that ends meanwhile does not count.
fn count(process: &Path, wanted: &[ProcessMatch], counts: &mut [u64], buffer: &mut Vec<u8>) {
    if read_into(&process.join("status"), buffer).is_err() {
        return;
    }
    let Some(name) = buffer.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Name:")) else { return };
    let name = name.trim_ascii().to_vec();
    if read_into(&process.join("cmdline"), buffer).is_err() {
        return;
    }
    buffer.retain(|byte| *byte != 0);
    if buffer.is_empty() {
        return;
    }
    for (wanted, count) in wanted.iter().zip(counts) {
        *count += u64::from(wanted.matches(&name, buffer));
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of fixture_static_expected.csv, with the tags as they were configured.
    #[test]
    fn equals_the_original_on_its_fixture() {
        let check = |tags: &str, expected: f64| {
            let mut out = Vec::new();
            collect(&Roots::new(testdata::path("agent/fixture_root")), &[ProcessMatch::parse(tags)], &mut out)
                .expect("readable");
            assert_eq!((out.len(), out[0].value), (1, expected), "{tags}");
            assert_eq!(out[0].tags, model::tags::canonical_string(tags));
        };
        check("cmdline=-Dapp=orderserver", 1.0);
        check("cmdline=worker process", 2.0);
        check("foo=bar", 7.0);
        check("name=absent", 0.0);
        check("name=java,cmdline=-Dapp=order", 1.0);
        check("name=kthreadd", 0.0);
        check("name=nginx", 3.0);
        check("name=nginx,foo=bar", 3.0);
    }
}
