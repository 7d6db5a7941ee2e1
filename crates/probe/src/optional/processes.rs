//! Process groups: what the processes whose command lines match a pattern use together.
//!
//! How: `/proc` is walked once for all groups. A process may be in several. The CPU time of a group is the sum of what
//! each of its processes has used since the report before, known again by number and time of start; one that began
//! since counts whole, what one used that has ended since is lost with it. A process without a command line (a kernel
//! thread) is in no group, as with `proc.num`.
//! Descriptors of others' processes are shown to root only: a group of which none can be seen has no such reading.
//! Invariants: no clock; a process that ends meanwhile costs itself only.
//! Memory: one number per process of a group, [`PROCESSES_MAX`] at most.
//! Compat: ours; `proc.num` counts by name and by a piece of the command line.

use crate::reading::{Reading, tag};
use crate::roots::{ProbeError, Roots, read_into};
use crate::text::uint;
use regex::bytes::Regex;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Processes whose CPU time is followed; a guess: a busy host has a few thousand.
pub const PROCESSES_MAX: usize = 32_768;
/// Descriptors of a process that are counted one by one, where the kernel (before 6.2) does not say how many there are.
const DESCRIPTORS_MAX: usize = 1 << 20;

/// Fields of `/proc/PID/stat` behind the name, which is the second.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const THREADS: usize = 17;
const START_TIME: usize = 19;
const RESIDENT_PAGES: usize = 21;

/// Processes that are reported together.
#[derive(Clone, Debug)]
pub struct ProcessGroup {
    /// Name of the group, the tag of its series.
    pub name: String,
    /// Pattern of their command lines, arguments separated by spaces.
    pub pattern: Regex,
}

/// What groups used, and the CPU times that the next report looks back on.
#[derive(Debug)]
pub struct ProcessGroups {
    groups: Vec<ProcessGroup>,
    /// CPU time in ticks of each process seen by the report before, by number and time of start.
    seen: BTreeMap<(u32, u64), u64>,
    /// Time of the report before.
    seen_ms: Option<u64>,
    ticks_per_second: u64,
    page_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    count: u64,
    ticks: u64,
    resident_bytes: u64,
    threads: u64,
    descriptors: u64,
    /// Whether the descriptors of any process could be seen.
    has_descriptors: bool,
}

impl ProcessGroups {
    /// Groups of which nothing is known yet, in the units of this host.
    pub fn new(groups: Vec<ProcessGroup>) -> ProcessGroups {
        ProcessGroups::with_units(groups, rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64)
    }

    fn with_units(groups: Vec<ProcessGroup>, ticks_per_second: u64, page_bytes: u64) -> ProcessGroups {
        ProcessGroups { groups, seen: BTreeMap::new(), seen_ms: None, ticks_per_second, page_bytes }
    }

