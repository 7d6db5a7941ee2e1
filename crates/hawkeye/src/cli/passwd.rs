//! `hawkeye passwd NAME`: a new password for a user, set in the tables of a data directory, with a server or without.
//!
//! Why: whoever owns the machine owns the server, also when nobody remembers root's password.
//! How: the tables are changed as by the API; a running server sees them at its next look. The password is read from
//! standard input (a terminal does not show it); with an empty line one is made and printed, and
//! without any line nothing is changed.
//! Invariants: all sessions of the user end with the old password. Tables of whatever version stay of that version.

use super::server::ServerArgs;
use crate::portal::{Portal, password, user};
use crate::watch::log::say;
use anyhow::{Context, Result, ensure};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Stdin, Write};
use std::path::Path;

#[derive(clap::Args)]
pub struct PasswdArgs {
    /// The user, e.g. root.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub fn run(args: &PasswdArgs) -> Result<()> {
    let data = args.server.data_dir()?;
    let read = read_password(&args.name)?;
    let new = if read.is_empty() { password::random_password()? } else { read.clone() };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let ended = runtime.block_on(set(&data, &args.name, &new))?;
    let (name, data, ended) = (&args.name, data.display(), sessions(ended));
    match read.is_empty() {
        true => say(format_args!("hawkeye: the password of {name} in {data} is now {new} ({ended} ended)")),
        false => say(format_args!("hawkeye: {name} in {data} has the new password ({ended} ended)")),
    }
    Ok(())
}

fn sessions(count: u64) -> String {
    format!("{count} {}", if count == 1 { "session" } else { "sessions" })
}

/// Sets the password of the user `name`; answers how many of his sessions that ended.
async fn set(data: &Path, name: &str, new: &str) -> Result<u64> {
    let path = data.join(super::backup::PORTAL);
    ensure!(path.exists(), "{} is not there: name the data directory with --data-dir or --config", path.display());
    let portal = Portal::open_existing(&path).await?;
    let ended = async {
        let user = user::by_name(&portal, name).await.context("cannot look the user up")?;
        let user = user.with_context(|| format!("there is no user {name:?} in {}", path.display()))?;
        let hash = password::hash(new).await?;
        let changed = user::change_password(&portal, user.id, &hash, None).await;
        if user.role == user::BLOCKED {
            say(format_args!("hawkeye: {name} is blocked, and cannot log in before an administrator changes that"));
        }
        changed.context("cannot store the password")
    };
    let ended = ended.await;
    portal.close().await;
    ended
}

/// One line of standard input, without its end.
fn read_password(name: &str) -> Result<String> {
    let _ = write!(std::io::stderr(), "new password of {name} (an empty line has one made): ");
    let stdin = std::io::stdin();
    let hidden = Hidden::begin(&stdin);
    let line = read_line(stdin.lock());
    drop(hidden);
    let _ = writeln!(std::io::stderr());
    line
}

/// More than a password may have, so that a longer one is refused and not cut.
const LINE_MAX: u64 = 1024;

fn read_line(from: impl BufRead) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(LINE_MAX).read_until(b'\n', &mut bytes).context("cannot read the password")?;
    ensure!(!bytes.is_empty(), "no password came: give one line, which may be empty to have one made");
    for end in [b'\n', b'\r'] {
        bytes.pop_if(|last| *last == end);
    }
    let line = String::from_utf8(bytes).ok().context("the password is no UTF-8")?;
    ensure!(!line.chars().any(char::is_control), "the password has control characters in it");
    Ok(line)
}

/// Terminal that does not show what is typed, until this is dropped.
struct Hidden<'t> {
    terminal: &'t Stdin,
    before: Termios,
}

impl Hidden<'_> {
    /// `None` where standard input is no terminal.
    fn begin(terminal: &Stdin) -> Option<Hidden<'_>> {
        if !terminal.is_terminal() {
            return None;
        }
        let before = tcgetattr(terminal).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &hidden).ok()?;
        Some(Hidden { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::password::Verdict;
    use crate::portal::session;

    #[test]
    fn sessions_are_counted_in_english() {
        assert_eq!([0, 1, 2].map(sessions), ["0 sessions", "1 session", "2 sessions"]);
    }

    #[test]
    fn a_line_is_a_password() {
        let check = |text: &str, expected: &str| assert_eq!(read_line(text.as_bytes()).expect(text), expected);
        check("secret\n", "secret");
        check("secret\r\nmore", "secret");
        check(" with blanks ", " with blanks ");
        check("密码", "密码");
        check("\n", "");
        assert!(read_line(&b""[..]).is_err(), "nothing came: nothing is changed");
        assert!(read_line(&b"\xff\n"[..]).is_err());
        assert!(read_line(&b"a\x08b\n"[..]).is_err());
        assert_eq!(read_line(&[b'x'; 2000][..]).expect("cut, and then refused").len(), 1024);
    }

    #[tokio::test]
    async fn a_password_is_set_beside_a_server_and_ends_the_sessions() -> Result<()> {
        let (dir, portal) = crate::portal::tests::in_file().await?;
        let uid = user::create(&portal, "Root", "old", &user::Profile::default(), user::ROOT, 0).await?;
        let sig = session::create(&portal, uid, 1_600_000_000).await?;
        assert_eq!(set(dir.path(), "root", "new").await?, 1);
        let (_, stored) = user::with_password(&portal, "root").await?.context("still there")?;
        assert_eq!(password::verify("new", &stored, "").await?, Verdict::Right);
        assert!(!session::is_valid(&portal, uid, &sig, 1_600_000_000).await?);
        let check = |result: Result<u64>, part: &str| {
            let error = format!("{:#}", result.expect_err(part));
            assert!(error.contains(part), "{error}");
        };
        check(set(dir.path(), "nobody", "new").await, "no user \"nobody\"");
        check(set(dir.path(), "root", &"x".repeat(72)).await, "longer than 71 bytes");
        check(set(&dir.path().join("none"), "root", "new").await, "portal.db is not there");
        Ok(())
    }
}
