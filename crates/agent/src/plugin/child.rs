//! Child: a program in a process group of its own, whose output and time are bounded, and that takes with it what it
//! has started.
//!
//! How: both outputs are read to their ends, then the program is waited for: a run lasts until it has ended and nobody
//! holds its output any more. What remains of its group is killed then. One that has not ended when its time is over,
//! or that says more than it may, is killed with its group and its strays.
//! Invariants: nobody reads its input; variables that begin with `HAWKEYE_`, which may hold secrets, are not handed on;
//! a child that is dropped is killed with its group. What a child has started with `setsid` and without its outputs
//! outlives a run that ended by itself, as a service does that a plugin has restarted.
//! Memory: what [`Limits`] say.

use crate::hand::Hand;
use netprobe::strays::{self, Mark, VARIABLE};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// Begin of the names of variables that are the agent's own.
const OWN_VARIABLES: &str = "HAWKEYE_";
/// The time that the search for strays may take; some 10 ms on a host with 500 processes.
const STRAYS_TIMEOUT: Duration = Duration::from_secs(2);
/// The time in which a program that was asked to end may tidy up. A guess: git removes its lock files in milliseconds.
const FAREWELL: Duration = Duration::from_secs(5);
/// The time in which a killed program ends unless the kernel holds it.
const KILLED_WAIT: Duration = Duration::from_secs(1);

/// Bounds of a child.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Bytes of each output; a child that says more is killed.
    pub output_max: usize,
    /// Bytes of its errors that are kept.
    pub errors_kept: usize,
}

/// How a child ended.
#[derive(Debug)]
pub enum Ended {
    Exit(ExitStatus),
    /// Killed because its time was over.
    TimedOut,
    /// Killed because it said too much.
    Flooded,
}

/// What a child has said so far.
#[derive(Default)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A running program.
pub struct Child {
    process: tokio::process::Child,
    /// Group whose number is that of the process; none once it may be another's.
    group: Option<Pid>,
    mark: Mark,
    /// The signal by which it is asked to end.
    farewell: Signal,
}

/// A child says more than it may.
struct Flood;

impl Child {
    /// Starts a program; returns when it runs, so this hangs where the program's file does. `farewell` is the signal by
    /// which it is asked to end before it is killed; KILL does not ask.
    pub fn start(mut command: Command, farewell: Signal) -> io::Result<Child> {
        let mark = Mark::fresh();
        hide_own(&mut command, std::env::vars_os().map(|(name, _)| name));
        command.env(VARIABLE, mark.text()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn()?;
        let group = process.id().and_then(|id| Pid::from_raw(id as i32));
        Ok(Child { process, group, mark, farewell })
    }

    /// Reads what the child says, and waits for its end until `over` does. `output` has what was read also where the
    /// child was killed.
    pub async fn finish(
        &mut self,
        limits: Limits,
        output: &mut Output,
        over: impl Future<Output = ()>,
        hand: &Hand,
    ) -> io::Result<Ended> {
        let outputs = (self.process.stdout.take(), self.process.stderr.take());
        let mut over = pin!(over);
        let read = first(read(outputs, limits, output), &mut over).await;
        if let Some(Ok(())) = read
            && let Some(status) = first(self.process.wait(), &mut over).await
        {
            // The number is free since the line above, and free numbers are given out in turn, so none but what is left
            // of the group has it so soon.
            self.signal_group(Signal::KILL);
            self.group = None;
            return status.map(Ended::Exit);
        }
        self.kill(hand).await;
        Ok(if matches!(read, Some(Err(Flood))) { Ended::Flooded } else { Ended::TimedOut })
    }

    /// Whether the kernel still holds a program that was killed, e.g. on a dead mount.
    pub fn is_stuck(&mut self) -> bool {
        let is_stuck = matches!(self.process.try_wait(), Ok(None));
        if !is_stuck {
            // Since then the number may have become another's.
            self.group = None;
        }
        is_stuck
    }

    async fn kill(&mut self, hand: &Hand) {
        let mut has_ended = false;
        if self.farewell != Signal::KILL {
            self.signal_group(self.farewell);
            has_ended = timeout(FAREWELL, self.process.wait()).await.is_ok();
        }
        self.signal_group(Signal::KILL);
        if has_ended {
            self.group = None;
        }
        let mark = self.mark.clone();
        match hand.run(Instant::now() + STRAYS_TIMEOUT, move || strays::kill(&mark)).await {
            Some(count) => tracing::debug!(count, "killed what had left the group of a program"),
            None => tracing::debug!("what had left the group of a program could not be looked for in time"),
        }
        if timeout(KILLED_WAIT, self.process.wait()).await.is_ok() {
            self.group = None;
        }
    }

    /// Sends a signal to all of the group, if any of it is left.
    fn signal_group(&self, signal: Signal) {
        if let Some(group) = self.group {
            // A group of which nobody is left is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal_group(self.farewell);
    }
}

/// Output of `work`, unless `over` ends before.
async fn first<T>(work: impl Future<Output = T>, over: impl Future<Output = ()>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = over => None,
    }
}

/// Keeps those of the agent's variables that are its own from a child.
fn hide_own(command: &mut Command, variables: impl Iterator<Item = OsString>) {
    for name in variables.filter(|name| name.to_string_lossy().starts_with(OWN_VARIABLES)) {
        command.env_remove(name);
    }
}

/// Reads both outputs to their ends.
async fn read(
    outputs: (Option<ChildStdout>, Option<ChildStderr>),
    limits: Limits,
    output: &mut Output,
) -> Result<(), Flood> {
    let (Some(stdout), Some(stderr)) = outputs else { return Ok(()) };
    let Output { stdout: said, stderr: errors } = output;
    let max = limits.output_max;
    tokio::try_join!(fill(stdout, said, max, max), fill(stderr, errors, max, limits.errors_kept))?;
    Ok(())
}

/// Reads to the end, which is also where reading fails; keeps the first `kept` bytes of at most `max`.
async fn fill(mut from: impl AsyncRead + Unpin, into: &mut Vec<u8>, max: usize, kept: usize) -> Result<(), Flood> {
    let mut total = 0;
    loop {
        let count = from.read_buf(into).await.unwrap_or(0);
        total += count;
        into.truncate(kept);
        match count {
            0 => return Ok(()),
            _ if total > max => return Err(Flood),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::patience::{PATIENCE, in_time, until};
    use std::fs;
    use std::path::Path;

    async fn finish(script: &str, patience: Duration) -> (Ended, Output) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut child = Child::start(command, Signal::KILL).expect("sh");
        let mut output = Output::default();
        let limits = Limits { output_max: 1000, errors_kept: 10 };
        let (over, hand) = (tokio::time::sleep(patience), Hand::default());
        let finish = child.finish(limits, &mut output, over, &hand);
        let ended = in_time("the end", finish).await.expect("own child");
        (ended, output)
    }

    fn is_gone(pid_file: &Path) -> bool {
        let pid = fs::read_to_string(pid_file).expect("the script has written it");
        let status = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // One that nobody has waited for yet is as good as gone.
        status.is_empty() || status.contains(") Z ")
    }

    #[tokio::test]
    async fn says_what_it_has_to_say() {
        let (ended, output) = finish("echo out; echo 'errors that are long' >&2; exit 3", PATIENCE).await;
        assert!(matches!(ended, Ended::Exit(status) if status.code() == Some(3)), "{ended:?}");
        assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"errors tha".to_vec()));
    }

