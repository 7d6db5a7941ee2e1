use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use stdx::FakeDisk;

const DIR: &str = "data";

fn path() -> PathBuf {
    Path::new(DIR).join(NAME)
}

/// Knowledge of a table: numbers of endpoints, definitions, removed ids, next numbers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    endpoints: BTreeMap<u32, String>,
    series: BTreeMap<u32, (u32, String, String, Meta)>,
    removed: BTreeMap<u32, [u64; 4]>,
    past: BTreeMap<u32, Vec<Past>>,
    next: (u32, u32),
}

impl Model {
    fn is_removed(&self, id: u32) -> bool {
        self.removed.get(&(id / 256)).is_some_and(|bits| bits[id as usize % 256 / 64] >> (id % 64) & 1 == 1)
    }

    fn remove(&mut self, id: u32) {
        self.removed.entry(id / 256).or_default()[id as usize % 256 / 64] |= 1 << (id % 64);
        self.series.remove(&id);
    }

    /// Applies a change as every replayer must: bears what it is told twice, and removed stays removed.
    fn apply(&mut self, change: Change<'_>) -> bool {
        match change {
            Change::Endpoint { number, name } => {
                return self.endpoints.entry(number).or_insert_with(|| name.to_string()) == name;
            }
            Change::Define { id, endpoint, endpoint_name, metric, tags, meta } => {
                if self.endpoints.entry(endpoint).or_insert_with(|| endpoint_name.to_string()) != endpoint_name {
                    return false;
                }
                self.next = (self.next.0.max(endpoint + 1), self.next.1.max(id.0 + 1));
                if !self.is_removed(id.0) {
                    self.series.insert(id.0, (endpoint, metric.to_string(), tags.as_str().to_string(), meta));
                }
            }
            Change::Meta { id, meta } => {
                if let Some(series) = self.series.get_mut(&id.0) {
                    series.3 = meta;
                }
            }
            Change::Past { id, past } => self.past.entry(id.0).or_default().push(past),
            Change::Remove { id } => self.remove(id.0),
            Change::Sleep { id } => drop(self.series.remove(&id.0)),
            Change::Removed { group, bits } => {
                for bit in (0..256).filter(|bit| bits[bit / 64] >> (bit % 64) & 1 == 1) {
                    self.remove(group * 256 + bit as u32);
                }
            }
            Change::Next { endpoint, series } => {
                self.next = (self.next.0.max(endpoint), self.next.1.max(series));
            }
        }
        true
    }

    fn apply_all(&mut self, changes: &[Change<'_>]) {
        changes.iter().for_each(|change| assert!(self.apply(*change), "{change:?}"));
    }

    /// The state in parts, as a compaction takes it.
    fn parts(&self) -> Vec<Vec<Change<'_>>> {
        let (endpoint, series) = self.next;
        let mut first = vec![Change::Next { endpoint, series }];
        first.extend(self.endpoints.iter().map(|(number, name)| Change::Endpoint { number: *number, name }));
        let removed = self.removed.iter().map(|(group, bits)| Change::Removed { group: *group, bits: *bits });
        let define = |(id, series): (&u32, &'_ (u32, String, String, Meta))| (*id, series.clone());
        let all: Vec<_> = self.series.iter().map(define).collect();
        let mut parts = vec![first, removed.collect()];
        for chunk in all.chunks(3) {
            let ids = chunk.iter().map(|(id, _)| *id);
            parts.push(ids.map(|id| self.definition(id)).collect());
        }
        parts
    }

    fn definition(&self, id: u32) -> Change<'_> {
        let (endpoint, metric, tags, meta) = &self.series[&id];
        let endpoint_name = &self.endpoints[endpoint];
        let (id, tags) = (SeriesId(id), Tags::assume_canonical(tags));
        Change::Define { id, endpoint: *endpoint, endpoint_name, metric, tags, meta: *meta }
    }
}

fn open(disk: &FakeDisk) -> (SeriesFile, Replay, Model) {
    let mut model = Model::default();
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let (file, replay) =
        SeriesFile::open(&disk, Path::new(DIR), &mut |change| model.apply(change)).expect("the file opens");
    (file, replay, model)
}

fn sound(disk: &FakeDisk) -> (SeriesFile, Model) {
    let (file, replay, model) = open(disk);
    assert_eq!((replay.corrupt, replay.torn_bytes_cut), (Vec::new(), 0));
    (file, model)
}

fn gauge() -> Meta {
    Meta::new(CounterType::Gauge, 60).expect("good")
}

const ENDPOINTS: [&str; 4] = ["", "alpha", "beta", "gämma"];

