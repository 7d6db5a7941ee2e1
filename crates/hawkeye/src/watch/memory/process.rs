//! Process: the figures of the allocator and the system about the memory of this process.
//!
//! How the figures fit: memory of owners, memory without an owner and the caches of threads make `allocated`; with the
//! free room inside pages, `active`; with the allocator's own records and the pages not given back yet, `resident`. The
//! system counts pages: anonymous ones (the allocator's, stacks, the C library's heap, data of the program that was
//! written to), of files (code, which can be dropped and read again) and shared ones.
//! Invariants: a figure that a system does not have is 0, and never an error; reading all takes a millisecond, mostly
//! the kernel's for walking over the pages.

use super::super::c_heap::c_heap;
use serde::Serialize;

/// jemalloc's own figures, in bytes; its manual explains each (`stats.*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Allocator {
    pub allocated_bytes: u64,
    /// Allocated bytes that are free, kept by threads for their next allocations.
    pub thread_cache_bytes: u64,
    pub active_bytes: u64,
    /// The allocator's own records, the samples for heap profiles included.
    pub metadata_bytes: u64,
    pub resident_bytes: u64,
    /// Address space that the allocator keeps without memory behind it.
    pub retained_bytes: u64,
}

/// The system's figures, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Process {
    pub resident_bytes: u64,
    /// The most that was resident since the start.
    pub resident_max_bytes: u64,
    pub anonymous_bytes: u64,
    pub file_bytes: u64,
    pub shared_bytes: u64,
    pub swapped_bytes: u64,
    /// Anonymous pages that are data of the program and its libraries, written to.
    pub written_data_bytes: u64,
    /// Anonymous pages of the C library's heap and of the first thread's stack. Stacks of other threads have no name.
    pub heap_and_stack_bytes: u64,
    /// Bytes that libraries in C hold; the next field is what their allocator has taken from the system.
    pub c_heap_in_use_bytes: u64,
    pub c_heap_bytes: u64,
    pub threads: u64,
}

impl Allocator {
    /// Reads jemalloc's figures; 0 for one that cannot be read.
    pub fn now() -> Allocator {
        use tikv_jemalloc_ctl::{epoch, stats};
        // jemalloc renews its figures when asked to advance.
        let _ = epoch::advance();
        let or_none = |read: Result<usize, _>| read.map_or(0, |bytes: usize| bytes as u64);
        Allocator {
            allocated_bytes: or_none(stats::allocated::read()),
            thread_cache_bytes: thread_cache_bytes(),
            active_bytes: or_none(stats::active::read()),
            metadata_bytes: or_none(stats::metadata::read()),
            resident_bytes: or_none(stats::resident::read()),
            retained_bytes: or_none(stats::retained::read()),
        }
    }

    /// Bytes that are free inside pages in use.
    pub fn slack_bytes(&self) -> u64 {
        self.active_bytes.saturating_sub(self.allocated_bytes)
    }

    /// Pages without anything in them that were not given back yet.
    pub fn dirty_bytes(&self) -> u64 {
        self.resident_bytes.saturating_sub(self.active_bytes + self.metadata_bytes)
    }
}

/// The thread caches of all arenas, which the number 4096 stands for (`MALLCTL_ARENAS_ALL`).
fn thread_cache_bytes() -> u64 {
    // SAFETY: the name ends in a zero, and what it names is a `size_t`.
    unsafe { tikv_jemalloc_ctl::raw::read::<usize>(b"stats.arenas.4096.tcache_bytes\0") }
        .map_or(0, |bytes| bytes as u64)
}

/// Runs `make`, and counts the bytes that it takes on this thread and leaves behind.
pub fn measured<R>(make: impl FnOnce() -> R) -> (R, u64) {
    use tikv_jemalloc_ctl::thread::{allocatedp, deallocatedp};
    let (Ok(allocated), Ok(freed)) = (allocatedp::read(), deallocatedp::read()) else { return (make(), 0) };
    let held = || allocated.get().wrapping_sub(freed.get());
    let before = held();
    let made = make();
    // `make` may also free memory that was there before.
    (made, (held().wrapping_sub(before) as i64).max(0) as u64)
}

impl Process {
    /// Reads the kernel's figures of this process; 0 for one that cannot be read.
    pub fn now() -> Process {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let c = c_heap().unwrap_or_default();
        let (written_data_bytes, heap_and_stack_bytes) = anonymous_by_name(&smaps);
        let (c_heap_in_use_bytes, c_heap_bytes) = (c.in_use as u64, c.taken as u64);
        Process { written_data_bytes, heap_and_stack_bytes, c_heap_in_use_bytes, c_heap_bytes, ..parse(&status) }
    }

