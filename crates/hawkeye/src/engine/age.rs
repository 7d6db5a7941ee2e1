//! Age: the time by which what is stored grows old, and whether it is deleted for it.
//!
//! Why: what is older than its retention is deleted by the clock, and a clock can be wrong: a start with one that is 40
//! days ahead deleted the history of a month. Nobody can tell such a clock from a server that was off for 40 days, but
//! time can: the operator sees what is announced, and sets the clock right.
//! How: a wall time that stood for an hour of running, by the steady clock, is *known*, and kept in a file
//! (`<data_dir>/clock`, docs/format/clock.md). From there the clock may go on with the steady one, and be a day
//! further: in a day little is deleted. A clock that is further ahead, or more than a day's worth that would be deleted
//! at once (a retention was shortened), is announced in the log and in `/health`, and waits [`WAIT`] of running, from
//! the last step of the clock on; until then nothing is deleted, and what is stored is as old as by the time that is
//! known. The wait begins anew where most hosts that reported meanwhile have times of their own that are a day or more
//! behind the clock: then it is the clock that is wrong.
//! Invariants: [`Trust`] decides by its arguments only. A wait that is not over deletes nothing; a clock that is set
//! right ends it at once. The file is whole, or it is told and counts as none.

use crate::clock;
use crate::engine::host_clocks::Hosts;
use crate::watch::health::{Health, Outage};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use stdx::checked_line;
use store::Past;

const MAGIC: &str = "hawkeye clock 1 ";

/// Running time after which a clock is believed: long enough for somebody who is called by `/health`.
const WAIT: Duration = Duration::from_secs(3600);

/// Seconds that a clock may be ahead of what is known, and is believed at once: what is deleted by it is a day's worth.
const AHEAD_S: i64 = 86_400;

/// Seconds by which the clocks may differ between two looks, which a busy disk keeps apart; more is a step.
const STEP_S: i64 = 60;

/// The time that is believed, for whoever deletes by age; clones share it. By default the clock is believed.
#[derive(Clone)]
pub struct Believed(Arc<AtomicI64>);

impl Default for Believed {
    fn default() -> Believed {
        Believed(Arc::new(AtomicI64::new(i64::MAX)))
    }
}

impl Believed {
    /// Unix seconds: the clock, or what is known where it is not believed.
    pub fn now(&self) -> i64 {
        clock::now().min(self.0.load(Relaxed))
    }
}

/// The age of what is stored, of one process.
pub struct Age {
    path: PathBuf,
    started: Instant,
    trust: Mutex<Trust>,
    believed: Believed,
    held: Outage,
    unwritable: Outage,
}

impl Age {
    /// Reads what is known of the time. In a new data directory the clock is known.
    pub fn open(data_dir: &Path, is_new: bool, health: &Health) -> Age {
        let path = data_dir.join("clock");
        let known = load(&path).unwrap_or_else(|error| {
            tracing::error!(file = %path.display(), %error, "what was known of the time is lost; deleting by age waits");
            None
        });
        let now = clock::now();
        let age = Age {
            path,
            started: Instant::now(),
            trust: Mutex::new(Trust::new(known.or(is_new.then_some(now)))),
            believed: Believed::default(),
            held: health.outage("what is past its time is not deleted yet"),
            unwritable: health.outage("what is known of the time cannot be written"),
        };
        if known.is_none() && is_new {
            age.save(now);
        }
        age.may_delete(Past::default(), Hosts::default());
        age
    }

    /// Looks at the clock, and says whether what is past its time may be deleted now; call this each second. `past` is
    /// what would be deleted by the clock, `hosts` what the hosts' times say.
    pub fn may_delete(&self, past: Past, hosts: Hosts) -> bool {
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = trust.look(clock::now(), self.started.elapsed(), past, hosts);
        drop(trust);
        self.believed.0.store(verdict.believed, Relaxed);
        if let Some(known) = verdict.known {
            self.save(known);
        }
        match verdict.waits {
            Some(why) if past.files > 0 => self.held.fails(why),
            _ => self.held.works(),
        }
        verdict.deletes
    }

