//! The looks one by one, and a fleet behind a clock and a process that misbehave.

use super::*;
use crate::engine::host_clocks::Says;
use crate::engine::windowed::{Options, Windowed};
use events::{Entry, EventQueue, Fsync};
use metrics::Metrics;
use model::{Rules, Status, Strategy as Rule};
use proptest::prelude::*;
use std::sync::LazyLock;
use wire::gob::JudgeItem;

const NOW: i64 = 1_700_000_000;

/// Figures of a process whose hosts have said nothing.
fn seen(begun: u64, ended: u64) -> Seen<'static> {
    static NO_HOSTS: LazyLock<HostClocks> = LazyLock::new(HostClocks::default);
    Seen { begun, ended, unjudged: 0, clocks: &NO_HOSTS }
}

/// Looks each second from `from` to `to` (seconds of the steady clock), the wall clock `offset` beside it.
fn looks(listening: &mut Listening, from: i64, to: i64, offset: i64, seen: Seen<'_>) -> Vec<Heard> {
    let look = |at: i64| listening.look(NOW + at + offset, Duration::from_secs(at as u64), seen);
    (from..to).map(look).collect()
}

fn all_well(heard: &[Heard]) -> bool {
    heard.iter().all(|heard| *heard == Heard::Well)
}

#[test]
fn a_gap_and_a_step_of_the_clock_are_starts() {
    let mut listening = Listening::default();
    assert!(all_well(&looks(&mut listening, 0, 100, 0, seen(0, 0))));
    // Late by ten seconds, and a clock that is led back to its place.
    assert!(all_well(&looks(&mut listening, 109, 200, 0, seen(0, 0))));
    assert!(all_well(&looks(&mut listening, 200, 300, -5, seen(0, 0))));
    let mut begins = |from, offset| {
        let heard = looks(&mut listening, from, from + 60, offset, seen(0, 0));
        let Heard::Anew(why) = &heard[0] else { panic!("{heard:?}") };
        assert!(all_well(&heard[1..]), "{heard:?}");
        why.clone()
    };
    assert!(begins(375, -5).contains("stood still for 76 s"));
    assert!(begins(435, 595).contains("set by 600 s"));
    assert!(begins(495, 0).contains("set by -595 s"));
    assert!(begins(555, 40 * 86_400).contains("set by 3456000 s"));
}

#[test]
fn points_that_are_not_taken_are_not_missed() {
    let mut listening = Listening::default();
    // Batches that take long but end.
    for at in 0..60 {
        assert!(all_well(&looks(&mut listening, at, at + 1, 0, seen(at as u64 / 8 + 1, at as u64 / 8))));
    }
    let mut listening = Listening::default();
    assert!(all_well(&looks(&mut listening, 0, 60, 0, seen(7, 7))));
    let stalled = looks(&mut listening, 60, 90, 0, seen(8, 7));
    assert!(all_well(&stalled[..10]) && matches!(stalled.last(), Some(Heard::Badly(_))), "{stalled:?}");
    let after = looks(&mut listening, 90, 100, 0, seen(8, 8));
    assert!(matches!(after[0], Heard::Anew(_)) && all_well(&after[1..]), "{after:?}");
    let refused = looks(&mut listening, 100, 102, 0, Seen { unjudged: 5, ..seen(9, 9) });
    assert!(matches!((&refused[0], &refused[1]), (Heard::Badly(_), Heard::Anew(_))), "{refused:?}");
}

#[test]
fn a_clock_that_most_hosts_are_ahead_of_hears_nobody() {
    let (mut listening, intake) = (Listening::default(), Intake::default());
    let mut look = |from, to| looks(&mut listening, from, to, 0, intake.seen(0));
    let say = |host, says, times| (0..times).for_each(|_| intake.clocks.note(host, says));
    // One host of three is ahead, and sends most of the points.
    say(1, Says::Timely, 5);
    say(2, Says::Timely, 5);
    say(3, Says::Ahead, 90);
    assert!(all_well(&look(0, 30)));
    // Two of four are, and three of five.
    say(4, Says::Ahead, 1);
    assert!(all_well(&look(30, 31)));
    say(5, Says::Ahead, 1);
    let deaf = look(31, 32);
    assert!(
        matches!(&deaf[0], Heard::Badly(why) if why.contains("3 of 5 hosts") && why.contains("is it right?")),
        "{deaf:?}"
    );
    say(6, Says::Behind, 1);
    assert!(matches!(look(32, 33)[0], Heard::Anew(_)));
    // What was said long ago does not count: nobody has reported since but one.
    assert!(all_well(&look(33, 600)));
    say(3, Says::Ahead, 1);
    assert!(matches!(look(600, 601)[0], Heard::Badly(_)));
}

