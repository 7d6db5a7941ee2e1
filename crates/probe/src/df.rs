//! File systems: space and inodes of those that are mounted, and their sum.
//!
//! Compat: which mounts are reported is the original's rule: no virtual file systems, of a device mounted several times
//! only the shortest mount point. The original drops whatever begins with the letters of a virtual one: here `/net`
//! does not stand for `/netdata`, nor FUSE for the disks with NTFS or exFAT that the kernel calls `fuseblk`. Under a
//! prefix the mounts are the host's and asked for below the prefix; the original has the container's (`roots.rs`).
//! Mount points are bytes: one in GBK is asked for as it is, and only named with U+FFFD.
//! Invariants: a mount that is filtered out is not asked, so a dead NFS server is asked only when NFS is reported
//! (as in the original); the caller runs this where blocking is harmless.

use crate::reading::{Reading, percent, tag};
use crate::roots::{ProbeError, Roots, read_into};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SPECS_IGNORED: [&str; 5] = ["none", "nodev", "proc", "hugetlbfs", "mqueue"];
const TYPES_IGNORED: [&str; 10] =
    ["cgroup", "debugfs", "devpts", "devtmpfs", "iso9660", "rpc_pipefs", "rootfs", "overlay", "tmpfs", "squashfs"];
/// What is mounted here or below is virtual, or comes and goes by itself.
const POINTS_IGNORED: [&str; 5] = ["/sys", "/net", "/misc", "/proc", "/lib"];

#[derive(Clone, Debug, PartialEq)]
struct Mount {
    spec: Vec<u8>,
    point: Vec<u8>,
    fs_type: String,
}

impl Mount {
    fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.point))
    }

    fn is_reported(&self) -> bool {
        let is_fuse = ["fuse", "fusectl"].contains(&self.fs_type.as_str()) || self.fs_type.starts_with("fuse.");
        !(is_fuse
            || SPECS_IGNORED.iter().any(|spec| spec.as_bytes() == self.spec)
            || TYPES_IGNORED.contains(&self.fs_type.as_str())
            || POINTS_IGNORED.iter().any(|point| self.path().starts_with(point)))
    }
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
    collect_with(roots, allowed, ask, out)
}

/// Collects with the question to the kernel given, so that a test can answer it.
pub(crate) fn collect_with(
    roots: &Roots,
    allowed: &[String],
    ask: impl Fn(&Path) -> Option<Space>,
    out: &mut Vec<Reading>,
) -> Result<(), ProbeError> {
    let (file, beginning) = roots.mounts();
    let mut text = Vec::new();
    read_into(&file, &mut text)?;
    let (mut total, mut used) = (0_u64, 0_u64);
    for mount in mounts(&text) {
        if !allowed.is_empty() && !allowed.iter().any(|point| point.as_bytes() == mount.point) {
            continue;
        }
        // A mount that cannot be asked (gone since, no permission) is not reported, as in the original.
        let path = beginning.join(mount.path().strip_prefix("/").unwrap_or(mount.path()));
        let Some(space) = ask(&path).filter(|space| space.bytes_total > 0) else { continue };
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

/// The mounts that are reported, in the file's order.
fn mounts(text: &[u8]) -> Vec<Mount> {
    let mut kept: Vec<Mount> = Vec::new();
    for mount in text.split(|byte| *byte == b'\n').filter_map(parse).filter(Mount::is_reported) {
        let is_device = mount.spec.starts_with(b"/dev/");
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

fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ' || *byte == b'\t').filter(|word| !word.is_empty());
    let (spec, point, fs_type) = (unescape(words.next()?), unescape(words.next()?), words.next()?);
    Some(Mount { spec, point, fs_type: String::from_utf8_lossy(fs_type).into_owned() })
}

/// Undoes the kernel's `\040` for a space, `\011`, `\012`, `\043` and `\134`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut pieces = text.split(|byte| *byte == b'\\');
    let mut out = pieces.next().unwrap_or_default().to_vec();
    for piece in pieces {
        match piece.get(..3).and_then(byte_of) {
            Some(byte) => {
                out.push(byte);
                out.extend_from_slice(&piece[3..]);
            }
            None => {
                out.push(b'\\');
                out.extend_from_slice(piece);
            }
        }
    }
    out
}

/// The byte that three octal digits stand for.
fn byte_of(octal: &[u8]) -> Option<u8> {
    octal.iter().try_fold(0_u8, |byte, digit| match digit {
        b'0'..=b'7' => byte.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
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

    fn check(text: &str, expected: &[&str]) {
        let mounts = mounts(text.as_bytes());
        let points: Vec<_> = mounts.iter().map(|mount| mount.path().to_str().expect("UTF-8")).collect();
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
        // A blank of another kind is a part of the name.
        check("/dev/sdb1 /数据\u{3000}盘 ext4 rw 0 0\n", &["/数据\u{3000}盘"]);
        // An over-mounted point would give two points for one series.
        check("a /x zfs rw 0 0\nb /x zfs rw 0 0\n", &["/x"]);
    }

    #[test]
    fn virtual_mounts_are_known_by_their_whole_name() {
        let mount = |point: &str, fs_type: &str| format!("/dev/sdb1 {point} {fs_type} rw 0 0\n");
        for point in
            ["/netdata", "/system", "/sysroot/data", "/lib64", "/library", "/process", "/miscellaneous", "/a/sys"]
        {
            check(&mount(point, "ext4"), &[point]);
        }
        for point in ["/sys", "/sys/fs/x", "/net/server", "/misc", "/proc/x", "/lib", "/lib/modules/x", "//lib//x"] {
            check(&mount(point, "ext4"), &[]);
        }
        check(&mount("/usb", "fuseblk"), &["/usb"]);
        for fs_type in ["fuse", "fuse.sshfs", "fusectl", "tmpfs", "overlay"] {
            check(&mount("/x", fs_type), &[]);
        }
        for spec in ["none", "nodev", "proc"] {
            check(&format!("{spec} /x ext4 rw 0 0\n"), &[]);
        }
        check("nonesuch:/a /x nfs rw 0 0\n", &["/x"]);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(b"a\\040b\\134c\\043"), b"a b\\c#");
        assert_eq!(unescape(b"a\\9\\04\\777\\+40"), b"a\\9\\04\\777\\+40");
    }

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
            collect_with(&Roots::new(root.path()), &[], ask, &mut out).expect("readable");
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
    fn this_machines_root_has_space() {
        let space = ask(Path::new("/")).expect("the root is mounted");
        assert!(space.bytes_total > 0 && space.bytes_used <= space.bytes_total);
    }
}
