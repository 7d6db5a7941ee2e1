//! Health: which work of this process fails or hangs now, since when, and why.
//!
//! Why: a server that takes points and has stopped to alarm looks well from outside. Whoever watches it asks `/health`,
//! reads the log, or looks at the page, and finds the same reasons in all three.
//! How: work that is tried again and again has an [`Outage`]: each attempt is noted, and a fault is logged when it
//! begins and when it is over, not at each attempt. Work that may hang is announced ([`Outage::begin`]) and becomes a
//! reason when it takes longer than [`HANGS_AFTER`]. What an owner knows anyway (events that do not move) is asked for
//! when somebody looks ([`Health::source`]).
//! Invariants: an answer names each kind of work once; the kinds are texts of the source, so the list has a bound, and
//! a reason's own text ends at [`WHY_MAX`] characters. Nothing here waits: the locks are held for an assignment.

use crate::clock;
use serde::Serialize;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use supervisor::causes::said_once;
use supervisor::log;

/// An attempt that takes longer than this is a reason by itself. A guess: a disk that answers later than this has
/// stalled.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// Characters of a reason that are kept: errors quote what they met, and that may be long.
const WHY_MAX: usize = 400;

/// The troubles of one process; clones share them.
#[derive(Clone, Default)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    works: Mutex<Vec<Weak<Work>>>,
    sources: Mutex<Vec<Source>>,
}

type Source = Box<dyn Fn(&mut Vec<Reason>) + Send + Sync>;

/// One thing that does not work now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// What does not work, `the store's log cannot be synced`.
    pub what: &'static str,
    /// What was last seen of it: an error's text, or a figure.
    pub why: String,
    /// Unix seconds when it began, by the clock of then.
    pub since: i64,
}

impl Reason {
    /// The reason as one line.
    pub fn line(&self) -> String {
        if self.why.is_empty() { self.what.to_string() } else { format!("{}: {}", self.what, self.why) }
    }
}

impl Health {
    /// The health of this process, whose log may be lost: the one thing that the log cannot say.
    pub fn of_process() -> Health {
        let health = Health::default();
        health.source(|reasons| reasons.extend(log::trouble().map(of_log)));
        health
    }

    /// A kind of work that may fail, told as `text` while it does.
    pub fn outage(&self, text: &'static str) -> Outage {
        self.work(text, true, false)
    }

    /// A kind of work without which nobody hears of an alarm, told as `text` while it fails.
    pub fn vital_outage(&self, text: &'static str) -> Outage {
        self.work(text, true, true)
    }

    /// A kind of work that may fail, whose owner logs more of it than its text.
    pub fn outage_logged_elsewhere(&self, text: &'static str) -> Outage {
        self.work(text, false, false)
    }

    fn work(&self, text: &'static str, is_logged: bool, is_vital: bool) -> Outage {
        let work = Arc::new(Work { text, is_logged, is_vital, state: Mutex::default() });
        let mut works = lock(&self.shared.works);
        works.retain(|work| work.strong_count() > 0);
        works.push(Arc::downgrade(&work));
        Outage { work }
    }

    /// Has `ask` add its reasons whenever somebody looks. It must be quick, and wait for nothing.
    pub fn source(&self, ask: impl Fn(&mut Vec<Reason>) + Send + Sync + 'static) {
        lock(&self.shared.sources).push(Box::new(ask));
    }

    /// What of the work without which nobody hears of an alarm does not work now.
    pub fn vital_reasons(&self) -> Vec<Reason> {
        let works: Vec<Arc<Work>> = lock(&self.shared.works).iter().filter_map(Weak::upgrade).collect();
        works.iter().filter(|work| work.is_vital).filter_map(|work| work.reason()).collect()
    }

    /// What does not work now; nothing when all is well.
    pub fn reasons(&self) -> Vec<Reason> {
        let works: Vec<Arc<Work>> = lock(&self.shared.works).iter().filter_map(Weak::upgrade).collect();
        let mut reasons: Vec<Reason> = works.iter().filter_map(|work| work.reason()).collect();
        lock(&self.shared.sources).iter().for_each(|ask| ask(&mut reasons));
        for reason in &mut reasons {
            if let Some((end, _)) = reason.why.char_indices().nth(WHY_MAX) {
                reason.why.truncate(end);
            }
        }
        reasons
    }
}

