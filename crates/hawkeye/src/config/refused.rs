//! Refused: for each key of a server values that make it useless, or that it cannot have.
//!
//! Why: a key that nobody checks is found by the site that sets it to 0.
//! Invariants: every key of `hawkeye.example.toml` has a row; each value is refused by a fault that names the key and
//! says what to give.

use super::Config;
use settings::Faults;
use std::collections::BTreeSet;

/// Lines of TOML that make each key useless, and what goes with them; the first `-` stands for the key.
const REFUSED: &[(&str, &[&str])] = &[
    ("roles", &["- = []", "- = [\"x\"]", "- = [\"api\", \"hbs\"]"]),
    ("data_dir", &["- = \"\"", "- = 1"]),
    ("memory_budget", &["- = \"0\"", "- = \"31MiB\"", "- = 1", "- = \"much\""]),
    ("log", &["- = \"a=b=c\"", "- = 1"]),
    (
        "listen.transfer_rpc",
        &[
            "- = \"8433\"",
            "- = \"h:70000\"",
            "- = \"127.0.0.1:8080\"",
            "- = \"\"\nroles = [\"gateway\"]\ntransfer.next.addrs = [\"h:1\"]",
        ],
    ),
    ("listen.transfer_http", &["- = \"6060\"", "- = 6060"]),
    ("listen.transfer_telnet", &["- = \"h\""]),
    ("listen.hbs_rpc", &["- = \"h:-1\""]),
    ("listen.hbs_http", &["- = \"6031\"", "- = \"127.0.0.1:6030\""]),
    ("listen.graph_rpc", &["- = \"http://h:1\"", "- = \"\"\nroles = [\"graph\"]"]),
    (
        "listen.judge_rpc",
        &["- = \"h:\"", "- = \"\"\nroles = [\"judge\"]\n[judge]\nhbs_addrs = [\"h:1\"]\nredis_url = \"h:1\""],
    ),
    ("listen.judge_http", &["- = \"127.0.0.1:6081\"", "- = \"x\"\nroles = [\"graph\"]\nlisten.graph_rpc = \"h:1\""]),
    ("listen.alarm_http", &["- = \"9912\""]),
    ("listen.aggregator_http", &["- = \"h:x\""]),
    ("listen.nodata_http", &["- = \"127.0.0.1:6030\""]),
    ("listen.p8s_rpc", &["- = \"h\"", "- = \"127.0.0.1:9091\""]),
    ("listen.p8s_http", &["- = \"9090\"", "- = 9090", "- = \"127.0.0.1:9090\""]),
    ("listen.api", &["- = \"api\"", "- = \"\"\nroles = [\"api\"]\ngraph.cluster.a = \"h:1\""]),
    ("listen.admin", &["- = \"127.0.0.1:6030\""]),
    ("listen.hosts", &["- = [\"\"]", "- = [\"http://h\"]", "- = \"h\""]),
    ("tls.cert", &["- = \"c\"", "- = \"\"\ntls.key = \"k\"\ntls.listeners = [\"api\"]"]),
    ("tls.key", &["- = \"k\"", "- = \"\"\ntls.cert = \"c\"\ntls.listeners = [\"api\"]"]),
    ("tls.ca", &["- = 1", "- = \"\"\nroles = [\"gateway\"]\ntransfer.next.addrs = [\"tls://h:1\"]"]),
    ("tls.listeners", &["- = [\"apo\"]\ntls.cert = \"c\"\ntls.key = \"k\"", "- = [\"graph_rpc\"]"]),
    ("portal.url", &["- = \"mysql://x\"", "- = \"mysql://u:p@h\"", "- = \"\"\nroles = [\"hbs\"]"]),
    ("portal.defaults", &["- = 1", "- = \"yes\""]),
    ("ingest.allow", &["- = []", "- = [\"10.0.0.0/99\"]", "- = [\"\"]"]),
    ("ingest.token", &["- = \"short\"", "- = \"a token with blanks in it\"", "- = 1"]),
    ("ingest.token_file", &["- = \"f\"\ningest.token = \"abcdefghijklmnop\"", "- = 1"]),
    ("ingest.future_max", &["- = \"25h\"", "- = \"soon\"", "- = \"400000000000years\""]),
    ("ingest.min_step", &["- = 0", "- = 86401", "- = -1"]),
    ("ingest.message_max", &["- = \"0\"", "- = \"2GiB\""]),
    ("ingest.connections_max", &["- = 0", "- = 9223372036854775807"]),
    ("ingest.message_timeout", &["- = \"0s\"", "- = \"2h\""]),
    ("ingest.series_max", &["- = 0", "- = 4294967295", "- = 4294967296"]),
    (
        "transfer.buffer_max",
        &["- = \"0\"", "- = \"1MiB\"\nroles = [\"transfer\"]\ntransfer.graph.cluster.a = \"h:1,i:1\""],
    ),
    ("transfer.batch", &["- = 0", "- = 5001"]),
    ("transfer.graph.replicas", &["- = 0", "- = 10001"]),
    ("transfer.graph.cluster", &["-.a = \"h\"", "-.a = \"h:1,\"", "-.\"../a\" = \"h:1\"", "-.a = \"h:1, h:1\""]),
    ("transfer.judge.replicas", &["- = 0"]),
    (
        "transfer.judge.cluster",
        &["-.a = \"h:1,i:1\"", "-.a = \"\"", "-.a = \"h:1\"\ntransfer.judge.cluster.b = \"h:1\""],
    ),
    ("transfer.next.addrs", &["- = [\"h\"]", "- = []\nroles = [\"gateway\"]", "- = [\"h:1\", \"H:1\"]"]),
    ("transfer.next.token", &["- = \"short\"", "- = \"abcdefghijklmnop\""]),
    ("transfer.p8s.cluster", &["-.a = \"h\""]),
    ("transfer.p8s.not_sync_metrics", &["- = [\"\"]"]),
    ("transfer.tsdb.address", &["- = \"h\""]),
    ("transfer.influxdb.address", &["- = \"h:1\"", "- = \"http://u:p@h\"\ntransfer.influxdb.db = \"d\""]),
    ("transfer.influxdb.db", &["- = \"\"\ntransfer.influxdb.address = \"http://h:1\"", "- = \"d\""]),
    (
        "transfer.influxdb.username",
        &[
            "- = \"u\"",
            "- = \"\"\ntransfer.influxdb.address = \"http://h:1\"\ntransfer.influxdb.db = \"d\"\ntransfer.influxdb.password = \"p\"",
        ],
    ),
    ("transfer.influxdb.password", &["- = \"p\"", "- = 1"]),
    ("transfer.influxdb.precision", &["- = \"\"", "- = \"h\""]),
    ("judge.semantics", &["- = \"\""]),
    ("judge.min_interval", &["- = \"8days\"", "- = 300"]),
    ("judge.endpoint_patterns", &["- = \"yes\""]),
    ("judge.silent_after", &["- = \"0s\"", "- = \"59m\""]),
    ("judge.hbs_addrs", &["- = [\"\"]", "- = [\"h\"]", "- = [\"h:1\"]"]),
    ("judge.hbs_token", &["- = \"short\"", "- = \"abcdefghijklmnop\""]),
    ("judge.hbs_interval", &["- = \"0s\"", "- = \"2h\""]),
    ("judge.redis_url", &["- = \"redis://\"", "- = \"h:0\""]),
    ("graph.retention.raw", &["- = \"0s\"", "- = \"59m\"", "- = \"1001days\""]),
    ("graph.retention.5m", &["- = \"1s\"", "- = \"20001days\""]),
    ("graph.retention.1h", &["- = \"1s\"", "- = \"20001days\""]),
    ("graph.fsync", &["- = \"\""]),
    ("graph.hot_window", &["- = \"0s\"", "- = \"31days\"\ngraph.silent_after = \"0s\""]),
    ("graph.late_window", &["- = \"31days\""]),
    ("graph.silent_after", &["- = \"1h\"", "- = \"1001days\""]),
    ("graph.query_points_max", &["- = 0", "- = -1"]),
    ("graph.index_url", &["- = \"mysql://db\"", "- = \"x\""]),
    ("graph.index_refresh", &["- = \"0s\"", "- = \"2days\""]),
    (
        "graph.cluster",
        &["-.a = \"h\"", "-.a = \"h:1\"", "- = {}\nroles = [\"api\"]", "-.a = \"h:1,i:1\"\nroles = [\"api\"]"],
    ),
    ("graph.replicas", &["- = 0", "- = 10001"]),
    ("hbs.trustable", &["- = [\"\"]", "- = [\"a,b\"]"]),
    ("probe.allow", &["- = [\"\"]", "- = [\"http://h\"]", "- = [\"10.0.0.0/33\"]"]),
    ("probe.deny", &["- = [\"a b\"]"]),
    ("probe.rest", &["- = \"\"", "- = \"all\""]),
    ("hbs.agent_upgrade", &["- = \"latest\"", "- = \"1.2\"", "- = true"]),
    ("hbs.agent_upgrade_percent", &["- = 101", "- = -1", "- = \"10%\""]),
    ("aggregator.plus_api", &["- = \"h\"", "- = \"http://h\"", "- = \"\"\nroles = [\"aggregator\"]"]),
    ("aggregator.plus_api_token", &["- = \"t\"", "- = \"\"\nroles = [\"aggregator\"]"]),
    ("aggregator.push_api", &["- = \"h\"", "- = \"http://h\"", "- = \"\"\nroles = [\"aggregator\"]"]),
    ("nodata.plus_api", &["- = \"h\"", "- = \"http://h\"", "- = \"\"\nroles = [\"nodata\"]"]),
    ("nodata.plus_api_token", &["- = \"t\"", "- = \"\"\nroles = [\"nodata\"]"]),
    ("nodata.push_api", &["- = \"h\"", "- = \"http://h\"", "- = \"\"\nroles = [\"nodata\"]"]),
    ("watchdog.url", &["- = \"h\"", "- = \"ftp://h/\"", "- = 1"]),
    ("watchdog.interval", &["- = \"1s\"", "- = \"2h\""]),
    ("nodata.flood_share", &["- = 0", "- = -0.1", "- = 1.01", "- = nan"]),
    ("p8s.metrics", &["- = [\"\"]", "- = [\"cpu.\"]"]),
    ("p8s.series_max", &["- = 0", "- = 1000001"]),
    ("alarm.sms", &["- = \"gateway\"", "- = \"ftp://h\""]),
    ("alarm.im", &["- = \"http://\""]),
    ("alarm.mail", &["- = \"a@b\""]),
    ("alarm.dashboard", &["- = \"h\""]),
    ("alarm.redis_url", &["- = \"redis://\"", "- = \"h:0\"", "- = \"\"\nroles = [\"alarm\"]"]),
    ("alarm.plus_api", &["- = \"h\"", "- = \"http://h\"", "- = \"\"\nroles = [\"alarm\"]"]),
    ("alarm.plus_api_token", &["- = \"t\"", "- = \"\"\nroles = [\"alarm\"]"]),
    ("alarm.callback_allow", &["- = [\"x\"]", "- = [\"\"]"]),
    ("alarm.event_retention", &["- = \"0s\"", "- = \"91days\""]),
    ("alarm.case_retention", &["- = \"0s\"", "- = \"6days\""]),
    ("alarm.give_up_after", &["- = \"0s\"", "- = \"0.5s\""]),
    ("alarm.merge", &["- = \"2h\"", "- = 60", "- = \"1ms\""]),
    ("alarm.deliveries_max", &["- = 0", "- = -1"]),
    ("alarm.smtp.host", &["- = \"mail:25\"", "- = \"smtp://mail\"", "- = \" \""]),
    ("alarm.smtp.port", &["- = 0\nalarm.smtp.host = \"mail\"", "- = 65536"]),
    ("alarm.smtp.security", &["- = \"\""]),
    ("alarm.smtp.user", &["- = \"\"\nalarm.smtp.host = \"mail\"\nalarm.smtp.password = \"p\""]),
    ("alarm.smtp.password", &["- = 1", "- = \"p\"\nalarm.smtp.host = \"mail\""]),
    ("alarm.smtp.from", &["- = \"\"\nalarm.smtp.host = \"mail\"", "- = \"a@\"\nalarm.smtp.host = \"mail\""]),
    ("api.signup", &["- = 1"]),
    ("api.server_token", &["- = \" t\"", "- = 1"]),
    ("api.salt", &["- = 1"]),
    ("api.rights", &["- = \"all\""]),
    ("api.viewer", &["- = \"\""]),
    ("api.grafana", &["- = \"all\"", "- = \"\""]),
    ("api.audit_keep", &["- = \"23h\"", "- = \"3651days\"", "- = 365"]),
    ("api.audit_max", &["- = \"1023KiB\"", "- = \"1025MiB\"", "- = \"much\""]),
    ("api.agents_dir", &["- = 1"]),
    ("api.agent_download", &["- = 1"]),
];

