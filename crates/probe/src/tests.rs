//! The collectors together, against what the original agent reported on the same files.

use super::*;
use model::CounterType;
use std::collections::BTreeMap;

/// The copy of a real host's files that is nearest to the moment of its report.
const REAL: &str = "real_proc/1795376803.229";

/// Metric and canonical tags → counter type and value.
type Rows = BTreeMap<(String, String), (CounterType, f64)>;

/// A recorded root tree.
fn recorded(name: &str) -> Roots {
    Roots::new(testdata::path(&format!("agent/{name}")))
}

/// What the original reports of a host.
fn scope(roots: Roots) -> Scope {
    let (iface_prefixes, mount_points) = (Vec::new(), Vec::new());
    Scope { roots, iface_prefixes, virtual_ifaces: true, mount_points, container_mounts: true }
}

/// The original's mounts, or those of them that are listed.
fn as_original(points: &[String]) -> mount::Choice<'_> {
    mount::Choice { points, as_original: true }
}

fn rows(readings: Vec<Reading>) -> Rows {
    let mut rows = Rows::new();
    for reading in readings {
        let key = (reading.metric.into_owned(), reading.tags);
        assert_eq!(model::tags::canonical_string(&key.1), key.1);
        let previous = rows.insert(key.clone(), (reading.counter_type, reading.value));
        assert!(previous.is_none(), "twice: {key:?}");
    }
    rows
}

/// `metric,tags,counterType,value[,timestamp]`, tags quoted when they contain a comma.
fn expected(name: &str) -> Rows {
    let text = testdata::text(&format!("agent/{name}"));
    let mut rows = Rows::new();
    for line in text.lines().skip(1) {
        let (metric, rest) = line.split_once(',').expect("metric");
        let (tags, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once("\",").expect("closing quote"),
            None => rest.split_once(',').expect("tags"),
        };
        let mut fields = rest.split(',');
        let counter_type = CounterType::parse(fields.next().expect("type").as_bytes()).expect("known type");
        let value = fields.next().expect("value").parse().expect("number");
        rows.insert((metric.to_string(), model::tags::canonical_string(tags)), (counter_type, value));
    }
    rows
}

fn sampled(trees: [Roots; 2]) -> Sampler {
    let (mut sampler, mut failures) = (Sampler::new(), Vec::new());
    for (roots, monotonic_ms) in trees.iter().zip([0, 1000]) {
        sampler.sample(roots, monotonic_ms, &mut failures);
    }
    assert!(failures.is_empty(), "{failures:?}");
    sampler
}

fn host_rows(roots: Roots, sampler: &Sampler, driven: &Driven) -> Rows {
    let (mut out, mut failures) = (Vec::new(), Vec::new());
    scope(roots).collect(Group::Host, driven, sampler, &mut out, &mut failures);
    assert!(failures.is_empty(), "{failures:?}");
    rows(out)
}

/// Rows of `expected` that are not in `actual` as they are, and the reverse.
fn differences<'a>(expected: &'a Rows, actual: &'a Rows) -> Vec<(&'a str, &'a str)> {
    let missing = expected.iter().filter(|(key, value)| actual.get(*key) != Some(*value));
    let surplus = actual.iter().filter(|(key, _)| !expected.contains_key(*key));
    missing.chain(surplus).map(|((metric, tags), _)| (metric.as_str(), tags.as_str())).collect()
}

/// The groups whose values come from the machine and not from the recorded tree.
fn is_machines_own(metric: &str) -> bool {
    ["df.", "ss.", "net.port.listen", "url.check.health", "du.bs"].iter().any(|prefix| metric.starts_with(prefix))
}

/// The default ignore list of the original's cfg.json, which is applied by the role.
fn is_ignored_by_default(metric: &str) -> bool {
    let metrics = ["cpu.busy", "mem.memtotal", "mem.memused", "mem.memused.percent", "mem.memfree", "mem.swaptotal"];
    metrics.contains(&metric) || metric == "mem.swapused" || metric == "mem.swapfree"
}

