//! Sampler: the last two samples of `/proc/stat` and `/proc/diskstats`, from which the "rates" are taken.
//!
//! Why: `cpu.*` and the gauges of `disk.io.*` are rates over the last second, not over the reporting interval: their
//! values mean that in every template of the field (docs/open-falcon/agent.md §2).
//! How: the caller samples once a second and hands over a monotonic time; the last two samples are kept.
//! Invariants: the sampler never reads the clock. When a file cannot be read its two samples are dropped, so that a
//! rate is never taken over a hole.
//! Memory: two samples, bounded by the disks that pass the filter in one file of bounded size.

use crate::diskstats::{self, BlockDevice};
use crate::roots::{ProbeError, Roots, read_into};
use crate::text::uint;

/// Columns of the line `cpu`: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice.
pub(crate) const CPU_COLUMNS: usize = 10;

/// The numbers of `/proc/stat`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    pub columns: [u64; CPU_COLUMNS],
    pub switches: u64,
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
            buffer: Vec::new(),
        }
    }

    /// Whether there are rates.
    pub fn is_ready(&self) -> bool {
        self.cpu.pair().is_some() || self.disks.pair().is_some()
    }

    /// Takes a sample, once a second. Each of the two files may fail by itself.
    pub fn sample(&mut self, roots: &Roots, monotonic_ms: u64, failures: &mut Vec<ProbeError>) {
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
        // Kernels before 2.6.33 have fewer columns; the missing ones stay 0.
        for (column, field) in cpu.columns.iter_mut().zip(columns.split_whitespace()) {
            *column = uint(field);
        }
        let Some(switches) = text.lines().find_map(|line| line.strip_prefix("ctxt ")) else {
            return Err(ProbeError::Malformed { file, missing: "line ctxt" });
        };
        cpu.switches = uint(switches.trim());
        Ok(cpu)
    }

    fn read_disks(&mut self, roots: &Roots) -> Result<Vec<BlockDevice>, ProbeError> {
        read_into(&roots.proc.join("diskstats"), &mut self.buffer)?;
        Ok(diskstats::parse(&String::from_utf8_lossy(&self.buffer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
