//! Disk IO: the kernel's counters as they are, and gauges over the time between two samples.
//!
//! Compat: `disk.io.*` counters are read at collection, the gauges come from the sampler. What the original says of its
//! last second is said per second here, whatever time lies between the samples. A device with fewer than two samples,
//! or without time between them, has no gauges (the original sends NaN there, which breaks the whole batch), and a disk
//! that is gone is not reported any more. Which disks are reported: `diskstats.rs`.

use crate::diskstats::{BlockDevice, FIELDS, parse};
use crate::reading::{Reading, tag};
use crate::roots::{ProbeError, Roots};
use crate::sampler::Sampler;

const COUNTERS: [&str; FIELDS] = [
    "disk.io.read_requests",
    "disk.io.read_merged",
    "disk.io.read_sectors",
    "disk.io.msec_read",
    "disk.io.write_requests",
    "disk.io.write_merged",
    "disk.io.write_sectors",
    "disk.io.msec_write",
    "disk.io.ios_in_progress",
    "disk.io.msec_total",
    "disk.io.msec_weighted_total",
];

/// Bytes of a sector as the kernel counts, whatever the device's own sector size is.
const SECTOR_BYTES: u64 = 512;

pub(crate) fn collect(roots: &Roots, sampler: &Sampler, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    for disk in parse(&roots.read_proc("diskstats")?.text) {
        let tags = tag("device", &disk.name);
        out.extend(
            COUNTERS.iter().zip(disk.fields).map(|(metric, value)| Reading::counter(*metric, &tags, value as f64)),
        );
    }
    let Some((older, newer)) = sampler.disks() else { return Ok(()) };
    let elapsed_ms = newer.monotonic_ms.saturating_sub(older.monotonic_ms);
    for disk in &newer.disks {
        if let Some(before) = older.disks.iter().find(|before| before.name == disk.name)
            && elapsed_ms > 0
        {
            push_gauges(before, disk, elapsed_ms, out);
        }
    }
    Ok(())
}

fn push_gauges(before: &BlockDevice, now: &BlockDevice, elapsed_ms: u64, out: &mut Vec<Reading>) {
    let tags = tag("device", &now.name);
    // A device that was replaced under the same name begins at 0 again: no IO, not 2^64.
    let delta = |field: usize| now.fields[field].saturating_sub(before.fields[field]);
    let [reads, _, read_sectors, read_ms, writes, _, write_sectors, write_ms, _, busy_ms, weighted_ms] =
        std::array::from_fn(delta);
    let requests = reads.saturating_add(writes);
    let per_request = |sum: u64| if requests == 0 { 0.0 } else { sum as f64 / requests as f64 };
    let elapsed_ms = elapsed_ms as f64;
    let bytes_per_second = |sectors: u64| sectors as f64 * SECTOR_BYTES as f64 * 1000.0 / elapsed_ms;
    let util = (busy_ms as f64 * 100.0 / elapsed_ms).min(100.0);
    out.extend([
        Reading::gauge("disk.io.read_bytes", &tags, bytes_per_second(read_sectors)),
        Reading::gauge("disk.io.write_bytes", &tags, bytes_per_second(write_sectors)),
        Reading::gauge("disk.io.avgrq_sz", &tags, per_request(read_sectors.saturating_add(write_sectors))),
        Reading::gauge("disk.io.avgqu-sz", &tags, weighted_ms as f64 / elapsed_ms),
        Reading::gauge("disk.io.await", &tags, per_request(read_ms.saturating_add(write_ms))),
        Reading::gauge("disk.io.svctm", &tags, per_request(busy_ms)),
        Reading::gauge("disk.io.util", &tags, util),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gauges of one disk whose line was `older`, and `newer` after `elapsed_ms`: bytes read and written, requests'
    /// sectors, queue, wait, service time, utilisation.
    fn check(older: [u64; FIELDS], newer: [u64; FIELDS], elapsed_ms: u64, expected: [f64; 7]) {
        let device = |fields| BlockDevice { name: "sda".into(), fields };
        let mut out = Vec::new();
        push_gauges(&device(older), &device(newer), elapsed_ms, &mut out);
        assert_eq!(out.iter().map(|reading| reading.value).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn gauges_are_per_second_of_whatever_time() {
        let newer = [60, 0, 6000, 120, 60, 0, 12_000, 480, 9, 30_000, 90_000];
        check([0; FIELDS], newer, 60_000, [51_200.0, 102_400.0, 150.0, 1.5, 5.0, 250.0, 50.0]);
        check([0; FIELDS], newer, 30_000, [102_400.0, 204_800.0, 150.0, 3.0, 5.0, 250.0, 100.0]);
        // Another disk under the same name begins at 0 again.
        check(newer, [1; FIELDS], 1000, [0.0; 7]);
    }

    #[test]
    fn no_gauges_without_time_between_samples() {
        let roots = Roots::new(testdata::path("agent/fixture_root"));
        let (mut sampler, mut failures, mut out) = (Sampler::new(), Vec::new(), Vec::new());
        sampler.sample(&roots, 5, &mut failures);
        sampler.sample(&roots, 5, &mut failures);
        collect(&roots, &sampler, &mut out).expect("readable");
        assert!(!out.is_empty() && out.iter().all(|reading| COUNTERS.contains(&reading.metric.as_ref())));
    }
}
