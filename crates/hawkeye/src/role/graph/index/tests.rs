//! The index against a real MySQL or MariaDB, which `TEST_MYSQL` names (`tests/services/mysql.sh` starts one and runs
//! those tests, which are ignored elsewhere), and without one where none is needed.

use super::tables::{Freshness, Series, Tables, Written};
use super::*;
use crate::config::MysqlUrl;
use crate::watch::health::Health;
use events::EventQueue;
use model::{CounterType, Point, Sample, SeriesKey, Tags};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, MySqlConnection, Row};
use tokio::sync::{Mutex, MutexGuard};

const NOW: i64 = 1_700_000_000;

/// A database of its own with Open-Falcon's tables.
struct Database {
    url: MysqlUrl,
    connection: MySqlConnection,
    /// One test at a time has the server, so that what it counts is of that test.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::const_new(());

impl Database {
    async fn new(name: &str) -> Database {
        let server = std::env::var("TEST_MYSQL").expect("TEST_MYSQL=mysql://user:password@host:port names a MySQL");
        let url = MysqlUrl::parse(&format!("{server}/{name}")).expect("TEST_MYSQL is a URL without a database");
        let turn = TURN.lock().await;
        let options = url.options("").expect("a URL");
        let mut connection = options.database("information_schema").connect().await.expect("MySQL answers");
        let schema = include_str!("../../../../../../tests/services/graph_index.sql")
            .replace("DATABASE graph", &format!("DATABASE {name}"))
            .replace("USE graph", &format!("USE {name}"));
        let script = format!("DROP DATABASE IF EXISTS {name}; {schema}");
        sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await.expect("the schema is created");
        Database { url, connection, _turn: turn }
    }

    async fn tables(&self) -> Tables {
        Tables::connect(&self.url.options("").expect("a URL")).await.expect("the tables are there")
    }

    async fn run(&mut self, sql: &str) {
        self.connection.execute(AssertSqlSafe(sql.to_string())).await.expect(sql);
    }

    /// The rows of a query, their columns joined by spaces.
    async fn rows(&mut self, sql: &str) -> Vec<String> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_string())).fetch_all(&mut self.connection).await.expect(sql);
        let column = |row: &sqlx::mysql::MySqlRow, i| row.try_get_unchecked::<String, _>(i).expect("text or number");
        rows.iter().map(|row| (0..row.len()).map(|i| column(row, i)).collect::<Vec<_>>().join(" ")).collect()
    }

    async fn counters(&mut self) -> Vec<String> {
        let sql = "SELECT e.endpoint, c.counter, c.step, c.type, c.ts FROM endpoint_counter c \
                   JOIN endpoint e ON e.id = c.endpoint_id ORDER BY e.id, c.id";
        self.rows(sql).await
    }
}

fn series(endpoint: &str, counter: &str, ts: i64) -> Series {
    let tags = counter.split_once('/').map_or("", |(_, tags)| tags);
    let (endpoint, counter, tags) = (endpoint.to_string(), counter.to_string(), tags.to_string());
    Series { endpoint, counter, tags, step: 60, ds_type: "GAUGE", ts, create: true }
}

fn written(inserted: u64, refreshed: u64, refused: u64) -> Written {
    Written { inserted, refreshed, refused }
}

async fn write(tables: &mut Tables, series: &[Series], grain: i64) -> Written {
    tables.write(series, Freshness { now: NOW, grain }).await.expect("MySQL takes it");
    tables.take_written()
}

