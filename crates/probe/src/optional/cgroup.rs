//! Control groups: what services and containers use of CPU, memory, IO and processes (cgroup v2).
//!
//! How: patterns name folders below the root of the hierarchy: `system.slice/*` is each service, `kubepods.slice/*/*`
//! each pod. What the kernel counts is a counter here: the rate of `cgroup.cpu.percent` is the CPU time in percent of
//! one core, over the whole interval and without a state of ours. A container's id of 64 digits is cut to twelve, as
//! its engine shows it. A file that a group does not have (its controller is off) is left out.
//! Invariants: groups come and go while they are read: one that is gone costs itself only.
//! Memory: at most [`GROUPS_MAX`] groups; a pattern is no deeper than it is written.
//! Compat: ours. Version 1 is refused by a failure that names the file which is missing.

use super::pressure::MICROSECONDS_PER_PERCENT;
use crate::reading::{Reading, percent, tag};
use crate::roots::{ProbeError, Roots, TextFile};
use crate::text::uint;
use std::io;
use std::path::{Path, PathBuf};

/// Groups of one report; a guess: a host of 250 pods has two or three each.
pub const GROUPS_MAX: usize = 1024;
/// The file by which a folder is known as the root of a hierarchy of version 2.
const CONTROLLERS: &str = "cgroup.controllers";
/// Digits that an id is known by, and from how many on a word of digits is taken for one.
const ID_DIGITS: usize = 12;
const ID_DIGITS_WHOLE: usize = 32;

const CPU: [(&str, &str, f64); 5] = [
    ("usage_usec", "cgroup.cpu.percent", MICROSECONDS_PER_PERCENT),
    ("user_usec", "cgroup.cpu.user.percent", MICROSECONDS_PER_PERCENT),
    ("system_usec", "cgroup.cpu.system.percent", MICROSECONDS_PER_PERCENT),
    ("throttled_usec", "cgroup.cpu.throttled.percent", MICROSECONDS_PER_PERCENT),
    ("nr_throttled", "cgroup.cpu.throttled.periods", 1.0),
];
const IO: [(&str, &str); 4] = [
    ("rbytes", "cgroup.io.read.bytes"),
    ("wbytes", "cgroup.io.write.bytes"),
    ("rios", "cgroup.io.read.requests"),
    ("wios", "cgroup.io.write.requests"),
];
const MEMORY: [(&str, &str); 2] = [("anon", "cgroup.memory.anon"), ("file", "cgroup.memory.file")];

/// Collects the groups whose folders match one of the patterns. What fails is appended to `failures`.
pub fn collect(roots: &Roots, patterns: &[String], out: &mut Vec<Reading>, failures: &mut Vec<ProbeError>) {
    let root = match hierarchy(roots) {
        Ok(root) => root,
        Err(error) => return failures.push(error),
    };
    let mut groups: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        // A root with signs of a pattern in its path is meant as it is.
        let pattern = format!("{}/{pattern}", glob::Pattern::escape(&root.to_string_lossy()));
        // The configuration takes no pattern that cannot be read, and a folder that cannot be listed is gone.
        let found = glob::glob(&pattern).into_iter().flatten().flatten();
        for group in found.filter(|path| path.join("cgroup.procs").exists()) {
            if groups.len() == GROUPS_MAX {
                let error = io::Error::other(format!("more than {GROUPS_MAX} groups match: give narrower patterns"));
                failures.push(ProbeError::Unreadable { file: root.clone(), error });
                return groups.iter().for_each(|group| push(&root, group, out));
            }
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
    }
    groups.iter().for_each(|group| push(&root, group, out));
}

/// The root of version 2: alone, or beside version 1 as systemd mounts it.
fn hierarchy(roots: &Roots) -> Result<PathBuf, ProbeError> {
    let folder = roots.sys.join("fs/cgroup");
    let candidates = [folder.clone(), folder.join("unified")];
    let root = candidates.into_iter().find(|root| root.join(CONTROLLERS).exists());
    let file = folder.join(CONTROLLERS);
    root.ok_or_else(|| ProbeError::Unreadable { file, error: io::Error::from(io::ErrorKind::NotFound) })
}

