use model::{CounterType, Point, Sample, SeriesId, SeriesKey, Tags};
use std::time::Instant;
use store::{Cf, Options, Query, Store};
fn value(series: u32, round: i64, hard: bool) -> f64 {
    let noise = (u64::from(series) * 0x9e37_79b9 + round as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
    match series % 20 {
        0 => (noise % 7) as f64,
        1 => (round as u64 * 1_234_567 + noise % 100_000) as f64,
        2 | 3 => (noise % 401) as f64 * (100.0 / 401.0),
        4 => (noise % 900) as f64 / 100.0,
        5 => (1_000_000_000 + noise * 4096) as f64,
        x if hard && x < 14 => (noise % 100_000) as f64 + 0.37 * (round % 17) as f64,
        _ => f64::from(series % 17),
    }
}
fn rss() -> u64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap().trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let n: u32 = a[1].parse().unwrap();
    let hours: i64 = a[2].parse().unwrap();
    let hard = a.get(3).is_some_and(|x| x == "hard");
    let dir = std::path::PathBuf::from("/tmp/review2-month");
    let _ = std::fs::remove_dir_all(&dir);
    let start = 1_600_000_020i64;
    let o = Options { dir: dir.clone(), flush_bytes: 32 << 20, ..Options::default() };
    let (store, _) = Store::open(o.clone(), start).unwrap();
    for s in 0..n {
        let e = format!("host{:05}", s / 200);
        let m = format!("metric.{}", s % 200);
        store.create(SeriesKey { endpoint: &e, metric: &m, tags: Tags::EMPTY }, CounterType::Gauge, 60).unwrap();
    }
    let mut batch = Vec::new();
    let t0 = Instant::now();
    let mut slow = 0u128;
    for r in 0..hours * 60 {
        let now = start + r * 60;
        for h in 0..n / 200 {
            batch.clear();
            for s in h * 200..h * 200 + 200 {
                batch.push(Sample { series: SeriesId(s), point: Point { time: now, value: value(s, r, hard) } });
            }
            store.append(&batch, now, &mut ()).unwrap();
        }
        let t = Instant::now();
        let tick = store.tick(now).unwrap();
        if tick.flushed { slow = slow.max(t.elapsed().as_millis()); }
        if r % 120 == 119 {
            let st = store.stats();
            println!("h{} rss {}M hot {}M unfl {}M flushes {} blocks {} blkMB {} log {}M seg {} maxflush {}ms", (r + 1) / 60, rss(), st.hot_bytes >> 20, st.unflushed_bytes >> 20, st.flushes, st.blocks, st.block_bytes >> 20, st.log_bytes >> 20, st.segments, slow);
        }
    }
    println!("append {:?}", t0.elapsed());
    let now = start + hours * 3600 - 60;
    let q = |store: &Store, what: &str| for (name, back) in [("1h", 3600), ("24h", 86400), ("all", hours * 3600)] {
        for s in [3u32, 19] {
        let t = Instant::now();
        let mut rows = 0;
        for k in 0..100 { rows += store.query(SeriesId(s + k * 20), &Query { from: now - back, to: now, cf: Cf::Average, now }).unwrap().values.len(); }
        println!("{what} query {name} s{s}: {:?} each, {} rows", t.elapsed() / 100, rows / 100);
    }};
    q(&store, "live");
    drop(store);
    let t = Instant::now();
    let (store, rec) = Store::open(o, now).unwrap();
    println!("reopen {:?} replayed {} warmed {} blocks {} unflushed {}M", t.elapsed(), rec.points_replayed, rec.points_warmed, rec.blocks, store.stats().unflushed_bytes >> 20);
    q(&store, "re");
    let _ = std::fs::remove_dir_all(&dir);
}
