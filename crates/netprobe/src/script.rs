//! Script: a program with the exit codes of Nagios plugins: 0 is fine, 1 a warning, 2 critical, 3 unknown.
//!
//! Why no shell: what a definition says are arguments, not commands. Which programs may run is decided on the host that
//! runs them ([`crate::policy::Scripts`]), not by who writes definitions.
//! How: started on a thread of its own, since starting a program on a dead mount hangs; in a process group of its own,
//! which is killed as a whole when the program has ended, is late, or says too much.
//! Invariants: nothing is inherited but a few variables; no input; of the output a bounded part is kept.

pub(crate) mod perfdata;

use crate::means::Ground;
use crate::outcome::{Code, Phase, Reason};
use crate::policy::Scripts;
use crate::strays::{self, Mark, VARIABLE};
use crate::trace::Trace;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// Arguments of a script.
const ARGS_MAX: usize = 64;
/// Bytes of an argument.
const ARG_BYTES_MAX: usize = 4096;
/// Variables of a script; plugins look for programs, and parse their output.
const VARIABLES: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];
/// Time in which the output must end when the program has: what holds it open longer has left the process group.
const GRACE: Duration = Duration::from_millis(100);

/// A program; its path is the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Arguments, as they are.
    pub args: Vec<String>,
    /// Whether exit code 1 is up, as Nagios has it for hosts.
    pub warning_is_up: bool,
}

impl Script {
    pub(crate) fn check(&self, target: &str, faults: &mut Vec<String>) {
        if !target.starts_with('/') || target.ends_with('/') || target.contains('\0') {
            faults.push(format!(
                "target is {:?}: give the path of a program that begins with /",
                crate::fault::short(target)
            ));
        }
        if self.args.len() > ARGS_MAX {
            faults.push(format!("args has {}: give at most {ARGS_MAX}", self.args.len()));
        }
        if self.args.iter().any(|arg| arg.len() > ARG_BYTES_MAX || arg.contains('\0')) {
            faults.push(format!("args has one that is too long or has a NUL: give at most {ARG_BYTES_MAX} bytes"));
        }
    }

    pub(crate) async fn run(&self, target: &str, ground: Ground<'_>, trace: &mut Trace) -> Result<(), Reason> {
        trace.enter(Phase::Script);
        let start = Start {
            path: PathBuf::from(target),
            args: self.args.clone(),
            scripts: ground.policy.scripts.clone(),
            runtime: Handle::current(),
        };
        let mut running = ground.means.scripts.call(move || start.run()).await??;
        let ended = running.end(ground.policy.limits.output_bytes).await;
        trace.end_phase();
        let (status, output, errors) = ended?;
        self.judge(status, &output, &errors, trace)
    }

    fn judge(&self, status: ExitStatus, output: &str, errors: &str, trace: &mut Trace) -> Result<(), Reason> {
        let Some(code) = status.code() else {
            let signal = status.signal().unwrap_or_default();
            return Err(Reason::new(Code::Script, format!("the script was killed by signal {signal}")));
        };
        let said = perfdata::read(output);
        let text = match said.text.is_empty() {
            false => said.text,
            true => errors.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_string(),
        };
        if (0..=3).contains(&code) {
            trace.value("probe.script.status", f64::from(code));
            if said.dropped > 0 || !said.figures.is_empty() {
                trace.value("probe.script.perf_dropped", said.dropped as f64);
            }
            said.figures.into_iter().for_each(|reading| trace.tagged(reading));
        }
        let reason = |code: Code, name: &str| match text.trim().is_empty() {
            true => Reason::new(code, format!("the script says {name}, and nothing else")),
            false => Reason::new(code, &text),
        };
        match code {
            0 => {
                trace.remark = (!text.trim().is_empty()).then(|| reason(Code::ScriptOk, "OK"));
                Ok(())
            }
            1 if self.warning_is_up => {
                trace.remark = Some(reason(Code::ScriptWarning, "WARNING"));
                Ok(())
            }
            1 => Err(reason(Code::ScriptWarning, "WARNING")),
            2 => Err(reason(Code::ScriptCritical, "CRITICAL")),
            3 => Err(reason(Code::ScriptUnknown, "UNKNOWN")),
            _ => Err(Reason::new(Code::Script, format!("the script ended with exit code {code}, want 0 to 3: {text}"))),
        }
    }
}

/// What a start needs, on its own thread.
struct Start {
    path: PathBuf,
    args: Vec<String>,
    scripts: Scripts,
    runtime: Handle,
}

