//! Refused: for each key of an agent values that make it useless, or that it cannot have.
//!
//! Invariants: every key of `hawkeye-agent.example.toml` has a row; each value is refused by a fault that names the key
//! and says what to give. A row for a table says what its entries cannot be.

use super::AgentConfig;
use settings::Faults;
use std::collections::BTreeSet;

/// Lines of TOML that make each key useless, and what goes with them; the first `-` stands for the key.
const REFUSED: &[(&str, &[&str])] = &[
    ("hostname", &["- = \"a\\nb\"", "- = 1"]),
    ("ip", &["- = \"a\\nb\"", "- = 1"]),
    ("transfer_addrs", &["- = []", "- = [\"h\"]", "- = [\"\"]"]),
    ("hbs_addr", &["- = \"h\"", "- = \"h:70000\""]),
    ("ca", &["- = \"\"\nhbs_addr = \"tls://h:1\"", "- = \"ca.pem\""]),
    ("token", &["- = \"short\"", "- = \"with a blank in it, and long\""]),
    ("interval", &["- = \"0s\"", "- = \"0.5s\"", "- = \"25h\"", "- = 60"]),
    ("heartbeat_interval", &["- = \"0s\"", "- = \"25h\""]),
    ("connect_timeout", &["- = \"0s\"", "- = \"1us\"", "- = \"2h\""]),
    ("compress", &["- = \"zlib\"", "- = 1"]),
    ("buffer_dir", &["- = \"buffer\""]),
    ("buffer_max", &["- = \"0\"", "- = \"1kB\""]),
    ("buffer_memory_max", &["- = \"0\"", "- = \"1kB\""]),
    ("iface_prefixes", &["- = [\"\"]"]),
    ("virtual_ifaces", &["- = 1"]),
    ("mount_points", &["- = [\"\"]", "- = [\"data\"]"]),
    ("container_mounts", &["- = \"yes\""]),
    ("rates", &["- = \"minute\"", "- = 1"]),
    ("ignore", &["- = [\"\"]"]),
    ("rootfs", &["- = \"\"", "- = \"host\""]),
    ("log", &["- = \"a=b=c\""]),
    ("default_tags", &["-.a = \"b,c\"", "-.\"a=b\" = \"c\"", "-.\"\" = \"c\"", "-.a = 1"]),
    ("collect.gpu", &["- = 1"]),
    ("collect.cores", &["- = 1"]),
    ("collect.pressure", &["- = 1"]),
    ("collect.limits", &["- = 1"]),
    ("collect.cgroups", &["- = [\"/sys\"]", "- = [\"a/**\"]", "- = [\"..\"]", "- = \"a\""]),
    ("collect.units", &["- = [\"-h\"]", "- = [\"\"]", "- = \"a\""]),
    ("collect.certificates", &["- = [\"x.pem\"]", "- = [\"/x/[\"]", "- = \"/x\""]),
    ("collect.ntp", &["- = [\"h\"]", "- = \"h:1\""]),
    ("collect.smart", &["- = \"yes\""]),
    ("collect.statsd", &["- = \"8125\"", "- = 8125"]),
    ("collect.processes", &["-.x = \"(\"", "-.\"a,b\" = \"x\"", "-.x = 1"]),
    ("collect.logs", &["-.x = { files = [\"/x\"], pattern = \"\" }", "-.x = { files = [\"x\"], pattern = \"a\" }"]),
    (
        "collect.exporters",
        &["-.x = { url = \"https://h:1\" }", "-.x.url = \"http://h\"\ncollect.exporters.x.metrics = [\"\"]"],
    ),
    ("listen.agent_http", &["- = \"1988\""]),
    ("listen.hosts", &["- = [\"http://h\"]", "- = [\"\"]"]),
    ("listen.token", &["- = \"short\"", "- = \"with a blank in it, and long\""]),
    ("plugin.enabled", &["- = 1"]),
    ("plugin.dir", &["- = \"\"\nplugin.enabled = true"]),
    ("plugin.git", &["- = \"--upload-pack=x\"\nplugin.enabled = true", "- = \"a b\"\nplugin.enabled = true"]),
    ("plugin.logs", &["- = \"\"\nplugin.enabled = true"]),
    ("probes.enabled", &["- = 1"]),
    ("probes.allow", &["- = [\"\"]\nprobes.rest = \"nothing\"", "- = [\"10.0.0.0/8\"]"]),
    ("probes.deny", &["- = [\"http://a\"]"]),
    ("probes.rest", &["- = \"all\""]),
    ("probes.script_dirs", &["- = [\"scripts\"]"]),
    ("probes.script_user", &["- = \"a b\"", "- = \"a:b\""]),
    ("probes.concurrent_max", &["- = 0", "- = 5000", "- = \"8\""]),
    ("plugin.user", &["- = \"a b\"\nplugin.enabled = true", "- = \"a:b\"\nplugin.enabled = true"]),
    ("upgrade.public_key", &["- = \"short\"", "- = 1"]),
    (
        "upgrade.dir",
        &["- = \"upgrade\"", "- = \"\"\nupgrade.public_key = \"iojjEvkFMzRr/iBaSMgtpY2nY9oZ0xVOuFq4QmBm8pY=\""],
    ),
];

/// Words of which each fault has one before it says what to give.
const FIXES: [&str; 5] = ["give ", "want ", "like ", "name ", "expected "];

/// Dotted paths of all values of a table, and of tables that have none.
fn paths(table: &toml::Table) -> BTreeSet<String> {
    let below = |(key, value): (&String, &toml::Value)| match value.as_table().filter(|table| !table.is_empty()) {
        Some(table) => paths(table).into_iter().map(|path| format!("{key}.{path}")).collect(),
        None => vec![key.clone()],
    };
    table.iter().flat_map(below).collect()
}

/// Says what is wrong with the row, if its value is taken, or refused without a word.
fn fault_of_the_row(key: &str, value: &str) -> Option<String> {
    let text = value.replacen('-', key, 1);
    let Err(error) = AgentConfig::load(&text, std::iter::empty(), &[], "host") else {
        return Some(format!("{text} is taken"));
    };
    let faults = error.downcast_ref::<Faults>().map_or(&[][..], Faults::texts);
    let is_told = |fault: &String| fault.contains(key) && FIXES.iter().any(|fix| fault.contains(fix));
    (!faults.iter().any(is_told)).then(|| format!("{text} gave {error:#}"))
}

#[test]
fn every_key_has_a_row() {
    let example = include_str!("../../../hawkeye-agent.example.toml").parse().expect("TOML");
    let rows: BTreeSet<String> = REFUSED.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(rows, paths(&example));
}

#[test]
fn every_key_refuses_what_makes_it_useless() {
    let rows = REFUSED.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
    let wrong: Vec<String> = rows.filter_map(|(key, value)| fault_of_the_row(key, value)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