fn define(id: u32, endpoint: u32) -> Change<'static> {
    let endpoint_name = ENDPOINTS[endpoint as usize];
    let tags = Tags::assume_canonical(["", "a=1", "a=1,b=2"][id as usize % 3]);
    Change::Define { id: SeriesId(id), endpoint, endpoint_name, metric: "cpu.idle", tags, meta: gauge() }
}

/// One of each kind, with extremes.
fn every_kind() -> Vec<Change<'static>> {
    let meta = Meta::new(CounterType::Derive, crate::sizes::STEP_MAX).expect("good");
    vec![
        define(0, 1),
        define(1, 1),
        define(2, 2),
        define(u32::MAX - 1, 1),
        Change::Endpoint { number: 3, name: "gämma" },
        Change::Past { id: SeriesId(1), past: Past { until: u32::MAX, meta: gauge() } },
        Change::Meta { id: SeriesId(1), meta },
        Change::Sleep { id: SeriesId(0) },
        Change::Remove { id: SeriesId(2) },
        Change::Removed { group: 7, bits: [1, 0, 1 << 63, u64::MAX] },
        Change::Next { endpoint: 90, series: u32::MAX },
    ]
}

#[test]
fn every_kind_reads_back() {
    let mut bytes = Vec::new();
    encode(&every_kind(), &mut bytes);
    let payload = record::at_front(&bytes).expect("one sound record");
    let mut changes = Changes::new(payload);
    assert_eq!((&mut changes).collect::<Vec<_>>(), every_kind());
    assert_eq!(changes.rest, b"");

    let disk = FakeDisk::default();
    let (mut file, _) = sound(&disk);
    file.append(&every_kind()).expect("room");
    let mut model = Model::default();
    model.apply_all(&every_kind());
    let (again, replayed) = sound(&disk);
    assert_eq!(replayed, model);
    assert_eq!(again.bytes(), file.bytes());
}

#[test]
fn a_definition_of_a_known_host_is_small() {
    let mut bytes = Vec::new();
    encode(&[define(300, 1), define(301, 1)], &mut bytes);
    let (one, both) = (record::HEADER_BYTES + 3 + 7 + 2 + 9 + 1, bytes.len());
    // Kind 1, id 2, type 1, step 1, two texts.
    assert_eq!(both - one, 3 + 2 + 9 + 4);
}

#[test]
fn a_full_disk_loses_only_what_failed() {
    let disk = FakeDisk::default();
    let (mut file, mut model) = sound(&disk);
    file.append(&[define(0, 1)]).expect("room");
    model.apply(define(0, 1));
    for room in 0..40 {
        disk.set_room(Some(room));
        assert!(matches!(file.append(&[define(1, 2), define(2, 2)]), Err(Error::Disk { .. })));
    }
    disk.set_room(None);
    assert_eq!(sound(&disk).1, model);
    file.append(&[define(1, 3)]).expect("room again");
    model.apply(define(1, 3));
    assert_eq!(sound(&disk).1, model);
}

#[test]
fn damage_costs_its_record_and_is_reported_where_it_is() {
    let healthy = FakeDisk::default();
    let (mut file, _) = sound(&healthy);
    let mut ends = vec![file.bytes()];
    for id in 0..4 {
        file.append(&[define(2 * id, 1), define(2 * id + 1, 1)]).expect("room");
        ends.push(file.bytes());
    }
    for at in ends[1]..ends[2] {
        let disk = FakeDisk::default();
        let copy = disk.open_or_create(&path()).expect("new");
        copy.write_at(&healthy.content(&path()), 0).expect("room");
        disk.corrupt(&path(), at);
        let (_, replay, model) = open(&disk);
        let expected = format!("data/series at byte {}: {} bytes skipped", ends[1], ends[2] - ends[1]);
        assert_eq!(replay.corrupt, [expected]);
        assert_eq!(model.series.keys().copied().collect::<Vec<_>>(), [0, 1, 4, 5, 6, 7]);
    }
}

#[test]
fn every_torn_tail_is_cut_and_written_over() {
    let healthy = FakeDisk::default();
    let (mut file, _) = sound(&healthy);
    file.append(&[define(0, 1)]).expect("room");
    let whole = file.bytes();
    file.append(&[define(1, 2)]).expect("room");
    let content = healthy.content(&path());
    for cut in whole + 1..content.len() as u64 {
        let disk = FakeDisk::default();
        let copy = disk.open_or_create(&path()).expect("new");
        copy.write_at(&content[..cut as usize], 0).expect("room");
        let (mut file, replay, model) = open(&disk);
        assert_eq!((replay.torn_bytes_cut, replay.corrupt), (cut - whole, Vec::new()));
        assert_eq!(model.series.len(), 1);
        file.append(&[define(1, 3)]).expect("room");
        assert_eq!(sound(&disk).1.series.len(), 2);
    }
}