    /// The time that is believed.
    pub fn believed(&self) -> Believed {
        self.believed.clone()
    }

    fn save(&self, known: i64) {
        self.unwritable.note(save(&self.path, known));
    }
}

/// The decision at one look.
#[derive(Clone, Debug, Default, PartialEq)]
struct Verdict {
    /// Unix seconds.
    believed: i64,
    deletes: bool,
    /// Why nothing is deleted.
    waits: Option<String>,
    /// A time that is known from now on.
    known: Option<i64>,
}

/// What is known of the time.
#[derive(Default)]
struct Trust {
    /// A wall time that stood for an hour, and the steady clock then; none where nothing is known.
    known: Option<i64>,
    since: Duration,
    /// The clocks at the last look.
    last: Option<(i64, Duration)>,
    /// The steady clock at the last step of the wall clock.
    stepped: Duration,
    wait: Option<Wait>,
    /// Whether a wait is over, and what is past its time goes.
    is_over: bool,
}

#[derive(Default)]
struct Wait {
    since: Duration,
    /// Hosts that were behind the clock, and that were not, added up over all looks.
    behind: u64,
    timely: u64,
}

impl Trust {
    fn new(known: Option<i64>) -> Trust {
        Trust { known, ..Trust::default() }
    }

    fn look(&mut self, wall: i64, steady: Duration, past: Past, hosts: Hosts) -> Verdict {
        if let Some((wall_before, steady_before)) = self.last.replace((wall, steady)) {
            let passed = seconds(steady.saturating_sub(steady_before));
            if wall.saturating_sub(wall_before).saturating_sub(passed).saturating_abs() > STEP_S {
                (self.stepped, self.wait, self.is_over) = (steady, None, false);
            }
        }
        let expected = self.known.map(|known| known.saturating_add(seconds(steady.saturating_sub(self.since))));
        let is_ahead = expected.is_none_or(|expected| wall > expected.saturating_add(AHEAD_S));
        if !is_ahead && past.days <= 1 {
            (self.wait, self.is_over) = (None, false);
            let stood = steady.saturating_sub(self.since.max(self.stepped));
            let known = (stood >= WAIT).then(|| self.learn(wall, steady));
            return Verdict { believed: wall, deletes: true, waits: None, known };
        }
        if self.is_over {
            return Verdict { believed: wall, deletes: true, ..Verdict::default() };
        }
        let wait = self.wait.get_or_insert(Wait { since: steady, ..Wait::default() });
        wait.behind += u64::from(hosts.behind);
        wait.timely += u64::from(hosts.timely);
        let is_denied = wait.behind > wait.timely;
        let waited = steady.saturating_sub(wait.since);
        if waited >= WAIT && !is_denied {
            (self.wait, self.is_over) = (None, true);
            let known = Some(self.learn(wall, steady));
            return Verdict { believed: wall, deletes: true, waits: None, known };
        }
        if waited >= WAIT {
            *wait = Wait { since: steady, ..Wait::default() };
        }
        let left = seconds(WAIT.saturating_sub(waited)) / 60;
        let believed = expected.filter(|_| is_ahead).map_or(wall, |expected| wall.min(expected));
        let waits = Some(why(wall, expected.filter(|_| is_ahead), past, left, is_denied));
        Verdict { believed, deletes: false, waits, known: None }
    }

    fn learn(&mut self, wall: i64, steady: Duration) -> i64 {
        (self.known, self.since) = (Some(wall), steady);
        wall
    }
}

