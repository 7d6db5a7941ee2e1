//! Sampler: the last two samples of `/proc/stat` and `/proc/diskstats`, from which the "rates" are taken.
//!
//! Why: `cpu.*` and the gauges of `disk.io.*` say what happened between two moments. Which two is the caller's choice:
//! the report before and this one, so that no second is left out, or the last second alone, as the original has it
//! (docs/open-falcon/agent.md §2).
//! How: the caller samples, for each report or once a second, and hands over a monotonic time; the last two samples are
//! kept.
//! Invariants: the sampler never reads the clock. When a file cannot be read its two samples are dropped, so that a
//! rate is never taken over a hole.
//! Memory: two samples, bounded by the disks that pass the filter in one file of bounded size, and [`CORES_MAX`].

use crate::diskstats::{self, BlockDevice};
use crate::roots::{ProbeError, Roots, read_into};
use crate::text::uint;

/// Columns of the line `cpu`: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice.
pub(crate) const CPU_COLUMNS: usize = 10;

/// Cores that are sampled one by one; the largest machines of 2026 have some 800 of them.
pub(crate) const CORES_MAX: usize = 1024;

/// Least time between the samples of two reports. The kernel counts in hundredths of a second: half a second is fifty
/// of them, and a share of it good to two percent. Reports come closer only when the clock is set.
const REPORTS_APART_MS: u64 = 500;

/// The times of one line of `/proc/stat`.
pub(crate) type CpuColumns = [u64; CPU_COLUMNS];

/// The numbers of `/proc/stat`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    pub columns: CpuColumns,
    pub switches: u64,
    /// The cores that are online, by number, where they are asked for.
    pub cores: Vec<(u32, CpuColumns)>,
}

/// The devices of `/proc/diskstats`, and when they were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockDevices {
    pub monotonic_ms: u64,
    pub disks: Vec<BlockDevice>,
}

/// Two samples, the newer first. Both are needed for a rate.
#[derive(Clone, Debug)]
struct LastTwo<T> {
    newer: Option<T>,
    older: Option<T>,
}

impl<T> LastTwo<T> {
    fn push(&mut self, sample: T) {
        self.older = self.newer.replace(sample);
    }

    fn pair(&self) -> Option<(&T, &T)> {
        Some((self.older.as_ref()?, self.newer.as_ref()?))
    }

    fn clear(&mut self) {
        (self.newer, self.older) = (None, None);
    }
}

/// The samples. A collection works on a clone, so that the next sample need not wait for its end.
#[derive(Clone, Debug)]
pub struct Sampler {
    cpu: LastTwo<Cpu>,
    disks: LastTwo<BlockDevices>,
    with_cores: bool,
    sampled_ms: Option<u64>,
    buffer: Vec<u8>,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler::new()
    }
}

impl Sampler {
    /// A sampler that has no sample yet.
    pub fn new() -> Sampler {
        Sampler {
            cpu: LastTwo { newer: None, older: None },
            disks: LastTwo { newer: None, older: None },
            with_cores: false,
            sampled_ms: None,
            buffer: Vec::new(),
        }
    }

    /// A sampler that keeps the times of each core too.
    pub fn with_cores() -> Sampler {
        Sampler { with_cores: true, ..Sampler::new() }
    }

    /// Whether there are rates.
    pub fn is_ready(&self) -> bool {
        self.cpu.pair().is_some() || self.disks.pair().is_some()
    }

    /// Takes the sample of a report, unless the last one is so young that hardly anything was counted since; then the
    /// report has the rates of the one before.
    pub fn sample_for_report(&mut self, roots: &Roots, monotonic_ms: u64, failures: &mut Vec<ProbeError>) {
        if self.sampled_ms.is_none_or(|last| monotonic_ms.saturating_sub(last) >= REPORTS_APART_MS) {
            self.sample(roots, monotonic_ms, failures);
        }
    }

