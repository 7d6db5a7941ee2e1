//! User: whose rights plugins have, and scripts of probes.
//!
//! How: a user (`plugin.user`, `probes.script_user`) is a name in /etc/passwd, or `UID:GID` for users whom only a
//! directory service knows. Only root can take another user's rights; the groups of the agent are given up then.
//! Why not the system's own search for names: it loads libraries of directory services into the process, and waits for
//! them.
//! Invariants: a user who cannot be had ends the start of the agent, and a reload; nothing runs as somebody else.

use rustix::process::geteuid;
use std::path::Path;
use tokio::process::Command;

/// Bytes of /etc/passwd; a host with 10,000 local users has 1 MB.
const PASSWD_BYTES_MAX: u64 = 4 << 20;

/// A user whose rights a child gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
    /// Name and home; none where only numbers are known.
    names: Option<(String, String)>,
}

impl User {
    /// Whether a text may be a user's: a name, `UID:GID`, or "".
    pub fn is_one(text: &str) -> bool {
        let is_number = |part: &str| part.parse::<u32>().is_ok();
        match text.split_once(':') {
            Some((uid, gid)) => is_number(uid) && is_number(gid),
            None => !text.contains(|c: char| c.is_whitespace() || c.is_control()),
        }
    }

    /// User and group.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// The user that `key` names; none for the agent's own, as for "". The error names the fix.
    pub fn of(key: &str, text: &str) -> Result<Option<User>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let passwd = stdx::small_file::read(Path::new("/etc/passwd"), PASSWD_BYTES_MAX)
            .map_err(|error| format!("{key} is {text:?}, and /etc/passwd cannot be read: {error}"))?;
        let user = User::find(text, &String::from_utf8_lossy(&passwd)).ok_or_else(|| {
            format!("{key} is {text:?}, whom /etc/passwd does not have: create the user, or give UID:GID")
        })?;
        let own = geteuid();
        match () {
            _ if own.is_root() => Ok(Some(user)),
            _ if own.as_raw() == user.uid => Ok(None),
            _ => Err(format!(
                "{key} is {text:?}, and the agent is not root, so it cannot become another user: start it as root, or \
                 give \"\""
            )),
        }
    }

    fn find(text: &str, passwd: &str) -> Option<User> {
        if let Some((uid, gid)) = text.split_once(':') {
            return Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, names: None });
        }
        let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = lines.find(|fields| fields.len() >= 6 && fields[0] == text)?;
        let names = Some((text.to_string(), fields[5].to_string()));
        Some(User { uid: fields[2].parse().ok()?, gid: fields[3].parse().ok()?, names })
    }

    /// Makes a child this user's. The standard library gives up all further groups with the user.
    pub fn dress(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
        if let Some((name, home)) = &self.names {
            command.env("USER", name).env("LOGNAME", name).env("HOME", home);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken:x\nfalcon:x:998:997::/home/falcon:/bin/sh\n";

    #[test]
    fn names_and_numbers() {
        let names = |name: &str, home: &str| Some((name.to_string(), home.to_string()));
        let check = |text: &str, user: Option<User>| assert_eq!(User::find(text, PASSWD), user, "{text}");
        check("falcon", Some(User { uid: 998, gid: 997, names: names("falcon", "/home/falcon") }));
        check("root", Some(User { uid: 0, gid: 0, names: names("root", "/root") }));
        check("12:34", Some(User { uid: 12, gid: 34, names: None }));
        check("broken", None);
        check("falco", None);
        check("12:x", None);
    }

    #[test]
    fn nobody_is_the_agents_own_and_a_stranger_is_refused_with_the_fix() {
        assert_eq!(User::of("plugin.user", ""), Ok(None));
        let fault = User::of("plugin.user", "no such user").expect_err("nobody has this name");
        assert!(fault.contains("create the user"), "{fault}");
    }
}
