//! Portals of which a page is damaged: an alarm is delivered, or the start says why not.

use super::*;
use crate::portal::tests::fill;
use crate::rules::snapshot::Snapshot;
use crate::watch::health::Reason;
use std::collections::BTreeMap;
use std::path::Path;

/// SQLite's page.
const PAGE_BYTES: usize = 4096;

/// Rows of each table that a site fills: a statement for [`fill`], and how many.
const ROWS: [(&str, i64); 13] = [
    ("INSERT INTO uic.user (name, phone, email) SELECT 'user ' || i, i, 'u@x'", 100),
    ("INSERT INTO uic.team (name) SELECT 'team ' || i", 20),
    ("INSERT INTO uic.rel_team_user (tid, uid) SELECT i % 20 + 1, i", 100),
    ("INSERT INTO uic.session (uid, sig, expired) SELECT i, 'secret ' || i, 1", 200),
    ("INSERT INTO falcon_portal.host (hostname) SELECT 'host ' || i", 300),
    ("INSERT INTO falcon_portal.grp (grp_name) SELECT 'group ' || i", 30),
    ("INSERT INTO falcon_portal.grp_host (grp_id, host_id) SELECT i % 30 + 1, i", 300),
    ("INSERT INTO falcon_portal.tpl (tpl_name, action_id) SELECT 'template ' || i, i", 30),
    ("INSERT INTO falcon_portal.grp_tpl (grp_id, tpl_id) SELECT i, i", 30),
    ("INSERT INTO falcon_portal.strategy (metric, op, right_value, tpl_id) SELECT 'm' || i, '<', 5, i % 30", 300),
    (
        "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp, update_at)
         SELECT 's_1_' || i, 'host ' || i, 'm', '1 < 5', 1, 'OK', '2117-01-01 00:00:00', '2117-01-01 00:00:00'",
        200,
    ),
    (
        "INSERT INTO alarms.events (event_caseId, cond, timestamp)
         SELECT 's_1_' || (i % 200 + 1), '1 < 5', '2117-01-01 00:00:00'",
        500,
    ),
    (
        "INSERT INTO alarms.hawkeye_delivery (target, kind, lane, body, due_at, created_at)
         SELECT 'sms', 'sms', 's_1_' || i, '{}', 9000000000000, 4000000000",
        100,
    ),
];

/// A portal with some hundred rows in each table that a site fills, closed.
async fn realistic(dir: &Path, callback: &str) {
    let portal = Portal::open(&dir.join("portal.db")).await.expect("a portal");
    for (insert, count) in ROWS {
        fill(&portal, insert, count).await.expect("rows");
    }
    query("INSERT INTO falcon_portal.action (id, uic, url, callback) VALUES (1, 'team 1', ?, 1)")
        .bind(callback)
        .execute(&portal)
        .await
        .expect("an action");
    portal.close().await;
}

/// Copies the portal in `from` with a page of garbage; the page is counted from 0.
fn damaged(from: &Path, page: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bytes = std::fs::read(from.join("portal.db")).expect("a portal");
    bytes[page * PAGE_BYTES..][..PAGE_BYTES].fill(0xa5);
    std::fs::write(dir.path().join("portal.db"), bytes).expect("a copy");
    dir
}

/// Opens a damaged portal as a server's start does.
async fn open(dir: &Path, health: &Health) -> Result<(Portal, Snapshot)> {
    let (portal, is_whole) = Portal::open_checked(dir, false, health).await?;
    assert!(!is_whole, "the damage was not found");
    let (snapshot, gap) = Snapshot::load_readable(&portal).await.map_err(crate::portal::hint)?;
    assert_eq!(gap.is_some(), !snapshot.unread.is_empty());
    Ok((portal, snapshot))
}

/// What becomes of an alarm behind a page that is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The start ends with the way out.
    Refused,
    /// The alarm is delivered.
    Delivered,
    /// Whom the alarm is for cannot be read, and its case says so.
    Untold,
}

