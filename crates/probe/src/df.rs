//! File systems: space and inodes of those that are mounted, and their sum.
//!
//! Compat: which mounts are reported is the original's rule: no virtual file systems, of a device mounted several times
//! only the shortest mount point. Under a prefix the original asks `statfs` for the mount point as the container sees
//! it; we ask below the prefix first, where the host's file system is, and so the shortest-mount rule keeps working.
//! Invariants: a mount that is filtered out is not asked, so a dead NFS server is asked only when NFS is reported
//! (as in the original); the caller runs this where blocking is harmless.

use crate::reading::{Reading, percent, tag};
use crate::roots::{ProbeError, Roots};
use std::path::Path;

const SPECS_IGNORED: [&str; 5] = ["none", "nodev", "proc", "hugetlbfs", "mqueue"];
const TYPES_IGNORED: [&str; 10] =
    ["cgroup", "debugfs", "devpts", "devtmpfs", "iso9660", "rpc_pipefs", "rootfs", "overlay", "tmpfs", "squashfs"];
const POINTS_IGNORED: [&str; 5] = ["/sys", "/net", "/misc", "/proc", "/lib"];

#[derive(Clone, Debug, PartialEq)]
struct Mount {
    spec: String,
    point: String,
    fs_type: String,
}

/// Space and inodes of a file system as `statvfs` has them, in the units of the reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub bytes_total: u64,
    pub bytes_used: u64,
    pub bytes_free: u64,
    pub inodes_total: u64,
    pub inodes_free: u64,
}

/// Collects the mounts whose points are in `allowed`; all when there are none.
pub(crate) fn collect(roots: &Roots, allowed: &[String], out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    collect_with(roots, allowed, |point| ask(roots, point), out)
}

/// Collects with the question to the kernel given, so that a test can answer it.
pub(crate) fn collect_with(
    roots: &Roots,
    allowed: &[String],
    ask: impl Fn(&str) -> Option<Space>,
    out: &mut Vec<Reading>,
) -> Result<(), ProbeError> {
    let (mut total, mut used) = (0_u64, 0_u64);
    for mount in mounts(&roots.read_proc("mounts")?.text) {
        if !allowed.is_empty() && !allowed.contains(&mount.point) {
            continue;
        }
        // A mount that cannot be asked (gone since, no permission) is not reported, as in the original.
        let Some(space) = ask(&mount.point).filter(|space| space.bytes_total > 0) else { continue };
        total = total.saturating_add(space.bytes_total);
        used = used.saturating_add(space.bytes_used);
        push(&mount, &space, out);
    }
    if total > 0 {
        out.extend([
            Reading::gauge("df.statistics.total", "", total as f64),
            Reading::gauge("df.statistics.used", "", used as f64),
            Reading::gauge("df.statistics.used.percent", "", percent(used, total)),
        ]);
    }
    Ok(())
}

fn push(mount: &Mount, space: &Space, out: &mut Vec<Reading>) {
    let tags = format!("{},{}", tag("fstype", &mount.fs_type), tag("mount", &mount.point));
    let used_percent = percent(space.bytes_used, space.bytes_used.saturating_add(space.bytes_free));
    out.extend([
        Reading::gauge("df.bytes.total", &tags, space.bytes_total as f64),
        Reading::gauge("df.bytes.used", &tags, space.bytes_used as f64),
        Reading::gauge("df.bytes.free", &tags, space.bytes_free as f64),
        Reading::gauge("df.bytes.used.percent", &tags, used_percent),
        Reading::gauge("df.bytes.free.percent", &tags, 100.0 - used_percent),
    ]);
    // Some file systems have no fixed number of inodes (btrfs, vfat).
    if space.inodes_total == 0 {
        return;
    }
    let used = space.inodes_total.saturating_sub(space.inodes_free);
    let used_percent = percent(used, space.inodes_total);
    out.extend([
        Reading::gauge("df.inodes.total", &tags, space.inodes_total as f64),
        Reading::gauge("df.inodes.used", &tags, used as f64),
        Reading::gauge("df.inodes.free", &tags, space.inodes_free as f64),
        Reading::gauge("df.inodes.used.percent", &tags, used_percent),
        Reading::gauge("df.inodes.free.percent", &tags, 100.0 - used_percent),
    ]);
}