#[tokio::test]
#[ignore = "needs MySQL: tests/services/mysql.sh"]
async fn rows_are_as_the_original_writes_them_and_once() {
    let mut database = Database::new("hawkeye_test_rows").await;
    let mut tables = database.tables().await;
    let mut page = vec![
        series("web1", "cpu.idle", NOW - 60),
        series("web1", "df.bytes.used/fstype=ext4,mount=/", NOW),
        series("db1", "cpu.idle", NOW - 120),
        Series { ds_type: "DERIVE", step: 30, ..series("db1", "net.if.in.bytes/iface=eth0", NOW - 30) },
        series("db1", "net.if.out.bytes/iface=eth0", NOW - 90),
    ];
    assert_eq!(write(&mut tables, &page, 0).await, written(2 + 3 + 5, 0, 0));
    let endpoints = "SELECT endpoint, ts FROM endpoint ORDER BY endpoint";
    assert_eq!(database.rows(endpoints).await, [format!("db1 {}", NOW - 30), format!("web1 {NOW}")]);
    let tags =
        "SELECT e.endpoint, t.tag, t.ts FROM tag_endpoint t JOIN endpoint e ON e.id = t.endpoint_id ORDER BY 1, 2";
    let expected =
        [format!("db1 iface=eth0 {}", NOW - 30), format!("web1 fstype=ext4 {NOW}"), format!("web1 mount=/ {NOW}")];
    assert_eq!(database.rows(tags).await, expected);
    let expected = [
        format!("db1 cpu.idle 60 GAUGE {}", NOW - 120),
        format!("db1 net.if.in.bytes/iface=eth0 30 DERIVE {}", NOW - 30),
        format!("db1 net.if.out.bytes/iface=eth0 60 GAUGE {}", NOW - 90),
        format!("web1 cpu.idle 60 GAUGE {}", NOW - 60),
        format!("web1 df.bytes.used/fstype=ext4,mount=/ 60 GAUGE {NOW}"),
    ];
    assert_eq!(database.counters().await, expected);
    let created = "SELECT COUNT(*) FROM endpoint_counter WHERE ABS(TIMESTAMPDIFF(SECOND, t_create, NOW())) > 600";
    assert_eq!(database.rows(created).await, ["0"], "t_create is the server's time");

    // Again: nothing. A little later: nothing within the grain, else everything, and no number is used up by it.
    let numbers = "SELECT GROUP_CONCAT(auto_increment ORDER BY table_name) FROM information_schema.tables \
                   WHERE table_schema = 'hawkeye_test_rows'";
    let used = database.rows(numbers).await;
    assert_eq!(write(&mut tables, &page, 0).await, written(0, 0, 0));
    page.iter_mut().for_each(|one| one.ts += 1000);
    assert_eq!(write(&mut tables, &page, 3600).await, written(0, 0, 0));
    for _ in 0..3 {
        page.iter_mut().for_each(|one| one.ts += 1);
        assert_eq!(write(&mut tables, &page, 0).await, written(0, 10, 0));
    }
    assert_eq!(database.rows(numbers).await, used);
    assert_eq!(database.rows(endpoints).await, [format!("db1 {}", NOW + 973), format!("web1 {}", NOW + 1003)]);

    // A time never goes back, unless it was nonsense; a type or step that changed is written at once.
    page.iter_mut().for_each(|one| one.ts -= 5000);
    assert_eq!(write(&mut tables, &page, 0).await, written(0, 0, 0));
    database.run("UPDATE endpoint SET ts = 2000000000 WHERE endpoint = 'db1'").await;
    assert_eq!(write(&mut tables, &page, 3600).await, written(0, 1, 0));
    page[0] = Series { step: 10, ds_type: "DERIVE", ..page[0].clone() };
    assert_eq!(write(&mut tables, &page, 3600).await, written(0, 1, 0));
    assert_eq!(database.counters().await[3], format!("web1 cpu.idle 10 DERIVE {}", page[0].ts));
}

