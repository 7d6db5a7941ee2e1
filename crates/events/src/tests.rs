use crate::queue::first_seq_at;
use crate::record::{EVENT, RECORD_MAX, SNAPSHOT_END, parse_record, push_record};
use crate::recovery::Damage;
use crate::segment::{MAGIC, list_segments, segment_path};
use crate::*;
use model::{Event, EventRule, Explanation, Expression, Point, Status, Strategy, Template, TermExplanation};
use proptest::prelude::{Just, ProptestConfig, Strategy as _, any, prop, prop_assert_eq, prop_oneof, proptest};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use stdx::{FakeDisk, RealDisk};

/// When queues are opened.
const NOW: i64 = 1_700_000_000;

const SMALL: Options = Options { fsync: Fsync::Never, segment_bytes: 2000, bytes_max: 1 << 20, reserve_bytes: 0 };

/// An event of strategy 1 on host `host`; `time` tells events apart.
fn event(host: u32, status: Status, time: i64) -> Event {
    let strategy = Strategy {
        id: 1,
        metric: "cpu.idle".into(),
        func: "all(#3)".into(),
        operator: "<".into(),
        right_value: 5.0,
        max_step: 3,
        tpl: Template { id: 7, name: "t".into(), action_id: 3, ..Template::default() },
        ..Strategy::default()
    };
    Event {
        rule: EventRule::Strategy(Arc::new(strategy)),
        status,
        endpoint: format!("host-{host:04}"),
        tags: "k=v".into(),
        left_value: 1.5,
        current_step: 1,
        time,
        explanation: None,
    }
}

fn problem(host: u32, time: i64) -> Event {
    event(host, Status::Problem, time)
}

fn open(dir: &Path, options: Options) -> (Arc<EventQueue>, Recovery) {
    let (queue, recovered) = EventQueue::open_with(dir, options, NOW).expect("the queue opens");
    (Arc::new(queue), recovered)
}

/// Reads the PROBLEMs and appends, as whoever holds no lock does.
fn append_mixed(queue: &EventQueue, batch: &[Entry]) -> std::io::Result<Receipt> {
    queue.append_mixed(batch, &queue.read_problems(batch))
}

fn read_all(queue: &Arc<EventQueue>, cursor: u64) -> Vec<Record> {
    let mut out = Vec::new();
    queue.consumer(cursor).read(usize::MAX / 2, &mut out).expect("readable");
    out
}

fn times(records: &[Record]) -> Vec<i64> {
    let time = |record: &Record| match &record.entry {
        Entry::Event(event) => Some(event.time),
        Entry::Forget(_) | Entry::End(_) => None,
    };
    records.iter().filter_map(time).collect()
}

fn open_times(recovered: &Recovery) -> Vec<i64> {
    recovered.open_problems.iter().map(|event| event.time).collect()
}

fn only_segment(dir: &Path) -> PathBuf {
    let segments = list_segments(&RealDisk, dir).expect("listable");
    assert_eq!(segments.len(), 1);
    segment_path(dir, segments[0])
}

/// Where the records of a segment begin, and its end.
fn record_starts(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![MAGIC.len()];
    while let Some((_, next)) = parse_record(bytes, starts[starts.len() - 1]) {
        starts.push(next);
    }
    starts
}

#[test]
fn what_is_appended_is_read_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, recovered) = open(dir.path(), SMALL);
    assert!(recovered.open_problems.is_empty());
    let sent = [problem(1, 10), problem(2, 20), event(1, Status::Ok, 30)];
    queue.append(&sent[..2]).expect("append");
    let mut consumer = queue.consumer(0);
    let mut out = Vec::new();
    consumer.read(1, &mut out).expect("read");
    assert_eq!(times(&out), [10]);
    queue.append(&sent[2..]).expect("append");
    consumer.read(10, &mut out).expect("read");
    assert_eq!(out.iter().map(|record| record.entry.clone()).collect::<Vec<_>>(), sent.clone().map(Entry::Event));
    consumer.read(10, &mut out).expect("read");
    assert_eq!(out.len(), 3, "nothing twice");
    assert!(out.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    drop((consumer, queue));

    let (queue, recovered) = open(dir.path(), SMALL);
    assert_eq!(recovered.open_problems, [sent[1].clone()]);
    assert_eq!(times(&read_all(&queue, out[0].seq)), [20, 30]);
    queue.append(&[problem(3, 40)]).expect("append");
    let last = read_all(&queue, out[2].seq);
    assert_eq!(times(&last), [40]);
    assert!(last[0].seq > out[2].seq);
}