#[test]
fn files_of_other_versions_are_refused_and_left_alone() {
    for content in ["HKSERS01 and more", "HKSERS0", "something else"] {
        let disk = FakeDisk::default();
        disk.open_or_create(&path()).expect("new").write_at(content.as_bytes(), 0).expect("room");
        let arc: Arc<dyn Disk> = Arc::new(disk.clone());
        let result = SeriesFile::open(&arc, Path::new(DIR), &mut |_| true);
        if content == "HKSERS0" {
            // Our own beginning, torn: a file that never held anything.
            assert!(result.is_ok());
        } else {
            assert!(matches!(result, Err(Error::Corrupt { .. })), "{content}");
            assert_eq!(disk.content(&path()), content.as_bytes());
        }
    }
}

#[test]
fn what_makes_no_sense_is_reported_and_the_list_is_bounded() {
    let disk = FakeDisk::default();
    let (mut file, _) = sound(&disk);
    file.append(&[define(0, 1)]).expect("room");
    let other = Change::Endpoint { number: 1, name: "other" };
    file.append(&vec![other; CORRUPT_MAX + 5]).expect("room");
    let (_, replay, model) = open(&disk);
    assert_eq!(replay.corrupt.len(), CORRUPT_MAX + 1);
    assert!(replay.corrupt[0].ends_with("endpoint 1 cannot be \"other\""), "{}", replay.corrupt[0]);
    assert_eq!(replay.corrupt[CORRUPT_MAX], "data/series: 5 more places");
    assert_eq!(model.endpoints[&1], "alpha");
}

fn begin(disk: &FakeDisk, file: &SeriesFile) -> Result<Compaction> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut compaction = Compaction::begin(&disk, Path::new(DIR))?;
    compaction.follow(file);
    Ok(compaction)
}

/// The last step, with nothing appended meanwhile.
fn finish(mut compaction: Compaction, file: &mut SeriesFile) -> Result<()> {
    let journal = file.watch();
    let caught_up = compaction.catch_up(&journal);
    let recent = file.unwatch();
    caught_up.and_then(|()| file.switch_to(compaction, &recent))
}

fn sync(disk: &FakeDisk, file: &mut SeriesFile) -> Result<()> {
    if file.unsynced().sync(disk)? {
        file.name_is_durable();
    }
    Ok(())
}

/// Appends and compacts on a disk until it dies; what was acknowledged and synced is in the first model, what was tried
/// in the second.
fn live_and_compact(disk: &FakeDisk) -> (Model, Model) {
    let (mut acked, mut tried) = (Model::default(), Model::default());
    let mut run = || -> Result<()> {
        let arc: Arc<dyn Disk> = Arc::new(disk.clone());
        let (mut file, _) = SeriesFile::open(&arc, Path::new(DIR), &mut |_| true)?;
        let mut change = |file: &mut SeriesFile, changes: &[Change<'_>]| -> Result<()> {
            tried.apply_all(changes);
            file.append(changes)?;
            sync(disk, file)?;
            acked.apply_all(changes);
            Ok(())
        };
        change(&mut file, &[define(0, 1), define(1, 1), define(2, 2), define(3, 2)])?;
        change(&mut file, &[Change::Remove { id: SeriesId(1) }, Change::Sleep { id: SeriesId(3) }])?;
        let mut state = Model::default();
        state.apply_all(&[define(0, 1), define(1, 1), define(2, 2), define(3, 2)]);
        state.apply_all(&[Change::Remove { id: SeriesId(1) }, Change::Sleep { id: SeriesId(3) }]);
        let mut compaction = begin(disk, &file)?;
        let parts = state.parts();
        compaction.add(&parts[0])?;
        change(&mut file, &[define(4, 3), Change::Remove { id: SeriesId(0) }])?;
        for part in &parts[1..] {
            compaction.add(part)?;
        }
        compaction.settle()?;
        change(&mut file, &[define(3, 2), define(5, 1)])?;
        let journal = file.watch();
        compaction.catch_up(&journal)?;
        let during = [define(1000, 1), Change::Sleep { id: SeriesId(3) }];
        tried.apply_all(&during);
        file.append(&during)?;
        let recent = file.unwatch();
        file.switch_to(compaction, &recent)?;
        sync(disk, &mut file)?;
        acked.apply_all(&during);
        let mut change = |file: &mut SeriesFile, changes: &[Change<'_>]| -> Result<()> {
            tried.apply_all(changes);
            file.append(changes)?;
            sync(disk, file)?;
            acked.apply_all(changes);
            Ok(())
        };
        change(&mut file, &[define(6, 1), Change::Sleep { id: SeriesId(2) }])
    };
    let _ = run();
    (acked, tried)
}

