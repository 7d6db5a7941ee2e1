//! File systems: space and inodes of those that are mounted, and their sum.
//!
//! How: which mounts are reported is told by `mount.rs`. A file system that is reported twice, at points that somebody
//! listed, counts once in the sum.
//! Compat: under a prefix the mounts are the host's and asked for below the prefix; the original has the container's
//! (`roots.rs`).
//! Invariants: a mount that is filtered out is not asked, so a dead NFS server is asked only when NFS is reported
//! (as in the original); the caller runs this where blocking is harmless.

use crate::mount::{self, Choice, Mount};
use crate::reading::{Reading, percent, tag};
use crate::roots::{ProbeError, Roots};
use std::path::Path;

/// Space and inodes of a file system as `statvfs` has them, in the units of the reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub bytes_total: u64,
    pub bytes_used: u64,
    pub bytes_free: u64,
    pub inodes_total: u64,
    pub inodes_free: u64,
}

/// Collects the mounts of the choice.
pub(crate) fn collect(roots: &Roots, choice: Choice<'_>, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    collect_with(roots, choice, ask, out)
}

/// Collects with the question to the kernel given, so that a test can answer it.
pub(crate) fn collect_with(
    roots: &Roots,
    choice: Choice<'_>,
    ask: impl Fn(&Path) -> Option<Space>,
    out: &mut Vec<Reading>,
) -> Result<(), ProbeError> {
    let (mounts, beginning) = mount::read(roots, choice)?;
    let (mut total, mut used) = (0_u64, 0_u64);
    for (index, mount) in mounts.iter().enumerate() {
        // A mount that cannot be asked (gone since, no permission) is not reported, as in the original.
        let path = beginning.join(mount.path().strip_prefix("/").unwrap_or(mount.path()));
        let Some(space) = ask(&path).filter(|space| space.bytes_total > 0) else { continue };
        let is_counted = |other: &Mount| !mount.device.is_empty() && other.device == mount.device;
        if !mounts[..index].iter().any(is_counted) {
            total = total.saturating_add(space.bytes_total);
            used = used.saturating_add(space.bytes_used);
        }
        push(mount, &space, out);
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
    let tags = format!("{},{}", tag("fstype", &mount.fs_type), tag("mount", &mount.path().to_string_lossy()));
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

fn ask(path: &Path) -> Option<Space> {
    let stat = rustix::fs::statvfs(path).ok()?;
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
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    /// A host's root below a container's, each with its own list of mounts.
    #[test]
    fn below_a_prefix_the_mounts_are_the_hosts() {
        let root = tempfile::tempdir().expect("a directory");
        let asked = || {
            let (asked, mut out) = (std::cell::RefCell::default(), Vec::new());
            let ask = |path: &Path| {
                let paths: &mut Vec<_> = &mut asked.borrow_mut();
                paths.push(path.to_path_buf());
                Some(Space { bytes_total: 4, bytes_used: 1, bytes_free: 3, inodes_total: 0, inodes_free: 0 })
            };
            let choice = Choice { points: &[], as_original: true };
            collect_with(&Roots::new(root.path()), choice, ask, &mut out).expect("readable");
            (asked.into_inner(), out[0].tags.clone())
        };
        std::fs::create_dir_all(root.path().join("proc/1")).expect("directories");
        std::fs::write(root.path().join("proc/mounts"), "/dev/vda /own ext4 rw 0 0\n").expect("writable");
        let own = (vec![Path::new("/own").to_path_buf()], "fstype=ext4,mount=/own".to_string());
        assert_eq!(asked(), own, "a host that lets nobody look at its first process");

        let gbk = [&b"/dev/sda1 /\xca\xfd\\040a ext4 rw 0 0\n"[..], b"/dev/sda1 /host/x ext4 rw 0 0\n"].concat();
        std::fs::write(root.path().join("proc/1/mounts"), gbk).expect("writable");
        let point = root.path().join(OsStr::from_bytes(b"\xca\xfd a"));
        assert_eq!(asked(), (vec![point], "fstype=ext4,mount=/\u{fffd}\u{fffd}a".to_string()));
    }

    #[test]
    fn a_file_system_that_is_listed_twice_counts_once_in_the_sum() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join("proc/self")).expect("directories");
        let list = "31 1 8:1 / /a rw - xfs /dev/sda rw\n32 1 8:1 /b /b rw - xfs /dev/sda rw\n";
        std::fs::write(root.path().join("proc/self/mountinfo"), list).expect("writable");
        let space = Space { bytes_total: 40, bytes_used: 10, bytes_free: 30, inodes_total: 0, inodes_free: 0 };
        let (points, mut out) = (["/a".to_string(), "/b".to_string()], Vec::new());
        let choice = Choice { points: &points, as_original: false };
        collect_with(&Roots::new(root.path()), choice, |_| Some(space), &mut out).expect("readable");
        let values = |metric: &str| out.iter().filter(|r| r.metric == metric).map(|r| r.value).collect::<Vec<_>>();
        assert_eq!((values("df.bytes.total"), values("df.statistics.total")), (vec![40.0, 40.0], vec![40.0]));
    }

    #[test]
    fn this_machines_root_has_space() {
        let space = ask(Path::new("/")).expect("the root is mounted");
        assert!(space.bytes_total > 0 && space.bytes_used <= space.bytes_total);
    }
}
