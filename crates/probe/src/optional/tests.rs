//! The collectors together, on a tree of a host, and what docs/agent-metrics.md says of them.

use super::*;
use crate::{Driven, Group, Reading, Roots, Sampler, Scope};
use std::collections::BTreeMap;

/// The rows of the table: metric and type.
fn documented() -> BTreeMap<String, String> {
    let text = include_str!("../../../../docs/agent-metrics.md");
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let names: Vec<&str> = cells[1].split(", ").map(|name| name.trim_matches('`')).collect();
        for name in names {
            let previous = rows.insert(name.to_string(), cells[2].to_string());
            assert!(previous.is_none(), "{name} stands twice in the table");
        }
    }
    rows
}

/// A metric stands there by its name, or by one that ends in `*`.
fn kind<'a>(rows: &'a BTreeMap<String, String>, metric: &str) -> Option<&'a str> {
    let fits = |name: &str| name.strip_suffix('*').map_or(name == metric, |begin| metric.starts_with(begin));
    rows.iter().find(|(name, _)| fits(name)).map(|(_, kind)| kind.as_str())
}

fn tree() -> Roots {
    Roots::new("testdata/optional")
}

fn collected() -> Vec<Reading> {
    let (mut out, mut failures) = (Vec::new(), Vec::new());
    collect_pressure(&tree(), &mut out).expect("readable");
    collect_limits(&tree(), &mut out).expect("readable");
    collect_cgroups(&tree(), &["system.slice/*".into(), "*/*/*.scope".into()], &mut out, &mut failures);
    let group = ProcessGroup { name: "web".into(), pattern: pattern("nginx").unwrap() };
    let mut groups = ProcessGroups::new(vec![group]);
    let log = LogPattern { name: "app".into(), files: vec!["/var/log/*".into()], pattern: pattern("E").unwrap() };
    let mut logs = Logs::new(vec![log]);
    for at_ms in [0, 60_000] {
        out.retain(|reading| !reading.metric.starts_with("proc."));
        groups.collect(&tree(), at_ms, &mut out).expect("readable");
        logs.collect(&tree(), at_ms, &mut out, &mut failures);
    }
    assert!(failures.is_empty(), "{failures:?}");
    out
}

/// The whole output, to be read by people when it changes.
#[test]
fn golden() {
    let mut text = String::new();
    for reading in collected() {
        let value = model::number::go_json(reading.value);
        text += &format!("{} {} {} {value}\n", reading.metric, reading.tags, reading.counter_type.as_str());
    }
    insta::with_settings!({ snapshot_path => "../../testdata", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("golden_optional", text);
    });
}

/// Everything that comes out of here, of the original's groups, and of each core.
#[test]
fn each_metric_is_documented_with_its_type() {
    let root = Roots::new(testdata::path("agent/fixture_root"));
    let (mut sampler, mut failures, mut readings) = (Sampler::with_cores(), Vec::new(), collected());
    for (tree, monotonic_ms) in [("fixture_live/sample_0", 0), ("fixture_live/sample_1", 1000)] {
        let tree = Roots::new(testdata::path(&format!("agent/{tree}")));
        sampler.sample(&tree, monotonic_ms, &mut failures);
    }
    let scope = |roots, container_mounts| {
        let (iface_prefixes, mount_points) = (Vec::new(), Vec::new());
        Scope { roots, iface_prefixes, virtual_ifaces: true, mount_points, container_mounts }
    };
    let (driven, _) = Driven::parse([("proc.num", "name=nginx"), ("net.port.listen", "port=22")]);
    scope(root, true).collect(Group::Host, &driven, &sampler, &mut readings, &mut failures);
    let sockets = Roots::new("testdata/sockets");
    scope(sockets, true).collect(Group::Sockets, &driven, &sampler, &mut readings, &mut failures);
    scope(Roots::new("/"), false).collect(Group::Df, &driven, &sampler, &mut readings, &mut failures);
    assert!(failures.is_empty(), "{failures:?}");
    assert!(readings.iter().any(|reading| reading.metric == "cpu.core.idle"));

    let rows = documented();
    let wrong = readings.iter().filter(|reading| kind(&rows, &reading.metric) != Some(reading.counter_type.as_str()));
    let wrong: std::collections::BTreeSet<&str> = wrong.map(|reading| reading.metric.as_ref()).collect();
    assert!(wrong.is_empty(), "docs/agent-metrics.md lacks, or has with another type: {wrong:?}");
}

#[test]
fn patterns_are_of_bytes() {
    let check = |text: &str, line: &[u8], expected: bool| {
        assert_eq!(pattern(text).expect(text).is_match(line), expected, "{text} {line:?}");
    };
    check("ERROR.*timeout", b"x ERROR \xff\xfe timeout", true);
    check("错误", "一个错误".as_bytes(), true);
    check("(?i)error", b"eRRor", true);
    check(r"\bcode=5\d\d\b", b"code=503 ", true);
    check("^$", b"x", false);
    assert!(pattern("(").expect_err("no pattern").contains("unclosed group"));
    assert!(pattern("a{1000}{1000}").expect_err("too long").contains("size limit"), "bounded");
}

/// A kernel that lacks what was asked for says which file is missing.
#[test]
fn what_is_not_there_is_told() {
    let root = tempfile::tempdir().expect("a directory");
    let roots = Roots::new(root.path());
    let error = collect_pressure(&roots, &mut Vec::new()).expect_err("no such kernel");
    assert!(error.file().ends_with("proc/pressure/cpu"));
    assert!(collect_limits(&roots, &mut Vec::new()).expect_err("no /proc").file().ends_with("file-nr"));
}
