//! Mounts: which file systems are reported, and under which mount point.
//!
//! Why: a host of containers has hundreds of mounts: layers, volumes and secrets of each, most of which show a file
//! system that is mounted elsewhere too, and all of which go with their container.
//! How: by default from `mountinfo`, which knows the device behind a mount: of several mounts of one device the one
//! that shows all of it is reported, else the shortest, and none below the folders of container engines
//! ([`CONTAINERS`]). A list of mount points is taken as it is.
//! Compat: the original's rule is a choice: from `mounts`, of a `/dev/…` mounted several times only the shortest mount
//! point. No virtual file systems in either; the original drops whatever begins with the letters of a virtual mount
//! point: here `/net` does not stand for `/netdata`, nor FUSE for the disks with NTFS or exFAT that the kernel calls
//! `fuseblk`. Mount points are bytes: one in GBK is asked for as it is, and only named with U+FFFD.

use crate::roots::{ProbeError, Roots, read_into};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const SPECS_IGNORED: [&str; 5] = ["none", "nodev", "proc", "hugetlbfs", "mqueue"];
const TYPES_IGNORED: [&str; 10] =
    ["cgroup", "debugfs", "devpts", "devtmpfs", "iso9660", "rpc_pipefs", "rootfs", "overlay", "tmpfs", "squashfs"];
/// What is mounted here or below is virtual, or comes and goes by itself.
const POINTS_IGNORED: [&str; 5] = ["/sys", "/net", "/misc", "/proc", "/lib"];
/// Types that the original asks too: an automount would be mounted by the question, the others are no disks.
const TYPES_OF_NO_DISK: [&str; 4] = ["autofs", "nsfs", "ramfs", "cgroup2"];
/// Folders below which engines mount what belongs to a container; a disk for the folder itself is the host's.
const CONTAINERS: [&str; 10] = [
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/lib/lxc",
    "/var/lib/lxd",
    "/var/snap",
    "/snap",
    "/run",
];

/// The mounts that are reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<'a> {
    /// Mount points; where there are some, no others are reported.
    pub points: &'a [String],
    /// Whether the original's rule holds.
    pub as_original: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mount {
    /// Number of the file system, as `8:1`; empty where the list does not have it.
    pub device: Vec<u8>,
    /// Folder of the file system that is seen at the mount point.
    root: Vec<u8>,
    spec: Vec<u8>,
    point: Vec<u8>,
    pub fs_type: String,
}

impl Mount {
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.point))
    }

    pub fn spec(&self) -> String {
        String::from_utf8_lossy(&self.spec).into_owned()
    }

    fn is_reported(&self) -> bool {
        let is_fuse = ["fuse", "fusectl"].contains(&self.fs_type.as_str()) || self.fs_type.starts_with("fuse.");
        !(is_fuse
            || SPECS_IGNORED.iter().any(|spec| spec.as_bytes() == self.spec)
            || TYPES_IGNORED.contains(&self.fs_type.as_str())
            || POINTS_IGNORED.iter().any(|point| self.path().starts_with(point)))
    }

    fn is_of_a_container(&self) -> bool {
        CONTAINERS.iter().any(|folder| self.path().starts_with(folder) && self.path() != Path::new(folder))
    }

    /// Whether this mount shows its file system better than another one of it.
    fn shows_better(&self, other: &Mount) -> bool {
        let rank = |mount: &Mount| (mount.root != b"/", mount.point.len());
        rank(self) < rank(other)
    }
}

/// The mounts that are reported, in the order of the host's list, and where their mount points begin.
pub(crate) fn read<'r>(roots: &'r Roots, choice: Choice<'_>) -> Result<(Vec<Mount>, &'r Path), ProbeError> {
    let (file, beginning): (PathBuf, &Path) = match choice.as_original {
        true => roots.mounts("mounts", "mounts"),
        false => roots.mounts("mountinfo", "self/mountinfo"),
    };
    let mut text = Vec::new();
    read_into(&file, &mut text)?;
    let is_wanted = |mount: &Mount| choice.points.iter().any(|point| point.as_bytes() == mount.point);
    let mounts = match (choice.as_original, choice.points.is_empty()) {
        (true, true) => as_original(&text),
        (true, false) => as_original(&text).into_iter().filter(is_wanted).collect(),
        (false, true) => each_once(lines_of_mountinfo(&text).filter(|mount| !mount.is_of_a_container())),
        (false, false) => last_of_each_point(lines_of_mountinfo(&text).filter(is_wanted)),
    };
    Ok((mounts, beginning))
}