    /// Anonymous pages that are not the allocator's.
    pub fn outside_allocator_bytes(&self) -> u64 {
        self.written_data_bytes + self.heap_and_stack_bytes
    }
}

/// Anonymous bytes in mappings of files, and in `[heap]` and `[stack]`, as `/proc/<pid>/smaps` has them.
fn anonymous_by_name(smaps: &str) -> (u64, u64) {
    let (mut of_files, mut of_c, mut name) = (0, 0, "");
    for line in smaps.lines() {
        // A head is `<from>-<to> rwxp <offset> <device> <inode> <name>`, all others are `<Field>: …`.
        let Some((field, rest)) = line.split_once(':').filter(|(field, _)| !field.contains(' ')) else {
            name = line.splitn(6, ' ').nth(5).unwrap_or("").trim_start();
            continue;
        };
        if field == "Anonymous" {
            let kib: u64 = rest.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
            match name {
                "[heap]" | "[stack]" => of_c += kib << 10,
                _ if name.starts_with('/') => of_files += kib << 10,
                _ => {}
            }
        }
    }
    (of_files, of_c)
}

/// Reads the text of `/proc/<pid>/status`.
fn parse(status: &str) -> Process {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let kib = |name: &str| field(name) << 10;
    Process {
        resident_bytes: kib("VmRSS"),
        resident_max_bytes: kib("VmHWM"),
        anonymous_bytes: kib("RssAnon"),
        file_bytes: kib("RssFile"),
        shared_bytes: kib("RssShmem"),
        swapped_bytes: kib("VmSwap"),
        threads: field("Threads"),
        ..Process::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_by_name() {
        let status = "Name:\thawkeye\nVmHWM:\t   39868 kB\nVmRSS:\t   30000 kB\nRssAnon:\t   22216 kB\nRssFile:\t   7784 kB\n\
            RssShmem:\t       0 kB\nVmStk:\t     132 kB\nVmSwap:\t       4 kB\nThreads:\t7\n";
        let expected = Process {
            resident_bytes: 30_000 << 10,
            resident_max_bytes: 39_868 << 10,
            anonymous_bytes: 22_216 << 10,
            file_bytes: 7_784 << 10,
            swapped_bytes: 4 << 10,
            threads: 7,
            ..Process::default()
        };
        assert_eq!(parse(status), expected);
        assert_eq!(parse("garbage\nVmRSS: x kB\n"), Process::default());
    }

    #[test]
    fn anonymous_pages_are_told_apart_by_name() {
        let mapping = |name: &str, kib: u32| {
            format!(
                "55d0a0000000-55d0a0100000 rw-p 00000000 08:01 7   {name}\nRss:  900 kB\nAnonymous:   {kib} kB\nVmFlags: rd wr\n"
            )
        };
        let smaps =
            [("/opt/a: b", 100), ("", 1000), ("[heap]", 7), ("[stack]", 2), ("/lib/libc.so.6", 5), ("[vvar]", 9)];
        let smaps: String = smaps.map(|(name, kib)| mapping(name, kib)).concat();
        assert_eq!(anonymous_by_name(&smaps), (105 << 10, 9 << 10));
        let now = Process::now();
        assert!(now.written_data_bytes > 0 && now.heap_and_stack_bytes > 0, "{now:?}");
        assert!(now.outside_allocator_bytes() < now.anonymous_bytes, "{now:?}");
    }

    #[test]
    fn the_allocator_tells() {
        let before = Allocator::now();
        let held = std::hint::black_box(vec![1u8; 32 << 20]);
        let after = Allocator::now();
        // Other tests of this process allocate and free meanwhile.
        assert!(after.allocated_bytes > before.allocated_bytes + (16 << 20), "{before:?} {after:?}");
        assert!(after.active_bytes >= after.allocated_bytes && after.resident_bytes >= after.active_bytes, "{after:?}");
        assert!(Process::now().anonymous_bytes >= held.len() as u64, "{:?}", Process::now());
    }

    #[test]
    fn what_a_call_leaves_behind_is_measured() {
        let (held, bytes) = measured(|| {
            drop(std::hint::black_box(vec![1u8; 1 << 20]));
            std::hint::black_box(vec![1u8; 3 << 20])
        });
        assert_eq!(held.len(), 3 << 20);
        assert!((3 << 20..(3 << 20) + (1 << 20)).contains(&bytes), "{bytes}");
    }
}
