//! Queries recorded from the original graph: on series without holes every known row is the same; where the original
//! leaves out points that it has only in its cache, we do not.
//!
//! Each query is asked three times: of memory, of flushed blocks, and of merged ones with their roll-ups.
//! Left out, as answered otherwise on purpose: MAX/MIN over cached points (the original loses them), counters' cached
//! points (it places their rates one step early), rows in which a point is missing (rrdtool back-fills), counters that
//! are reset (`c.reset`, `d.neg`) or have fractions, which it cuts off (`c.frac`), points sent twice (`g.overlap`: it
//! keeps the last).

use crate::*;
use serde_json::Value;
use std::collections::BTreeMap;
use store::{Cf, Query};

const PLAIN: [&str; 22] = [
    "g.full",
    "g.flushed",
    "g.cacheonly",
    "g.300/t=5m",
    "g.30",
    "g.3600",
    "g.in23h",
    "g.late26h",
    "c.full/iface=eth0",
    "c.flushed",
    "c.cacheonly",
    "c.300",
    "c.in23h",
    "g.revived",
    "g.extreme",
    "c.big",
    "g.gaps",
    "g.holecache",
    "c.holecache",
    "g.sparse5",
    "g.sparse2",
    "c.sparse2",
];

struct Fed {
    id: SeriesId,
    gauge: bool,
    step: i64,
    /// Time to whether the point was in the RRD file.
    in_file: BTreeMap<i64, bool>,
}

/// Creates and feeds the series of a variant; the vectors' clock is `NOW` of no other test, so the store keeps
/// everything.
fn feed(store: &Store, variant: &str, now: i64) -> BTreeMap<String, Fed> {
    let text = testdata::text(&format!("graph/series_{variant}.json"));
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let mut fed: Vec<(String, Fed)> = Vec::new();
    for series in list.as_array().expect("a list") {
        let counter = series["counter"].as_str().expect("a text");
        let (metric, tags) = model::series::split_counter(counter);
        let gauge = series["dstype"] == "GAUGE";
        let counter_type = if gauge { CounterType::Gauge } else { CounterType::Derive };
        let step = series["step"].as_i64().expect("a number");
        let key = key(series["endpoint"].as_str().expect("a text"), metric, tags);
        let id = store.create(key, counter_type, step as u32).expect("room");
        assert_eq!(series["id"].as_u64(), Some(fed.len() as u64));
        fed.push((counter.to_string(), Fed { id, gauge, step, in_file: BTreeMap::new() }));
    }
    for line in testdata::gunzip(&format!("graph/feed_{variant}.csv.gz")).lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let (_, series) = &mut fed[fields[0].parse::<usize>().expect("a number")];
        let (time, value) = (fields[1].parse().expect("a time"), fields[2].parse().expect("a value"));
        store.append(&[sample(series.id, time, value)], now, &mut ()).expect("room");
        series.in_file.entry(time).or_insert(fields[3] == "rrd");
    }
    fed.into_iter().collect()
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    InMemory,
    Flushed,
    Merged,
}

#[derive(Default, Debug)]
struct Compared {
    equal: usize,
    newest_only_here: usize,
    other_rows: usize,
}