#[test]
fn a_cursor_above_the_queue_hides_no_new_event() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    let cursor = first_seq_at(NOW) * 2;
    let mut consumer = queue.reader("alarm", cursor, None);
    queue.append(&[problem(1, 10)]).expect("append");
    let mut out = Vec::new();
    consumer.read(10, &mut out).expect("read");
    assert_eq!(times(&out), [10]);
    assert_eq!(out[0].seq, cursor + 1);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    queue.append(&[problem(1, 10), problem(2, 20), problem(3, 30)]).expect("append");
    drop(queue);
    let path = only_segment(dir.path());
    let whole = std::fs::read(&path).expect("readable");
    let starts = record_starts(&whole);
    let (start, end) = (starts[starts.len() - 2], starts[starts.len() - 1]);
    for cut in start..end {
        std::fs::write(&path, &whole[..cut]).expect("writable");
        let (queue, recovered) = open(dir.path(), SMALL);
        assert_eq!(recovered.torn_bytes_cut, (cut - start) as u64);
        assert_eq!(recovered.damaged, []);
        assert_eq!(open_times(&recovered), [10, 20]);
        queue.append(&[problem(4, 40)]).expect("append");
        assert_eq!(times(&read_all(&queue, 0)), [10, 20, 40], "cut at {cut}");
    }
}

/// Pages that a power cut kept from the disk are told from damage in the newest segment, and are damage in older ones.
#[test]
fn pages_that_were_never_written_are_told_from_damage() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), Options::default());
    for host in 0..60 {
        queue.append(&[problem(host, i64::from(host))]).expect("append");
    }
    drop(queue);
    let path = only_segment(dir.path());
    let mut bytes = std::fs::read(&path).expect("readable");
    assert!(bytes.len() > 3 * 4096, "{}", bytes.len());
    bytes[4096..8192].fill(0);
    std::fs::write(&path, &bytes).expect("writable");
    let found = || {
        let (_, recovered) = open(dir.path(), Options::default());
        (recovered.damaged.len(), recovered.unwritten.len(), recovered.snapshot_lost)
    };
    let (_, recovered) = open(dir.path(), Options::default());
    let place = recovered.unwritten[0].bytes.clone();
    assert!(place.start <= 4096 && place.end >= 8192 && place.end < bytes.len() as u64, "{place:?}");
    assert_eq!(found(), (0, 1, false));
    // A segment whose list of open problems is gone, behind which the next opening begins another one.
    let next = segment_path(dir.path(), first_seq_at(NOW) + 1000);
    std::fs::write(&next, "").expect("writable");
    assert_eq!(found(), (1, 0, true));
    assert_eq!(found(), (1, 0, false));
}

#[test]
fn a_damaged_record_is_reported_and_the_rest_is_read() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    queue.append(&[problem(1, 10), problem(2, 20), problem(3, 30)]).expect("append");
    drop(queue);
    let path = only_segment(dir.path());
    let whole = std::fs::read(&path).expect("readable");
    let starts = record_starts(&whole);
    let (start, end) = (starts[starts.len() - 3], starts[starts.len() - 2]);
    let damage = Damage { file: path.clone(), bytes: start as u64..end as u64 };
    for at in start..end {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).expect("writable");
        let (queue, recovered) = open(dir.path(), SMALL);
        assert_eq!(recovered.damaged, std::slice::from_ref(&damage), "byte {at}");
        assert_eq!(recovered.torn_bytes_cut, 0);
        assert_eq!(open_times(&recovered), [10, 30]);
        let mut consumer = queue.consumer(0);
        let mut out = Vec::new();
        consumer.read(10, &mut out).expect("read");
        assert_eq!(times(&out), [10, 30]);
        assert_eq!(consumer.take_trouble(), (vec![damage.clone()], 0));
    }
}