#[tokio::test]
#[ignore = "needs MySQL: tests/services/mysql.sh"]
async fn pages_of_any_size_take_few_statements() {
    let mut database = Database::new("hawkeye_test_batches").await;
    let mut tables = database.tables().await;
    // As long as names may be, so that statements are as long as they get; more tags than rows of a statement.
    let long = |i: usize| format!("{i:03}{}", "中".repeat(252));
    let tags = |i: usize| (0..5).map(|k| format!("k{k}={i}")).collect::<Vec<_>>().join(",");
    let mut page: Vec<Series> = (0..ROWS_MAX).map(|i| series(&long(i), &format!("m/{}", tags(i)), NOW)).collect();
    let counter = page[0].counter.clone() + &"中".repeat(255 - page[0].counter.chars().count());
    page[0] = series(&long(0), &counter, NOW);
    let statements = "SHOW GLOBAL STATUS WHERE variable_name = 'Com_stmt_execute'";
    let executed =
        |rows: Vec<String>| rows[0].rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
    assert_eq!(write(&mut tables, &[], 0).await, written(0, 0, 0));
    let before = executed(database.rows(statements).await);
    assert_eq!(write(&mut tables, &page, 0).await, written(7 * ROWS_MAX as u64, 0, 0));
    let count = executed(database.rows(statements).await) - before;
    // One page of endpoints, five of tags and one of counters each ask what is there and what is not; one question more
    // is for the numbers of the new endpoints.
    assert_eq!(count, 7 * 2 + 1);
    assert_eq!(database.rows("SELECT COUNT(*) FROM tag_endpoint").await, [(5 * ROWS_MAX).to_string()]);
    assert_eq!(write(&mut tables, &page, 0).await, written(0, 0, 0));
}

#[tokio::test]
#[ignore = "needs MySQL: tests/services/mysql.sh"]
async fn texts_are_data() {
    let mut database = Database::new("hawkeye_test_texts").await;
    let mut tables = database.tables().await;
    let endpoints = ["'; DROP TABLE endpoint; -- ", "a\\'b\"c%_?", "主机-1", "{}"];
    let page: Vec<Series> = endpoints.iter().map(|name| series(name, "m?'/k='\\,标签=值", NOW)).collect();
    assert_eq!(write(&mut tables, &page, 0).await, written(4 + 8 + 4, 0, 0));
    assert_eq!(write(&mut tables, &page, 0).await, written(0, 0, 0));
    let expected: Vec<String> =
        endpoints.iter().map(|name| format!("{name} m?'/k='\\,标签=值 60 GAUGE {NOW}")).collect();
    let mut rows = database.counters().await;
    rows.sort_by_key(|row| expected.iter().position(|expected| expected == row));
    assert_eq!(rows, expected);
}

#[tokio::test]
#[ignore = "needs MySQL: tests/services/mysql.sh"]
async fn names_that_mysql_takes_for_the_same_share_a_row() {
    let mut database = Database::new("hawkeye_test_case").await;
    let mut tables = database.tables().await;
    let page = [series("web", "m/k=a", NOW), series("Web", "n", NOW), series("WEB ", "M/k=A", NOW)];
    write(&mut tables, &page, 0).await;
    write(&mut tables, &page, 0).await;
    assert_eq!(database.rows("SELECT COUNT(*) FROM endpoint").await, ["1"]);
    assert_eq!(database.rows("SELECT COUNT(*) FROM tag_endpoint").await, ["1"]);
    let mut counters = database.rows("SELECT LOWER(counter) FROM endpoint_counter").await;
    counters.sort();
    assert_eq!(counters, ["m/k=a", "n"], "all have the number of the one row");
}

#[tokio::test]
#[ignore = "needs MySQL: tests/services/mysql.sh"]
async fn a_row_that_mysql_refuses_keeps_no_other_from_being_written() {
    let mut database = Database::new("hawkeye_test_refused").await;
    database.run("ALTER TABLE endpoint_counter MODIFY counter VARCHAR(20) NOT NULL").await;
    database.run("ALTER TABLE endpoint MODIFY endpoint VARCHAR(10) NOT NULL").await;
    let mut tables = database.tables().await;
    let counter = |i: usize| if [0, 50, 51, 99].contains(&i) { "m".repeat(21) } else { format!("m{i}") };
    let mut page: Vec<Series> = (0..100).map(|i| series("web", &counter(i), NOW)).collect();
    page.push(series("much-too-long", "m", NOW));
    // Three texts are the same row.
    assert_eq!(write(&mut tables, &page, 0).await, written(1 + 96, 0, 2));
    assert_eq!(database.counters().await.len(), 96);
    page.iter_mut().for_each(|one| one.ts += 60);
    assert_eq!(write(&mut tables, &page, 0).await, written(0, 1 + 96, 2), "also what is there can be refreshed");
}

