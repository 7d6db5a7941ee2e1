//! Run: one run of a plugin, from the look at its file to the points that it has printed.
//!
//! How: a place among the runs, a look at the file, the program with its limits, its errors to their log, its output
//! through the [`intake`]. Whatever goes wrong costs this run and is a [`Fault`].
//! Invariants: a run is over half a second before the next one, killed if need be. A program that the kernel still
//! holds after that (a dead mount) is not started a second time; one plugin has one process group at most.
//! Memory: [`OUTPUT_MAX`] and [`ERRORS_KEPT`] for each of [`RUNS_MAX`] runs, while a plugin says so much.
//! Compat: docs/open-falcon/agent.md §5. The program is started directly, with the agent's directory and variables (but
//! its own, `HAWKEYE_*`). Blanks alone are no output. Where a plugin has written to its stderr, the original forgets
//! that its exit code was not 0, and takes the output.

use super::child::{Child, Ended, Limits, Output};
use super::cycle::Span;
use super::entry::arguments;
use super::log;
use super::plan::Plugin;
use super::tree::{Found, look};
use crate::batch::Batch;
use crate::clock::unix_ms;
use crate::hand::Hand;
use crate::intake;
use crate::live::Live;
use crate::plugin_config::PluginConfig;
use crate::user::User;
use net::seldom::Seldom;
use rustix::process::Signal;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use wire::item::Invalid;

/// Bytes of each output of a run; some 8,000 points. More is a plugin that has gone mad.
const OUTPUT_MAX: usize = 1 << 20;
/// Bytes of stderr that are kept for the log: some 800 lines, of which the first say what was wrong.
const ERRORS_KEPT: usize = 64 << 10;
/// Runs at once. A guess: hosts run a few at a time; so many may hang before others wait for a place.
pub const RUNS_MAX: usize = 32;
/// The time between a run's deadline and the next run, as in the original.
const REST: Duration = Duration::from_millis(500);
/// The time that the log of a run's errors may take.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);
/// Characters of an output that is no list, for the log.
const SHOWN_MAX: usize = 80;
/// The exit code of who was killed by signal 0, as shells count.
const SIGNALLED: i32 = 128;

/// What all runs share.
pub struct Ground {
    pub live: Arc<Live>,
    pub hand: Hand,
    places: Semaphore,
    /// Turns true when runs that are under way are to be killed, as the agent stops.
    ending: watch::Sender<bool>,
    log_told: Seldom,
}

impl Ground {
    /// Room for [`RUNS_MAX`] runs.
    pub fn new(live: Arc<Live>) -> Ground {
        Ground {
            live,
            hand: Hand::default(),
            places: Semaphore::new(RUNS_MAX),
            ending: watch::Sender::new(false),
            log_told: Seldom::default(),
        }
    }

    /// Has all runs that are under way killed.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Whether runs are being killed because the agent stops.
    pub fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Returns at `deadline`, or when the agent stops.
    async fn over(&self, deadline: Instant) {
        let mut ending = self.ending.subscribe();
        // The sender is a field of `self`, so it cannot end; either way the time is over.
        let _ = timeout_at(deadline, ending.wait_for(|ending| *ending)).await;
    }

    /// Every place, until this is dropped.
    #[cfg(test)]
    pub fn take_all_places(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.places.try_acquire_many(RUNS_MAX as u32).expect("nothing runs")
    }
}

/// Reasons for which a run fails, for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Place,
    Start,
    Stuck,
    Timeout,
    Flood,
    Exit,
    Output,
    Item,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Reason; 8] = [
        Reason::Place,
        Reason::Start,
        Reason::Stuck,
        Reason::Timeout,
        Reason::Flood,
        Reason::Exit,
        Reason::Output,
        Reason::Item,
    ];

    /// The tag of the reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Place => "place",
            Reason::Start => "start",
            Reason::Stuck => "stuck",
            Reason::Timeout => "timeout",
            Reason::Flood => "flood",
            Reason::Exit => "exit",
            Reason::Output => "output",
            Reason::Item => "item",
        }
    }
}

