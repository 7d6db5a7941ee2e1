//! Random operations against a `BTreeMap`: whatever happens, a series is the points that were accepted, first ones
//! first.

use crate::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use store::{Cf, Fsync, Query};

/// Series, steps ahead of the series' newest (negative: late), value.
type Batch = Vec<(usize, i64, f64)>;

#[derive(Clone, Debug)]
enum Act {
    Put(Batch),
    /// The disk has so much room, then more; what was refused is sent again.
    PutTwice(Batch, u64),
    Flush,
    FailedFlush(u64),
    Tick,
    Sync,
    /// Those that are an hour behind the newest data leave memory, if all of it is in blocks.
    Sleep,
    /// Memory is short: those of which so many series make one are needed, the others are trimmed and sleep early.
    Shortage(u32),
    /// So many steps of merging, some hours later.
    Merge(usize, i64),
    /// The next life has this policy.
    Kill(Fsync),
    /// Power goes; before that all is synced, unless the policy has seen to that. The same for the next life.
    PowerCut(u64, Fsync),
    Remove(usize),
    Retime(usize, u32),
    /// The counter becomes a gauge, or one again, so many steps ahead.
    Retype(i64),
    Check(usize, i64, i64),
    /// Rows of a series, seen so many days later.
    Rows(usize, i64, i64, i64),
}

const SERIES: usize = 5;

/// The last one is a counter.
const COUNTER: usize = 4;

fn act() -> impl Strategy<Value = Act> {
    let value = prop_oneof![(-3i64..4).prop_map(|v| v as f64), any::<i32>().prop_map(|v| f64::from(v) / 7.0)];
    let ahead = prop_oneof![6 => Just(1i64), 1 => 0i64..40, 2 => -10i64..0, 1 => -3000i64..0];
    let batch = prop::collection::vec((0..SERIES, ahead, value), 1..30);
    let fsync = prop::sample::select(&[Fsync::Always, Fsync::EverySecond, Fsync::Never][..]);
    prop_oneof![
        20 => batch.clone().prop_map(Act::Put),
        2 => (batch, 0u64..400).prop_map(|(batch, room)| Act::PutTwice(batch, room)),
        2 => Just(Act::Flush),
        1 => (0u64..600).prop_map(Act::FailedFlush),
        1 => Just(Act::Tick),
        1 => Just(Act::Sync),
        3 => Just(Act::Sleep),
        3 => (1u32..5).prop_map(Act::Shortage),
        2 => fsync.clone().prop_map(Act::Kill),
        1 => (any::<u64>(), fsync).prop_map(|(seed, fsync)| Act::PowerCut(seed, fsync)),
        3 => (1usize..200, 0i64..12).prop_map(|(steps, hours)| Act::Merge(steps, hours)),
        1 => (0..SERIES).prop_map(Act::Remove),
        1 => (0..COUNTER, 1u32..100).prop_map(|(series, step)| Act::Retime(series, step)),
        2 => (1i64..5).prop_map(Act::Retype),
        4 => (0..SERIES, -4000i64..10, 0i64..5000).prop_map(|(series, from, len)| Act::Check(series, from, len)),
        4 => (0..SERIES, -4000i64..10, 0i64..5000, 0i64..60)
            .prop_map(|(series, from, len, later)| Act::Rows(series, from, len, later)),
    ]
}

struct World {
    disk: FakeDisk,
    fsync: Fsync,
    store: Option<Store>,
    /// Looks for silent series have their own time, as they are half an hour apart.
    now: i64,
    ids: [SeriesId; SERIES],
    newest: [i64; SERIES],
    merge_clock: i64,
    model: [BTreeMap<i64, f64>; SERIES],
    /// Times at which the counter became a gauge, a counter again, and so on.
    retyped: Vec<i64>,
}

const NAMES: [&str; SERIES] = ["a", "b", "c", "d", "e"];

fn create(store: &Store, series: usize) -> SeriesId {
    let counter_type = if series == COUNTER { CounterType::Counter } else { CounterType::Gauge };
    store.create(key(NAMES[series], "m", ""), counter_type, 60).expect("room for a series")
}

