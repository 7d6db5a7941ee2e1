use super::*;
use crate::error::{Error, Result};
use crate::series::Meta;
use model::{CounterType, SeriesId, SeriesKey, Tags};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use stdx::{Disk, DiskFile, FakeDisk};

const DIR: &str = "cold";

/// Endpoint, metric, tags.
type Name = (String, String, String);
type Names = BTreeMap<Name, ColdFound>;

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn name(endpoint: &str, metric: &str, tags: &str) -> Name {
    (endpoint.to_string(), metric.to_string(), tags.to_string())
}

fn key_of(name: &Name) -> SeriesKey<'_> {
    SeriesKey { endpoint: &name.0, metric: &name.1, tags: Tags::assume_canonical(&name.2) }
}

fn name_of(key: SeriesKey<'_>) -> Name {
    name(key.endpoint, key.metric, key.tags.as_str())
}

fn found(id: u32, endpoint: u32, newest: u32) -> ColdFound {
    let counter_type = [CounterType::Gauge, CounterType::Counter, CounterType::Derive][id as usize % 3];
    let meta = Meta::new(counter_type, 10 + id % 3 * 25).expect("a good step");
    ColdFound { id: SeriesId(id), endpoint, meta, newest }
}

/// A fleet: each host has so many series, ids as they were given when the hosts came up in some order.
fn fleet(hosts: u32, series: u32) -> Names {
    let mut names = Names::new();
    for host in 0..hosts {
        let number = host * 7919 % hosts;
        let endpoint = format!("idc-{}.web-{host:05}.example.com", host % 3);
        for i in 0..series {
            let metric = ["cpu.idle", "df.bytes.used.percent", "net.if.in.bytes"][i as usize % 3];
            let name = name(&endpoint, metric, &format!("instance={i}"));
            names.insert(name, found(number * series + i, number + 1, 1_600_000_000 + number));
        }
    }
    names
}

fn write(disk: &dyn Disk, sequence: u64, names: &Names) -> Result<Option<Run>> {
    let mut writer = RunWriter::begin(disk, dir(), sequence)?;
    for (name, found) in names {
        writer.add(&ColdSeries { key: key_of(name), found: *found })?;
    }
    writer.finish()
}

fn run_of(disk: &dyn Disk, sequence: u64, names: &Names) -> Arc<Run> {
    Arc::new(write(disk, sequence, names).expect("room").expect("names"))
}

fn all(run: &Run) -> Names {
    let mut names = Names::new();
    let mut last = None;
    run.series_from("", &mut |series| {
        let name = name_of(series.key);
        assert!(last.replace(name.clone()) < Some(name.clone()), "in order");
        names.insert(name, series.found);
        ControlFlow::Continue(())
    })
    .expect("sound");
    names
}

fn endpoints(run: &Run, from: &str) -> BTreeMap<String, (u32, u64)> {
    let mut endpoints = BTreeMap::new();
    run.endpoints(from, &mut |endpoint| {
        endpoints.insert(endpoint.name.to_string(), (endpoint.number, endpoint.series_count));
        ControlFlow::Continue(())
    })
    .expect("sound");
    endpoints
}

fn endpoints_of(names: &Names) -> BTreeMap<String, (u32, u64)> {
    let mut endpoints = BTreeMap::new();
    for (name, found) in names {
        let entry = endpoints.entry(name.0.clone()).or_insert((0, 0));
        *entry = (found.endpoint.max(entry.0), entry.1 + 1);
    }
    endpoints
}

fn check(run: &Run, names: &Names) {
    assert_eq!(&all(run), names);
    assert_eq!(
        (run.series_count, run.newest_max),
        (names.len() as u64, names.values().map(|f| f.newest).max().unwrap_or(0))
    );
    let expected = endpoints_of(names);
    assert_eq!(run.endpoint_count, expected.len() as u64);
    assert_eq!(endpoints(run, ""), expected);
    for (i, (name, found)) in names.iter().enumerate().filter(|(i, _)| i % 101 == 0 || names.len() < 500) {
        assert_eq!(run.find(key_of(name)).expect("sound"), Some(*found));
        let absent = [
            (format!("{}x", name.0), name.1.clone(), name.2.clone()),
            (name.0.clone(), format!("{}x", name.1), name.2.clone()),
            (name.0.clone(), name.1.clone(), format!("zzz={i}")),
        ];
        for absent in absent.iter().filter(|absent| !names.contains_key(absent)) {
            assert_eq!(run.find(key_of(absent)).expect("sound"), None, "{absent:?}");
        }
        let mut of_endpoint = Names::new();
        run.series_of(&name.0, &mut |series| {
            of_endpoint.insert(name_of(series.key), series.found);
            ControlFlow::Continue(())
        })
        .expect("sound");
        let expected: Names = names
            .range(name_of_endpoint(&name.0)..)
            .take_while(|(other, _)| other.0 == name.0)
            .map(|(n, f)| (n.clone(), *f))
            .collect();
        assert_eq!(of_endpoint, expected);
    }
}

