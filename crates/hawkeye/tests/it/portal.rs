//! The portal's file: lost, and on a disk that is full.

use crate::alarms::make_strategy;
use crate::harness::{Server, Target, command, gauge, output, this_minute, until};
use serde_json::json;

/// What `/health` says.
fn health(server: &Server) -> (u16, String) {
    server.http("admin", "GET", "/health", "", "")
}

#[test]
fn a_portal_that_is_lost_is_not_made_anew_unless_somebody_says_so() {
    let target = Target::start();
    let mut server = Server::start("");
    let portal = server.data_dir().join("portal.db");
    assert!(std::fs::metadata(&portal).expect("a portal").len() > 100_000, "the tables are in the log only");
    make_strategy(&server.admin(), "web-01", &target);
    server.update(json!([gauge("web-01", "cpu.idle", 1.0, this_minute() - 600)]));
    assert!(target.next().contains("status=PROBLEM"));
    server.wait_for_deliveries();
    assert!(server.stop().success());
    assert!(!server.data_dir().join("portal.db-wal").exists(), "an orderly stop folds the log in");

    std::fs::rename(&portal, portal.with_extension("away")).expect("a portal");
    let refused = output(&mut command(server.dir.path()));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("portal.db is missing or empty"), "{text}");
    assert!(text.contains("restore a backup") && text.contains("--new-portal"), "{text}");
    assert!(!portal.exists());

    std::fs::rename(portal.with_extension("away"), &portal).expect("a portal");
    server.restart();
    assert_eq!(health(&server), (200, "ok\n".to_string()));
    assert!(server.stop().success());
    std::fs::write(&portal, "").expect("an empty file");
    server.restart_with(&["--new-portal"]);
    assert!(server.stdout.iter().any(|line| line.contains("first start")), "{:?}", server.stdout);
    assert_eq!(server.admin().get("/hostgroup"), json!([]));
    assert!(server.stop().success());
    server.restart();
    assert_eq!(target.try_next(), None, "what was delivered is not delivered again");
}

#[test]
fn a_store_that_is_lost_is_not_made_anew_unless_somebody_says_so() {
    let mut server = Server::start("");
    server.update(json!([gauge("web-01", "cpu.idle", 1.0, this_minute() - 600)]));
    assert!(server.stop().success());
    let store = server.data_dir().join("store");
    std::fs::rename(&store, store.with_extension("away")).expect("a store");
    let refused = output(&mut command(server.dir.path()));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("store is missing or empty"), "{text}");
    assert!(text.contains("restore a backup") && text.contains("--new-store"), "{text}");
    assert!(!store.exists());
    server.restart_with(&["--new-store"]);
    assert_eq!(health(&server), (200, "ok\n".to_string()));
    assert!(server.stop().success());
    server.restart();
    assert!(server.stop().success());
}

/// Full disk, as far as a process without rights can have one: files that must not grow beyond some pages.
#[test]
fn a_full_disk_is_said_and_nothing_stands_still_behind_it() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    make_strategy(&api, "web-01", &target);
    let start = this_minute() - 600;
    server.update(json!([gauge("web-01", "cpu.idle", 50.0, start)]));
    let team = |name: &str| api.request("POST", "/team", json!({"team_name": name, "resume": "", "users": []}));

    server.limit_file_bytes(Some(12_000));
    let refused = (0..20).map(|i| team(&format!("team {i}"))).find(|(status, _)| *status != 200);
    let (status, answer) = refused.expect("the log has no room for twenty teams");
    assert_eq!(status, 503, "{answer}");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("try again when /health is ok")), "{answer}");
    until("the reason in /health", || health(&server).1.contains("the portal cannot be written"));
    assert_eq!(health(&server).0, 503);
    server.update(json!([gauge("web-01", "cpu.idle", 5.0, start + 60)]));

    server.limit_file_bytes(None);
    assert!(target.next().contains("status=PROBLEM"));
    until("the end of the trouble", || health(&server) == (200, "ok\n".to_string()));
    for i in 0..10 {
        let (status, answer) = team(&format!("later {i}"));
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(target.try_next(), None);
}

