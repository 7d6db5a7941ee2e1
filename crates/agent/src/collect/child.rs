//! Child: a program of the host that is asked, with bounds on its time and its output.
//!
//! Why: one that waits for a broken disk cannot be killed before the disk answers. Started again each minute, such
//! programs would fill the host: a [`Program`] whose last run has not ended is not started.
//! Invariants: no shell; standard input is empty, the language is C; a run that takes too long is killed, and awaited
//! beside the collector.
//! Memory: the bytes that the caller allows, and [`ERROR_BYTES`] of what it complains of.

use std::ffi::OsStr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

/// Bytes of a program's complaint that are kept for the log.
const ERROR_BYTES: usize = 300;

/// A program that runs once at a time; clones share that.
#[derive(Clone, Debug)]
pub struct Program {
    path: String,
    turn: Arc<Semaphore>,
}

/// What a program said.
#[derive(Debug)]
pub struct Output {
    pub text: String,
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Beginning of its standard error, on one line.
    pub complaint: String,
}

impl Program {
    /// A program by its name in `PATH`, or by its path.
    pub fn new(path: &str) -> Program {
        Program { path: path.to_string(), turn: Arc::new(Semaphore::new(1)) }
    }

    /// Whether no run of it is under way.
    pub fn is_idle(&self) -> bool {
        self.turn.available_permits() > 0
    }

    /// Runs it, for `timeout` at most. More than `bytes_max` of output is an error.
    pub async fn run(
        &self,
        arguments: &[impl AsRef<OsStr>],
        timeout: Duration,
        bytes_max: usize,
    ) -> Result<Output, String> {
        let path = &self.path;
        let Ok(turn) = self.turn.clone().try_acquire_owned() else {
            return Err(format!("{path} was not started: its last run cannot be ended"));
        };
        let mut child = Command::new(path)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start {path}: {error}"))?;
        if let Ok(said) = tokio::time::timeout(timeout, listen(&mut child, bytes_max)).await {
            return said.map_err(|why| format!("{path} {why}"));
        }
        let _ = child.start_kill();
        tokio::spawn(async move {
            let _ = child.wait().await;
            drop(turn);
        });
        Err(format!("{path} did not end within {timeout:?}"))
    }
}

async fn listen(child: &mut Child, bytes_max: usize) -> Result<Output, String> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("has no output".into());
    };
    let (text, complaint) = tokio::join!(read(stdout, bytes_max), read(stderr, ERROR_BYTES));
    let status = child.wait().await.map_err(|error| format!("cannot be awaited: {error}"))?;
    let (text, is_whole) = text.map_err(|error| format!("cannot be read: {error}"))?;
    if !is_whole {
        return Err(format!("said more than {bytes_max} bytes"));
    }
    let complaint = complaint.map(|(text, _)| text).unwrap_or_default();
    let complaint = complaint.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    Ok(Output { text, code: status.code(), complaint })
}

/// Reads to the end, and keeps the first bytes; whether these are all.
async fn read(mut stream: impl AsyncRead + Unpin, bytes_max: usize) -> std::io::Result<(String, bool)> {
    let (mut kept, mut chunk, mut is_whole) = (Vec::new(), [0; 4096], true);
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Ok((String::from_utf8_lossy(&kept).into_owned(), is_whole));
        }
        let room = bytes_max - kept.len();
        is_whole &= read <= room;
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_it_says_and_how_it_ends() {
        let shell = Program::new("sh");
        let said = shell.run(&["-c", "echo out; echo one >&2; echo two >&2; exit 3"], LONG, 100).await.expect("runs");
        assert_eq!((said.text.as_str(), said.code, said.complaint.as_str()), ("out\n", Some(3), "one two"));
    }

    #[tokio::test]
    async fn floods_are_refused() {
        let shell = Program::new("sh");
        let flood =
            "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789 >&2; i=$((i+1)); done";
        let said = shell.run(&["-c", flood], LONG, 100).await.expect("a flood of complaints is cut");
        assert_eq!(said.text, "");
        let error = shell.run(&["-c", &flood.replace(">&2", "")], LONG, 100).await.expect_err("too much");
        assert_eq!(error, "sh said more than 100 bytes");
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_and_started_again() {
        let shell = Program::new("sh");
        let error = shell.run(&["-c", "exec sleep 1000"], Duration::from_millis(5), 100).await.expect_err("too long");
        assert!(error.starts_with("sh did not end within"), "{error}");
        // The kill is awaited beside this; then it runs again.
        let again = async {
            while let Err(error) = shell.run(&["-c", "exit 0"], LONG, 100).await {
                assert!(error.contains("its last run cannot be ended"), "{error}");
                tokio::task::yield_now().await;
            }
        };
        net::patience::in_time("the next run", again).await;
        let error = Program::new("/nowhere/at-all").run(&["x"], LONG, 1).await.expect_err("no such program");
        assert!(error.starts_with("cannot start /nowhere/at-all: "), "{error}");
    }
}