    /// Takes a sample. Each of the two files may fail by itself.
    pub fn sample(&mut self, roots: &Roots, monotonic_ms: u64, failures: &mut Vec<ProbeError>) {
        self.sampled_ms = Some(monotonic_ms);
        match self.read_cpu(roots) {
            Ok(cpu) => self.cpu.push(cpu),
            Err(error) => {
                self.cpu.clear();
                failures.push(error);
            }
        }
        match self.read_disks(roots) {
            Ok(disks) => self.disks.push(BlockDevices { monotonic_ms, disks }),
            Err(error) => {
                self.disks.clear();
                failures.push(error);
            }
        }
    }

    /// The older and the newer sample of `/proc/stat`.
    pub(crate) fn cpu(&self) -> Option<(&Cpu, &Cpu)> {
        self.cpu.pair()
    }

    /// The older and the newer sample of `/proc/diskstats`.
    pub(crate) fn disks(&self) -> Option<(&BlockDevices, &BlockDevices)> {
        self.disks.pair()
    }

    fn read_cpu(&mut self, roots: &Roots) -> Result<Cpu, ProbeError> {
        let file = roots.proc.join("stat");
        read_into(&file, &mut self.buffer)?;
        let text = String::from_utf8_lossy(&self.buffer);
        let mut cpu = Cpu::default();
        let Some(columns) = text.lines().find_map(|line| line.strip_prefix("cpu ")) else {
            return Err(ProbeError::Malformed { file, missing: "line cpu" });
        };
        cpu.columns = read_columns(columns);
        let Some(switches) = text.lines().find_map(|line| line.strip_prefix("ctxt ")) else {
            return Err(ProbeError::Malformed { file, missing: "line ctxt" });
        };
        cpu.switches = uint(switches.trim());
        if self.with_cores {
            cpu.cores.extend(text.lines().filter_map(read_core).take(CORES_MAX));
        }
        Ok(cpu)
    }

    fn read_disks(&mut self, roots: &Roots) -> Result<Vec<BlockDevice>, ProbeError> {
        read_into(&roots.proc.join("diskstats"), &mut self.buffer)?;
        Ok(diskstats::parse(&String::from_utf8_lossy(&self.buffer)))
    }
}

/// The columns of a line without its name. Kernels before 2.6.33 have fewer; the missing ones stay 0.
fn read_columns(text: &str) -> CpuColumns {
    let mut columns = [0; CPU_COLUMNS];
    for (column, field) in columns.iter_mut().zip(text.split_whitespace()) {
        *column = uint(field);
    }
    columns
}

/// A line `cpu7 …`.
fn read_core(line: &str) -> Option<(u32, CpuColumns)> {
    let (number, columns) = line.strip_prefix("cpu")?.split_once(' ')?;
    Some((number.parse().ok()?, read_columns(columns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_that_nearly_meet_share_a_sample() {
        let roots = Roots::new(testdata::path("agent/fixture_root"));
        let (mut sampler, mut failures) = (Sampler::new(), Vec::new());
        let mut apart = |monotonic_ms| {
            sampler.sample_for_report(&roots, monotonic_ms, &mut failures);
            sampler.disks().map(|(older, newer)| (older.monotonic_ms, newer.monotonic_ms))
        };
        assert_eq!(apart(1000), None);
        assert_eq!(apart(1000), None);
        assert_eq!(apart(61_000), Some((1000, 61_000)));
        assert_eq!(apart(61_499), Some((1000, 61_000)));
        assert_eq!(apart(61_500), Some((61_000, 61_500)));
        assert!(failures.is_empty());
    }

    #[test]
    fn a_rate_needs_two_samples_in_a_row() {
        let roots = Roots::new(testdata::path("agent/fixture_root"));
        let (mut sampler, mut failures) = (Sampler::new(), Vec::new());
        sampler.sample(&roots, 0, &mut failures);
        assert!(sampler.cpu().is_none() && sampler.disks().is_none());
        sampler.sample(&roots, 1000, &mut failures);
        assert!(sampler.cpu().is_some() && sampler.disks().is_some());
        assert!(failures.is_empty());

        sampler.sample(&Roots::new("/nowhere"), 2000, &mut failures);
        assert_eq!(failures.len(), 2);
        sampler.sample(&roots, 3000, &mut failures);
        assert!(sampler.cpu().is_none() && sampler.disks().is_none(), "no rate over the hole");
    }
}
