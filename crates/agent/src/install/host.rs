//! Host: what installing changes of a host, each step with a look before.
//!
//! Invariants: a step that finds what it would make changes nothing and says so; a file takes its place whole, with
//! its mode and owner; programs are run with their arguments as a list.

use super::tell;
use anyhow::{Context, Result, ensure};
use rustix::fs::{Gid, Uid, chown};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use stdx::small_file;

/// The user that the agent runs as.
pub const USER: &str = "hawkeye-agent";
/// Bytes of /etc/passwd; a host with 10,000 local users has 1 MB.
const PASSWD_MAX: u64 = 4 << 20;

/// Whose a file or directory is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Owner {
    Root,
    Agent,
    /// Root's, and the agent's group reads it.
    RootAndAgent,
}

/// A host, or an image of one.
pub struct Host {
    /// The root of its file system.
    pub root: PathBuf,
    /// Whether nothing is changed, and all is told.
    pub is_dry: bool,
    /// Whether this process may give files to others.
    pub is_root: bool,
}

impl Host {
    /// Where a path of the host is for this process.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Makes a directory; whether that changed anything.
    pub fn dir(&self, path: &str, mode: u32, owner: Owner) -> Result<bool> {
        let at = self.at(path);
        if at.is_dir() && self.is_owned(&at, mode, owner)? {
            return Ok(false);
        }
        self.change(format_args!("makes {path}"), || {
            fs::create_dir_all(&at).with_context(|| format!("cannot make {}", at.display()))?;
            self.own(&at, mode, owner)
        })
    }

    /// Makes a file what it should be; whether that changed anything.
    pub fn file(&self, path: &str, content: &[u8], mode: u32, owner: Owner) -> Result<bool> {
        let at = self.at(path);
        let is_there = small_file::read(&at, content.len() as u64).is_ok_and(|found| found == content);
        if is_there && self.is_owned(&at, mode, owner)? {
            tell(format_args!("{path} is there"));
            return Ok(false);
        }
        self.change(format_args!("writes {path}"), || {
            let dir = at.parent().context("a file has a directory")?;
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            let new = at.with_file_name(format!(".{}.new", at.file_name().unwrap_or_default().display()));
            let written = self.write(&new, content, mode, owner).and_then(|()| Ok(fs::rename(&new, &at)?));
            if written.is_err() {
                // What is left of a full disk's file is of no use.
                let _ = fs::remove_file(&new);
            }
            written.with_context(|| format!("cannot write {}", at.display()))
        })
    }

    fn write(&self, path: &Path, content: &[u8], mode: u32, owner: Owner) -> Result<()> {
        // One that a run before has left may have other rights.
        let _ = fs::remove_file(path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content)?;
        self.own(path, mode, owner)?;
        file.sync_all()?;
        Ok(())
    }

    /// Makes a link to a path of the host.
    pub fn link(&self, path: &str, to: &str) -> Result<bool> {
        let at = self.at(path);
        if fs::read_link(&at).is_ok_and(|found| found == Path::new(to)) {
            return Ok(false);
        }
        self.change(format_args!("links {path} to {to}"), || {
            let dir = at.parent().context("a link has a directory")?;
            fs::create_dir_all(dir)?;
            let _ = fs::remove_file(&at);
            symlink(to, &at).with_context(|| format!("cannot make {}", at.display()))
        })
    }

    /// Removes a file, or a directory with all that is in it.
    pub fn remove(&self, path: &str) -> Result<bool> {
        let at = self.at(path);
        let Ok(found) = fs::symlink_metadata(&at) else { return Ok(false) };
        self.change(format_args!("removes {path}"), || {
            let removed = if found.is_dir() { fs::remove_dir_all(&at) } else { fs::remove_file(&at) };
            removed.with_context(|| format!("cannot remove {}", at.display()))
        })
    }

    /// Makes the agent's user.
    pub fn user(&self, home: &str) -> Result<()> {
        if self.agent()?.is_some() {
            tell(format_args!("the user {USER} is there"));
            return Ok(());
        }
        if !self.is_root && !self.is_dry {
            tell(format_args!("makes no user {USER}, for this is not root: make one in the image"));
            return Ok(());
        }
        let prefix = self.root.display().to_string();
        let mut arguments = vec!["--system", "--user-group", "--home-dir", home, "--no-create-home"];
        arguments.extend(["--shell", "/usr/sbin/nologin", USER]);
        if self.root != Path::new("/") {
            arguments.splice(0..0, ["--prefix", prefix.as_str()]);
        }
        self.run("useradd", &arguments)
    }

    /// Takes the agent's user away.
    pub fn no_user(&self) -> Result<()> {
        if self.agent()?.is_none() || (!self.is_root && !self.is_dry) {
            return Ok(());
        }
        let prefix = self.root.display().to_string();
        let is_image = self.root != Path::new("/");
        let arguments = if is_image { vec!["--prefix", prefix.as_str(), USER] } else { vec![USER] };
        self.run("userdel", &arguments)
    }

    /// Runs a program, and waits until it ends well.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let line = format!("{program} {}", arguments.join(" "));
        self.change(format_args!("runs {line}"), || {
            let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
            let output = output.with_context(|| format!("cannot run {program}"))?;
            let complaint = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "`{line}` ended with {}: {}", output.status, complaint.trim());
            Ok(())
        })?;
        Ok(())
    }

    /// Tells a change and makes it, unless this is only a look.
    fn change(&self, what: std::fmt::Arguments<'_>, make: impl FnOnce() -> Result<()>) -> Result<bool> {
        tell(format_args!("{}{what}", if self.is_dry { "dry run: " } else { "" }));
        if !self.is_dry {
            make()?;
        }
        Ok(true)
    }

    /// Numbers of the agent's user and group; none while there is no such user.
    fn agent(&self) -> Result<Option<(u32, u32)>> {
        let path = self.at("/etc/passwd");
        let passwd = match small_file::read(&path, PASSWD_MAX) {
            Ok(passwd) => passwd,
            // An image without users, yet.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(ids_of(USER, &String::from_utf8_lossy(&passwd)))
    }

    fn ids(&self, owner: Owner) -> Result<Option<(u32, u32)>> {
        if !self.is_root {
            return Ok(None);
        }
        let agent = self.agent()?;
        Ok(match owner {
            Owner::Root => Some((0, 0)),
            Owner::Agent => agent,
            Owner::RootAndAgent => agent.map(|(_, group)| (0, group)),
        })
    }

    fn is_owned(&self, path: &Path, mode: u32, owner: Owner) -> Result<bool> {
        let found = fs::metadata(path)?;
        let is_theirs = self.ids(owner)?.is_none_or(|ids| ids == (found.uid(), found.gid()));
        Ok(found.mode() & 0o7777 == mode && is_theirs)
    }

    fn own(&self, path: &Path, mode: u32, owner: Owner) -> Result<()> {
        if let Some((user, group)) = self.ids(owner)? {
            chown(path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
                .with_context(|| format!("cannot give {} away", path.display()))?;
        }
        File::open(path)?.set_permissions(Permissions::from_mode(mode))?;
        Ok(())
    }
}

/// User and group of `name` in the text of an /etc/passwd.
fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.len() >= 4 && fields[0] == name)?;
    Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nhawkeye-agent:x:998:997::/:/bin/false\nshort:x\nodd:x:a:b:\n";
        let check = |name: &str, expected: Option<(u32, u32)>| assert_eq!(ids_of(name, passwd), expected, "{name}");
        check("hawkeye-agent", Some((998, 997)));
        check("root", Some((0, 0)));
        check("hawkeye", None);
        check("short", None);
        check("odd", None);
    }
}
