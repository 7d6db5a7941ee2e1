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
use std::path::{Path, PathBuf};

/// Space and inodes of a file system as `statvfs` has them, in the units of the reports.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    pub bytes_total: u64,
    pub bytes_used: u64,
    pub bytes_free: u64,
    pub inodes_total: u64,
    pub inodes_free: u64,
}

impl Space {
    /// Asks the kernel; none where it says nothing. On a mount whose server is gone this does not come back.
    pub fn of(path: &Path) -> Option<Space> {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(Space {
            bytes_total: stat.f_frsize.saturating_mul(stat.f_blocks),
            bytes_used: stat.f_frsize.saturating_mul(stat.f_blocks.saturating_sub(stat.f_bfree)),
            bytes_free: stat.f_frsize.saturating_mul(stat.f_bavail),
            inodes_total: stat.f_files,
            inodes_free: stat.f_ffree,
        })
    }

    /// Used bytes of those that programs may use.
    pub fn used_percent(&self) -> f64 {
        percent(self.bytes_used, self.bytes_used.saturating_add(self.bytes_free))
    }

    /// Inodes in use; 0 of 0 where their number is not fixed.
    pub fn inodes_used(&self) -> u64 {
        self.inodes_total.saturating_sub(self.inodes_free)
    }
}

/// A file system that is reported.
#[derive(Clone, Debug)]
pub struct Mounted {
    mount: Mount,
    /// Where it is asked.
    pub path: PathBuf,
}

impl Mounted {
    /// What is mounted, `/dev/sda1`.
    pub fn spec(&self) -> String {
        self.mount.spec()
    }

    /// The mount point on the host.
    pub fn point(&self) -> String {
        self.mount.path().to_string_lossy().into_owned()
    }

    /// Type, `ext4`.
    pub fn fs_type(&self) -> &str {
        &self.mount.fs_type
    }
}

/// The file systems of the choice.
pub(crate) fn mounted(roots: &Roots, choice: Choice<'_>) -> Result<Vec<Mounted>, ProbeError> {
    let (mounts, beginning) = mount::read(roots, choice)?;
    let place =
        |mount: Mount| Mounted { path: beginning.join(mount.path().strip_prefix("/").unwrap_or(mount.path())), mount };
    Ok(mounts.into_iter().map(place).collect())
}

/// Asks one after the other. A mount that cannot be asked (gone since, no permission) is not reported, as in the
/// original.
pub(crate) fn collect(mounts: &[Mounted], out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    report(mounts.iter().filter_map(|mounted| Some((mounted, Space::of(&mounted.path)?))), out);
    Ok(())
}

/// Appends what file systems have said, and their sum.
pub fn report<'m>(spaces: impl IntoIterator<Item = (&'m Mounted, Space)>, out: &mut Vec<Reading>) {
    let (mut total, mut used, mut devices) = (0_u64, 0_u64, Vec::new());
    for (Mounted { mount, .. }, space) in spaces.into_iter().filter(|(_, space)| space.bytes_total > 0) {
        if mount.device.is_empty() || !devices.contains(&&mount.device) {
            total = total.saturating_add(space.bytes_total);
            used = used.saturating_add(space.bytes_used);
        }
        devices.push(&mount.device);
        push(mount, &space, out);
    }
    if total > 0 {
        out.extend([
            Reading::gauge("df.statistics.total", "", total as f64),
            Reading::gauge("df.statistics.used", "", used as f64),
            Reading::gauge("df.statistics.used.percent", "", percent(used, total)),
        ]);
    }
}

fn push(mount: &Mount, space: &Space, out: &mut Vec<Reading>) {
    let tags = format!("{},{}", tag("fstype", &mount.fs_type), tag("mount", &mount.path().to_string_lossy()));
    let used_percent = space.used_percent();
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
    let used = space.inodes_used();
    let used_percent = percent(used, space.inodes_total);
    out.extend([
        Reading::gauge("df.inodes.total", &tags, space.inodes_total as f64),
        Reading::gauge("df.inodes.used", &tags, used as f64),
        Reading::gauge("df.inodes.free", &tags, space.inodes_free as f64),
        Reading::gauge("df.inodes.used.percent", &tags, used_percent),
        Reading::gauge("df.inodes.free.percent", &tags, 100.0 - used_percent),
    ]);
}

/// Collects with the question to the kernel given, so that a test can answer it.
#[cfg(test)]
pub(crate) fn collect_with(
    roots: &Roots,
    choice: Choice<'_>,
    ask: impl Fn(&Path) -> Option<Space>,
    out: &mut Vec<Reading>,
) -> Result<(), ProbeError> {
    report(mounted(roots, choice)?.iter().filter_map(|mounted| Some((mounted, ask(&mounted.path)?))), out);
    Ok(())
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
        let space = Space::of(Path::new("/")).expect("the root is mounted");
        assert!(space.bytes_total > 0 && space.bytes_used <= space.bytes_total);
    }
}