#[tokio::test]
#[ignore = "needs MySQL: tests/services/mysql.sh"]
async fn what_was_deleted_comes_back_for_those_that_report() {
    let mut database = Database::new("hawkeye_test_deleted").await;
    let mut tables = database.tables().await;
    let mut page = vec![series("dead", "m/k=v", NOW), series("alive", "m/k=v", NOW)];
    write(&mut tables, &page, 0).await;
    database.run("DELETE FROM endpoint").await;
    database.run("DELETE FROM endpoint_counter").await;
    page[0].create = false;
    assert_eq!(write(&mut tables, &page, 0).await, written(3, 0, 0), "under a new number of the endpoint");
    assert_eq!(database.counters().await, [format!("alive m/k=v 60 GAUGE {NOW}")]);
}

#[tokio::test]
#[ignore = "needs MySQL: tests/services/mysql.sh"]
async fn what_is_wrong_with_mysql_is_said_with_its_fix() {
    let mut database = Database::new("hawkeye_test_fixes").await;
    let whole = database.url.options("").expect("a URL");
    let check = async |options: &MySqlConnectOptions, part: &str| {
        let error = Tables::connect(options).await.err().expect(part);
        let fix = tables::fix(&error);
        assert!(fix.contains(part), "{error} gave {fix}");
        assert!(!error.to_string().contains("secret"), "{error}");
    };
    check(&whole.clone().password("secret"), "password").await;
    check(&whole.clone().database("hawkeye_test_nowhere"), "database").await;
    check(&whole.clone().port(1), "address").await;
    database.run("ALTER TABLE endpoint_counter CHANGE counter name VARCHAR(255) NOT NULL").await;
    check(&whole, "tables").await;
    database.run("DROP TABLE tag_endpoint").await;
    check(&whole, "tables").await;
}

/// An engine, its series, and an index over them.
struct Bench {
    dir: tempfile::TempDir,
    engine: Arc<Engine>,
    url: MysqlUrl,
    index: Index,
}

impl Bench {
    fn new(url: MysqlUrl) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let options = store::Options { dir: dir.path().join("store"), shard_count: 1, ..store::Options::default() };
        let (store, _) = store::Store::open(options, clock::now()).expect("a store");
        let queue =
            EventQueue::open(&dir.path().join("events"), events::Fsync::Never, clock::now()).expect("a queue").0;
        let engine = Arc::new(Engine::new(store, 1, judge::Options::default(), Some(Arc::new(queue))));
        Bench { dir, engine, url, index: Index::default() }
    }

    fn task(&self, refresh_s: i64) -> Task {
        let file = self.dir.path().join("index-progress.json");
        let plan = Plan::new(Progress::load(&file, &self.url.place(DATABASE), clock::now()), refresh_s);
        let options = self.url.options(DATABASE).expect("a URL");
        let outage = Health::default().outage_logged_elsewhere("the index");
        Task::new(self.index.clone(), self.engine.clone(), options, file, plan, outage)
    }

    fn push(&self, endpoint: &str, metric: &str, counter_type: CounterType, time: i64) -> SeriesId {
        let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical("k=v") };
        let series = self.engine.create(key, counter_type, 60, time).expect("room");
        self.engine
            .append(&[Sample { series, point: Point { time, value: 1.0 } }], time, std::time::Instant::now())
            .expect("room");
        series
    }

    /// Rows inserted and refreshed since the last call.
    fn written(&self) -> (u64, u64) {
        (self.index.0.inserted.swap(0, Relaxed), self.index.0.refreshed.swap(0, Relaxed))
    }
}