fn push(root: &Path, group: &Path, out: &mut Vec<Reading>) {
    let name = group.strip_prefix(root).unwrap_or(group).to_string_lossy();
    let tags = tag("cgroup", &with_short_ids(&name));
    let text = |file: &str| TextFile::read(group.join(file)).ok().map(|file| file.text);
    // "max" stands for no limit.
    let number = |file: &str| text(file).and_then(|text| text.trim().parse::<u64>().ok());

    let cpu = text("cpu.stat").unwrap_or_default();
    for (key, metric, unit) in CPU {
        out.extend(value_of(&cpu, key).map(|value| Reading::counter(metric, &tags, value as f64 / unit)));
    }
    if let Some(used) = number("memory.current") {
        out.push(Reading::gauge("cgroup.memory.used", &tags, used as f64));
        if let Some(max) = number("memory.max") {
            out.push(Reading::gauge("cgroup.memory.max", &tags, max as f64));
            out.push(Reading::gauge("cgroup.memory.used.percent", &tags, percent(used, max)));
        }
        let stat = text("memory.stat").unwrap_or_default();
        for (key, metric) in MEMORY {
            out.extend(value_of(&stat, key).map(|value| Reading::gauge(metric, &tags, value as f64)));
        }
        let events = text("memory.events").unwrap_or_default();
        out.extend(
            value_of(&events, "oom_kill").map(|kills| Reading::counter("cgroup.memory.oom_kills", &tags, kills as f64)),
        );
    }
    out.extend(number("memory.swap.current").map(|swap| Reading::gauge("cgroup.memory.swap.used", &tags, swap as f64)));
    if let Some(io) = text("io.stat") {
        for (key, metric) in IO {
            out.push(Reading::counter(metric, &tags, sum_of(&io, key) as f64));
        }
    }
    if let Some(pids) = number("pids.current") {
        out.push(Reading::gauge("cgroup.pids", &tags, pids as f64));
        if let Some(max) = number("pids.max") {
            out.push(Reading::gauge("cgroup.pids.max", &tags, max as f64));
            out.push(Reading::gauge("cgroup.pids.used.percent", &tags, percent(pids, max)));
        }
    }
}

/// The number in the line `key number`.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(|number| uint(number.trim()))
}

/// The sum over all devices of `key=number`.
fn sum_of(text: &str, key: &str) -> u64 {
    let values = text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    values.map(uint).fold(0, u64::saturating_add)
}

/// The name with ids of containers cut: sixty-four digits in a tag help nobody.
fn with_short_ids(name: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(name.len()), name);
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (kept, passed) = match digits {
            0 => (first.len_utf8(), first.len_utf8()),
            digits if digits >= ID_DIGITS_WHOLE => (ID_DIGITS, digits),
            digits => (digits, digits),
        };
        out.push_str(&rest[..kept]);
        rest = &rest[passed..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short() {
        let check = |name: &str, expected: &str| assert_eq!(with_short_ids(name), expected);
        check("system.slice/nginx.service", "system.slice/nginx.service");
        let id = "0123456789abcdef".repeat(4);
        check(&format!("system.slice/docker-{id}.scope"), "system.slice/docker-0123456789ab.scope");
        check(&format!("docker/{id}"), "docker/0123456789ab");
        check("kubepods-pod1f2e3d4c_aaaa.slice/é", "kubepods-pod1f2e3d4c_aaaa.slice/é");
    }

    #[test]
    fn version_one_is_told() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join("sys/fs/cgroup/memory")).expect("directories");
        let mut failures = Vec::new();
        collect(&Roots::new(root.path()), &["*".into()], &mut Vec::new(), &mut failures);
        assert!(failures[0].file().ends_with("sys/fs/cgroup/cgroup.controllers"), "{failures:?}");
    }

    #[test]
    fn too_many_groups_are_told_and_the_first_are_reported() {
        let root = tempfile::tempdir().expect("a directory");
        let folder = root.path().join("sys/fs/cgroup/unified");
        for index in 0..=GROUPS_MAX {
            let group = folder.join(format!("s{index}"));
            std::fs::create_dir_all(&group).expect("directories");
            std::fs::write(group.join("cgroup.procs"), "").expect("writable");
            std::fs::write(group.join("pids.current"), "1\n").expect("writable");
        }
        std::fs::write(folder.join(CONTROLLERS), "cpu\n").expect("writable");
        let (mut out, mut failures) = (Vec::new(), Vec::new());
        collect(&Roots::new(root.path()), &["*".into(), "s1".into()], &mut out, &mut failures);
        assert_eq!((out.len(), failures.len()), (GROUPS_MAX, 1));
        assert!(failures[0].to_string().contains("narrower"), "{}", failures[0]);
    }
}
