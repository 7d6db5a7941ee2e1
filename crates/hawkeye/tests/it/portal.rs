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