    /// Collects each group at a monotonic time; CPU shares from the second time on.
    pub fn collect(&mut self, roots: &Roots, monotonic_ms: u64, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
        let unreadable = |error| ProbeError::Unreadable { file: roots.proc.clone(), error };
        let (mut used, mut seen) = (vec![Used::default(); self.groups.len()], BTreeMap::new());
        let mut buffer = Vec::new();
        for entry in std::fs::read_dir(&roots.proc).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                self.add(pid, &entry.path(), &mut used, &mut seen, &mut buffer);
            }
        }
        let elapsed_ms = self.seen_ms.map_or(0, |before| monotonic_ms.saturating_sub(before));
        for (group, used) in self.groups.iter().zip(&used) {
            self.push(group, used, elapsed_ms, out);
        }
        (self.seen, self.seen_ms) = (seen, Some(monotonic_ms));
        match self.seen.len() {
            PROCESSES_MAX => {
                Err(unreadable(io::Error::other(format!("more than {PROCESSES_MAX} processes are in groups"))))
            }
            _ => Ok(()),
        }
    }

    /// Adds a process to its groups.
    fn add(
        &self,
        pid: u32,
        directory: &Path,
        used: &mut [Used],
        seen: &mut BTreeMap<(u32, u64), u64>,
        buffer: &mut Vec<u8>,
    ) {
        if read_into(&directory.join("cmdline"), buffer).is_err() {
            return;
        }
        let command = command_line(buffer);
        let is_in = |group: &ProcessGroup| !command.is_empty() && group.pattern.is_match(&command);
        let members: Vec<bool> = self.groups.iter().map(is_in).collect();
        if !members.contains(&true) || read_into(&directory.join("stat"), buffer).is_err() {
            return;
        }
        let Some(stat) = Stat::parse(&String::from_utf8_lossy(buffer)) else { return };
        let descriptors = descriptors(directory);
        let key = (pid, stat.start);
        // One that is too many is counted without its CPU time.
        let before = if seen.len() < PROCESSES_MAX || seen.contains_key(&key) {
            seen.insert(key, stat.ticks);
            self.seen.get(&key).copied().unwrap_or(0)
        } else {
            stat.ticks
        };
        for (used, _) in used.iter_mut().zip(members).filter(|(_, is_member)| *is_member) {
            used.count += 1;
            used.ticks += stat.ticks.saturating_sub(before);
            used.resident_bytes = used.resident_bytes.saturating_add(stat.pages.saturating_mul(self.page_bytes));
            used.threads = used.threads.saturating_add(stat.threads);
            used.descriptors += descriptors.unwrap_or(0);
            used.has_descriptors |= descriptors.is_some();
        }
    }

    fn push(&self, group: &ProcessGroup, used: &Used, elapsed_ms: u64, out: &mut Vec<Reading>) {
        let tags = tag("group", &group.name);
        out.push(Reading::gauge("proc.group.count", &tags, used.count as f64));
        if elapsed_ms > 0 {
            let seconds = used.ticks as f64 / self.ticks_per_second as f64;
            out.push(Reading::gauge("proc.group.cpu.percent", &tags, seconds * 100_000.0 / elapsed_ms as f64));
        }
        out.push(Reading::gauge("proc.group.rss", &tags, used.resident_bytes as f64));
        out.push(Reading::gauge("proc.group.threads", &tags, used.threads as f64));
        if used.has_descriptors || used.count == 0 {
            out.push(Reading::gauge("proc.group.fds", &tags, used.descriptors as f64));
        }
    }
}

/// Arguments with a space between them; the kernel puts a NUL behind each.
fn command_line(arguments: &[u8]) -> Vec<u8> {
    let end = arguments.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    arguments[..end].iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect()
}

/// What `/proc/PID/stat` says.
#[derive(Debug, PartialEq)]
struct Stat {
    ticks: u64,
    threads: u64,
    start: u64,
    pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        // A name may have brackets and spaces of its own; the last bracket ends it.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |index: usize| fields.get(index).map(|field| uint(field));
        Some(Stat {
            ticks: field(USER_TIME)?.saturating_add(field(SYSTEM_TIME)?),
            threads: field(THREADS)?,
            start: field(START_TIME)?,
            pages: field(RESIDENT_PAGES)?,
        })
    }
}