fn name_of_endpoint(endpoint: &str) -> Name {
    name(endpoint, "", "")
}

fn open(disk: &FakeDisk) -> Vec<Arc<Run>> {
    let opened = open_all(disk, dir()).expect("opens");
    assert_eq!(opened.corrupt, Vec::<String>::new());
    retire(disk, &opened.superseded, None).expect("removes");
    opened.runs
}

#[test]
fn names_read_back_from_runs_of_every_height() {
    for (hosts, series) in [(1, 1), (1, 3), (3, 40), (40, 60), (900, 50)] {
        let disk = FakeDisk::default();
        let names = fleet(hosts, series);
        let run = run_of(&disk, 3, &names);
        check(&run, &names);
        let opened = open(&disk);
        assert_eq!((opened.len(), opened[0].sequence, opened[0].bytes), (1, 3, run.bytes));
        check(&opened[0], &names);
    }
}

#[test]
fn the_longest_names_fit() {
    let disk = FakeDisk::default();
    let mut names = Names::new();
    for i in 0..200u32 {
        // Bytes that are escaped, and names that differ in their last byte only.
        let long = |filler: &str| format!("{}{i:03}", filler.repeat(crate::sizes::TEXT_MAX - 3));
        let filler = ["\0", "a"][i as usize % 2];
        let tags = format!("k={}", long("b").split_at(2).1);
        names.insert(name(&long(filler), &long(filler), &tags), found(i, i + 1, i));
    }
    let run = run_of(&disk, 1, &names);
    check(&run, &names);
    assert!(run.memory_bytes() <= 64 << 10, "{}", run.memory_bytes());
    let too_long = "x".repeat(crate::sizes::TEXT_MAX + 1);
    let key = SeriesKey { endpoint: &too_long, metric: "m", tags: Tags::EMPTY };
    let mut writer = RunWriter::begin(&disk, dir(), 2).expect("room");
    let result = writer.add(&ColdSeries { key, found: found(1, 1, 1) });
    assert!(matches!(result, Err(Error::TextTooLong { what: "endpoint", .. })));
}

#[test]
fn an_empty_run_is_no_file() {
    let disk = FakeDisk::default();
    assert!(write(&disk, 1, &Names::new()).expect("room").is_none());
    assert_eq!(disk.paths(), Vec::<PathBuf>::new());
}

#[test]
fn endpoints_are_listed_from_any_name_on_and_visits_can_end() {
    let disk = FakeDisk::default();
    let names = fleet(700, 2);
    let run = run_of(&disk, 1, &names);
    let every = endpoints_of(&names);
    for from in ["", "a", "idc-1", "idc-1.web-00400.example.com", "idc-2.web", "z"] {
        let expected: BTreeMap<_, _> =
            every.range(from.to_string()..).map(|(name, what)| (name.clone(), *what)).collect();
        assert_eq!(endpoints(&run, from), expected, "from {from}");
    }
    let mut seen = 0;
    run.endpoints("", &mut |_| {
        seen += 1;
        if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("sound");
    assert_eq!(seen, 5);
}

/// Counts reads.
struct CountingDisk(FakeDisk, Arc<AtomicUsize>);
struct CountingFile(Arc<dyn DiskFile>, Arc<AtomicUsize>);

impl Disk for CountingDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CountingFile(self.0.open(path)?, self.1.clone())))
    }
    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open_or_create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>> {
        self.0.lock(path)
    }
}

impl DiskFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.fetch_add(1, Relaxed);
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