#[test]
fn a_power_cut_at_every_operation_of_a_compaction_loses_nothing_acknowledged() {
    let disk = FakeDisk::default();
    let (whole, _) = live_and_compact(&disk);
    assert_eq!(sound(&disk).1, whole);
    assert_eq!(whole.series.keys().copied().collect::<Vec<_>>(), [4, 5, 6, 1000]);
    let operations = disk.operations();
    assert!(operations > 20, "{operations}");
    for cut in 0..operations {
        for seed in 0..40 {
            let disk = FakeDisk::default();
            disk.cut_power_at(cut);
            let (acked, tried) = live_and_compact(&disk);
            disk.restart_after_power_cut(seed);
            let (mut file, replay, model) = open(&disk);
            assert_eq!(replay.corrupt, Vec::<String>::new(), "cut {cut}, seed {seed}");
            assert!(
                model == acked || model == tried,
                "cut {cut}, seed {seed}: {model:?}\nneither {acked:?}\nnor {tried:?}"
            );
            assert_eq!(disk.paths(), [path()], "cut {cut}, seed {seed}");
            file.append(&[define(9, 1)]).expect("works on");
            assert!(sound(&disk).1.series.contains_key(&9));
        }
    }
}

#[test]
fn a_compaction_that_is_dropped_or_fails_leaves_the_journal() {
    let disk = FakeDisk::default();
    let (mut file, _) = sound(&disk);
    file.append(&[define(0, 1), define(1, 1)]).expect("room");
    let before = disk.content(&path());
    drop(begin(&disk, &file).expect("begins"));
    assert_eq!(disk.paths(), [path()]);
    for room in [0, 7, 20] {
        let mut compaction = begin(&disk, &file).expect("begins");
        compaction.add(&[define(0, 1)]).expect("buffered");
        disk.set_room(Some(room));
        assert!(finish(compaction, &mut file).is_err());
        disk.set_room(None);
        assert_eq!(disk.paths(), [path()]);
        assert_eq!(disk.content(&path()), before);
    }
    file.append(&[define(2, 1)]).expect("room");
    assert_eq!(sound(&disk).1.series.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random changes, compactions with changes in their middle, restarts.
    #[test]
    fn replays_as_the_model(steps in prop::collection::vec((0u8..9, 0u32..40, 1u32..4), 1..120)) {
        let disk = FakeDisk::default();
        let (mut file, mut model) = sound(&disk);
        let mut open_compaction: Option<(Compaction, usize)> = None;
        for (what, id, endpoint) in steps {
            // An id has one name for ever.
            let endpoint = if id % 2 == 0 { 1 + id % 3 } else { endpoint.min(1) };
            let change = match what {
                0..=2 => define(id, endpoint),
                3 => Change::Sleep { id: SeriesId(id) },
                4 => Change::Remove { id: SeriesId(id) },
                5 => Change::Meta { id: SeriesId(id), meta: Meta::new(CounterType::Counter, 1 + id).expect("good") },
                6 => {
                    let restarted = sound(&disk);
                    prop_assert_eq!(&restarted.1, &model);
                    // A restart removed the temporary file.
                    open_compaction = None;
                    file = restarted.0;
                    continue;
                }
                7 => {
                    drop(open_compaction.take());
                    open_compaction = Some((begin(&disk, &file).expect("room"), 0));
                    continue;
                }
                _ => {
                    let Some((mut compaction, done)) = open_compaction.take() else { continue };
                    for part in &model.parts()[done..] {
                        compaction.add(part).expect("room");
                    }
                    finish(compaction, &mut file).expect("room");
                    continue;
                }
            };
            file.append(&[change]).expect("room");
            model.apply(change);
            if let Some((compaction, done)) = &mut open_compaction {
                // The fixed parts, early; the pages of series are taken at the end.
                if *done == 0 {
                    compaction.add(&model.parts()[0]).expect("room");
                    *done = 1;
                }
            }
        }
        prop_assert_eq!(sound(&disk).1, model);
    }

    #[test]
    fn hostile_payloads_end(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut changes = Changes::new(&bytes);
        let count = (&mut changes).count();
        prop_assert!(count <= bytes.len() - changes.rest.len());
    }
}