#[test]
fn a_mark_that_is_gone_is_said_and_made_anew() {
    let mut server = Server::start("");
    assert!(server.stop().success());
    let mark = server.data_dir().join("portal.mark");
    std::fs::remove_file(&mark).expect("a mark");
    let path = server.dir.path().join("log");
    server.restart_with_log(std::fs::File::create(&path).expect("a file"));
    assert_eq!(health(&server), (200, "ok\n".to_string()));
    assert!(mark.exists());
    assert!(server.stop().success());
    let log = std::fs::read_to_string(&path).expect("a log");
    assert_eq!(log.lines().filter(|line| line.contains("the portal has no mark")).count(), 1, "{log}");
}

/// SQLite's page.
const PAGE_BYTES: usize = 4096;

/// Writes garbage over the page of the table of strategies, and answers where it was, and what.
fn damage_strategies(portal: &std::path::Path) -> (usize, Vec<u8>) {
    let mut bytes = std::fs::read(portal).expect("a portal");
    let has = |page: &[u8], text: &str| page.windows(text.len()).any(|part| part == text.as_bytes());
    // Cases and events of the strategy name the host too.
    let is_page = |page: &[u8]| page[0] == 13 && has(page, "cpu is busy") && !has(page, "web-01");
    let at = bytes.chunks(PAGE_BYTES).position(is_page).expect("a page of strategies") * PAGE_BYTES;
    let page = bytes[at..at + PAGE_BYTES].to_vec();
    bytes[at..at + PAGE_BYTES].fill(0xa5);
    std::fs::write(portal, bytes).expect("room");
    (at, page)
}

#[test]
fn rules_that_cannot_be_read_are_said_and_close_no_alarm() {
    let target = Target::start();
    let mut server = Server::start("");
    make_strategy(&server.admin(), "web-01", &target);
    let start = this_minute() - 600;
    let push = |server: &Server, minute: i64, value: f64| {
        server.update(json!([gauge("web-01", "cpu.idle", value, start + 60 * minute)]));
    };
    push(&server, 0, 1.0);
    assert!(target.next().contains("status=PROBLEM"));
    server.wait_for_deliveries();
    assert!(server.stop().success());
    let portal = server.data_dir().join("portal.db");
    let (at, page) = damage_strategies(&portal);

    server.restart();
    let (status, reasons) = health(&server);
    assert_eq!(status, 503);
    let wanted = "rules cannot be read and are not judged, and their open alarms stay open: restore a backup of the portal: \
                  damaged tables: strategy";
    assert!(reasons.lines().any(|line| line == wanted), "{reasons}");
    let refused = server.call("hbs_rpc", "Hbs.GetStrategies", json!({}));
    assert_eq!(refused["error"], "the portal's tables are damaged: go on with what you have");
    let heartbeat = json!({"Hostname": "web-01", "Checksum": ""});
    assert_eq!(server.call("hbs_rpc", "Agent.MinePlugins", heartbeat)["error"], json!(null), "their tables are whole");
    // What is changed now takes no effect: a table is read whole or not at all.
    let group = server.admin().post("/hostgroup", json!({"name": "more"}));
    server.admin().post("/hostgroup/host", json!({"hostgroup_id": group["id"], "hosts": ["web-02"]}));
    until("the second reason", || health(&server).1.contains("the rules cannot be read; those in effect stay"));
    push(&server, 1, 90.0);
    assert!(server.stop().success());

    let mut bytes = std::fs::read(&portal).expect("a portal");
    bytes[at..at + PAGE_BYTES].copy_from_slice(&page);
    std::fs::write(&portal, bytes).expect("room");
    server.restart();
    assert_eq!(health(&server), (200, "ok\n".to_string()));
    // Only now is it judged that the host has recovered meanwhile.
    let end = target.next();
    assert!(end.contains("status=OK") && end.contains("left_value=90"), "{end}");
    server.wait_for_deliveries();
    assert_eq!(target.try_next(), None);
}