#[tokio::test]
#[ignore = "needs MySQL: tests/services/mysql.sh"]
async fn new_changed_and_refreshed_series_are_written() {
    let mut database = Database::new("hawkeye_test_task").await;
    let bench = Bench::new(database.url.clone());
    let now = clock::now();
    bench.push("web", "a", CounterType::Gauge, now - 7000);
    let mut task = bench.task(3600);
    task.turn().await.expect("MySQL answers");
    assert_eq!(bench.written(), (3, 0));
    assert_eq!(database.counters().await, [format!("web a/k=v 60 GAUGE {}", now - 7000)]);
    let b = bench.push("web", "b", CounterType::Gauge, now - 7000);
    task.turn().await.expect("MySQL answers");
    assert_eq!(bench.written(), (1, 0));

    // A known series changes its type.
    bench.push("web", "b", CounterType::Counter, now - 6900);
    task.turn().await.expect("MySQL answers");
    assert_eq!(database.counters().await[1], format!("web b/k=v 60 DERIVE {}", now - 6900));
    bench.written();

    // After a restart nothing is written again, but what is new is.
    task.save().await;
    let c = bench.push("web", "c", CounterType::Gauge, now);
    let mut task = bench.task(3600);
    task.turn().await.expect("MySQL answers");
    assert_eq!(bench.written(), (1, 2), "one series; its endpoint and tag have a newer time");

    // The walk: what reports gets its time, and its row if that was deleted; what is silent gets its time only.
    database.run("DELETE FROM endpoint_counter WHERE counter IN ('a/k=v', 'c/k=v')").await;
    bench.push("web", "b", CounterType::Counter, now - 5000);
    (task.plan.progress.walk_from, task.plan.progress.walk_began) = (0, now - 3600);
    task.turn().await.expect("MySQL answers");
    let expected = [format!("web b/k=v 60 DERIVE {}", now - 5000), format!("web c/k=v 60 GAUGE {now}")];
    assert_eq!(database.counters().await, expected);

    // All at once: also the silent one. A deleted series keeps its row, as with the original.
    assert!(bench.index.update_all());
    assert!(!bench.index.update_all(), "one run at a time");
    bench.engine.remove_series(c).expect("room");
    bench.push("web", "b", CounterType::Counter, now - 4999);
    task.turn().await.expect("MySQL answers");
    assert_eq!(bench.index.running(), 0);
    let mut counters = database.counters().await;
    counters.sort();
    let silent = format!("web a/k=v 60 GAUGE {}", now - 7000);
    assert_eq!(counters, [silent, format!("web b/k=v 60 DERIVE {}", now - 4999), expected[1].clone()]);
    assert!(bench.index.update_all(), "and then the next");
    assert_eq!(bench.engine.store().newest_in_memory(b).map(|point| point.time), Some(now - 4999));
}