#[test]
fn a_find_costs_few_reads_and_a_search_of_endpoints_reads_no_series() {
    let disk = CountingDisk(FakeDisk::default(), Arc::default());
    let names = fleet(1500, 100);
    let run = run_of(&disk, 1, &names);
    assert!(run.bytes < 25 * names.len() as u64, "{} bytes", run.bytes);
    assert!(run.memory_bytes() < 8 << 10, "{}", run.memory_bytes());
    let reads = |work: &mut dyn FnMut()| {
        disk.1.store(0, Relaxed);
        work();
        disk.1.load(Relaxed)
    };
    let mut misses = 0;
    for (i, name) in names.keys().step_by(997).enumerate() {
        assert!(reads(&mut || assert!(run.find(key_of(name)).expect("sound").is_some())) <= 3);
        let key = SeriesKey { metric: "no.such", ..key_of(name) };
        misses += reads(&mut || assert!(run.find(key).expect("sound").is_none()));
        assert!(misses <= 2 * (i + 1) + 3, "{misses} reads for {} misses", i + 1);
    }
    let mut seen = 0;
    let cost = reads(&mut || {
        run.endpoints("", &mut |_| {
            seen += 1;
            ControlFlow::Continue(())
        })
        .expect("sound");
    });
    assert_eq!(seen, 1500);
    assert!(cost <= 4, "{cost} reads for 1500 endpoints");
}

#[test]
fn every_flipped_byte_is_noticed_and_costs_a_page_at_most() {
    let sound = FakeDisk::default();
    let names = fleet(40, 10);
    let run = run_of(&sound, 1, &names);
    let content = sound.content(&run.path);
    let per_page = 300;
    for at in (0..content.len()).step_by(7).chain(content.len() - 100..content.len()) {
        let disk = FakeDisk::default();
        disk.open_or_create(&run.path).expect("new").write_at(&content, 0).expect("room");
        disk.corrupt(&run.path, at as u64);
        let opened = open_all(&disk, dir()).expect("opens");
        let Some(run) = opened.runs.first() else {
            assert_eq!(opened.corrupt.len(), 1, "byte {at}");
            assert_eq!(opened.next_sequence, 2);
            continue;
        };
        let (mut seen, mut wrong) = (0, 0);
        let series = run.series_from("", &mut |series| {
            seen += 1;
            wrong += usize::from(names.get(&name_of(series.key)) != Some(&series.found));
            ControlFlow::Continue(())
        });
        let mut endpoints_seen = 0;
        let endpoints = run.endpoints("", &mut |endpoint| {
            endpoints_seen += 1;
            wrong += usize::from(endpoint.series_count != 10);
            ControlFlow::Continue(())
        });
        let mut find_fails = false;
        for (name, expected) in names.iter().skip(at % 20).step_by(20) {
            match run.find(key_of(name)) {
                Ok(Some(found)) => wrong += usize::from(found != *expected),
                Ok(None) => panic!("byte {at}: a name is said not to be there"),
                Err(Error::Corrupt { .. }) => find_fails = true,
                Err(error) => panic!("{error}"),
            }
        }
        // The magic at the front is for people; nothing depends on it.
        let noticed = series.is_err() || endpoints.is_err() || find_fails || at < MAGIC.len();
        assert!(noticed && wrong == 0, "byte {at}: noticed {noticed}, {wrong} wrong");
        assert!(seen + per_page >= names.len() && endpoints_seen + per_page >= 40, "byte {at}");
    }
}

#[test]
fn a_run_that_fails_leaves_nothing() {
    let names = fleet(300, 10);
    let disk = FakeDisk::default();
    let whole = write(&disk, 1, &names).expect("room").expect("names").bytes;
    for room in [0, 100, whole / 2, whole - 1] {
        let disk = FakeDisk::default();
        disk.set_room(Some(room));
        assert!(write(&disk, 1, &names).is_err());
        assert_eq!(disk.paths(), Vec::<PathBuf>::new());
    }
}