/// The original's rule.
fn as_original(text: &[u8]) -> Vec<Mount> {
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

fn lines_of_mountinfo(text: &[u8]) -> impl Iterator<Item = Mount> {
    let is_disk = |mount: &Mount| mount.is_reported() && !TYPES_OF_NO_DISK.contains(&mount.fs_type.as_str());
    text.split(|byte| *byte == b'\n').filter_map(parse_info).filter(is_disk)
}

/// Each file system once, at the mount that shows it best.
fn each_once(mounts: impl Iterator<Item = Mount>) -> Vec<Mount> {
    let mut kept: Vec<Mount> = Vec::new();
    for mount in last_of_each_point(mounts) {
        match kept.iter_mut().find(|other| other.device == mount.device) {
            Some(other) if mount.shows_better(other) => *other = mount,
            Some(_) => {}
            None => kept.push(mount),
        }
    }
    kept
}

/// Mounts that are not covered by a later one: whoever asks the mount point gets what is on top.
fn last_of_each_point(mounts: impl Iterator<Item = Mount>) -> Vec<Mount> {
    let mut kept: Vec<Mount> = Vec::new();
    for mount in mounts {
        kept.retain(|other| other.point != mount.point);
        kept.push(mount);
    }
    kept
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ' || *byte == b'\t').filter(|word| !word.is_empty())
}

/// A line of `mounts`: what, where, type.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = words(line);
    let (spec, point, fs_type) = (unescape(words.next()?), unescape(words.next()?), words.next()?);
    Some(Mount::new(&[], b"/".to_vec(), spec, point, fs_type))
}

/// A line of `mountinfo`: two numbers, device, root, point, options, marks up to a `-`, type, what.
fn parse_info(line: &[u8]) -> Option<Mount> {
    let mut words = words(line).skip(2);
    let (device, root, point) = (words.next()?, unescape(words.next()?), unescape(words.next()?));
    words.find(|word| *word == b"-")?;
    let (fs_type, spec) = (words.next()?, unescape(words.next()?));
    Some(Mount::new(device, root, spec, point, fs_type))
}

impl Mount {
    fn new(device: &[u8], root: Vec<u8>, spec: Vec<u8>, point: Vec<u8>, fs_type: &[u8]) -> Mount {
        Mount { device: device.to_vec(), root, spec, point, fs_type: String::from_utf8_lossy(fs_type).into_owned() }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let mounts = as_original(text.as_bytes());
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

    /// A host of containers: an encrypted root, a bind mount, a file that is mounted, btrfs, NFS, pods and layers.
    const HOST: &str = "\
22 1 0:21 / /proc rw - proc proc rw\n\
23 1 0:22 / /sys rw - sysfs sysfs rw\n\
29 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw\n\
30 29 0:26 / /run rw - tmpfs tmpfs rw\n\
31 29 8:17 /srv /srv rw shared:2 master:1 - xfs /dev/sdb1 rw\n\
32 29 8:17 / /mnt/data rw - xfs /dev/sdb1 rw\n\
33 29 253:0 /etc/hosts /opt/h rw - ext4 /dev/mapper/root rw\n\
34 29 0:40 /@home /home rw - btrfs /dev/sdc rw\n\
35 29 0:40 /@var /v rw - btrfs /dev/sdc rw\n\
36 29 8:33 / /var/lib/docker rw - ext4 /dev/sdd rw\n\
37 36 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw\n\
38 29 0:51 / /var/lib/kubelet/pods/u/volumes/nfs rw - nfs4 s:/pv rw\n\
39 29 8:49 / /var/lib/kubelet/plugins/p rw - ext4 /dev/rbd0 rw\n\
40 29 0:52 / /nfs rw - nfs4 s:/export rw\n\
41 29 0:52 /sub /n rw - nfs4 s:/export/sub rw\n\
42 30 0:4 net:[4026532] /run/docker/netns/a rw - nsfs nsfs rw\n\
43 29 0:53 / /auto rw - autofs systemd-1 rw\n\
44 29 8:65 / /my\\040disk rw - ext4 /dev/sde1 rw\n\
45 29 8:81 / /my\\040disk rw - ext4 /dev/sdf1 rw\n\
broken\n";

    fn check_host(points: &[&str], expected: &[&str]) {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join("proc/self")).expect("directories");
        std::fs::write(root.path().join("proc/self/mountinfo"), HOST).expect("writable");
        let points: Vec<String> = points.iter().map(|point| point.to_string()).collect();
        let roots = Roots::new(root.path());
        let (mounts, _) = read(&roots, Choice { points: &points, as_original: false }).expect("readable");
        let found =
            mounts.iter().map(|mount| format!("{} {}", mount.path().display(), String::from_utf8_lossy(&mount.spec)));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn each_file_system_once_and_none_of_containers() {
        check_host(
            &[],
            &[
                "/ /dev/mapper/root",
                "/mnt/data /dev/sdb1",
                "/v /dev/sdc",
                "/var/lib/docker /dev/sdd",
                "/nfs s:/export",
                "/my disk /dev/sdf1",
            ],
        );
    }

    #[test]
    fn a_list_of_mount_points_is_taken_as_it_is() {
        check_host(
            &["/srv", "/n", "/var/lib/kubelet/plugins/p", "/run", "/absent"],
            &["/srv /dev/sdb1", "/var/lib/kubelet/plugins/p /dev/rbd0", "/n s:/export/sub"],
        );
    }
}
