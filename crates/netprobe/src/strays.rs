//! Strays: processes that a plugin or a script has started and that have left its process group.
//!
//! How: each child gets a mark of its own among its variables, which all that it starts inherit; whoever has it is
//! found in `/proc/*/environ`. A process that takes the mark away, or that belongs to somebody else, is not found.
//! Invariants: a process is held by a descriptor while it is looked at (Linux 5.3), so that no other one of the same
//! number can be hit; before that kernel the moment between is some microseconds.
//! Memory: [`ENVIRON_BYTES_MAX`].

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that carries the mark.
pub const VARIABLE: &str = "HAWKEYE_PLUGIN_RUN";
/// Bytes of a process's variables that are searched: arguments and variables of a program have 128 KiB each in
/// practice.
const ENVIRON_BYTES_MAX: u64 = 128 << 10;
/// Rounds over all processes: those that start others while they are killed are met again, but not for ever.
const ROUNDS_MAX: usize = 8;

/// Value of the variable for one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// A mark that no other child of this boot has.
    pub fn fresh() -> Mark {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Mark(format!("{}-{number}-{:016x}", std::process::id(), rand::random::<u64>()))
    }

    /// Text of the mark.
    pub fn text(&self) -> &str {
        &self.0
    }

    fn is_in(&self, environ: &[u8]) -> bool {
        let wanted = format!("{VARIABLE}={}", self.0);
        environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    }
}

/// Kills whoever has the mark; answers how many. Reads `/proc`, which may take as long as it likes.
pub fn kill(mark: &Mark) -> usize {
    let mut killed = 0;
    for _ in 0..ROUNDS_MAX {
        match kill_once(mark) {
            0 => break,
            count => killed += count,
        }
    }
    killed
}

fn kill_once(mark: &Mark) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| kill_if_marked(*pid, mark)).count()
}

fn kill_if_marked(pid: Pid, mark: &Mark) -> bool {
    let held = pidfd_open(pid, PidfdFlags::empty());
    if !environ_of(pid).is_some_and(|environ| mark.is_in(&environ)) {
        return false;
    }
    let killed = match held {
        Ok(process) => pidfd_send_signal(process, Signal::KILL),
        Err(_) => kill_process(pid, Signal::KILL),
    };
    killed.is_ok()
}

/// Variables of a process; those of one that is dead are gone.
fn environ_of(pid: Pid) -> Option<Vec<u8>> {
    let path = Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("environ");
    let mut environ = Vec::new();
    File::open(path).ok()?.take(ENVIRON_BYTES_MAX).read_to_end(&mut environ).ok()?;
    Some(environ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn whoever_has_the_mark_is_killed_and_nobody_else() {
        let (mark, other) = (Mark::fresh(), Mark::fresh());
        let start = |mark: &Mark| {
            let mut command = Command::new("sleep");
            command.arg("1000").env(VARIABLE, mark.text()).spawn().expect("sleep")
        };
        let (mut marked, mut innocent) = (start(&mark), start(&other));
        assert!(kill(&mark) >= 1);
        assert_eq!(marked.wait().expect("own child").signal(), Some(9));
        assert_eq!(innocent.try_wait().expect("own child"), None);
        innocent.kill().expect("own child");
        innocent.wait().expect("own child");
        assert_eq!(kill(&mark), 0);
    }

    #[test]
    fn a_mark_is_a_whole_variable() {
        let mark = Mark("1-2-3".into());
        let check = |environ: &str, is_in: bool| assert_eq!(mark.is_in(environ.as_bytes()), is_in, "{environ:?}");
        check("A=b\0HAWKEYE_PLUGIN_RUN=1-2-3\0C=d\0", true);
        check("HAWKEYE_PLUGIN_RUN=1-2-3", true);
        check("HAWKEYE_PLUGIN_RUN=1-2-34\0", false);
        check("X=HAWKEYE_PLUGIN_RUN=1-2-3\0", false);
        check("", false);
    }
}
