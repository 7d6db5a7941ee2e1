//! CPU: shares of the time between two samples, of all cores together and of each, and context switches.
//!
//! Why the cores have names of their own (`cpu.core.idle`): a strategy without tags is for every series of its metric,
//! so `cpu.idle` with a tag would set off each site's rule for `cpu.idle` once per core.
//! Compat: 100 × Δfield / Δtotal; the total leaves out the 9th column (guest), whose time is in `user` already. The
//! product is formed as field × (100 / total), which decides the last digit. Between equal samples everything is 0.

use crate::reading::Reading;
use crate::sampler::{CpuColumns, Sampler};

/// Metric, the same of a core, and column, in the order of the original's report.
const SHARES: [(&str, &str, usize); 9] = [
    ("cpu.idle", "cpu.core.idle", IDLE),
    ("cpu.user", "cpu.core.user", 0),
    ("cpu.nice", "cpu.core.nice", 1),
    ("cpu.system", "cpu.core.system", 2),
    ("cpu.iowait", "cpu.core.iowait", 4),
    ("cpu.irq", "cpu.core.irq", 5),
    ("cpu.softirq", "cpu.core.softirq", 6),
    ("cpu.steal", "cpu.core.steal", 7),
    ("cpu.guest", "cpu.core.guest", GUEST),
];
const IDLE: usize = 3;
const GUEST: usize = 8;

/// Collects the shares; nothing until there are two samples.
pub(crate) fn collect(sampler: &Sampler, out: &mut Vec<Reading>) {
    let Some((older, newer)) = sampler.cpu() else { return };
    let shares = Shares::between(&older.columns, &newer.columns);
    out.extend(SHARES.map(|(metric, _, column)| Reading::gauge(metric, "", shares.percent(column))));
    out.push(Reading::gauge("cpu.busy", "", 100.0 - shares.percent(IDLE)));
    out.push(Reading::counter("cpu.switches", "", newer.switches as f64));
}

/// Collects the shares of each core that both samples have; a core that was offline meanwhile may have counted nothing.
pub(crate) fn collect_cores(sampler: &Sampler, out: &mut Vec<Reading>) {
    let Some((older, newer)) = sampler.cpu() else { return };
    for (number, columns) in &newer.cores {
        let Some((_, before)) = older.cores.iter().find(|(other, _)| other == number) else { continue };
        let (shares, tags) = (Shares::between(before, columns), format!("core={number}"));
        if shares.total == 0 {
            continue;
        }
        out.extend(SHARES.map(|(_, metric, column)| Reading::gauge(metric, &tags, shares.percent(column))));
        out.push(Reading::gauge("cpu.core.busy", &tags, 100.0 - shares.percent(IDLE)));
    }
}

/// The time between two samples, by what it was spent on.
struct Shares {
    spent: CpuColumns,
    total: u64,
}

impl Shares {
    fn between(older: &CpuColumns, newer: &CpuColumns) -> Shares {
        // iowait may go backwards by a tick: that is 0, not 2^64.
        let spent: CpuColumns = std::array::from_fn(|column| newer[column].saturating_sub(older[column]));
        let counted = spent.iter().enumerate().filter(|(column, _)| *column != GUEST);
        Shares { spent, total: counted.map(|(_, time)| time).sum() }
    }

    fn percent(&self, column: usize) -> f64 {
        let quotient = if self.total == 0 { 0.0 } else { 100.0 / self.total as f64 };
        self.spent[column] as f64 * quotient
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roots::Roots;

    /// Metric, tags and value of each core's idle and busy time between two files.
    fn check(older: &str, newer: &str, expected: &[(&str, &str, f64)]) {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("proc")).expect("a directory");
        let (mut sampler, mut failures, mut out) = (Sampler::with_cores(), Vec::new(), Vec::new());
        for (text, monotonic_ms) in [(older, 0), (newer, 60_000)] {
            let text = format!("cpu  1 1 1 1\n{text}ctxt 5\n");
            std::fs::write(root.path().join("proc/stat"), text).expect("writable");
            sampler.sample(&Roots::new(root.path()), monotonic_ms, &mut failures);
        }
        collect_cores(&sampler, &mut out);
        let is_shown = |reading: &&Reading| ["cpu.core.idle", "cpu.core.busy"].contains(&reading.metric.as_ref());
        let shown = out.iter().filter(is_shown).map(|r| (r.metric.as_ref(), r.tags.as_str(), r.value));
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{older} {newer}");
    }

    #[test]
    fn cores_by_their_numbers() {
        check(
            "cpu0 0 0 0 0\ncpu1 10 0 0 10\n",
            "cpu0 75 0 0 25\ncpu1 10 0 0 20\n",
            &[
                ("cpu.core.idle", "core=0", 25.0),
                ("cpu.core.busy", "core=0", 75.0),
                ("cpu.core.idle", "core=1", 100.0),
                ("cpu.core.busy", "core=1", 0.0),
            ],
        );
        // Core 1 was not there before, core 2 went offline and has not counted since.
        check("cpu0 0 0 0 0\ncpu2 5 0 0 5\n", "cpu1 9 0 0 9\ncpu2 5 0 0 5\n", &[]);
    }
}