/// What was said of a clock is not said of the one that it was set to.
#[test]
fn a_clock_that_was_set_is_asked_about_anew() {
    let (mut listening, intake) = (Listening::default(), Intake::default());
    (0..100).for_each(|host| intake.clocks.note(host, Says::Timely));
    assert!(all_well(&looks(&mut listening, 0, 30, 0, intake.seen(0))));
    assert!(matches!(looks(&mut listening, 30, 31, -600, intake.seen(0))[0], Heard::Anew(_)));
    intake.clocks.note(0, Says::Ahead);
    assert!(matches!(looks(&mut listening, 31, 32, -600, intake.seen(0))[0], Heard::Badly(_)));
    assert!(matches!(looks(&mut listening, 32, 33, 0, intake.seen(0))[0], Heard::Anew(_)));
    assert!(all_well(&looks(&mut listening, 33, 90, 0, intake.seen(0))));
}

/// A rule for each host: no data for so many points.
fn rules() -> Arc<Rules> {
    let strategy = |id: i64| {
        let (metric, func) = ("m".to_string(), format!("nodata(#{id})"));
        let strategy = Rule { id, metric, func, operator: "==".to_string(), max_step: 1, ..Rule::default() };
        let all = [Arc::new(strategy)];
        all[..].into()
    };
    let hosts = (0..HOSTS).map(|host| (format!("h{host}"), strategy(1 + host as i64 % 3)));
    Arc::new(Rules { version: 1, hosts: hosts.collect(), expressions: Vec::new() })
}

const HOSTS: usize = 6;
/// The host that stops to report, and the seconds after which its silence is told at the latest, as nothing happens.
const DEAD: usize = 4;
const TOLD_AFTER_S: i64 = (2 + 1) * 60 + 60 + 10;

/// What befalls the server, and for how many seconds.
#[derive(Clone, Debug)]
enum Trouble {
    /// The clock is off by so much.
    Clock(i64, i64),
    /// The process stands still; what was sent meanwhile comes at once, or is lost.
    Frozen(i64, bool),
    Nothing(i64),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let steps = prop::sample::select(vec![600, -600, 250, -250, 6 * 3600, -6 * 3600, 40 * 86_400, -40 * 86_400]);
    prop_oneof![
        (steps, 5..400i64).prop_map(|(step, seconds)| Trouble::Clock(step, seconds)),
        (5..400i64, any::<bool>()).prop_map(|(seconds, is_lost)| Trouble::Frozen(seconds, is_lost)),
        (1..400i64).prop_map(Trouble::Nothing),
    ]
}

/// A judge alone with its fleet. Time is `at`, the seconds since the start by a clock that is right.
struct World {
    windowed: Windowed,
    queue: Arc<EventQueue>,
    listening: Mutex<Listening>,
    at: i64,
    /// When the dead host reported last.
    died: Option<i64>,
    /// Whether [`FAST`] has a clock that is ahead, and sends most of all points.
    is_fast: bool,
}

const FAST: usize = 2;

impl World {
    fn new(dir: &std::path::Path) -> World {
        let queue = Arc::new(EventQueue::open(dir, Fsync::Never, NOW).expect("a queue").0);
        let options = Options {
            judge: judge::Options::default(),
            series_max: 100,
            future_max_s: 300,
            silent_after_s: 2 * 86_400,
            queue_waits: false,
        };
        let windowed = Windowed::new(options, queue.clone(), &Metrics::new());
        assert!(windowed.load(rules(), &|_, _| String::new()).is_empty());
        World { windowed, queue, listening: Mutex::default(), at: 0, died: None, is_fast: false }
    }