    #[test]
    fn variables_of_the_agent_are_its_own() {
        let mut command = Command::new("true");
        let names = ["HAWKEYE_AGENT__TOKEN", "HAWKEYE_X", "PATH", "MY_HAWKEYE_X"];
        hide_own(&mut command, names.iter().map(OsString::from));
        let hidden: Vec<_> = command.as_std().get_envs().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(hidden, [("HAWKEYE_AGENT__TOKEN".into(), None), ("HAWKEYE_X".into(), None)]);
    }

    #[tokio::test]
    async fn a_flood_ends_it_on_either_output() {
        for script in ["yes", "yes >&2"] {
            let (ended, output) = finish(script, PATIENCE).await;
            assert!(matches!(ended, Ended::Flooded), "{script}: {ended:?}");
            assert!(output.stdout.len() <= 1000 && output.stderr.len() <= 10, "{script}");
        }
    }

    #[tokio::test]
    async fn what_it_leaves_behind_is_killed_with_it() {
        // Enough for a shell to start on a busy machine.
        const SHORT: Duration = Duration::from_millis(1500);
        let dir = tempfile::tempdir().expect("temporary directory");
        let pid = dir.path().join("pid");
        let check = async |script: &str, patience: Duration, times_out: bool| {
            let script = script.replace("PID", &format!("'{}'", pid.display()));
            let (ended, _) = finish(&script, patience).await;
            assert_eq!(matches!(ended, Ended::TimedOut), times_out, "{script}: {ended:?}");
            until("the end of what was left behind", async || is_gone(&pid)).await;
            fs::remove_file(&pid).expect("written by the script");
        };
        check("echo $$ > PID; exec sleep 1000", SHORT, true).await;
        // A child in the group that holds no output, and one that left the group and holds it.
        check("sleep 1000 > /dev/null 2>&1 & echo $! > PID", PATIENCE, false).await;
        check("setsid sh -c 'echo $$ > PID; exec sleep 1000' & wait", SHORT, true).await;
        check("(setsid sh -c 'echo $$ > PID; exec sleep 1000' &) ; sleep 0.1", SHORT, true).await;
    }

    #[tokio::test]
    async fn what_has_left_on_purpose_outlives_a_run_that_ended_by_itself() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let pid = dir.path().join("pid");
        let script = format!(
            "setsid sh -c 'echo $$ > {0}; exec sleep 1000' < /dev/null > /dev/null 2>&1 & while [ ! -s {0} ]; do sleep 0.01; done",
            pid.display()
        );
        let (ended, _) = finish(&script, PATIENCE).await;
        assert!(matches!(ended, Ended::Exit(status) if status.success()), "{ended:?}");
        assert!(!is_gone(&pid));
        let started = fs::read_to_string(&pid).expect("written").trim().parse().expect("a number");
        rustix::process::kill_process(Pid::from_raw(started).expect("not 0"), Signal::KILL).expect("it lives");
    }

    #[tokio::test]
    async fn a_child_that_is_dropped_is_killed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let pid = dir.path().join("pid");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("echo $$ > {}; sleep 1000; true", pid.display()));
        let child = Child::start(command, Signal::KILL).expect("sh");
        until("its number", async || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'))).await;
        drop(child);
        until("its end", async || is_gone(&pid)).await;
    }
}