#[test]
fn an_event_that_is_not_understood_is_counted_and_passed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    queue.append(&[problem(1, 10)]).expect("append");
    drop(queue);
    let path = only_segment(dir.path());
    let mut bytes = std::fs::read(&path).expect("readable");
    push_record(&mut bytes, EVENT, first_seq_at(NOW) + 100, b"{\"of\":\"another version\"}").expect("short");
    std::fs::write(&path, &bytes).expect("writable");
    let (queue, recovered) = open(dir.path(), SMALL);
    assert_eq!(recovered.unreadable, 1);
    queue.append(&[problem(2, 20)]).expect("append");
    let mut consumer = queue.consumer(0);
    let mut out = Vec::new();
    consumer.read(10, &mut out).expect("read");
    assert_eq!(times(&out), [10, 20]);
    assert_eq!(consumer.take_trouble(), (vec![], 1));
}

#[test]
fn consumed_segments_go_and_open_problems_stay() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    queue.append(&[problem(1, 1)]).expect("append");
    let mut consumer = queue.consumer(0);
    let mut out = Vec::new();
    for time in 2..200 {
        let status = if time % 2 == 0 { Status::Problem } else { Status::Ok };
        queue.append(&[event(2, status, time)]).expect("append");
        consumer.read(10, &mut out).expect("read");
        queue.consumed("alarm", consumer.cursor).expect("delete");
        assert!(queue.stats().bytes < 3 * SMALL.segment_bytes, "{:?}", queue.stats());
    }
    assert_eq!(times(&out), (1..200).collect::<Vec<_>>());
    assert!(list_segments(&RealDisk, dir.path()).expect("listable").len() <= 2);
    drop((consumer, queue));
    let (queue, recovered) = open(dir.path(), SMALL);
    assert_eq!(open_times(&recovered), [1]);
    assert_eq!(queue.stats().open_problems, 1);
    assert_eq!(times(&read_all(&queue, out[out.len() - 1].seq)), [0; 0]);
}

#[test]
fn many_open_problems_do_not_make_each_append_a_rotation() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    for host in 0..500 {
        queue.append(&[problem(host, i64::from(host))]).expect("append");
        queue.tick().expect("room");
    }
    // 500 records of about 450 bytes; snapshots double, so 2,000 bytes grow to the whole in seven steps or so.
    assert!(queue.stats().segments < 12, "{:?}", queue.stats());
    assert_eq!(times(&read_all(&queue, 0)), (0..500).collect::<Vec<_>>());
    drop(queue);
    assert_eq!(open_times(&open(dir.path(), SMALL).1), (0..500).collect::<Vec<_>>());
}

#[test]
fn a_damaged_snapshot_is_made_good_from_the_segment_before() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    let hosts: Vec<_> = (0..10).map(|host| problem(host, i64::from(host))).collect();
    for event in &hosts {
        queue.append(std::slice::from_ref(event)).expect("append");
        queue.tick().expect("room");
    }
    let last = queue.lock().last();
    assert!(queue.stats().segments > 1 && last.events_at > 500);
    drop(queue);
    let path = segment_path(dir.path(), last.first_seq);
    let mut bytes = std::fs::read(&path).expect("readable");
    bytes[100] ^= 1;
    std::fs::write(&path, &bytes).expect("writable");
    let (queue, recovered) = open(dir.path(), SMALL);
    assert_eq!(recovered.damaged.len(), 1);
    assert_eq!(recovered.open_problems, hosts);
    assert_eq!(times(&read_all(&queue, 0)), (0..10).collect::<Vec<_>>());
    drop(queue);
    // The new segment's snapshot is whole, so the damaged one no longer matters.
    std::fs::remove_file(path).expect("removable");
    assert_eq!(open(dir.path(), SMALL).1.open_problems, hosts);
}