/// Open descriptors of a process, or none where they are not shown.
fn descriptors(directory: &Path) -> Option<u64> {
    let folder = directory.join("fd");
    // Since 6.2 the kernel says their number as the size of the folder; listing it is refused to strangers, too.
    let entries = std::fs::read_dir(&folder).ok()?;
    match std::fs::metadata(&folder).map_or(0, |folder| folder.len()) {
        0 => Some(entries.take(DESCRIPTORS_MAX).count() as u64),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optional::pattern;
    use std::fs;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Host {
            let host = Host(tempfile::tempdir().expect("a directory"));
            fs::create_dir_all(host.0.path().join("proc/sys")).expect("directories");
            host
        }

        /// A process with its ticks, and the moment of its start.
        fn runs(&self, pid: u32, arguments: &[&str], ticks: u64, start: u64) {
            let directory = self.0.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&directory).expect("directories");
            let stat = format!(
                "{pid} (a) b (c) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 5 0 0 20 0 3 0 {start} 9000000 7 18446744073709551615 0\n"
            );
            fs::write(directory.join("stat"), stat).expect("writable");
            let cmdline: String = arguments.iter().map(|argument| format!("{argument}\0")).collect();
            fs::write(directory.join("cmdline"), cmdline).expect("writable");
        }

        fn ends(&self, pid: u32) {
            fs::remove_dir_all(self.0.path().join(format!("proc/{pid}"))).expect("made here");
        }
    }

    fn groups(patterns: &[(&str, &str)]) -> ProcessGroups {
        let group =
            |(name, text): &(&str, &str)| ProcessGroup { name: name.to_string(), pattern: pattern(text).unwrap() };
        ProcessGroups::with_units(patterns.iter().map(group).collect(), 100, 4096)
    }

    /// Count, CPU, resident memory and threads of one group.
    fn used(groups: &mut ProcessGroups, host: &Host, at_ms: u64, name: &str) -> (f64, Option<f64>, f64, f64) {
        let mut out = Vec::new();
        groups.collect(&Roots::new(host.0.path()), at_ms, &mut out).expect("readable");
        let of = |metric: &str| {
            let is = |reading: &&Reading| reading.metric == metric && reading.tags == format!("group={name}");
            out.iter().find(is).map(|reading| reading.value)
        };
        let certain = |metric| of(metric).expect(metric);
        let cpu = of("proc.group.cpu.percent");
        (certain("proc.group.count"), cpu, certain("proc.group.rss"), certain("proc.group.threads"))
    }

    #[test]
    fn cpu_is_that_of_the_time_between() {
        let (host, mut groups) = (Host::new(), groups(&[("java", r"^java .*-Dapp=\w+"), ("all", "")]));
        host.runs(7, &["java", "-Xmx1g", "-Dapp=order"], 1000, 50);
        host.runs(8, &[], 9999, 60);
        assert_eq!(used(&mut groups, &host, 1000, "java"), (1.0, None, 28_672.0, 3.0));
        host.runs(7, &["java", "-Xmx1g", "-Dapp=order"], 1300, 50);
        host.runs(9, &["java", "-Dapp=pay"], 295, 70);
        // Three seconds of the old one and three of the new one (295 + 5 of the system) in a minute.
        assert_eq!(used(&mut groups, &host, 61_000, "java"), (2.0, Some(10.0), 57_344.0, 6.0));
        // Another process took the number: its whole time is new; and one has ended.
        host.runs(9, &["java", "-Dapp=pay"], 55, 90);
        host.ends(7);
        assert_eq!(used(&mut groups, &host, 121_000, "java"), (1.0, Some(1.0), 28_672.0, 3.0));
        // Nothing is left, and time that stands still has no shares.
        host.ends(9);
        assert_eq!(used(&mut groups, &host, 121_000, "java"), (0.0, None, 0.0, 0.0));
    }

    #[test]
    fn a_process_may_be_in_several_groups() {
        let (host, mut groups) = (Host::new(), groups(&[("web", "nginx"), ("master", "master"), ("none", "absent")]));
        host.runs(1, &["nginx: master process"], 1, 1);
        host.runs(2, &["nginx: worker process"], 1, 1);
        let counts = ["web", "master", "none"].map(|name| used(&mut groups, &host, 1, name).0);
        assert_eq!(counts, [2.0, 1.0, 0.0]);
    }

    #[test]
    fn odd_names_and_lines() {
        let stat = "7 (a) b (c)) S 1 1 1 0 -1 0 0 0 0 0 10 5 0 0 20 0 3 0 99 9000000 7 18446744073709551615 0";
        assert_eq!(Stat::parse(stat), Some(Stat { ticks: 15, threads: 3, start: 99, pages: 7 }));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(command_line(b"a\0b c\0\0"), b"a b c");
        assert_eq!(command_line(b"\0\0"), b"");
    }

    /// A process always sees its own descriptors.
    #[test]
    fn this_process() {
        let mut groups = ProcessGroups::new(vec![ProcessGroup { name: "own".into(), pattern: pattern("").unwrap() }]);
        let mut out = Vec::new();
        groups.collect(&Roots::new("/"), 0, &mut out).expect("readable");
        let value = |metric: &str| out.iter().find(|reading| reading.metric == metric).expect(metric).value;
        assert!(value("proc.group.fds") >= 3.0 && value("proc.group.rss") > 100_000.0);
        assert!(value("proc.group.threads") >= value("proc.group.count"));
    }
}