/// Says why nothing is deleted; `expected` is the time by what is known, where the clock is ahead of it.
fn why(wall: i64, expected: Option<i64>, past: Past, minutes: i64, is_denied: bool) -> String {
    let clock = clock::local_text(wall);
    let reason = match expected {
        Some(expected) => {
            format!("the clock says {clock}, where {} was to be expected", clock::local_text(expected))
        }
        None => format!("the clock says {clock}, and by it more than a day's worth is past its time at once"),
    };
    let (files, end) = (past.files, if is_denied { "most hosts report an earlier time" } else { "is it right?" });
    format!("{reason}: {end} {files} files go in {minutes} minutes, unless clock or retention are set right")
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// The time in the file; none where there is no file.
fn load(path: &Path) -> io::Result<Option<i64>> {
    match std::fs::read(path) {
        Ok(bytes) => match parse(&bytes) {
            Some(known) => Ok(Some(known)),
            None => Err(io::Error::new(ErrorKind::InvalidData, "the file is damaged or of another version")),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the file; it is durable when this returns.
fn save(path: &Path, known: i64) -> io::Result<()> {
    let fresh = path.with_extension("tmp");
    let mut file = File::create(&fresh)?;
    file.write_all(checked_line::write(MAGIC, known).as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&fresh, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn parse(bytes: &[u8]) -> Option<i64> {
    checked_line::read(MAGIC, bytes)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;
    const DAY: i64 = 86_400;
    const NOTHING: Past = Past { files: 0, days: 0 };
    const MUCH: Past = Past { files: 30, days: 10 };
    const MINUTE: u64 = 60;

    /// A process: looks each minute, the clock at `NOW` + `offset` + the time that it runs.
    struct Run {
        trust: Trust,
        ran: u64,
        hosts: Hosts,
    }

    impl Run {
        fn new(known: Option<i64>) -> Run {
            Run { trust: Trust::new(known), ran: 0, hosts: Hosts::default() }
        }

        /// Looks for so many minutes; answers the last verdict.
        fn minutes(&mut self, minutes: u64, offset: i64, past: Past) -> Verdict {
            let mut verdict = Verdict::default();
            for _ in 0..minutes {
                self.ran += MINUTE;
                let wall = NOW + offset + self.ran as i64;
                verdict = self.trust.look(wall, Duration::from_secs(self.ran), past, self.hosts);
            }
            verdict
        }
    }

    #[test]
    fn a_clock_that_goes_on_deletes_a_day_at_a_time() {
        let mut run = Run::new(Some(NOW));
        for offset in [0, 1, DAY, -DAY, 0] {
            assert!(run.minutes(1, offset, Past { files: 3, days: 1 }).deletes, "{offset}");
        }
        // A day further each hour at most, whatever the clock does.
        let mut run = Run::new(Some(NOW));
        assert!(run.minutes(1, DAY, NOTHING).deletes);
        let verdict = run.minutes(1, 2 * DAY, NOTHING);
        assert!(!verdict.deletes && verdict.believed < NOW + DAY, "{verdict:?}");
        assert!(run.minutes(59, DAY, NOTHING).known.is_none());
        assert_eq!(run.minutes(2, DAY, NOTHING).known, Some(NOW + DAY + run.ran as i64));
        assert!(run.minutes(1, 2 * DAY, NOTHING).deletes);
    }

    #[test]
    fn a_start_with_a_clock_that_is_ahead_waits_an_hour() {
        let mut run = Run::new(Some(NOW - 60 * DAY));
        let first = run.minutes(1, 0, MUCH);
        assert!(!first.deletes && first.believed < NOW - 59 * DAY, "{first:?}");
        let why = first.waits.expect("a reason");
        assert!(why.contains("30 files go in 60 minutes"), "{why}");
        assert!(!run.minutes(59, 0, MUCH).deletes);
        let over = run.minutes(1, 0, MUCH);
        assert!(over.deletes && over.known == Some(over.believed), "{over:?}");
        // Everything that is past goes, however long that takes; and the next start knows.
        assert!(run.minutes(90, 0, MUCH).deletes);
        assert!(Run::new(over.known).minutes(1, DAY, Past { files: 1, days: 1 }).deletes);
    }

    #[test]
    fn a_clock_that_is_set_right_ends_the_wait_and_one_that_moves_begins_it_anew() {
        let mut run = Run::new(Some(NOW));
        assert!(!run.minutes(59, 40 * DAY, MUCH).deletes);
        assert!(run.minutes(1, 0, NOTHING).deletes);
        assert!(!run.minutes(59, 40 * DAY, MUCH).deletes);
        assert!(!run.minutes(59, 41 * DAY, MUCH).deletes);
        assert!(run.minutes(2, 41 * DAY, MUCH).deletes);
        // Now that is what is known, wrongly. Set right it is known after an hour, and the next jump waits.
        assert!(run.minutes(61, 0, NOTHING).deletes);
        assert!(!run.minutes(59, 40 * DAY, MUCH).deletes);
    }

    #[test]
    fn hosts_of_another_time_deny_the_clock() {
        let mut run = Run::new(Some(NOW));
        assert!(!run.minutes(1, 365 * DAY, MUCH).deletes);
        run.hosts = Hosts { behind: 100, timely: 99, ahead: 0 };
        for _ in 0..200 {
            let verdict = run.minutes(1, 365 * DAY, MUCH);
            assert!(!verdict.deletes);
            assert!(verdict.waits.is_some_and(|why| why.contains("report an earlier time")));
        }
        // Who agrees is heard, too.
        run.hosts = Hosts { timely: 199, ..Hosts::default() };
        assert!(run.minutes(60, 365 * DAY, MUCH).deletes);
    }

    #[test]
    fn a_retention_that_is_shortened_waits_and_so_does_a_server_that_knows_nothing() {
        let mut run = Run::new(Some(NOW));
        let first = run.minutes(1, 0, Past { files: 9, days: 2 });
        assert!(!first.deletes && first.waits.as_ref().is_some_and(|why| why.contains("a day's worth")), "{first:?}");
        assert_eq!(first.believed, NOW + 60);
        assert!(run.minutes(60, 0, Past { files: 9, days: 2 }).deletes);
        let mut run = Run::new(None);
        assert!(!run.minutes(60, 0, NOTHING).deletes);
        assert_eq!(run.minutes(1, 0, NOTHING).known, Some(NOW + 61 * 60));
    }

    #[test]
    fn the_file_is_whole_or_told() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("clock");
        assert_eq!(load(&path).expect("none"), None);
        for known in [0, NOW, -1] {
            save(&path, known).expect("writable");
            assert_eq!(load(&path).expect("whole"), Some(known));
        }
        let whole = std::fs::read(&path).expect("readable");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert_eq!((parse(&bytes), parse(&whole[..at])), (None, None), "byte {at}");
        }
    }

    #[test]
    fn a_new_directory_knows_the_clock_of_its_first_start() {
        let dir = tempfile::tempdir().expect("temp dir");
        let known = || load(&dir.path().join("clock")).expect("whole");
        let health = Health::default();
        assert!(!Age::open(dir.path(), false, &health).may_delete(NOTHING, Hosts::default()));
        assert_eq!(known(), None);
        assert!(Age::open(dir.path(), true, &health).may_delete(NOTHING, Hosts::default()));
        assert!(known().is_some());
        // A month later, as it seems.
        save(&dir.path().join("clock"), clock::now() - 30 * DAY).expect("writable");
        let age = Age::open(dir.path(), false, &health);
        assert!(!age.may_delete(MUCH, Hosts::default()));
        assert!(age.believed().now() < clock::now() - 29 * DAY);
        assert_eq!(health.reasons()[0].what, "what is past its time is not deleted yet");
        age.may_delete(NOTHING, Hosts::default());
        assert_eq!(health.reasons(), []);
    }
}
