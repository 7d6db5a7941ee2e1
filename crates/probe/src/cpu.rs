//! CPU: shares of the last second, and context switches.
//!
//! Compat: 100 × Δfield / Δtotal; the total leaves out the 9th column (guest), whose time is in `user` already. The
//! product is formed as field × (100 / total), which decides the last digit. Between equal samples everything is 0.

use crate::reading::Reading;
use crate::sampler::Sampler;

/// Metric and column, in the order of the original's report.
const SHARES: [(&str, usize); 9] = [
    ("cpu.idle", 3),
    ("cpu.user", 0),
    ("cpu.nice", 1),
    ("cpu.system", 2),
    ("cpu.iowait", 4),
    ("cpu.irq", 5),
    ("cpu.softirq", 6),
    ("cpu.steal", 7),
    ("cpu.guest", 8),
];
const GUEST: usize = 8;

/// Collects the shares; nothing until there are two samples.
pub(crate) fn collect(sampler: &Sampler, out: &mut Vec<Reading>) {
    let Some((older, newer)) = sampler.cpu() else { return };
    // iowait may go backwards by a tick: that is 0, not 2^64.
    let delta = |column: usize| newer.columns[column].saturating_sub(older.columns[column]);
    let total: u64 = (0..newer.columns.len()).filter(|column| *column != GUEST).map(delta).sum();
    let quotient = if total == 0 { 0.0 } else { 100.0 / total as f64 };
    for (metric, column) in SHARES {
        out.push(Reading::gauge(metric, "", delta(column) as f64 * quotient));
    }
    out.push(Reading::gauge("cpu.busy", "", 100.0 - delta(SHARES[0].1) as f64 * quotient));
    out.push(Reading::counter("cpu.switches", "", newer.switches as f64));
}