fn merge_all(disk: &FakeDisk, runs: &[Arc<Run>], keep: &mut dyn FnMut(&ColdSeries<'_>) -> bool) -> Option<Arc<Run>> {
    let merged = merge(disk, dir(), runs, keep, &mut |_| true).expect("room").expect("not given up");
    assert!(merged.corrupt.is_empty(), "{:?}", merged.corrupt);
    let run = merged.run.map(Arc::new);
    retire(disk, runs, run.as_deref()).expect("removes");
    run
}

#[test]
fn the_newest_run_counts_and_what_is_not_kept_goes() {
    let disk = FakeDisk::default();
    let old = fleet(30, 20);
    let mut new: Names =
        old.iter().step_by(3).map(|(name, f)| (name.clone(), ColdFound { newest: f.newest + 9, ..*f })).collect();
    new.insert(name("zebra", "m", ""), found(77_777, 99, 5));
    let runs = [run_of(&disk, 1, &old), run_of(&disk, 2, &new)];
    let mut expected = old.clone();
    expected.extend(new.clone());
    let merged = merge_all(&disk, &runs, &mut |_| true).expect("names");
    assert_eq!((merged.first_sequence, merged.sequence), (1, 2));
    check(&merged, &expected);
    // Whoever still reads an input reads it to its end.
    check(&runs[0], &old);

    // Rewritten alone, under the same name.
    expected.retain(|_, found| found.id.0 % 5 != 0);
    let kept =
        merge_all(&disk, std::slice::from_ref(&merged), &mut |series| series.found.id.0 % 5 != 0).expect("names");
    check(&kept, &expected);
    assert_eq!(disk.paths(), std::slice::from_ref(&kept.path));
    assert_eq!(open(&disk)[0].series_count, expected.len() as u64);
    assert!(merged.series_count > kept.series_count);

    assert!(merge_all(&disk, &[kept], &mut |_| false).is_none());
    assert_eq!(disk.paths(), Vec::<PathBuf>::new());
}

#[test]
fn a_merge_that_is_given_up_leaves_nothing_and_is_told_its_pace() {
    let disk = FakeDisk::default();
    let runs = [run_of(&disk, 1, &fleet(900, 60)), run_of(&disk, 2, &fleet(100, 5))];
    let before = disk.paths();
    let mut told = Vec::new();
    let given_up = merge(&disk, dir(), &runs, &mut |_| true, &mut |bytes| {
        told.push(bytes);
        told.len() < 2
    });
    assert!(given_up.expect("room").is_none());
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|bytes| (200_000..600_000).contains(bytes)), "{told:?}");
    assert_eq!(disk.paths(), before);
}

#[test]
fn a_merge_reads_past_damage_and_says_where() {
    let disk = FakeDisk::default();
    let names = fleet(200, 20);
    let run = run_of(&disk, 1, &names);
    disk.corrupt(&run.path, run.endpoints_at / 2);
    let merged = merge(&disk, dir(), &[run], &mut |_| true, &mut |_| true).expect("room").expect("not given up");
    assert_eq!(merged.corrupt.len(), 1);
    assert!(merged.corrupt[0].to_string().contains("00000001-00000001.run"), "{}", merged.corrupt[0]);
    let merged = merged.run.expect("most names");
    assert!(merged.series_count + 500 >= names.len() as u64, "{}", merged.series_count);
    all(&merged).iter().for_each(|(name, found)| assert_eq!(names.get(name), Some(found)));
}

/// Writes three runs and merges two of them, then all, until the disk dies. Returns how many runs were acknowledged.
fn live_and_merge(disk: &FakeDisk, parts: &[Names; 3]) -> usize {
    let mut written = 0;
    let mut run = || -> Result<()> {
        let mut runs = Vec::new();
        for (i, names) in parts.iter().enumerate() {
            runs.extend(write(disk, i as u64 + 1, names)?.map(Arc::new));
            written += 1;
        }
        for range in [0..2, 0..2] {
            let inputs: Vec<_> = runs[range.clone()].to_vec();
            let Some(merged) = merge(disk, dir(), &inputs, &mut |_| true, &mut |_| true)? else { break };
            let run = merged.run.map(Arc::new);
            retire(disk, &inputs, run.as_deref())?;
            runs.splice(range, run);
        }
        Ok(())
    };
    let _ = run();
    written
}