/// What was wrong with a run.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// Too many other runs until the deadline.
    NoPlace,
    /// The file cannot be run.
    Start(String),
    /// The program of an earlier run was killed, and the kernel still holds it.
    Stuck,
    TimedOut,
    Flooded,
    /// The exit code, or 128 and the number of the signal.
    Exit(i32),
    /// The output is no JSON array; its begin.
    Output(String),
    /// Items that no transfer would take, and the reason of the first; the others were taken.
    Items(usize, Invalid),
}

impl Fault {
    /// The reason by which the fault is counted.
    pub fn reason(&self) -> Reason {
        match self {
            Fault::NoPlace => Reason::Place,
            Fault::Start(_) => Reason::Start,
            Fault::Stuck => Reason::Stuck,
            Fault::TimedOut => Reason::Timeout,
            Fault::Flooded => Reason::Flood,
            Fault::Exit(_) => Reason::Exit,
            Fault::Output(_) => Reason::Output,
            Fault::Items(..) => Reason::Item,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoPlace => write!(f, "{RUNS_MAX} other plugins run at once: let those that hang end sooner"),
            Fault::Start(why) => write!(f, "it cannot be run: {why}"),
            Fault::Stuck => write!(f, "it was killed and the kernel still holds it: look for a mount that hangs"),
            Fault::TimedOut => write!(
                f,
                "it was killed, for it had not ended half a second before its next run, or what it had started still held \
                 its output"
            ),
            Fault::Flooded => write!(f, "it was killed, for it wrote more than {OUTPUT_MAX} bytes"),
            Fault::Exit(code) => write!(f, "it ended with {code}, so its output is ignored"),
            Fault::Output(begin) => write!(f, "its output is no JSON array of points; it begins with {begin:?}"),
            Fault::Items(count, first) => write!(f, "{count} of its points are refused; {}", first.explain()),
        }
    }
}

/// A run that is over.
pub struct Ran {
    pub span: Span,
    pub duration: Duration,
    /// The exit code, or 128 and the number of the signal; none where nothing ended by itself.
    pub exit: Option<i32>,
    pub fault: Option<Fault>,
    pub batches: Vec<Batch>,
}

/// Runs a plugin again and again.
pub struct Runner {
    plugin: Plugin,
    /// A program that was killed and had not ended.
    killed: Option<Child>,
}

impl Runner {
    /// A plugin that has not run yet.
    pub fn new(plugin: Plugin) -> Runner {
        Runner { plugin, killed: None }
    }

    /// Runs the plugin once.
    pub async fn run(&mut self, ground: &Ground) -> Ran {
        let (begin, started) = (unix_ms() / 1000, Instant::now());
        let deadline = started + Duration::from_secs(self.plugin.cycle_s as u64) - REST;
        let mut output = Output::default();
        let ended = self.run_until(deadline, ground, &mut output).await;
        let span = Span { begin, end: unix_ms() / 1000, cycle_s: self.plugin.cycle_s };
        if !output.stderr.is_empty() {
            self.keep_errors(ground, output.stderr).await;
        }
        let mut ran = Ran { span, duration: started.elapsed(), exit: None, fault: None, batches: Vec::new() };
        match ended.map(code_of) {
            Err(fault) => ran.fault = Some(fault),
            Ok(code) => {
                ran.exit = Some(code);
                match code {
                    0 => ran.take(&output.stdout, ground),
                    _ => ran.fault = Some(Fault::Exit(code)),
                }
            }
        }
        ran
    }

    async fn run_until(
        &mut self,
        deadline: Instant,
        ground: &Ground,
        output: &mut Output,
    ) -> Result<ExitStatus, Fault> {
        if self.killed.as_mut().is_some_and(Child::is_stuck) {
            return Err(Fault::Stuck);
        }
        self.killed = None;
        let _place = timeout_at(deadline, ground.places.acquire()).await.map_err(|_| Fault::NoPlace)?;
        let (config, plugin) = (ground.live.now().plugin.clone(), self.plugin.clone());
        let start = ground.hand.run(deadline, move || start(&config, &plugin)).await;
        let hangs = || Fault::Start("the plugin directory does not answer: look for a mount that hangs".into());
        let mut child = start.ok_or_else(hangs)?.map_err(Fault::Start)?;
        let limits = Limits { output_max: OUTPUT_MAX, errors_kept: ERRORS_KEPT };
        let ended = child.finish(limits, output, ground.over(deadline), &ground.hand).await;
        match ended.map_err(|error| Fault::Start(format!("its end cannot be seen: {error}")))? {
            Ended::Exit(status) => Ok(status),
            Ended::TimedOut => self.was_killed(child, Fault::TimedOut),
            Ended::Flooded => self.was_killed(child, Fault::Flooded),
        }
    }

