//! Pressure: how much of the time tasks had to wait for CPU, memory, IO or interrupts (PSI).
//!
//! How: the kernel's averages are gauges; its total of microseconds is a counter whose rate is the share of the whole
//! interval in percent, without the decay of the averages.
//! Compat: ours; the original has none. A kernel before 4.20, or without PSI, has no such files: that is a failure. The
//! file of interrupts came with 6.1 and may be absent, and the line `full` of the CPU with 5.13.

use crate::reading::Reading;
use crate::roots::{ProbeError, Roots};
use crate::text::uint;

/// What may be waited for, and whether its file may be absent.
const RESOURCES: [(&str, bool); 4] = [("cpu", false), ("memory", false), ("io", false), ("irq", true)];
const AVERAGES: [&str; 3] = ["avg10", "avg60", "avg300"];
/// Microseconds of a hundredth of a second: so many in each second are one percent.
pub(super) const MICROSECONDS_PER_PERCENT: f64 = 10_000.0;

/// Collects the averages and totals of each resource.
pub fn collect(roots: &Roots, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    for (resource, is_optional) in RESOURCES {
        let file = match roots.read_proc(&format!("pressure/{resource}")) {
            Ok(file) => file,
            Err(error) if is_optional && error.is_absent() => continue,
            Err(error) => return Err(error),
        };
        for line in file.text.lines() {
            push(resource, line, out);
        }
    }
    Ok(())
}

/// A line like `some avg10=0.12 avg60=0.00 avg300=0.00 total=12345`.
fn push(resource: &str, line: &str, out: &mut Vec<Reading>) {
    let mut words = line.split_whitespace();
    let Some(who) = words.next().filter(|who| ["some", "full"].contains(who)) else { return };
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        if name == "total" {
            let percent = uint(value) as f64 / MICROSECONDS_PER_PERCENT;
            out.push(Reading::counter(format!("pressure.{resource}.{who}.percent"), "", percent));
        } else if AVERAGES.contains(&name)
            && let Some(value) = value.parse().ok().filter(|value: &f64| value.is_finite())
        {
            out.push(Reading::gauge(format!("pressure.{resource}.{who}.{name}"), "", value));
        }
    }
}