fn compare(store: &Store, fed: &Fed, vector: &Value, compared: &mut Compared) {
    let request = &vector["request"];
    let number = |name: &str| request[name].as_i64().expect("a number");
    let Some(cf) = Cf::parse(request["consolFun"].as_str().expect("a text")) else { return };
    let now = vector["now"].as_i64().expect("a number");
    let query = Query { from: number("start"), to: number("end"), cf, now };
    let grid = store.query(found(store, fed.id), &query).expect("answers");
    let mut ours: BTreeMap<i64, Option<f64>> = grid.values.iter().copied().collect();
    let mut row = i64::from(grid.step);
    let values = vector["response"]["values"].as_array().expect("a list");
    let time_of = |i: usize| values[i][0].as_i64().expect("a time");
    let their_row = if values.len() < 2 { 0 } else { time_of(1) - time_of(0) };
    if matches!(cf, Cf::Max | Cf::Min) && their_row > row && their_row % row == 0 {
        // The original has MAX and MIN of five steps at the finest; ours are of one, and five of them make its row.
        // Their first row reaches back before the range.
        let wider = Query { from: query.from - their_row, ..query };
        let grid = store.query(found(store, fed.id), &wider).expect("answers");
        assert_eq!(i64::from(grid.step), row, "{request}");
        ours = values.iter().map(|theirs| (theirs[0].as_i64().expect("a time"), None)).collect();
        for (end, value) in &mut ours {
            let rows = grid.values.iter().filter(|(time, _)| *time > end - their_row && time <= end);
            let known = rows.filter_map(|(_, value)| *value);
            *value = known.reduce(if cf == Cf::Max { f64::max } else { f64::min });
        }
        row = their_row;
    }
    // The original takes an archive's reach from its last write to disk, up to 30 minutes ago; we from now.
    if their_row != row {
        compared.other_rows += 1;
        return;
    }
    for theirs in values {
        let time = theirs[0].as_i64().expect("a time");
        if time < query.from || time > query.to {
            continue;
        }
        let ours = ours.get(&time).unwrap_or_else(|| panic!("no row at {time}: {request}"));
        // A rate needs the point before the row as well.
        let first = time - row + if fed.gauge { fed.step } else { 0 };
        let needed = (time - first) / fed.step + 1;
        let fed_points: Vec<bool> = fed.in_file.range(first..=time).map(|(_, in_file)| *in_file).collect();
        if (fed_points.len() as i64) < needed {
            continue;
        }
        let known = ours.unwrap_or_else(|| panic!("all points of {time} are there: {request}"));
        match theirs[1].as_f64() {
            Some(theirs) if fed.gauge || fed_points.iter().all(|in_file| *in_file) => {
                let close = (known - theirs).abs() <= 1e-9 * theirs.abs().max(1.0);
                assert!(close, "at {time}: {known}, the original {theirs}: {request}");
                compared.equal += 1;
            }
            Some(_) => {}
            None => compared.newest_only_here += 1,
        }
    }
}

fn compare_last(store: &Store, fed: &Fed, vector: &Value, compared: &mut Compared) {
    let theirs = &vector["response"]["value"];
    let (time, value) = (theirs[0].as_i64().expect("a time"), theirs[1].as_f64().expect("a value"));
    let raw = vector["kind"] == "LastRaw";
    let ours = if raw { store.last_raw(found(store, fed.id)) } else { store.last(found(store, fed.id)) };
    if time == 0 {
        // The original answers from its cache of three points only, and needs neighbours for a rate.
        return;
    }
    assert_eq!(ours, Some(Point { time, value }), "{vector}");
    compared.equal += 1;
}

#[test]
fn rows_are_the_originals() {
    let mut compared = Compared::default();
    for variant in ["start80h", "unmodified"] {
        let vectors: Vec<Value> = testdata::gunzip("graph/queries.jsonl.gz")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .filter(|vector: &Value| vector["variant"] == variant)
            .collect();
        let now = vectors[0]["now"].as_i64().expect("a number");
        for state in [State::InMemory, State::Flushed, State::Merged] {
            let disk = FakeDisk::default();
            let (store, _) = Store::open_on(Arc::new(disk), options(), now).expect("opens");
            let fed = feed(&store, variant, now);
            if state != State::InMemory {
                store.flush(now).expect("room");
            }
            // All days are over by then, so rows of several steps come from roll-ups.
            while state == State::Merged && store.merge_step(now + 2 * 86_400, 1 << 20).expect("room").more {}
            let rollups = store.stats().rollups_5m.blocks;
            assert!((rollups > 1) == (state == State::Merged), "{rollups} roll-ups");
            for vector in &vectors {
                let counter = vector["request"]["counter"].as_str().expect("a text");
                let Some(fed) = fed.get(counter).filter(|_| PLAIN.contains(&counter)) else { continue };
                match vector["kind"].as_str() {
                    Some("Query") if vector["path"] == "archive" || vector["path"] == "merge" => {
                        compare(&store, fed, vector, &mut compared);
                    }
                    Some("Last" | "LastRaw") => compare_last(&store, fed, vector, &mut compared),
                    _ => {}
                }
            }
        }
    }
    println!("{compared:?}");
    assert!(compared.equal > 20_000 && compared.newest_only_here > 20, "{compared:?}");
}
