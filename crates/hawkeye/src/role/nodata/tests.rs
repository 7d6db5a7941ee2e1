//! Silent series, look by look.

use super::*;
use crate::rules::snapshot::HostRow;
use std::cell::RefCell;

const NOW: i64 = 1_700_000_040;

fn mock(id: i64, obj: &str, obj_type: &str) -> Mock {
    let text = str::to_string;
    Mock {
        id,
        name: format!("n{id}"),
        obj: text(obj),
        obj_type: text(obj_type),
        metric: text("agent.alive"),
        dstype: text("GAUGE"),
        step: 60,
        mock: -1.0,
        ..Mock::default()
    }
}

fn host(name: &str) -> HostRow {
    HostRow { hostname: name.to_string(), groups: vec![1], ..HostRow::default() }
}

/// Endpoint and time of a mock.
type Sent = (String, i64);
/// Row, silent series, and series in all.
type Flood = (usize, usize, usize);

/// A world in which points are where a test puts them; mocks that are sent become points.
struct World {
    snapshot: Snapshot,
    silences: Silences,
    points: RefCell<HashMap<String, Point>>,
    heard_since: i64,
}

impl World {
    fn new(mocks: Vec<Mock>, hosts: &[&str]) -> World {
        let hosts = hosts.iter().map(|name| host(name)).collect();
        let snapshot =
            Snapshot { mocks, hosts, groups: HashMap::from([(1, "web".to_string())]), ..Snapshot::default() };
        World { snapshot, silences: Silences::default(), points: RefCell::default(), heard_since: 0 }
    }

    fn put(&self, endpoint: &str, time: i64, value: f64) {
        self.points.borrow_mut().insert(endpoint.to_string(), Point { time, value });
    }

    /// The mocks that are sent at `now`, and what is told of floods.
    fn look(&mut self, now: i64) -> (Vec<Sent>, Vec<Flood>) {
        let points = &self.points;
        let last = |endpoint: &str, counter: &str| {
            assert_eq!(counter, "agent.alive");
            points.borrow().get(endpoint).copied()
        };
        let looked = self.silences.look(&self.snapshot, self.heard_since, now, 0.5, last);
        for Mocked { row, endpoint, time } in &looked.mocked {
            self.put(endpoint, *time, self.snapshot.mocks[*row].mock);
        }
        let mut mocked: Vec<_> = looked.mocked.into_iter().map(|one| (one.endpoint, one.time)).collect();
        mocked.sort();
        (mocked, looked.counts.into_iter().map(|held| (held.row, held.silent, held.series)).collect())
    }
}

fn mocks(names: &[&str], time: i64) -> Vec<Sent> {
    names.iter().map(|name| (name.to_string(), time)).collect()
}

#[test]
fn a_silent_series_gets_a_value_each_step_until_it_reports() {
    let mut world = World::new(vec![mock(1, "a\nb", "host")], &[]);
    world.put("a", NOW, 1.0);
    world.put("b", NOW - 180, 1.0);
    assert_eq!(world.look(NOW).0, [], "three steps are not over");
    // b falls silent; a reports.
    world.put("a", NOW + 60, 1.0);
    assert_eq!(world.look(NOW + 60).0, mocks(&["b"], NOW + 60 - NOW.rem_euclid(60) - 120));
    assert_eq!(world.look(NOW + 90).0, [], "once a step");
    world.put("a", NOW + 120, 1.0);
    assert_eq!(world.look(NOW + 120).0.len(), 1);
    world.put("b", NOW + 180, 5.0);
    assert_eq!(world.look(NOW + 180).0, []);
    // One that never reported, and one that reports the same value as the mock.
    let mut world = World::new(vec![mock(1, "a", "host"), mock(2, "b", "other")], &[]);
    world.put("b", NOW, -1.0);
    assert_eq!(world.look(NOW).0.len(), 1);
    // A clock that was set back.
    assert_eq!(world.look(NOW - 600).0, []);
    assert_eq!(world.look(NOW + 60).0.len(), 1);
}

#[test]
fn steps_below_a_minute_have_three_minutes() {
    let mut world = World::new(vec![Mock { step: 10, ..mock(1, "a", "host") }], &[]);
    world.put("a", NOW - 180, 1.0);
    assert_eq!(world.look(NOW).0, []);
    assert_eq!(world.look(NOW + 1).0, mocks(&["a"], (NOW + 1) / 10 * 10 - 20));
}