#[test]
fn host_group_equals_the_original_on_a_synthetic_tree() {
    let mut expected = expected("fixture_static_expected.csv");
    let strategies = expected.keys().filter(|(metric, _)| metric == "proc.num");
    // This one was configured with a space, which canonical tags no longer have.
    let strategies: Vec<String> = strategies.map(|(_, tags)| tags.replace("workerp", "worker p")).collect();
    let (driven, refused) = Driven::parse(strategies.iter().map(|tags| ("proc.num", tags.as_str())));
    assert!(refused.is_empty() && driven.processes.len() == 8);

    let sampler = sampled([recorded("fixture_root"), recorded("fixture_root")]);
    let mut actual = host_rows(recorded("fixture_root"), &sampler, &driven);
    expected.retain(|(metric, _), _| !is_machines_own(metric));
    actual.retain(|(metric, _), _| !is_ignored_by_default(metric));
    assert_eq!(expected.len(), 397);

    // Two deliberate differences. Sums above 2^63 saturate where the original wraps to negative values, and a driver
    // that says -1 has no speed.
    const BOND: &str = "iface=bond0";
    const NO_IDEA: &str = "iface=em1";
    let different = [
        ("net.if.in.bits", BOND),
        ("net.if.in.percent", BOND),
        ("net.if.in.percent", NO_IDEA),
        ("net.if.out.bits", BOND),
        ("net.if.out.percent", BOND),
        ("net.if.out.percent", NO_IDEA),
        ("net.if.speed.bits", NO_IDEA),
        ("net.if.total.bits", BOND),
        ("net.if.total.bytes", BOND),
    ];
    assert_eq!(differences(&expected, &actual), different);
    for (metric, tags) in different {
        let value = actual[&(metric.to_string(), tags.to_string())].1;
        assert!(if tags == BOND { value > 0.0 } else { value == 0.0 }, "{metric} {tags} {value}");
    }
}

/// A container that has the host's root below its own: what each process sees its own way is read as the host's first
/// process sees it.
#[test]
fn below_a_prefix_the_network_is_the_hosts() {
    let root = tempfile::tempdir().expect("a directory");
    let (own, host) = (root.path().join("proc/net"), root.path().join("proc/1/net"));
    let dev = |name: &str| format!("{name}: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
    std::fs::create_dir_all(&own).expect("directories");
    std::fs::write(own.join("dev"), dev("veth0")).expect("writable");
    let interfaces = || {
        let mut out = Vec::new();
        net_if::collect(&Roots::new(root.path()), iface::Choice { prefixes: &[], with_virtual: true }, &mut out)
            .expect("readable");
        out[0].tags.clone()
    };
    assert_eq!(interfaces(), "iface=veth0", "a host that lets nobody look");
    std::fs::create_dir_all(&host).expect("directories");
    std::fs::write(host.join("dev"), dev("eth0")).expect("writable");
    assert_eq!(interfaces(), "iface=eth0");
    for (name, text) in [("netstat", "TcpExt: TW\nTcpExt: 7\n"), ("snmp", "Udp: NoPorts\nUdp: 8\n")] {
        std::fs::write(host.join(name), text).expect("writable");
        std::fs::write(own.join(name), text.replace(['7', '8'], "1")).expect("writable");
    }
    let roots = Roots::new(root.path());
    let mut out = Vec::new();
    netstat::collect(&roots, &mut out).expect("readable");
    snmp::collect(&roots, &mut out).expect("readable");
    assert_eq!(out.iter().map(|reading| reading.value).collect::<Vec<_>>(), [7.0, 8.0]);
}

#[test]
fn rates_equal_the_original() {
    let mut expected = expected("fixture_live_expected.csv");
    let sampler = sampled([recorded("fixture_live/sample_0"), recorded("fixture_live/sample_1")]);
    let (mut out, mut failures) = (Vec::new(), Vec::new());
    scope(recorded("fixture_live/sample_2")).collect(
        Group::Host,
        &Driven::default(),
        &sampler,
        &mut out,
        &mut failures,
    );
    let mut actual = rows(out);
    actual.retain(|(metric, _), _| !is_ignored_by_default(metric) && metric != "agent.alive");
    expected.retain(|(metric, _), _| !is_ignored_by_default(metric));
    assert_eq!(differences(&expected, &actual), []);
    // The tree has nothing but the two files: each other collector says so and stops nobody.
    let files: Vec<String> = failures.iter().map(|f| f.file().display().to_string()).collect();
    assert_eq!(files.len(), 6, "{files:?}");
}

/// A whole report of a real host. The files were copied around the moment of the report, so what changes by itself is
/// compared by name and type only.
#[test]
fn names_and_types_equal_the_original_on_a_real_host() {
    let expected = expected("real_all_metrics.csv");
    let sampler = sampled([recorded(REAL), recorded(REAL)]);
    let mut actual = host_rows(recorded(REAL), &sampler, &Driven::default());

    let space = |_: &std::path::Path| {
        Some(df::Space {
            bytes_total: 270553174016,
            bytes_used: 19328196608,
            bytes_free: 78244552704,
            inodes_total: 16777216,
            inodes_free: 16289893,
        })
    };
    let mut out = Vec::new();
    df::collect_with(&recorded(REAL), as_original(&[]), space, &mut out).expect("mounts");
    ss::collect(&Roots::new("testdata/sockets"), &mut out).expect("sockstat");
    actual.extend(rows(out));

    let names = |rows: &Rows| rows.iter().map(|(key, (t, _))| (key.clone(), *t)).collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&actual));

    let moving = ["cpu.", "ss.", "mem.mem", "kernel.files.", "disk.io.read_bytes", "disk.io.av", "disk.io.await"];
    let differing = differences(&expected, &actual);
    let unexpected: Vec<_> =
        differing.iter().filter(|(metric, _)| !moving.iter().any(|prefix| metric.starts_with(prefix))).collect();
    // The virtual network card's driver says -1, which is no speed.
    let no_idea = ["net.if.in.percent", "net.if.out.percent", "net.if.speed.bits"].map(|metric| (metric, "iface=eth0"));
    assert_eq!(unexpected.into_iter().copied().collect::<Vec<_>>(), no_idea);
    assert_eq!(actual[&("net.if.speed.bits".to_string(), "iface=eth0".to_string())].1, 0.0);
    assert!(differing.len() < 20 + no_idea.len(), "{differing:?}");
}