/// Words of which each fault has one before it says what to give.
const FIXES: [&str; 9] = ["give ", "want ", "expected ", "like ", "leave ", "set ", "take ", "only ", "add "];

/// Dotted paths of all values of a table, and of tables that have none.
fn paths(table: &toml::Table) -> BTreeSet<String> {
    let below = |(key, value): (&String, &toml::Value)| match value.as_table().filter(|table| !table.is_empty()) {
        Some(table) => paths(table).into_iter().map(|path| format!("{key}.{path}")).collect(),
        None => vec![key.clone()],
    };
    table.iter().flat_map(below).collect()
}

fn faults(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("hawkeye.toml");
    std::fs::write(&path, text).expect("room");
    let error = Config::load(Some(&path), std::iter::empty(), &[]).expect_err(text);
    let faults = error.downcast_ref::<Faults>();
    faults.unwrap_or_else(|| panic!("{text:?} is no fault of a value: {error:#}")).texts().to_vec()
}

#[test]
fn every_key_has_a_row() {
    let example = include_str!("../../../../hawkeye.example.toml").parse().expect("TOML");
    let rows: BTreeSet<String> = REFUSED.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(rows, paths(&example));
}

/// A value that cannot be read has its default's place, of which no other check may speak.
#[test]
fn a_value_that_cannot_be_read_has_one_fault() {
    for text in [
        "roles = [\"alarm\"]\nalarm.redis_url = \"h:0\"\nalarm.plus_api = \"http://h\"\nalarm.plus_api_token = \"t\"",
        "roles = [\"hbs\"]\nportal.url = \"mysql://x\"",
        "roles = [\"transfer\", \"graph\", \"judge\", \"hbs\", \"api\", \"nodata\", \"aggregator\"]\njudge.redis_url = \"h:0\"",
    ] {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

#[test]
fn every_key_refuses_what_makes_it_useless() {
    let mut wrong = Vec::new();
    for (key, values) in REFUSED {
        for value in *values {
            let found = faults(&value.replacen('-', key, 1));
            let is_told = |fault: &String| fault.contains(key) && FIXES.iter().any(|fix| fault.contains(fix));
            if !found.iter().any(is_told) {
                wrong.push(format!("{key}: {value:?} gave {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