#[test]
fn forgotten_alarms_do_not_come_back() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    let mut expression = problem(1, 20);
    expression.rule =
        EventRule::Expression(Arc::new(Expression { id: 1, metric: "m".into(), ..Expression::default() }));
    queue.append(&[problem(1, 10), expression.clone()]).expect("append");
    let ids = [problem(1, 10).id(), problem(9, 0).id()];
    append_mixed(&queue, &ids.clone().map(Entry::Forget)).expect("forget");
    assert_eq!(queue.stats().open_problems, 1);
    drop(queue);
    let (queue, recovered) = open(dir.path(), SMALL);
    assert_eq!(recovered.open_problems, std::slice::from_ref(&expression));
    let read: Vec<Entry> = read_all(&queue, 0).into_iter().map(|record| record.entry).collect();
    let [first, second] = ids.map(Entry::Forget);
    assert_eq!(
        read,
        [Entry::Event(problem(1, 10)), Entry::Event(expression), first, second],
        "in order with the events"
    );
    let error = append_mixed(&queue, &[Entry::Forget("x_1_ff".into())]).expect_err("not an event id");
    assert!(error.to_string().contains("x_1_ff"), "{error}");
}

/// What ends an alarm without a recovery is made of its PROBLEM, wherever that is: in the file, in a snapshot, in the
/// batch.
#[test]
fn a_closing_with_a_reason_is_an_event_of_the_alarm() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    let over = |host, time| {
        Entry::End(AlarmEnd { id: problem(host, 0).id(), reason: "the host is in maintenance".into(), time })
    };
    queue.append(&[problem(1, 10), problem(2, 20)]).expect("append");
    (0..20).for_each(|time| {
        queue.append(&[event(9, Status::Ok, time)]).expect("append");
        queue.tick().expect("room");
    });
    assert!(queue.stats().segments > 1, "the PROBLEM of host 1 is in a snapshot");
    append_mixed(&queue, &[over(1, 100), Entry::Event(problem(3, 30)), over(3, 5), over(4, 100)]).expect("append");
    assert_eq!(queue.stats().open_problems, 1);
    let read: Vec<Entry> = read_all(&queue, 0).into_iter().map(|record| record.entry).collect();
    let [.., first, _, third, last] = &read[..] else { panic!("{read:?}") };
    for (what, host, time) in [(first, 1, 100), (third, 3, 30)] {
        let Entry::Event(end) = what else { panic!("{what:?}") };
        assert_eq!(
            (end.id(), end.status, end.time),
            (problem(host, 0).id(), Status::Ok, time),
            "never before its PROBLEM"
        );
        assert_eq!((end.left_value, end.current_step), (1.5, 1));
        assert_eq!(end.explanation.as_ref().map(|why| why.closed.as_str()), Some("the host is in maintenance"));
    }
    assert_eq!(*last, Entry::Forget(problem(4, 0).id()), "it was not open here");
    drop(queue);
    assert_eq!(open_times(&open(dir.path(), SMALL).1), [20]);
}

#[test]
fn an_event_that_no_record_can_hold_is_left_out() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), SMALL);
    let strategy = Strategy { id: 2, note: "x".repeat(RECORD_MAX), ..Strategy::default() };
    let long = Event { rule: EventRule::Strategy(Arc::new(strategy)), ..problem(2, 20) };
    assert_eq!(queue.append(std::slice::from_ref(&long)).expect("append").left_out, 1);
    assert_eq!(queue.append(&[problem(1, 10), long, problem(3, 30)]).expect("append").left_out, 1);
    assert_eq!((queue.stats().open_problems, queue.stats().appended), (2, 2));
    let read = read_all(&queue, 0);
    assert_eq!((times(&read), read[1].seq), (vec![10, 30], read[0].seq + 1));
    drop(queue);
    assert_eq!(open_times(&open(dir.path(), SMALL).1), [10, 30]);
}

