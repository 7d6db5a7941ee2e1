//! proc.num: how many processes match a name and a piece of the command line.
//!
//! Compat: docs/open-falcon/agent.md §4. The name is that of `/proc/PID/status`, the command line has its NULs removed,
//! both must match; a process without a command line (a kernel thread) never counts; other keys are no condition, so a
//! strategy without either counts every process.
//! The kernel keeps 15 bytes of a name, and the original finds no process by a longer one. Here the kernel's 15 must be
//! the first of a longer name, and the program, or one of its arguments, must be a file of that name: of a script, its
//! interpreter is the program and the script an argument.
//! Memory: at most one command line, twice.

use crate::reading::Reading;
use crate::roots::{ProbeError, Roots, read_into};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of a process's name that the kernel keeps (`TASK_COMM_LEN` less the NUL).
const NAME_BYTES: usize = 15;

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

    fn matches(&self, process: &Process) -> bool {
        self.name.as_ref().is_none_or(|wanted| process.is_named(wanted.as_bytes()))
            && self.cmdline.as_ref().is_none_or(|wanted| contains(&process.cmdline, wanted.as_bytes()))
    }
}

/// What a process is asked for.
struct Process<'p> {
    /// Its directory in `/proc`.
    directory: &'p Path,
    /// The kernel's name for it.
    name: Vec<u8>,
    /// The arguments, each with a NUL behind it.
    arguments: &'p [u8],
    /// The arguments without the NULs.
    cmdline: Vec<u8>,
}

impl Process<'_> {
    fn is_named(&self, wanted: &[u8]) -> bool {
        if wanted.len() <= NAME_BYTES {
            return self.name == wanted;
        }
        let is_wanted = |path: &[u8]| path.rsplit(|byte| *byte == b'/').next() == Some(wanted);
        self.name == wanted[..NAME_BYTES]
            && (self.arguments.split(|byte| *byte == 0).any(is_wanted)
                || self.program().is_some_and(|path| is_wanted(&path)))
    }

    /// The file that runs, also when another one has taken its name meanwhile. Of others' processes only root is told.
    fn program(&self) -> Option<Vec<u8>> {
        let path = std::fs::read_link(self.directory.join("exe")).ok()?;
        let path = path.as_os_str().as_bytes();
        Some(path.strip_suffix(b" (deleted)").unwrap_or(path).to_vec())
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
fn count(directory: &Path, wanted: &[ProcessMatch], counts: &mut [u64], buffer: &mut Vec<u8>) {
    if read_into(&directory.join("status"), buffer).is_err() {
        return;
    }
    let Some(name) = buffer.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Name:")) else { return };
    let name = unescaped(name.trim_ascii());
    if read_into(&directory.join("cmdline"), buffer).is_err() {
        return;
    }
    let cmdline: Vec<u8> = buffer.iter().copied().filter(|byte| *byte != 0).collect();
    if cmdline.is_empty() {
        return;
    }
    let process = Process { directory, name, arguments: buffer, cmdline };
    for (wanted, count) in wanted.iter().zip(counts) {
        *count += u64::from(wanted.matches(&process));
    }
}

/// Undoes what the kernel does to the two bytes of a name that would break its line: `\n` and `\\`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::with_capacity(name.len()), name.iter());
    while let Some(byte) = bytes.next() {
        out.push(match (byte, bytes.as_slice().first()) {
            (b'\\', Some(escaped @ (b'\\' | b'n'))) => {
                bytes.next();
                if *escaped == b'n' { b'\n' } else { b'\\' }
            }
            _ => *byte,
        });
    }
    out
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

    /// A tree of one process: its name as `status` has it, its arguments, and where its program is.
    fn counted(name: &str, arguments: &[&str], program: Option<&str>, tags: &str) -> f64 {
        let root = tempfile::tempdir().expect("a directory");
        let process = root.path().join("proc/7");
        std::fs::create_dir_all(&process).expect("directories");
        std::fs::write(process.join("status"), format!("Name:\t{name}\nUmask:\t0022\n")).expect("writable");
        let cmdline: String = arguments.iter().map(|argument| format!("{argument}\0")).collect();
        std::fs::write(process.join("cmdline"), cmdline).expect("writable");
        if let Some(program) = program {
            std::os::unix::fs::symlink(program, process.join("exe")).expect("writable");
        }
        let mut out = Vec::new();
        collect(&Roots::new(root.path()), &[ProcessMatch::parse(tags)], &mut out).expect("readable");
        out[0].value
    }

    #[test]
    fn long_names_are_found_although_the_kernel_cuts_them() {
        const LONG: &str = "name=prometheus-node-exporter";
        let check = |name: &str, arguments: &[&str], program: Option<&str>, expected: f64| {
            assert_eq!(counted(name, arguments, program, LONG), expected, "{name} {arguments:?} {program:?}");
        };
        check("prometheus-node", &["/usr/bin/prometheus-node-exporter", "--web"], None, 1.0);
        check("prometheus-node", &["prometheus-node-exporter"], None, 1.0);
        // A script, with its interpreter before it.
        check(
            "prometheus-node",
            &["/usr/bin/python3", "-u", "/opt/prometheus-node-exporter"],
            Some("/usr/bin/python3"),
            1.0,
        );
        // A command line of its own making, of a program that an update has replaced.
        check("prometheus-node", &["exporter: idle"], Some("/usr/bin/prometheus-node-exporter (deleted)"), 1.0);
        // Others whose names begin alike, and whoever has the name as an argument only.
        check("prometheus-node", &["/usr/bin/prometheus-node-thing"], Some("/usr/bin/prometheus-node-thing"), 0.0);
        check("prometheus-node", &["exporter: idle"], None, 0.0);
        check("vim", &["vim", "/etc/prometheus-node-exporter"], Some("/usr/bin/vim"), 0.0);
        check("prometheus-node", &[], Some("/usr/bin/prometheus-node-exporter"), 0.0);
        // Fifteen bytes are whole, and more than the kernel's never fit.
        assert_eq!(counted("prometheus-node", &["/x/prometheus-node-exporter"], None, "name=prometheus-node"), 1.0);
        assert_eq!(counted("prometheus-node", &["prometheus-node"], None, "name=prometheus-nod"), 0.0);
        let both = "name=prometheus-node-exporter,cmdline=--web";
        assert_eq!(counted("prometheus-node", &["prometheus-node-exporter", "--web.listen"], None, both), 1.0);
        assert_eq!(counted("prometheus-node", &["prometheus-node-exporter"], None, both), 0.0);
    }

    #[test]
    fn odd_names_are_found() {
        for (name, tags) in
            [("a) b (c", "name=a) b (c"), ("a\\\\b", "name=a\\b"), ("a\\x", "name=a\\x"), ("中文名", "name=中文名")]
        {
            assert_eq!(counted(name, &["x"], None, tags), 1.0, "{name}");
        }
        assert_eq!(unescaped(b"a\\nb\\\\n"), b"a\nb\\n");
    }
}
