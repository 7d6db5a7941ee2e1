//! Disk statistics: the devices of `/proc/diskstats` that are reported, with the kernel's counters.
//!
//! Compat: which devices are reported is the original's rule, odd as it is.

use crate::text::uint;

/// Counters of a line of `/proc/diskstats` that we use; newer kernels append more.
pub(crate) const FIELDS: usize = 11;

/// One device with its counters, in the order of the line.
#[derive(Clone, Debug)]
pub(crate) struct BlockDevice {
    pub name: String,
    pub fields: [u64; FIELDS],
}

/// The devices that are reported. Odd lines are skipped.
pub(crate) fn parse(text: &str) -> Vec<BlockDevice> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<BlockDevice> {
    let mut words = line.split_whitespace().skip(2);
    let name = words.next().filter(|name| is_reported(name))?;
    let mut fields = [0; FIELDS];
    for field in &mut fields {
        *field = uint(words.next()?);
    }
    // A device without reads is a CD drive without a CD, or an unused loop device.
    (fields[0] > 0).then(|| BlockDevice { name: name.to_string(), fields })
}

fn is_reported(name: &str) -> bool {
    let is_whole_disk =
        name.len() <= 4 && (name.starts_with("sd") || name.starts_with("vd")) && !name.contains(['1', '2', '3', '4']);
    let is_other = name.len() >= 4 && ["xvd", "fio", "nvme", "nbd"].iter().any(|prefix| name.starts_with(prefix));
    is_whole_disk || is_other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_disks() {
        for name in ["sda", "sdaa", "vda5", "xvda1", "nvme0n1p1", "nbd0", "fioa"] {
            assert!(is_reported(name), "{name}");
        }
        for name in ["sda1", "sdaaa", "sd4", "nbd", "dm-0", "loop0", "sr0"] {
            assert!(!is_reported(name), "{name}");
        }
    }
}