#[test]
fn a_power_cut_at_every_operation_of_writing_and_merging_loses_no_name() {
    let whole = fleet(12, 8);
    let later = |shift: usize, add: u32| -> Names {
        let each = whole.iter().skip(shift).step_by(3);
        each.map(|(name, found)| (name.clone(), ColdFound { newest: found.newest + add, ..*found })).collect()
    };
    let parts = [later(0, 0), later(1, 0), later(0, 50)];
    let disk = FakeDisk::default();
    assert_eq!(live_and_merge(&disk, &parts), 3);
    let operations = disk.operations();
    assert!(operations > 30, "{operations}");
    for cut in 0..operations {
        for seed in 0..20 {
            let disk = FakeDisk::default();
            disk.cut_power_at(cut);
            let written = live_and_merge(&disk, &parts);
            disk.restart_after_power_cut(seed);
            let runs = open(&disk);
            let mut seen = Names::new();
            runs.iter().for_each(|run| seen.extend(all(run)));
            let expected = |count: usize| {
                parts[..count].iter().flatten().map(|(name, found)| (name.clone(), *found)).collect::<Names>()
            };
            let tried = expected((written + 1).min(3));
            assert!(seen == expected(written) || seen == tried, "cut {cut}, seed {seed}: {} names", seen.len());
            // No two files say the same, and nothing unfinished lies there.
            assert_eq!(disk.paths().len(), runs.len(), "cut {cut}, seed {seed}");
            assert!(runs.windows(2).all(|pair| pair[0].sequence < pair[1].first_sequence), "cut {cut}, seed {seed}");
        }
    }
}

#[test]
fn superseded_runs_are_told_and_unfinished_files_are_removed_at_open() {
    let disk = FakeDisk::default();
    let names = fleet(5, 5);
    let runs: Vec<_> = (1..=4).map(|sequence| run_of(&disk, sequence, &names)).collect();
    merge(&disk, dir(), &runs[1..3], &mut |_| true, &mut |_| true).expect("room").expect("not given up");
    let mut writer = RunWriter::begin(&disk, dir(), 9).expect("room");
    writer.add(&ColdSeries { key: key_of(&name("a", "b", "")), found: found(1, 1, 1) }).expect("room");
    std::mem::forget(writer);
    disk.open_or_create(&dir().join("00000012-00000012.run")).expect("new").write_at(b"nonsense", 0).expect("room");
    let opened = open_all(&disk, dir()).expect("opens");
    let ranges: Vec<_> = opened.runs.iter().map(|run| (run.first_sequence, run.sequence)).collect();
    assert_eq!(ranges, [(1, 1), (2, 3), (4, 4)]);
    assert_eq!((opened.next_sequence, opened.corrupt.len()), (13, 1));
    let superseded: Vec<u64> = opened.superseded.iter().map(|run| run.sequence).collect();
    assert_eq!((superseded, disk.paths().len()), (vec![2, 3], 6), "{:?}", disk.paths());
}

fn some_name() -> impl Strategy<Value = Name> {
    let text =
        || prop::sample::select(vec!["", "a", "ab", "a\0", "a\u{1}", "b", "日本", "a much longer text than others"]);
    let tags = prop::sample::select(vec!["", "k=1", "k=1,l=\0", "k=2"]);
    (text(), text(), tags, 0u32..3).prop_map(|(endpoint, metric, tags, n)| {
        let metric = if n == 0 { metric.to_string() } else { format!("{metric}{n}") };
        name(endpoint, &metric, tags)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Runs of random names, merges of random stretches, restarts; always as a map says.
    #[test]
    fn runs_are_as_a_map(steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>(), prop::collection::vec((some_name(), any::<u32>()), 0..40)), 1..20)) {
        let disk = FakeDisk::default();
        let (mut model, mut runs, mut sequence) = (Names::new(), Vec::<Arc<Run>>::new(), 0);
        for (what, index, series) in steps {
            match what {
                0 | 1 => {
                    sequence += 1;
                    let part: Names = series.into_iter().map(|(name, n)| (name, found(n, n / 3, n / 2))).collect();
                    model.extend(part.clone());
                    runs.extend(write(&disk, sequence, &part).expect("room").map(Arc::new));
                }
                2 if !runs.is_empty() => {
                    let start = index.index(runs.len());
                    let range = start..(start + 1 + series.len() % 4).min(runs.len());
                    let output = merge_all(&disk, &runs[range.clone()], &mut |_| true);
                    runs.splice(range, output);
                }
                _ => runs = open(&disk),
            }
            let mut seen = Names::new();
            runs.iter().for_each(|run| seen.extend(all(run)));
            prop_assert_eq!(&seen, &model);
        }
        for run in &runs {
            check(run, &all(run));
        }
    }
}
