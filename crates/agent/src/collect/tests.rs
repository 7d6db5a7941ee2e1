//! Help for the tests of collectors: programs that a test plays, readings as lines, and the table of metrics.

use super::child::Program;
use probe::Reading;
use std::path::PathBuf;

/// A program of the test's own.
pub struct Script {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Script {
    /// A shell script with this body. Another process writes the file: while one of ours had it open, a test beside
    /// this one might fork, and the kernel runs no program that somebody may write.
    pub fn new(body: &str) -> Script {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("program");
        let text = format!("#!/bin/sh\n{body}\n");
        let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let written = std::process::Command::new("sh").args(["-c", write]).arg(&path).arg(text).status();
        assert!(written.expect("a shell").success());
        Script { _folder: folder, path }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    pub fn program(&self) -> Program {
        Program::new(self.path())
    }
}

/// Readings as lines, after each was found in docs/agent-metrics.md with its type.
pub fn rows(readings: &[Reading]) -> Vec<String> {
    for reading in readings {
        assert!(is_documented(reading), "docs/agent-metrics.md lacks {} as {:?}", reading.metric, reading.counter_type);
        assert_eq!(model::tags::canonical_string(&reading.tags), reading.tags);
    }
    let row = |reading: &Reading| {
        let value = model::number::go_json(reading.value);
        format!("{} {} {} {value}", reading.metric, reading.tags, reading.counter_type.as_str())
    };
    readings.iter().map(row).collect()
}

fn is_documented(reading: &Reading) -> bool {
    let table = include_str!("../../../../docs/agent-metrics.md").lines().filter(|line| line.starts_with("| `"));
    table.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>()).any(|cells| {
        let mut names = cells[1].split(", ").map(|name| name.trim_matches('`'));
        cells[2] == reading.counter_type.as_str() && names.any(|name| name == reading.metric)
    })
}