/// A kind of work that is tried again and again; clones share it.
#[derive(Clone)]
pub struct Outage {
    work: Arc<Work>,
}

struct Work {
    text: &'static str,
    /// Whether begin and end of a fault are logged from here.
    is_logged: bool,
    /// Whether nobody hears of an alarm while it fails.
    is_vital: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Begin of the attempt under way, by both clocks.
    begun: Option<(Instant, i64)>,
    failing: Option<Failing>,
}

struct Failing {
    why: String,
    since: i64,
}

impl Outage {
    /// Announces an attempt, which [`Outage::note`] ends.
    pub fn begin(&self) {
        lock(&self.work.state).begun = Some((Instant::now(), clock::now()));
    }

    /// Notes how an attempt has ended.
    pub fn note<T>(&self, result: Result<T, impl Display>) {
        match result {
            // With `#`, an error of several layers is shown whole.
            Err(error) => self.fails(said_once(&format!("{error:#}"))),
            Ok(_) => self.works(),
        }
    }

    /// Notes an attempt that failed.
    pub fn fails(&self, why: String) {
        let mut state = lock(&self.work.state);
        state.begun = None;
        let since = match state.failing.take() {
            Some(failing) => failing.since,
            None => {
                if self.work.is_logged {
                    tracing::error!(error = why, "{}; tried again until it works", self.work.text);
                }
                clock::now()
            }
        };
        state.failing = Some(Failing { why, since });
    }

    /// Notes an attempt that succeeded.
    pub fn works(&self) {
        let mut state = lock(&self.work.state);
        state.begun = None;
        if state.failing.take().is_some() && self.work.is_logged {
            tracing::info!("over: {}", self.work.text);
        }
    }
}

impl Work {
    fn reason(&self) -> Option<Reason> {
        let state = lock(&self.state);
        if let Some(failing) = &state.failing {
            return Some(Reason { what: self.text, why: failing.why.clone(), since: failing.since });
        }
        let (begun, since) = state.begun?;
        let taken = begun.elapsed();
        let why = format!("an attempt has not ended for {} s", taken.as_secs());
        (taken > HANGS_AFTER).then_some(Reason { what: self.text, why, since })
    }
}

fn of_log(trouble: log::Trouble) -> Reason {
    Reason { what: "lines of the log are lost", why: trouble.why, since: trouble.since }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_named_until_it_works() {
        let health = Health::default();
        let (log, gone) = (health.outage("the log cannot be synced"), health.outage("nobody does this any more"));
        assert_eq!(health.reasons(), []);
        gone.fails("x".into());
        drop(gone);
        log.note(Err::<(), _>("No space left on device"));
        let first = health.reasons();
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].line(), "the log cannot be synced: No space left on device");
        log.note(Err::<(), _>("é".repeat(WHY_MAX + 1)));
        let second = health.reasons();
        assert_eq!((second[0].since, &*second[0].why), (first[0].since, &*"é".repeat(WHY_MAX)));
        log.note(Ok::<_, &str>(()));
        assert_eq!(health.reasons(), []);
    }

    #[test]
    fn work_that_hangs_and_what_owners_know() {
        let health = Health::default();
        let sync = health.outage("the log cannot be synced");
        sync.begin();
        assert_eq!(health.reasons(), []);
        let long_ago = Instant::now().checked_sub(HANGS_AFTER + Duration::from_secs(2)).expect("a clock that ran");
        lock(&sync.work.state).begun = Some((long_ago, 7));
        let hanging = health.reasons();
        assert_eq!((hanging[0].what, hanging[0].since), ("the log cannot be synced", 7));
        assert_eq!(hanging[0].why, "an attempt has not ended for 12 s");
        sync.works();
        assert_eq!(Health::of_process().reasons(), [], "no log, no trouble with it");
        let trouble = log::Trouble { why: "No space left on device".to_string(), since: 7 };
        assert_eq!(of_log(trouble).line(), "lines of the log are lost: No space left on device");
        health.source(|reasons| reasons.push(Reason { what: "events do not move", why: String::new(), since: 1 }));
        assert_eq!(health.reasons()[0].line(), "events do not move");
        let quiet = health.outage_logged_elsewhere("Redis takes no events");
        quiet.fails("refused".to_string());
        assert_eq!(health.reasons()[0].line(), "Redis takes no events: refused");
    }
}
