//! Look: what people look at on the original's pages and no collector reports: the clock rate of the cores, how long
//! the host is up, memory as it was counted before kernels knew what is available, and disks as `iostat -x` has them.
//!
//! Compat: docs/open-falcon/agent.md §6. The rows of disks are per second of the time between the sampler's last two
//! samples, which is a second in the original.

use crate::diskstats::BlockDevice;
use crate::mem;
use crate::roots::{ProbeError, Roots};
use crate::sampler::Sampler;

/// Clock rate of the first core in MHz, as the kernel writes it.
pub fn cpu_mhz(roots: &Roots) -> Result<String, ProbeError> {
    let file = roots.read_proc("cpuinfo")?;
    let mut fields = file.text.lines().filter_map(|line| line.split_once(':'));
    let rate = fields.find(|(name, _)| name.contains("MHz")).map(|(_, rate)| rate.trim().to_string());
    // Kernels of ARM do not say.
    rate.ok_or_else(|| file.missing("MHz"))
}

/// Seconds since the host was started.
pub fn uptime_s(roots: &Roots) -> Result<f64, ProbeError> {
    let file = roots.read_proc("uptime")?;
    let seconds = file.text.split_whitespace().next().and_then(|field| field.parse::<f64>().ok());
    seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0).ok_or_else(|| file.missing("seconds"))
}

/// Memory in bytes: all of it, and what is free, is a buffer or a cache.
pub fn memory(roots: &Roots) -> Result<(u64, u64), ProbeError> {
    let file = roots.read_proc("meminfo")?;
    let bytes = |name: &str| mem::field(&file.text, name).map(|kb| kb.saturating_mul(1024));
    let total = bytes("MemTotal").ok_or_else(|| file.missing("MemTotal"))?;
    let free = ["MemFree", "Buffers", "Cached"].iter().filter_map(|name| bytes(name)).fold(0, u64::saturating_add);
    Ok((total, free.min(total)))
}

/// A row per disk: device, merged reads and writes, reads, writes, kB read and written, sectors per request, requests
/// that wait, ms per request with and without waiting, and percent of the time.
pub fn disks(sampler: &Sampler) -> Vec<[String; 12]> {
    let Some((older, newer)) = sampler.disks() else { return Vec::new() };
    let elapsed_s = newer.monotonic_ms.saturating_sub(older.monotonic_ms) as f64 / 1000.0;
    let before = |disk: &BlockDevice| older.disks.iter().find(|before| before.name == disk.name);
    let pairs = newer.disks.iter().filter_map(|disk| Some((before(disk)?, disk)));
    pairs.filter(|_| elapsed_s > 0.0).map(|(before, now)| row(before, now, elapsed_s)).collect()
}

fn row(before: &BlockDevice, now: &BlockDevice, elapsed_s: f64) -> [String; 12] {
    let delta = |field: usize| now.fields[field].saturating_sub(before.fields[field]) as f64;
    let [
        reads,
        read_merged,
        read_sectors,
        read_ms,
        writes,
        write_merged,
        write_sectors,
        write_ms,
        _,
        busy_ms,
        weighted_ms,
    ] = std::array::from_fn(delta);
    let requests = reads + writes;
    let per_request = |sum: f64| if requests > 0.0 { sum / requests } else { 0.0 };
    let (whole, two) = (|value: f64| format!("{value:.0}"), |value: f64| format!("{value:.2}"));
    [
        now.name.clone(),
        whole(read_merged / elapsed_s),
        whole(write_merged / elapsed_s),
        whole(reads / elapsed_s),
        whole(writes / elapsed_s),
        two(read_sectors / 2.0 / elapsed_s),
        two(write_sectors / 2.0 / elapsed_s),
        two(per_request(read_sectors + write_sectors)),
        two(weighted_ms / 1000.0 / elapsed_s),
        two(per_request(read_ms + write_ms)),
        two(per_request(busy_ms)),
        format!("{:.2}%", (busy_ms / 10.0 / elapsed_s).min(100.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diskstats::FIELDS;

    #[test]
    fn disks_are_shown_per_second() {
        let device = |fields: [u64; FIELDS]| BlockDevice { name: "sda".into(), fields };
        let check = |elapsed_s: f64, expected: [&str; 12]| {
            let newer = [60, 12, 6000, 120, 60, 24, 12_000, 480, 9, 30_000, 90_000];
            assert_eq!(row(&device([0; FIELDS]), &device(newer), elapsed_s), expected);
        };
        check(60.0, ["sda", "0", "0", "1", "1", "50.00", "100.00", "150.00", "1.50", "5.00", "250.00", "50.00%"]);
        check(6.0, ["sda", "2", "4", "10", "10", "500.00", "1000.00", "150.00", "15.00", "5.00", "250.00", "100.00%"]);
    }

    #[test]
    fn a_host_is_looked_at() {
        let root = tempfile::tempdir().expect("a directory");
        let roots = Roots::new(root.path());
        std::fs::create_dir(root.path().join("proc")).expect("a directory");
        let put = |name: &str, text: &str| std::fs::write(root.path().join("proc").join(name), text).expect("room");
        assert!(cpu_mhz(&roots).is_err() && uptime_s(&roots).is_err() && memory(&roots).is_err());
        put("cpuinfo", "processor\t: 0\nmodel name\t: a: b\ncpu MHz\t\t: 2400.004\ncpu MHz\t\t: 1\n");
        put("uptime", "93784.25 1.0\n");
        put("meminfo", "MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 90 kB\nBuffers: 5 kB\nCached: 20 kB\n");
        assert_eq!(cpu_mhz(&roots).expect("there"), "2400.004");
        assert_eq!(uptime_s(&roots).expect("there"), 93_784.25);
        assert_eq!(memory(&roots).expect("there"), (102_400, 35_840));
        put("cpuinfo", "processor: 0\n");
        put("uptime", "inf\n");
        assert!(cpu_mhz(&roots).is_err() && uptime_s(&roots).is_err());
    }
}