#[tokio::test]
async fn while_mysql_is_away_nothing_is_lost_and_pauses_grow() {
    let bench = Bench::new(MysqlUrl::parse("mysql://falcon:secret@127.0.0.1:1/graph").expect("a URL"));
    let now = clock::now();
    let mut task = bench.task(3600);
    let mut pauses = Vec::new();
    for i in 0..9 {
        bench.push(&format!("web{i}"), "m", CounterType::Gauge, now);
        let error = task.turn().await.expect_err("nobody listens there");
        pauses.push(task.note_failure(&error).as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(task.plan.progress.new_from, 0);
    let page = page_of(&bench.index);
    for line in ["index_up 0", "index_waiting_series 9", "index_failures_total 9"] {
        assert!(page.contains(&format!("\nhawkeye_{line}\n")), "{page}");
    }
}

#[tokio::test]
#[ignore = "needs MySQL: tests/services/mysql.sh"]
async fn what_came_while_mysql_was_away_is_written_later() {
    let bench = Bench::new(MysqlUrl::parse("mysql://falcon:secret@127.0.0.1:1/graph").expect("a URL"));
    let mut task = bench.task(3600);
    for i in 0..9 {
        bench.push(&format!("web{i}"), "m", CounterType::Gauge, clock::now());
    }
    task.turn().await.expect_err("nobody listens there");
    let mut database = Database::new("hawkeye_test_away").await;
    task.options = database.url.options("").expect("a URL");
    task.turn().await.expect("MySQL answers");
    assert_eq!(database.counters().await.len(), 9);
    let page = page_of(&bench.index);
    for line in ["index_up 1", "index_waiting_series 0", "index_rows_inserted_total 27"] {
        assert!(page.contains(&format!("\nhawkeye_{line}\n")), "{page}");
    }
}

#[tokio::test]
async fn a_series_whose_name_does_not_fit_is_left_out_and_counted() {
    let fits = |text: String| series(&text, &text, NOW).misfit();
    assert_eq!(fits("x".repeat(255)), None);
    assert_eq!(fits("中".repeat(255)), None, "characters count, not bytes");
    assert_eq!(fits("x".repeat(256)), Some("endpoint.endpoint"));
    assert_eq!(series("web", &"x".repeat(256), NOW).misfit(), Some("endpoint_counter.counter"));
    assert_eq!(series("web", "smile/😀=1", NOW).misfit(), Some("endpoint_counter.counter"));

    let bench = Bench::new(MysqlUrl::parse("mysql://falcon:secret@127.0.0.1:1/graph").expect("a URL"));
    bench.push("web", &"m".repeat(300), CounterType::Gauge, clock::now());
    let mut task = bench.task(3600);
    task.turn().await.expect("MySQL is not needed for nothing");
    assert_eq!(bench.index.0.left_out.load(Relaxed), 1);
    assert_eq!(task.plan.progress.new_from, 1, "it does not stand in the way");
}

/// One connection that is cut is no reason; MySQL that is away is, until it is back.
#[tokio::test]
async fn health_says_that_mysql_is_away() {
    let bench = Bench::new(MysqlUrl::parse("mysql://falcon:secret@127.0.0.1:1/graph").expect("a URL"));
    let (mut task, health) = (bench.task(3600), Health::default());
    task.outage = health.outage_logged_elsewhere("the index cannot be written");
    bench.push("web", "m", CounterType::Gauge, clock::now());
    for is_told in [false, true, true] {
        let error = task.turn().await.expect_err("nobody listens there");
        task.note_failure(&error);
        assert_eq!(!health.reasons().is_empty(), is_told);
    }
    let line = health.reasons()[0].line();
    assert!(line.contains("refused") && line.contains("address") && !line.contains("secret"), "{line}");
    task.note_success();
    assert_eq!(health.reasons(), []);
}

#[tokio::test]
async fn where_the_index_stands_is_kept_per_database() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("index-progress.json");
    assert_eq!(Progress::load(&file, "a:3306/graph", NOW), Progress::none("a:3306/graph", NOW));
    let progress = Progress { new_from: 7, walk_from: 5, ..Progress::none("a:3306/graph", NOW - 10) };
    progress.save(&file).await.expect("room");
    assert_eq!(Progress::load(&file, "a:3306/graph", NOW), progress);
    assert_eq!(Progress::load(&file, "b:3306/graph", NOW), Progress::none("b:3306/graph", NOW));
    std::fs::write(&file, "{\"place\": \"a:33").expect("room");
    assert_eq!(Progress::load(&file, "a:3306/graph", NOW), Progress::none("a:3306/graph", NOW));
}

fn page_of(index: &Index) -> String {
    let (metrics, shown) = (metrics::Metrics::new(), index.clone());
    metrics.source(move |figures| shown.show(figures));
    metrics.text()
}
