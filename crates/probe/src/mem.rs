//! Memory and swap, in bytes and percent.
//!
//! Compat: "free" is what programs can have: `MemAvailable`, and on kernels before 3.14 `MemFree + Buffers + Cached`.

use crate::reading::{Reading, percent};
use crate::roots::{ProbeError, Roots};
use crate::text::uint;

pub(crate) fn collect(roots: &Roots, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    let file = roots.read_proc("meminfo")?;
    let bytes = |name: &str| field(&file.text, name).map(|kb| kb.saturating_mul(1024));
    let total = bytes("MemTotal").ok_or_else(|| file.missing("MemTotal"))?;
    let free = match bytes("MemAvailable") {
        Some(available) if available > 0 => available,
        _ => ["MemFree", "Buffers", "Cached"].iter().filter_map(|name| bytes(name)).fold(0, u64::saturating_add),
    };
    let swap_total = bytes("SwapTotal").unwrap_or(0);
    let swap_free = bytes("SwapFree").unwrap_or(0);
    let used = total.saturating_sub(free);
    let swap_used = swap_total.saturating_sub(swap_free);
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
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next().map(uint)
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn names_match_whole() {
        let text = "Cached:  5 kB\nSwapCached: 7 kB\nActive(anon): 1 kB\n";
        assert_eq!(field(text, "Cached"), Some(5));
        assert_eq!(field(text, "Active"), None);
    }
}