    /// The report of a host, of the minute `of`. Two hosts have no clock of their own.
    fn report(&self, host: usize, of: i64, offset: i64) {
        let now = NOW + self.at + offset;
        let time = match host {
            1 | 3 => now,
            FAST if self.is_fast => NOW + of + 600,
            _ => NOW + of,
        };
        let points = if self.is_fast && host == FAST { 50 } else { 1 };
        self.send(&format!("h{host}"), time.div_euclid(60) * 60, now, points);
    }

    fn send(&self, endpoint: &str, timestamp: i64, now: i64, points: usize) {
        let mut batch = self.windowed.begin(now);
        let item = JudgeItem { endpoint, metric: "m", value: 1.0, timestamp, judge_type: "GAUGE", tags: "" };
        (0..points).for_each(|_| batch.push(&item));
        batch.finish().expect("room");
    }

    fn look(&self, offset: i64) {
        self.windowed.listen(&mut |seen| {
            let (wall, steady) = (NOW + self.at + offset, Duration::from_secs(self.at as u64));
            let mut listening = self.listening.lock().expect("no panic");
            (listening.look(wall, steady, seen), wall)
        });
    }

    fn run(&mut self, seconds: i64, offset: i64) {
        for _ in 0..seconds {
            self.at += 1;
            // At the end of a second: the clock is set before anybody looks.
            for host in (0..HOSTS).filter(|host| self.at % 60 == *host as i64 * 7) {
                if host != DEAD || self.died.is_none() {
                    self.report(host, self.at, offset);
                }
            }
            self.look(offset);
        }
    }

    fn freeze(&mut self, seconds: i64, is_lost: bool) {
        let from = self.at;
        self.at += seconds;
        for at in (from + 1..=self.at).filter(|_| !is_lost) {
            for host in (0..HOSTS).filter(|host| at % 60 == *host as i64 * 7 && (*host != DEAD || self.died.is_none()))
            {
                self.report(host, at, 0);
            }
        }
    }

    /// Hosts by the events that told of them.
    fn told(&self) -> Vec<(String, Status)> {
        let mut records = Vec::new();
        self.queue.consumer(0).read(usize::MAX / 2, &mut records).expect("readable");
        let events = records.into_iter().filter_map(|record| match record.entry {
            Entry::Event(event) => Some((event.endpoint, event.status)),
            _ => None,
        });
        events.collect()
    }
}

/// A host with a fast clock that sends most of the points, and somebody who makes up hosts that are ahead, and who
/// sends under the names of others: none of them hides a host that is silent.
#[test]
fn the_clocks_of_a_few_hide_nobody_who_is_silent() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut world = World::new(dir.path());
    world.run(300, 0);
    (world.is_fast, world.died) = (true, Some(world.at));
    for _ in 0..TOLD_AFTER_S {
        let ahead = NOW + world.at + 600;
        for host in 0..20 {
            world.send(&format!("made-up-{host}"), ahead, NOW + world.at, 1);
        }
        world.send("h0", ahead, NOW + world.at, 1);
        world.run(1, 0);
    }
    assert_eq!(world.told().first(), Some(&(format!("h{DEAD}"), Status::Problem)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever befalls the server: no host that reports is called silent, and one that is, is.
    #[test]
    fn nobody_is_silent_who_was_not_listened_to(troubles in prop::collection::vec(trouble(), 1..8)) {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut world = World::new(dir.path());
        world.run(300, 0);
        for trouble in &troubles {
            match *trouble {
                Trouble::Clock(offset, seconds) => world.run(seconds, offset),
                Trouble::Frozen(seconds, is_lost) => world.freeze(seconds, is_lost),
                Trouble::Nothing(seconds) => world.run(seconds, 0),
            }
            prop_assert_eq!(world.told(), vec![], "{:?}", trouble);
        }
        world.run(300, 0);
        prop_assert_eq!(world.told(), vec![]);
        world.died = Some(world.at);
        world.run(TOLD_AFTER_S, 0);
        prop_assert_eq!(world.told(), vec![(format!("h{DEAD}"), Status::Problem)]);
    }
}