    fn was_killed(&mut self, child: Child, fault: Fault) -> Result<ExitStatus, Fault> {
        self.killed = Some(child);
        Err(fault)
    }

    async fn keep_errors(&self, ground: &Ground, errors: Vec<u8>) {
        let (logs, plugin) = (ground.live.now().plugin.logs.clone(), self.plugin.clone());
        let write = move || log::write(&logs, &plugin.path, &plugin.args, &errors);
        let error = match ground.hand.run(Instant::now() + LOG_TIMEOUT, write).await {
            Some(Ok(())) => return,
            Some(Err(error)) => error.to_string(),
            None => "it does not answer".to_string(),
        };
        if ground.log_told.may_say() {
            tracing::warn!(plugin = self.plugin.path, error, "errors of a plugin cannot be kept in plugin.logs");
        }
    }
}

impl Ran {
    /// Takes the points of an output.
    fn take(&mut self, stdout: &[u8], ground: &Ground) {
        if stdout.trim_ascii().is_empty() {
            return;
        }
        let (span, settings) = (self.span, ground.live.now());
        let (mut invalid, mut first) = (0, None);
        let taken = intake::take(
            stdout,
            &settings.default_tags,
            |item| span.time_of(item.timestamp, item.step),
            |reason| {
                invalid += 1;
                first.get_or_insert(reason);
            },
        );
        match taken {
            Ok(batches) => self.batches = batches,
            Err(intake::NotAList) => self.fault = Some(Fault::Output(begin_of(stdout))),
        }
        if let Some(first) = first
            && self.fault.is_none()
        {
            self.fault = Some(Fault::Items(invalid, first));
        }
    }
}

/// Starts the program of a plugin. Touches the plugin directory, which may hang.
fn start(config: &PluginConfig, plugin: &Plugin) -> Result<Child, String> {
    let Found::File(_) = look(&config.dir, &plugin.path)? else { return Err("it has become a directory".into()) };
    let program = config.dir.join(&plugin.path);
    let mut command = Command::new(&program);
    command.args(arguments(&plugin.args));
    if let Some(user) = User::of("plugin.user", &config.user)? {
        user.dress(&mut command);
    }
    Child::start(command, Signal::KILL).map_err(|error| format!("{}: {error}", program.display()))
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| SIGNALLED + status.signal().unwrap_or_default())
}

fn begin_of(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[..output.len().min(4 * SHOWN_MAX)]).chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reload::settings_of;

    /// A program that lives on stands for one that the kernel holds, which a test cannot make.
    #[tokio::test]
    async fn while_an_earlier_program_lives_no_other_is_started() {
        let config = crate::config::AgentConfig::load("", std::iter::empty(), &[], "host-1").expect("valid");
        let ground = Ground::new(Arc::new(Live::new(settings_of(&config))));
        let plugin = Plugin { path: "60_nowhere.sh".into(), mtime: 0, cycle_s: 60, args: String::new() };
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut child = Child::start(command, Signal::KILL).expect("sleep");
        assert!(child.is_stuck());
        let mut runner = Runner { plugin, killed: Some(child) };
        assert_eq!(runner.run(&ground).await.fault, Some(Fault::Stuck));
        let mut child = runner.killed.take().expect("held on");
        let limits = Limits { output_max: 1, errors_kept: 1 };
        let ended = child.finish(limits, &mut Output::default(), async {}, &ground.hand).await.expect("own child");
        assert!(matches!(ended, Ended::TimedOut), "{ended:?}");
        runner.killed = Some(child);
        let fault = runner.run(&ground).await.fault;
        assert!(matches!(&fault, Some(Fault::Start(why)) if why.contains("60_nowhere.sh")), "{fault:?}");
    }
}