/// Events go on in the room that was set aside, also after a start; beyond it an append says so.
#[test]
fn a_full_disk_takes_events_where_room_was_set_aside() {
    let disk = FakeDisk::default();
    let dir = Path::new("q");
    let options = Options { reserve_bytes: 4000, ..SMALL };
    let open = || EventQueue::open_on(Arc::new(disk.clone()), dir, options, NOW).expect("the queue opens");
    let queue = Arc::new(open().0);
    queue.append(&[problem(1, 0)]).expect("room");
    disk.set_room(Some(4100));
    queue.tick().expect("room is set aside");
    disk.set_room(Some(0));
    let kept = (1..).take_while(|time| queue.append(&[problem(1, *time)]).is_ok()).count();
    assert!(kept >= 5, "{kept} records of about 450 bytes");
    queue.tick().expect("a sync");
    assert!(queue.take_troubles().iter().any(|trouble| trouble.to_string().contains("room aside")));
    drop(queue);
    disk.restart_after_kill();
    let (queue, recovered) = open();
    assert_eq!((open_times(&recovered), recovered.damaged.len()), (vec![kept as i64], 0));
    queue.append(&[problem(1, 1000)]).expect("room again");
    assert_eq!(times(&read_all(&Arc::new(queue), 0)).len(), kept + 2);
}

#[test]
fn refuses_above_its_bound_and_formats_of_the_future() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), Options { bytes_max: 1000, ..SMALL });
    let error = (0..10).find_map(|time| queue.append(&[problem(1, time)]).err()).expect("full");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("alarm has not taken"), "{error}");
    drop(queue);
    let path = only_segment(dir.path());
    let mut bytes = std::fs::read(&path).expect("readable");
    bytes[7] = 9;
    std::fs::write(&path, &bytes).expect("writable");
    let error = format!("{:#}", EventQueue::open(dir.path(), Fsync::Never, NOW).err().expect("unknown format"));
    assert!(error.contains("has format 9"), "{error}");
}

/// A disk with no room, made by a limit on the size of files in a child process: the kernel writes what fits and then
/// refuses, as it does when a disk is full.
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().expect("temp dir");
    let program = std::env::current_exe().expect("this test's program");
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" --exact tests::child_with_a_full_disk --ignored";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(program)
        .env("HAWKEYE_TEST_QUEUE_DIR", dir.path())
        .output()
        .expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    let acknowledged: usize = std::fs::read_to_string(dir.path().join("acknowledged"))
        .expect("written by the child")
        .parse()
        .expect("a number");
    assert!(acknowledged > 10, "{acknowledged} events fitted into 8 KiB");
    let (queue, recovered) = open(dir.path(), Options::default());
    assert_eq!((recovered.torn_bytes_cut, recovered.damaged), (0, vec![]));
    queue.append(&[problem(0, -1)]).expect("there is room again");
    let mut expected: Vec<i64> = (0..acknowledged as i64).collect();
    expected.push(-1);
    assert_eq!(times(&read_all(&queue, 0)), expected);
}

#[test]
#[ignore = "runs in a child process of a_full_disk_leaves_nothing_half_written"]
fn child_with_a_full_disk() {
    let Some(dir) = std::env::var_os("HAWKEYE_TEST_QUEUE_DIR").map(PathBuf::from) else { return };
    let (queue, _) = open(&dir, Options::default());
    let mut acknowledged = 0;
    let error = loop {
        match queue.append(&[problem(acknowledged, i64::from(acknowledged))]) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains(".events"), "names the file: {error}");
    queue.append(&[problem(0, 0)]).expect_err("still full");
    assert_eq!(queue.stats().open_problems, acknowledged as usize);
    std::fs::write(dir.join("acknowledged"), acknowledged.to_string()).expect("another file has room");
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u32, bool)>),
    Read(usize),
    Forget(u32),
    Tick,
    /// From here on the disk has room for so many bytes.
    Room(Option<u64>),
    Restart,
}

/// (proptest's Strategy, not the field's.)
fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec((0..6u32, any::<bool>()), 1..4).prop_map(Step::Append),
        3 => (1..8usize).prop_map(Step::Read),
        1 => (0..6u32).prop_map(Step::Forget),
        2 => Just(Step::Tick),
        1 => prop_oneof![Just(None), (0..3000u64).prop_map(Some)].prop_map(Step::Room),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// Whoever was killed between an append and its note learns what was appended.