fn small(fsync: Fsync) -> Options {
    Options { fsync, silent_s: 3600, hot_window_s: 1200, late_window_s: 600, segment_bytes: 4096, ..options() }
}

impl World {
    fn new() -> World {
        let disk = FakeDisk::default();
        let fsync = Fsync::EverySecond;
        let (store, _) = open_with(&disk, small(fsync));
        let ids = std::array::from_fn(|series| create(&store, series));
        let start = NOW - 600_000;
        World {
            disk,
            fsync,
            store: Some(store),
            now: NOW,
            ids,
            newest: [start; SERIES],
            merge_clock: NOW,
            model: Default::default(),
            retyped: Vec::new(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open between steps")
    }

    fn run(&mut self, act: Act) {
        match act {
            Act::Put(batch) => self.put(&batch, None),
            Act::PutTwice(batch, room) => self.put(&batch, Some(room)),
            Act::Flush => self.store().flush(NOW).expect("room"),
            Act::FailedFlush(room) => {
                self.disk.set_room(Some(room));
                // Whether it had room enough makes no difference to what is stored.
                let _ = self.store().flush(NOW);
                self.disk.set_room(None);
            }
            Act::Tick => drop(self.store().tick(NOW).expect("room")),
            Act::Merge(steps, hours) => {
                self.merge_clock += 3600 * hours;
                for _ in 0..steps {
                    if !self.store().merge_step(self.merge_clock, 300).expect("room").more {
                        break;
                    }
                }
            }
            Act::Sync => self.store().sync().expect("room"),
            Act::Sleep => {
                self.now += 3600;
                for now in [self.now, self.now + 60] {
                    self.store().sleep_silent(now, &mut |_, _| ()).expect("room");
                }
            }
            Act::Shortage(share) => {
                let is_needed = |id: SeriesId| id.0.is_multiple_of(share);
                self.store().trim_unneeded(&is_needed);
                for now in [self.now, self.now + 10] {
                    self.store().sleep_early(now, &is_needed, &mut |_, _| ()).expect("room");
                }
                self.store().shrink();
            }
            Act::Kill(fsync) => {
                self.store = None;
                self.disk.restart_after_kill();
                self.reopen(fsync);
            }
            Act::PowerCut(seed, fsync) => {
                if self.fsync != Fsync::Always {
                    self.store().sync().expect("room");
                }
                self.store = None;
                self.disk.restart_after_power_cut(seed);
                self.reopen(fsync);
            }
            Act::Remove(series) => {
                assert!(self.store().remove_series(self.ids[series]).expect("room"));
                self.ids[series] = create(self.store(), series);
                self.model[series].clear();
                if series == COUNTER {
                    self.retyped.clear();
                }
            }
            Act::Retime(series, step) => {
                self.wake(series);
                self.store().set_meta(self.ids[series], CounterType::Gauge, step, NOW + 600_000).expect("room");
            }
            Act::Retype(ahead) => self.retype(ahead),
            Act::Check(series, from, len) => {
                let from = self.newest[series] + from * 60;
                self.check(series, from, from + len * 60);
            }
            Act::Rows(series, from, len, later) => {
                let from = self.newest[series] + from * 60;
                self.check_rows(series, from, from + len * 60, NOW + later * 86_400);
            }
        }
    }

    fn retype(&mut self, ahead: i64) {
        self.wake(COUNTER);
        let from = self.newest[COUNTER] + 60 * ahead;
        let known = self.retyped.last().is_some_and(|last| from <= *last);
        // A day that ends with the change may be rolled up already, and its last bucket with what was before.
        let at_midnight = from % 86_400 == 0;
        // As many as are remembered.
        if known || at_midnight || self.retyped.len() == 16 {
            return;
        }
        self.retyped.push(from);
        let counter_type = if self.kind(COUNTER, from) % 2 == 1 { CounterType::Gauge } else { CounterType::Counter };
        self.store().set_meta(self.ids[COUNTER], counter_type, 60, from).expect("room");
        // A change comes with its first point, and is as durable.
        self.put(&[(COUNTER, ahead, 1.0)], None);
        self.store().sync().expect("room");
    }

    /// Number of the stretch of a time; odd while it was a gauge.
    fn kind(&self, series: usize, time: i64) -> usize {
        if series == COUNTER { self.retyped.partition_point(|from| *from <= time) } else { 1 }
    }

    /// As the door does: under its old id, whatever became of it.
    fn wake(&self, series: usize) {
        assert_eq!(create(self.store(), series), self.ids[series]);
    }

    fn reopen(&mut self, fsync: Fsync) {
        let (store, recovery) = open_with(&self.disk, small(fsync));
        // A power cut may tear definitions and changes of series that nobody has appended to since.
        let damaged: Vec<_> = recovery.corrupt.iter().filter(|what| !what.starts_with("data/series")).collect();
        assert_eq!(damaged, Vec::<&String>::new());
        // The policy binds this life; what the one before left unsynced is made durable by the first sync.
        store.sync().expect("room");
        // A series is as durable as its first point; one that has none may have to be created again.
        self.ids = std::array::from_fn(|series| create(&store, series));
        (self.store, self.fsync) = (Some(store), fsync);
    }

    fn put(&mut self, points: &[(usize, i64, f64)], room: Option<u64>) {
        let mut batch = Vec::new();
        for (series, ahead, value) in points {
            self.wake(*series);
            let time = (self.newest[*series] + 60 * ahead).max(NOW - 2_000_000);
            self.newest[*series] = self.newest[*series].max(time);
            batch.push(sample(self.ids[*series], time, *value));
            self.model[*series].entry(time).or_insert(*value);
        }
        if room.is_some() {
            self.disk.set_room(room);
            let refused = self.store().append(&batch, NOW, &mut ()).is_err();
            self.disk.set_room(None);
            if !refused {
                return;
            }
        }
        let appended = self.store().append(&batch, NOW, &mut ()).expect("room");
        assert_eq!(appended.stored + appended.duplicate, batch.len());
    }

    fn check(&self, series: usize, from: i64, to: i64) {
        let expected: Vec<(i64, f64)> = self.model[series].range(from..=to).map(|(t, v)| (*t, *v)).collect();
        assert_eq!(history_of(self.store(), self.ids[series], from, to), expected);
    }

    fn check_rows(&self, series: usize, from: i64, to: i64, now: i64) {
        let found = self.store().find(NAMES[series], "m").expect("names read").expect("awake or asleep");
        let points: Vec<(i64, f64)> = self.model[series].iter().map(|(time, value)| (*time, *value)).collect();
        for cf in [Cf::Average, Cf::Max, Cf::Min, Cf::Last] {
            let query = Query { from, to, cf, now };
            let grid = self.store().query(found, &query).expect("answers");
            let expected = rows_of_points(&points, |time| self.kind(series, time), &grid, i64::from(grid.step), cf);
            assert_close(&grid, &expected, &format!("series {series}, {query:?}"));
        }
    }

    fn check_all(&self) {
        for series in 0..SERIES {
            self.check(series, 0, NOW);
            for later in [0, 2, 8, 60] {
                self.check_rows(series, self.newest[series] - 250_000, NOW, NOW + later * 86_400);
            }
            let last = self.model[series].iter().next_back().map(|(time, value)| Point { time: *time, value: *value });
            assert_eq!(self.store().last_raw(found(self.store(), self.ids[series])), last);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn equals_the_model(acts in prop::collection::vec(act(), 1..60)) {
        let mut world = World::new();
        for act in acts {
            world.run(act);
        }
        world.check_all();
        world.run(Act::Kill(Fsync::Always));
        world.check_all();
        world.run(Act::Merge(100_000, 48));
        world.check_all();
        world.run(Act::Flush);
        world.run(Act::PowerCut(1, Fsync::Never));
        world.check_all();
    }
}