impl Start {
    fn run(self) -> Result<Running, Reason> {
        let path = permitted(&self.path, &self.scripts)?;
        let _runtime = self.runtime.enter();
        let mut command = Command::new(&path);
        // Programs of several names do what they are called.
        command.arg0(&self.path);
        command.args(&self.args).env_clear().envs(VARIABLES).current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some((user, group)) = self.scripts.user {
            command.uid(user).gid(group);
        }
        let mark = Mark::fresh();
        command.env(VARIABLE, mark.text());
        let child = command.spawn();
        let child =
            child.map_err(|error| Reason::new(Code::Script, format!("cannot run {}: {error}", self.path.display())))?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        Ok(Running { group, child, mark, runtime: self.runtime.clone(), has_ended: false })
    }
}

/// The real path of a program, if it lies in one of the folders.
fn permitted(path: &Path, scripts: &Scripts) -> Result<PathBuf, Reason> {
    let denied = |why: &str| Err(Reason::new(Code::Denied, format!("{} may not run here: {why}", path.display())));
    if scripts.dirs.is_empty() {
        return denied("this prober has no folder of scripts");
    }
    let real = path.canonicalize();
    let real = real.map_err(|error| Reason::new(Code::Script, format!("cannot run {}: {error}", path.display())))?;
    let is_in = |dir: &PathBuf| dir.canonicalize().is_ok_and(|dir| real.starts_with(dir));
    if !scripts.dirs.iter().any(is_in) {
        return denied("it is in no folder of scripts of this prober");
    }
    match real.ancestors().any(is_everybodys) {
        true => denied("it, or a folder above it, may be written by everybody: chmod o-w"),
        false => Ok(real),
    }
}

/// Whether everybody may change a file, or what a folder has.
fn is_everybodys(path: &Path) -> bool {
    const WRITE_BY_ALL: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    path.metadata().is_ok_and(|metadata| {
        let mode = metadata.mode();
        mode & WRITE_BY_ALL != 0 && !(metadata.is_dir() && mode & STICKY != 0)
    })
}

/// A program that runs. Dropped, its whole group is killed, then the program reaped; where it has not ended by itself,
/// what has left the group is killed, too.
struct Running {
    group: Group,
    child: Child,
    mark: Mark,
    runtime: Handle,
    has_ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.kill();
        if !self.has_ended {
            let mark = self.mark.clone();
            // All processes are looked through, some 10 ms.
            self.runtime.spawn_blocking(move || strays::kill(&mark));
        }
    }
}

/// A process group that is killed when it is dropped.
struct Group(Option<Pid>);

impl Group {
    /// Kills what is left of it. Right behind the program's end its number can be nobody else's: numbers come back only
    /// after all others have been given away.
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // An error says that nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    /// Waits for the end; status, output and errors.
    async fn end(&mut self, output_max: usize) -> Result<(ExitStatus, String, String), Reason> {
        let lost = |error: io::Error| Reason::new(Code::Script, format!("the script's end cannot be seen: {error}"));
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let status = {
            let reading = async {
                tokio::try_join!(read(stdout, &mut output, output_max), read(stderr, &mut errors, output_max))
            };
            tokio::pin!(reading);
            let waiting = self.child.wait();
            tokio::pin!(waiting);
            let mut is_read = false;
            let status = loop {
                tokio::select! {
                    read = &mut reading, if !is_read => {
                        read?;
                        is_read = true;
                    }
                    status = &mut waiting => break status.map_err(lost)?,
                }
            };
            self.group.kill();
            if !is_read && let Ok(read) = tokio::time::timeout(GRACE, &mut reading).await {
                read?;
            }
            status
        };
        self.has_ended = true;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((status, text(output), text(errors)))
    }
}

/// Reads to the end, or until more than `max` bytes have come.
async fn read(stream: Option<impl AsyncRead + Unpin>, out: &mut Vec<u8>, max: usize) -> Result<(), Reason> {
    let Some(stream) = stream else { return Ok(()) };
    let failed = |error: io::Error| Reason::new(Code::Script, format!("the script's output cannot be read: {error}"));
    stream.take(max as u64 + 1).read_to_end(out).await.map_err(failed)?;
    match out.len() > max {
        true => Err(Reason::new(Code::TooLong, format!("the script has more than {max} bytes of output"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked() {
        let check = |target: &str, script: Script, part: &str| {
            let mut faults = Vec::new();
            script.check(target, &mut faults);
            assert!(faults.len() == 1 && faults[0].contains(part) && faults[0].contains("give"), "{faults:?}");
        };
        check("check_disk", Script::default(), "target");
        check("/opt/", Script::default(), "target");
        check("/a", Script { args: vec![String::new(); 65], ..Script::default() }, "args has 65");
        check("/a", Script { args: vec!["a\0".into()], ..Script::default() }, "NUL");
    }
}
