//! Memory and swap, in bytes and percent.
//!
//! Compat: "free" is what programs can have: `MemAvailable`, and on kernels before 3.14 `MemFree + Buffers + Cached`.
//! In a container the total may be the container's and what is available the host's (LXC): a figure above the total is
//! of something else, so the sum is taken then, too, and nothing free is ever more than all there is.

use crate::reading::{Reading, percent};
use crate::roots::{ProbeError, Roots};
use crate::text::uint;

pub(crate) fn collect(roots: &Roots, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    let file = roots.read_proc("meminfo")?;
    let bytes = |name: &str| field(&file.text, name).map(|kb| kb.saturating_mul(1024));
    let total = bytes("MemTotal").ok_or_else(|| file.missing("MemTotal"))?;
    let free = match bytes("MemAvailable") {
        Some(available) if (1..=total).contains(&available) => available,
        _ => ["MemFree", "Buffers", "Cached"].iter().filter_map(|name| bytes(name)).fold(0, u64::saturating_add),
    };
    let free = free.min(total);
    let swap_total = bytes("SwapTotal").unwrap_or(0);
    let swap_free = bytes("SwapFree").unwrap_or(0).min(swap_total);
    let (used, swap_used) = (total - free, swap_total - swap_free);
    out.extend([
        Reading::gauge("mem.memtotal", "", total as f64),
        Reading::gauge("mem.memused", "", used as f64),
        Reading::gauge("mem.memfree", "", free as f64),
        Reading::gauge("mem.swaptotal", "", swap_total as f64),
        Reading::gauge("mem.swapused", "", swap_used as f64),
        Reading::gauge("mem.swapfree", "", swap_free as f64),
        Reading::gauge("mem.memfree.percent", "", percent(free, total)),
        Reading::gauge("mem.memused.percent", "", percent(used, total)),
        Reading::gauge("mem.swapfree.percent", "", percent(swap_free, swap_total)),
        Reading::gauge("mem.swapused.percent", "", percent(swap_used, swap_total)),
    ]);
    Ok(())
}

/// The number of kB in the line `name:`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next().map(uint)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `mem.memfree`, `mem.memused`, `mem.memfree.percent` and `mem.swapfree`, in KiB and percent.
    fn check(meminfo: &str, expected: [f64; 4]) {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("proc")).expect("a directory");
        std::fs::write(root.path().join("proc/meminfo"), meminfo).expect("writable");
        let mut out = Vec::new();
        collect(&Roots::new(root.path()), &mut out).expect("readable");
        let value = |name: &str| out.iter().find(|reading| reading.metric == name).expect(name).value;
        let kib = |name| value(name) / 1024.0;
        let actual = [kib("mem.memfree"), kib("mem.memused"), value("mem.memfree.percent"), kib("mem.swapfree")];
        assert_eq!(actual, expected, "{meminfo}");
        let percents = ["mem.memfree.percent", "mem.memused.percent", "mem.swapfree.percent", "mem.swapused.percent"];
        assert!(percents.iter().all(|name| (0.0..=100.0).contains(&value(name))), "{meminfo}");
    }

    #[test]
    fn what_is_free_is_a_part_of_the_whole() {
        check("MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\n", [400.0, 600.0, 40.0, 0.0]);
        // Before 3.14.
        check("MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 150 kB\n", [300.0, 700.0, 30.0, 0.0]);
        // LXC: the container's total, the host's available memory and swap.
        let lxc = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 4190 kB\nBuffers: 0 kB\nCached: 150 kB\n\
            SwapTotal: 10 kB\nSwapFree: 70 kB\n";
        check(lxc, [250.0, 750.0, 25.0, 10.0]);
        check(
            "MemTotal: 1000 kB\nMemFree: 900 kB\nMemAvailable: 4190 kB\nCached: 9000 kB\n",
            [1000.0, 0.0, 100.0, 0.0],
        );
    }

    #[test]
    fn names_match_whole() {
        let text = "Cached:  5 kB\nSwapCached: 7 kB\nActive(anon): 1 kB\n";
        assert_eq!(field(text, "Cached"), Some(5));
        assert_eq!(field(text, "Active"), None);
    }
}