#[test]
fn a_writer_learns_how_much_of_its_last_batch_is_there() {
    let disk = FakeDisk::default();
    let open =
        |now| Arc::new(EventQueue::open_on(Arc::new(disk.clone()), Path::new("events"), SMALL, now).expect("opens").0);
    let queue = open(NOW);
    let first = queue.next_seq();
    assert_eq!(queue.records_from(first), 0);
    queue.append(&[event(1, Status::Problem, 1), event(2, Status::Problem, 1)]).expect("room");
    assert_eq!(queue.records_from(first), 2);
    drop(queue);
    disk.restart_after_kill();
    // Numbers begin anew with the time of a start.
    let queue = open(NOW + 1000);
    assert_eq!(queue.records_from(first), 2);
    let second = queue.next_seq();
    assert_eq!(queue.records_from(second), 0);
    queue.append(&[event(3, Status::Problem, 1)]).expect("room");
    assert_eq!(queue.records_from(second), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any order of appends, reads, upkeep, full disks and restarts: each event and each silent end that was answered
    /// is read once, in order, and the open problems are those of a plain map.
    #[test]
    fn behaves_like_a_list_and_a_map(steps in steps()) {
        let disk = FakeDisk::default();
        let open = |disk: &FakeDisk| {
            let opened = EventQueue::open_on(Arc::new(disk.clone()), Path::new("events"), SMALL, NOW);
            opened.map(|(queue, recovery)| (Arc::new(queue), recovery)).expect("opens")
        };
        let (mut queue, _) = open(&disk);
        let mut consumer = queue.consumer(0);
        let (mut sent, mut got, mut cursor, mut time) = (Vec::new(), Vec::new(), 0, 0);
        let mut standing: BTreeMap<u32, i64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append(batch) => {
                    let mut next = |(host, is_problem): (u32, bool)| {
                        time += 1;
                        (host, event(host, if is_problem { Status::Problem } else { Status::Ok }, time))
                    };
                    let batch: Vec<(u32, Event)> = batch.into_iter().map(&mut next).collect();
                    let events: Vec<Event> = batch.iter().map(|(_, event)| event.clone()).collect();
                    if queue.append(&events).is_ok() {
                        for (host, event) in batch {
                            match event.status {
                                Status::Problem => standing.insert(host, event.time),
                                Status::Ok => standing.remove(&host),
                            };
                        }
                        sent.extend(events.into_iter().map(Entry::Event));
                    }
                }
                Step::Read(count) => {
                    consumer.read(count, &mut got).expect("read");
                    cursor = got.last().map_or(0, |record: &Record| record.seq);
                    queue.consumed("alarm", cursor).expect("delete");
                }
                Step::Forget(host) => {
                    let forget = [Entry::Forget(problem(host, 0).id())];
                    if append_mixed(&queue, &forget).is_ok() {
                        sent.extend(forget);
                        standing.remove(&host);
                    }
                }
                Step::Tick => queue.tick().expect("syncs"),
                Step::Room(room) => disk.set_room(room),
                Step::Restart => {
                    disk.restart_after_kill();
                    let (again, recovered) = open(&disk);
                    let open: BTreeSet<i64> = recovered.open_problems.iter().map(|event| event.time).collect();
                    prop_assert_eq!(open, standing.values().copied().collect::<BTreeSet<_>>());
                    prop_assert_eq!((recovered.torn_bytes_cut, recovered.damaged), (0, Vec::new()));
                    queue = again;
                    consumer = queue.consumer(cursor);
                }
            }
            prop_assert_eq!(queue.stats().open_problems, standing.len());
        }
        consumer.read(usize::MAX / 2, &mut got).expect("read");
        prop_assert_eq!(got.into_iter().map(|record| record.entry).collect::<Vec<_>>(), sent);
    }
}

/// Records of about 450 bytes; each makes a segment of its own.
const ONE_EACH: Options = Options { fsync: Fsync::Never, segment_bytes: 100, bytes_max: 1 << 20, reserve_bytes: 0 };

fn read_new(consumer: &mut Consumer) -> Vec<i64> {
    let mut out = Vec::new();
    consumer.read(usize::MAX / 2, &mut out).expect("readable");
    times(&out)
}