#[test]
fn groups_are_their_hosts_and_hosts_come_first() {
    let mut world = World::new(vec![mock(1, "Web", "group"), mock(2, "a", "host")], &["a", "b", "c"]);
    world.snapshot.hosts[2].maintain_end = NOW + 600;
    world.snapshot.mocks[1].mock = -2.0;
    let looked = world.look(NOW).0;
    assert_eq!(looked.iter().map(|(endpoint, _)| endpoint.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(world.points.borrow()["a"].value, -2.0);
    world.snapshot.mocks.push(Mock { dstype: "COUNTER".to_string(), ..mock(3, "x", "host") });
    world.snapshot.mocks.push(Mock { step: 0, ..mock(4, "y", "host") });
    assert_eq!(world.look(NOW + 60).0.len(), 2);
}

#[test]
fn nothing_is_mocked_while_nobody_listened() {
    let mut world = World::new(vec![mock(1, "a", "host")], &[]);
    world.heard_since = i64::MAX;
    assert_eq!(world.look(NOW).0, []);
    world.heard_since = NOW - 180;
    assert_eq!(world.look(NOW).0, []);
    world.heard_since = NOW - 181;
    assert_eq!(world.look(NOW).0.len(), 1);
}

#[test]
fn a_flood_is_counted_and_not_mocked() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut world = World::new(vec![mock(1, "web", "group")], &names);
    let report = |world: &World, names: &[&str], now: i64| names.iter().for_each(|name| world.put(name, now, 1.0));
    report(&world, &names, NOW);
    assert_eq!(world.look(NOW), (vec![], vec![]));
    // a dies, and is mocked.
    for minute in 1..=4 {
        report(&world, &names[1..], NOW + 60 * minute);
        world.look(NOW + 60 * minute);
    }
    assert_eq!(world.points.borrow()["a"].value, -1.0);
    // The switch dies: b to e, four of six; a goes on to be mocked.
    for minute in 5..=8 {
        report(&world, &names[5..], NOW + 60 * minute);
        let (mocked, held) = world.look(NOW + 60 * minute);
        assert_eq!(mocked.iter().map(|one| one.0.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(held, if minute < 8 { vec![] } else { vec![(0, 4, 6)] }, "minute {minute}");
    }
    // The switch is back for most. A moment later that is over, and told once; e is dead.
    for minute in 9..=12 {
        report(&world, &["b", "c", "d", "f"], NOW + 60 * minute);
        let (mocked, held) = world.look(NOW + 60 * minute);
        let (expected, told) = match minute {
            ..11 => (vec!["a"], vec![(0, 1, 6)]),
            11 => (vec!["a", "e"], vec![(0, 0, 6)]),
            _ => (vec!["a", "e"], vec![]),
        };
        assert_eq!(mocked.iter().map(|one| one.0.as_str()).collect::<Vec<_>>(), expected, "minute {minute}");
        assert_eq!(held, told, "minute {minute}");
    }
    // After a restart those that are mocked are no flood, however many they are.
    world.silences = Silences::default();
    names.iter().for_each(|name| world.put(name, NOW + 600, -1.0));
    let (mocked, held) = world.look(NOW + 780);
    assert_eq!((mocked.len(), held), (6, vec![]));
}

/// Hosts report at different seconds: half of a switch's are silent a look before the others.
#[test]
fn a_flood_may_come_in_two_looks_and_hides_nobody_after() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut world = World::new(vec![mock(1, "web", "group")], &names);
    let report = |world: &World, names: &[&str], now: i64| names.iter().for_each(|name| world.put(name, now, 1.0));
    report(&world, &names, NOW);
    // The switch takes a to f, three of them a minute earlier; g dies half an hour later.
    for minute in 1..=60 {
        let alive = match minute {
            1 => &names[3..],
            ..30 => &names[6..],
            _ => &names[7..],
        };
        report(&world, alive, NOW + 60 * minute);
        let (mocked, held) = world.look(NOW + 60 * minute);
        let mocked: Vec<_> = mocked.iter().map(|one| one.0.as_str()).collect();
        assert_eq!(mocked, if minute < 33 { vec![] } else { vec!["g"] }, "minute {minute}");
        let silent = match minute {
            ..4 => None,
            4 => Some(3),
            _ => Some(6),
        };
        assert_eq!(held.first().map(|flood| flood.1), silent, "minute {minute}");
    }
}

/// A nodata that is made later has series that died long ago, or never were.
#[test]
fn who_was_silent_before_is_no_flood() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut world = World::new(vec![mock(1, "a\nb\nc\nd\ne\nf", "other")], &[]);
    names[..3].iter().enumerate().for_each(|(day, name)| world.put(name, NOW - 86_400 * (1 + day as i64), 1.0));
    let (mocked, held) = world.look(NOW);
    assert_eq!((mocked.len(), held), (6, vec![]));
    // The first of two rows has the series, in whatever order their tags stand.
    let tagged =
        |id: i64, tags: &str| Mock { tags: tags.to_string(), metric: "m".to_string(), ..mock(id, "x", "host") };
    let snapshot = Snapshot { mocks: vec![tagged(1, "a=1,b=2"), tagged(2, "b=2, a=1")], ..Snapshot::default() };
    assert_eq!(series_of(&snapshot, NOW).iter().map(|(_, series)| series.len()).collect::<Vec<_>>(), [1, 0]);
}

/// Whoever asks is told of each series that is looked after, and what looks and mocks came to.
#[test]
fn looks_are_told() {
    let (looks, mut row) = (Looks::default(), mock(1, "a\nb", "host"));
    row.tags = "y=2,x=1".to_string();
    let snapshot = Snapshot { mocks: vec![row], ..Snapshot::default() };
    let last = |endpoint: &str, _: &str| (endpoint == "a").then_some(Point { time: NOW + 60, value: 1.0 });
    for now in [NOW, NOW + 60] {
        let looked = looks.look(&snapshot, 0, now, 1.0, last);
        assert_eq!((looked.series, looked.mocked.len()), (2, 1), "b never reported");
        looks.note_sent(looked.mocked.len(), now);
    }
    let watched = looks.watched(&snapshot, NOW + 60);
    let shown: Vec<_> = watched.iter().map(|(name, watched)| (name.as_str(), watched.mocks)).collect();
    assert_eq!(shown, [("a/agent.alive/x=1,y=2", None), ("b/agent.alive/x=1,y=2", Some((2, NOW + 60)))]);
    let counts = looks.counts();
    assert_eq!((counts.looks, counts.last, counts.series, counts.series_of_all), (2, NOW + 60, 2, 4));
    assert_eq!((counts.sendings, counts.sent_at, counts.sent, counts.held), (2, NOW + 60, 2, 0));
}