/// The mounts that are reported, in the file's order.
fn mounts(text: &str) -> Vec<Mount> {
    let mut kept: Vec<Mount> = Vec::new();
    for mount in text.lines().filter_map(parse) {
        let is_device = mount.spec.starts_with("/dev/");
        if let Some(other) = kept.iter_mut().find(|other| is_device && other.spec == mount.spec) {
            if mount.point.len() < other.point.len() {
                *other = mount;
            }
        } else if !kept.iter().any(|other| other.point == mount.point && other.fs_type == mount.fs_type) {
            kept.push(mount);
        }
    }
    kept
}

fn parse(line: &str) -> Option<Mount> {
    let mut words = line.split_whitespace();
    let (spec, point, fs_type) = (words.next()?, unescape(words.next()?), words.next()?);
    let is_ignored = SPECS_IGNORED.contains(&spec)
        || TYPES_IGNORED.contains(&fs_type)
        || fs_type.starts_with("fuse")
        || POINTS_IGNORED.iter().any(|prefix| point.starts_with(prefix));
    (!is_ignored).then(|| Mount { spec: spec.to_string(), point, fs_type: fs_type.to_string() })
}

/// Undoes the kernel's `\040` for a space, `\011`, `\012` and `\134`.
fn unescape(text: &str) -> String {
    let mut pieces = text.split('\\');
    let mut out = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        // Only ASCII is escaped, so the number is a character.
        match piece.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()).filter(u8::is_ascii) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&piece[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(piece);
            }
        }
    }
    out
}

fn ask(roots: &Roots, point: &str) -> Option<Space> {
    let below = roots.prefix.join(point.trim_start_matches('/'));
    let stat = rustix::fs::statvfs(&below).or_else(|_| rustix::fs::statvfs(Path::new(point))).ok()?;
    Some(Space {
        bytes_total: stat.f_frsize.saturating_mul(stat.f_blocks),
        bytes_used: stat.f_frsize.saturating_mul(stat.f_blocks.saturating_sub(stat.f_bfree)),
        bytes_free: stat.f_frsize.saturating_mul(stat.f_bavail),
        inodes_total: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let points: Vec<String> = mounts(text).into_iter().map(|mount| mount.point).collect();
        assert_eq!(points, expected, "{text}");
    }

    #[test]
    fn which_mounts() {
        check("/dev/sda1 / ext4 rw 0 0\n/dev/sda1 /usr/share ext4 rw 0 0\n", &["/"]);
        check("/dev/sda1 /usr/share ext4 rw 0 0\n/dev/sda1 / ext4 rw 0 0\n", &["/"]);
        check("server:/a /x nfs rw 0 0\nserver:/a /xy nfs rw 0 0\n", &["/x", "/xy"]);
        check("none /etc ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\nu@h:/x /opt fuse.sshfs rw 0 0\n", &[]);
        check("/dev/sdc1 /lib/x ext4 rw 0 0\nbroken\n", &[]);
        check("/dev/sdb1 /my\\040disk ext4 rw 0 0\n", &["/my disk"]);
        // An over-mounted point would give two points for one series.
        check("a /x zfs rw 0 0\nb /x zfs rw 0 0\n", &["/x"]);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape("a\\040b\\134c"), "a b\\c");
        assert_eq!(unescape("a\\9\\04\\777"), "a\\9\\04\\777");
    }

    #[test]
    fn this_machines_root_has_space() {
        let space = ask(&Roots::new("/"), "/").expect("the root is mounted");
        assert!(space.bytes_total > 0 && space.bytes_used <= space.bytes_total);
    }
}