#[test]
fn a_segment_goes_when_every_reader_has_passed_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), ONE_EACH);
    queue.expect("alarm");
    let mut redis = queue.reader("redis", queue.end_when_opened(), Some(1 << 20));
    for time in 0..10 {
        queue.append(&[event(1, Status::Ok, time)]).expect("append");
        queue.tick().expect("room");
    }
    assert_eq!(read_new(&mut redis), (0..10).collect::<Vec<_>>());
    queue.consumed("redis", redis.cursor()).expect("delete");
    assert_eq!(queue.lag("redis"), Lag::default());
    assert_eq!(queue.stats().segments, 11, "alarm was named, and has not said where it stands");
    let mut alarm = queue.reader("alarm", 0, None);
    let mut some = Vec::new();
    alarm.read(4, &mut some).expect("read");
    queue.consumed("alarm", alarm.cursor()).expect("delete");
    assert_eq!((queue.stats().segments, queue.lag("alarm").records), (7, 6));
    assert_eq!(queue.lag("alarm").bytes, queue.stats().bytes);
    let mut late = queue.reader("late", alarm.cursor(), Some(1 << 20));
    read_new(&mut alarm);
    queue.consumed("alarm", alarm.cursor()).expect("delete");
    assert_eq!(queue.stats().segments, 7);
    assert_eq!(read_new(&mut late), (4..10).collect::<Vec<_>>());
    queue.consumed("late", late.cursor()).expect("delete");
    assert_eq!(queue.stats().segments, 1);
    queue.consumed("alarm", 1).expect("nothing");
    assert_eq!(queue.lag("alarm").records, 0, "a cursor does not go back");
}

#[test]
fn who_lags_too_far_loses_the_oldest_and_holds_up_nobody() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), ONE_EACH);
    let mut alarm = queue.reader("alarm", 0, None);
    let mut redis = queue.reader("redis", 0, Some(5000));
    let mut first = Vec::new();
    queue.append(&[problem(1, 0)]).expect("append");
    redis.read(1, &mut first).expect("read");
    for time in 1..100 {
        queue.append(&[event(2, Status::Ok, time)]).expect("append");
        assert_eq!(read_new(&mut alarm).last(), Some(&time));
        queue.consumed("alarm", alarm.cursor()).expect("delete");
        queue.tick().expect("room");
        assert!(queue.stats().bytes < 7000, "{:?}", queue.stats());
    }
    // What it had read and not said is counted, too.
    let lag = queue.lag("redis");
    let got = read_new(&mut redis);
    assert!(lag.dropped > 80 && got.len() >= 5, "{lag:?} {got:?}");
    assert_eq!(got, (lag.dropped as i64..100).collect::<Vec<_>>(), "the newest, without a hole");
    assert_eq!((lag.records, lag.bytes), (got.len() as u64, queue.stats().bytes));
    queue.consumed("redis", redis.cursor()).expect("delete");
    assert_eq!((queue.lag("redis").records, queue.stats().segments), (0, 1));
    drop((alarm, redis, queue));
    assert_eq!(open_times(&open(dir.path(), ONE_EACH).1), [0], "an open PROBLEM lives on in the snapshots");
}

#[test]
fn nothing_is_dropped_for_one_reader_that_another_still_needs() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), ONE_EACH);
    queue.expect("alarm");
    let mut redis = queue.reader("redis", 0, Some(5000));
    for time in 0..100 {
        queue.append(&[event(1, Status::Ok, time)]).expect("append");
        queue.tick().expect("room");
    }
    assert_eq!(queue.lag("redis").dropped, 0);
    assert_eq!(read_new(&mut redis), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_drops_for_laggards_before_it_refuses() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, _) = open(dir.path(), Options { bytes_max: 3000, ..ONE_EACH });
    let _redis = queue.reader("redis", 0, Some(1 << 40));
    for time in 0..100 {
        queue.append(&[event(1, Status::Ok, time)]).expect("append");
        queue.tick().expect("room");
    }
    let lag = queue.lag("redis");
    assert!(lag.dropped > 80 && lag.dropped + lag.records == 100, "{lag:?}");
}