/// Sends an alarm through a damaged portal, and says what became of it.
async fn outcome(
    page: usize,
    dir: &tempfile::TempDir,
    portal: &Portal,
    health: &Health,
    receiver: &mut Receiver,
) -> Outcome {
    let queue = open_queue(dir);
    queue.append(&[problem(1, "web-01")]).expect("append");
    let limits = DeliveryLimits::new(86_400, 100_000);
    let (mut config, counters, for_alarm) = (Config::default(), AlarmMetrics::default(), portal.for_alarm());
    config.alarm.callback_allow = vec!["127.0.0.0/8".parse().expect("a network")];
    let opened = Alarm::open(for_alarm, queue, &config, limits, counters, health).await;
    let mut alarm = opened.expect("alarm opens");
    let (stop, mut shutdown) = watch::channel(false);
    let running = tokio::spawn(async move {
        alarm.run(&mut shutdown).await;
        let _ = alarm.deliverer.stop().await;
    });
    let is_known = crate::portal::action::by_id(portal, 1).await.is_ok();
    let outcome = if is_known {
        assert_eq!(receiver.next().await.field("endpoint"), "web-01", "page {page}");
        Outcome::Delivered
    } else {
        let mut told = None;
        until("the alarm's case", async || {
            let sql = "SELECT told FROM alarms.event_cases WHERE endpoint = 'web-01'";
            told = query(sql).optional::<String>(portal).await.expect("cases can be read");
            told.is_some()
        })
        .await;
        let told = told.unwrap_or_default();
        assert_eq!(told, "told nobody: action 1 of the rule cannot be read, for the portal is damaged", "page {page}");
        Outcome::Untold
    };
    stop.send(true).expect("alarm runs");
    in_time("the end of alarm", running).await.expect("no panic");
    outcome
}

#[tokio::test]
async fn any_page_that_is_damaged_is_told_and_silences_no_alarm() {
    let mut receiver = Receiver::start().await;
    let origin = tempfile::tempdir().expect("a directory");
    realistic(origin.path(), &receiver.url).await;
    let whole = std::fs::read(origin.path().join("portal.db")).expect("a portal");
    let pages = whole.len() / PAGE_BYTES;
    assert!(pages > 60, "only {pages} pages");
    let mut outcomes: BTreeMap<Outcome, Vec<usize>> = BTreeMap::new();
    let mut unread: BTreeMap<&str, usize> = BTreeMap::new();
    for page in 0..pages {
        let dir = damaged(origin.path(), page);
        let health = Health::default();
        let outcome = match open(dir.path(), &health).await {
            Ok((portal, snapshot)) => {
                snapshot.unread.iter().for_each(|table| *unread.entry(table).or_default() += 1);
                let outcome = outcome(page, &dir, &portal, &health, &mut receiver).await;
                let lines: Vec<String> = health.reasons().iter().map(Reason::line).collect();
                assert!(lines.iter().any(|line| line.contains("restore a backup")), "page {page}: {lines:?}");
                portal.close().await;
                outcome
            }
            Err(error) => {
                let text = format!("{error:#}");
                assert!(text.contains("damaged: restore a backup"), "page {page}: {text}");
                Outcome::Refused
            }
        };
        outcomes.entry(outcome).or_default().push(page);
    }
    println!("{pages} pages: {outcomes:?}; tables that could not be read whole: {unread:?}");
    // Pages of the schema are those that hold the statements by which tables were made.
    let is_schema = |page: &usize| {
        *page == 0 || whole[page * PAGE_BYTES..][..PAGE_BYTES].windows(12).any(|text| text == b"CREATE TABLE")
    };
    assert!(outcomes[&Outcome::Refused].iter().all(is_schema), "{outcomes:?}");
    assert_eq!(outcomes[&Outcome::Untold].len(), 1, "the one page of actions: {outcomes:?}");
    for table in ["host", "grp_host", "tpl", "strategy", "grp_tpl", "expression", "plugin_dir"] {
        assert!(unread.contains_key(table), "{table}: {unread:?}");
    }
    assert_eq!(receiver.got.try_recv().ok().map(|got| got.path), None, "each once");
}