#[test]
fn a_wanted_interface_and_mount_point_only() {
    let mut scope = scope(recorded("fixture_root"));
    scope.iface_prefixes = vec!["eth".to_string(), "em".to_string()];
    let (mut out, mut failures) = (Vec::new(), Vec::new());
    scope.collect(Group::Host, &Driven::default(), &Sampler::new(), &mut out, &mut failures);
    let speeds: Vec<_> = out.iter().filter(|r| r.metric == "net.if.speed.bits").map(|r| r.tags.as_str()).collect();
    assert_eq!(speeds, ["iface=eth0", "iface=em1"]);

    let space = |_: &std::path::Path| {
        Some(df::Space { bytes_total: 100, bytes_used: 1, bytes_free: 99, inodes_total: 0, inodes_free: 0 })
    };
    out.clear();
    df::collect_with(&scope.roots, as_original(&["/usr".to_string()]), space, &mut out).expect("mounts");
    assert_eq!(out.len(), 8, "five of one mount without inodes, three of the sum");
    assert_eq!(out[0].tags, "fstype=nfs,mount=/usr");
}

/// The host that runs the test: every group answers.
#[test]
fn this_host() {
    let (mut out, mut failures) = (Vec::new(), Vec::new());
    let sampler = sampled([Roots::new("/"), Roots::new("/")]);
    for group in [Group::Host, Group::Df, Group::Sockets] {
        scope(Roots::new("/")).collect(group, &Driven::default(), &sampler, &mut out, &mut failures);
    }
    assert!(failures.is_empty(), "{failures:?}");
    let own = Scope { virtual_ifaces: false, container_mounts: false, ..scope(Roots::new("/")) };
    let (all, mut of_the_host) = (rows(out), Vec::new());
    for group in [Group::Host, Group::Df] {
        own.collect(group, &Driven::default(), &sampler, &mut of_the_host, &mut failures);
    }
    assert!(failures.is_empty(), "{failures:?}");
    assert!(rows(of_the_host).contains_key(&("net.if.in.bytes".to_string(), "iface=lo".to_string())));
    let rows = all;
    for metric in ["agent.alive", "cpu.idle", "mem.memtotal", "load.1min", "kernel.maxproc", "ss.estab"] {
        assert!(rows.contains_key(&(metric.to_string(), String::new())), "{metric}");
    }
}

/// The whole output on the synthetic tree, to be read by people when it changes.
#[test]
fn golden() {
    let sampler = sampled([recorded("fixture_live/sample_0"), recorded("fixture_live/sample_1")]);
    let (mut out, mut failures) = (Vec::new(), Vec::new());
    let (driven, _) = Driven::parse([("proc.num", "name=nginx"), ("proc.num", "name=java,cmdline=-Dapp=order")]);
    scope(recorded("fixture_root")).collect(Group::Host, &driven, &sampler, &mut out, &mut failures);
    let mut text = String::new();
    for reading in &out {
        let value = model::number::go_json(reading.value);
        text += &format!("{} {} {} {value}\n", reading.metric, reading.tags, reading.counter_type.as_str());
    }
    insta::with_settings!({ snapshot_path => "../testdata", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("golden_host", text);
    });
}