#[test]
fn a_lag_is_counted_over_restarts() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut cursor = 0;
    for start in 0..3 {
        let (queue, _) = open(dir.path(), SMALL);
        assert_eq!(queue.end_when_opened() == 0, start == 0);
        let mut redis = queue.reader("redis", cursor, None);
        assert_eq!(queue.lag("redis").records, start * 2);
        queue.append(&[problem(1, 1), problem(2, 2), problem(3, 3)]).expect("append");
        assert_eq!(queue.lag("redis").records, start * 2 + 3);
        let mut one = Vec::new();
        redis.read(1, &mut one).expect("read");
        cursor = redis.cursor();
        queue.consumed("redis", cursor).expect("delete");
        assert_eq!(queue.lag("redis").records, start * 2 + 2);
    }
}

/// Everything that a file can hold, in three segments; `tick` is called behind each append.
fn write_pinned(queue: &EventQueue, tick: &mut dyn FnMut()) {
    let term = |text: &str, counter: &str, points: Vec<Point>| TermExplanation {
        text: text.into(),
        counter: counter.into(),
        holds: true,
        words: "3 of 3 points below 5".into(),
        points,
    };
    let points = vec![Point { time: 5, value: 1.25 }, Point { time: 10, value: -0.5 }];
    let explanation = Explanation {
        rule_version: "0123456789abcdef".into(),
        terms: vec![term("all(#3) < 5", "", points), term("diff(#2) of df > 0", "df/mount=/\u{e4}", Vec::new())],
        ..Explanation::default()
    };
    let explained = Event { explanation: Some(Box::new(explanation)), ..problem(2, 20) };
    let expression =
        Expression { id: 1, metric: "m".into(), tags: [("a".into(), "b".into())].into(), ..Expression::default() };
    let by_expression = Event { rule: EventRule::Expression(Arc::new(expression)), ..problem(1, 30) };
    let over = AlarmEnd { id: explained.id(), reason: "the host is in maintenance".into(), time: 50 };
    queue.append(&[problem(1, 10), explained]).expect("append");
    tick();
    queue.append(std::slice::from_ref(&by_expression)).expect("append");
    tick();
    queue.append(&[problem(3, 35), event(9, Status::Ok, 36)]).expect("append");
    tick();
    append_mixed(queue, &[Entry::Forget(problem(1, 0).id()), Entry::Event(problem(4, 40))]).expect("append");
    tick();
    append_mixed(queue, &[Entry::End(over), Entry::Event(event(3, Status::Ok, 60))]).expect("append");
    tick();
    queue.append(&[problem(5, 70)]).expect("append");
}

/// testdata/v01 was written by the first version with this script.
#[test]
fn the_released_format_is_written_and_read() {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v01");
    let dir = tempfile::tempdir().expect("temp dir");
    let options = Options { fsync: Fsync::EverySecond, segment_bytes: 1000, bytes_max: 1 << 20, reserve_bytes: 700 };
    let queue = open(dir.path(), options).0;
    write_pinned(&queue, &mut || queue.tick().expect("room"));
    let segments = list_segments(&RealDisk, &released).expect("listable");
    assert_eq!(segments.len(), 3);
    for first_seq in segments {
        let written = std::fs::read(segment_path(dir.path(), first_seq)).expect("written");
        assert!(written == std::fs::read(segment_path(&released, first_seq)).expect("pinned"), "{first_seq}");
    }
}

/// Found by the fuzzer: only what was appended to a segment is superseded by the next one.
#[test]
fn the_end_of_a_snapshot_does_not_end_its_segment() {
    let dir = tempfile::tempdir().expect("temp dir");
    for (first_seq, host) in [(5, 1), (10, 2)] {
        let mut bytes = MAGIC.to_vec();
        push_record(&mut bytes, SNAPSHOT_END, 1 << 61, &0u32.to_le_bytes()).expect("short");
        for seq in [first_seq, first_seq + 5] {
            let json = problem(host, seq as i64).to_json();
            push_record(&mut bytes, EVENT, seq, json.as_bytes()).expect("short");
        }
        std::fs::write(segment_path(dir.path(), first_seq), bytes).expect("writable");
    }
    let (queue, recovery) = open(dir.path(), SMALL);
    assert_eq!((recovery.damaged, recovery.unreadable), (Vec::new(), 0));
    assert_eq!(times(&read_all(&queue, 0)), [5, 10, 15], "what both segments hold is read once, in the newer one");
    assert_eq!(read_all(&queue, 0)[1].seq, 10);
}
