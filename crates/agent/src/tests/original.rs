//! What the original agent sent of a real host, with the cfg.json that it is shipped with, probes and plugins: ours
//! sends each metric with the same tags and type.

use super::*;
use probe::{Driven, Mounted, Scope, Space};
use std::collections::{BTreeMap, BTreeSet};

/// The recorded files that are nearest to the moment of the report.
const HOST: &str = "agent/real_proc/1795376803.229";
/// Sockets are not among them.
const SOCKETS: &str = "../probe/testdata/sockets";
/// What the plugins of the recording print.
const PRINTED: &str = r#"[
    {"endpoint": "golden-host-01", "metric": "plugin.demo", "value": 1.5, "step": 5, "counterType": "GAUGE", "tags": "a=1,b=x y"},
    {"endpoint": "golden-host-01", "metric": "plugin.demo2", "value": 42, "step": 5, "counterType": "COUNTER", "tags": ""},
    {"endpoint": "golden-host-01", "metric": "plugin.args", "value": 2, "step": 5, "counterType": "GAUGE", "tags": "p1=a"}]"#;
/// The shipped cfg.json, as far as it says what is reported.
const SHIPPED: &str = r#"{
    "hostname": "golden-host-01",
    "transfer": {"enabled": true, "addrs": ["127.0.0.1:8433"], "interval": 60, "timeout": 1000},
    "collector": {"ifacePrefix": [], "mountPoint": []},
    "default_tags": {},
    "ignore": {
        "cpu.busy": true, "df.bytes.free": true, "df.bytes.total": true, "df.bytes.used": true,
        "df.bytes.used.percent": true, "df.inodes.total": true, "df.inodes.free": true, "df.inodes.used": true,
        "df.inodes.used.percent": true, "mem.memtotal": true, "mem.memused": true, "mem.memused.percent": true,
        "mem.memfree": true, "mem.swaptotal": true, "mem.swapused": true, "mem.swapfree": true
    }
}"#;

/// Metric and canonical tags with the type.
type Kinds = BTreeMap<(String, String), CounterType>;

/// Rows of `metric,tags,counterType,value,timestamp`, tags quoted when they contain a comma.
fn recorded() -> Kinds {
    let text = testdata::text("agent/real_default_ignore_with_probes.csv");
    let mut kinds = Kinds::new();
    for line in text.lines().skip(1) {
        let (metric, rest) = line.split_once(',').expect("metric");
        let (tags, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once("\",").expect("closing quote"),
            None => rest.split_once(',').expect("tags"),
        };
        let kind = CounterType::parse(rest.split(',').next().expect("type").as_bytes()).expect("known type");
        kinds.insert((metric.to_string(), model::tags::canonical_string(tags)), kind);
    }
    kinds
}

/// What strategies asked for, from the tags that came out.
fn asked_for(recorded: &Kinds) -> Driven {
    let probes = ["net.port.listen", "proc.num", "du.bs", "url.check.health"];
    let pairs = recorded.keys().filter(|(metric, _)| probes.contains(&metric.as_str()));
    // The source of a URL's check is no part of what is asked.
    let without_source = |tags: &str| {
        let kept: Vec<&str> = tags.split(',').filter(|tag| !tag.starts_with("src=")).collect();
        match kept[..] {
            [timeout, url] if url.starts_with("url=") => format!("{url},{timeout}"),
            _ => kept.join(","),
        }
    };
    let pairs: Vec<(String, String)> = pairs.map(|(metric, tags)| (metric.clone(), without_source(tags))).collect();
    let (driven, refused) = Driven::parse(pairs.iter().map(|(metric, tags)| (metric.as_str(), tags.as_str())));
    assert!(refused.is_empty(), "{refused:?}");
    driven
}

fn spaces(scope: &Scope, out: &mut Vec<Reading>) {
    let mounts: Vec<Mounted> = scope.mounts().expect("a list of mounts");
    let space = Space { bytes_total: 4, bytes_used: 1, bytes_free: 3, inodes_total: 4, inodes_free: 3 };
    probe::report_spaces(mounts.iter().map(|mounted| (mounted, space)), out);
}

/// Readings of everything, as a report of each group has them.
async fn readings(agent: &Arc<Agent>, driven: &Driven) -> Vec<Reading> {
    let scope = agent.live.now().scope.clone();
    let mut sampler = agent.lock_sampler().clone();
    for monotonic_ms in [0, 1000] {
        sampler.sample(&scope.roots, monotonic_ms, &mut Vec::new());
    }
    let (mut out, mut failures) = (Vec::new(), Vec::new());
    scope.collect(Group::Host, driven, &sampler, &mut out, &mut failures);
    spaces(&scope, &mut out);
    let of_sockets = Scope { roots: Roots::new(SOCKETS), ..scope };
    of_sockets.collect(Group::Sockets, driven, &sampler, &mut out, &mut failures);
    assert!(failures.is_empty(), "{failures:?}");
    out.extend(du::collect(&driven.paths).await);
    out.extend(url::collect(&driven.urls, &agent.config.hostname).await);
    out
}

#[tokio::test]
async fn what_the_original_sends_ours_sends() {
    let expected = recorded();
    let config = AgentConfig::load(SHIPPED, std::iter::empty(), &[], "").expect("a cfg.json");
    let config = AgentConfig { rootfs: testdata::path(HOST), ..config };
    let agent = Arc::new(Agent::new(config));
    let driven = asked_for(&expected);
    let readings = readings(&agent, &driven).await;
    agent.queue_readings(&readings, 1_795_376_803);
    let settings = agent.live.now();
    let printed = intake::take(PRINTED.as_bytes(), &settings.default_tags, |_| 1, |_| {}).expect("a list");
    printed.into_iter().for_each(|batch| agent.queue.push(batch));

    let sent = agent.queue.all().into_iter().flat_map(|(_, batch)| rows(&batch.json));
    let canonical = |tags: String| model::tags::canonical_string(&tags);
    let sent: Kinds = sent.map(|(metric, tags, _, kind, ..)| ((metric, canonical(tags)), kind)).collect();
    let missing: Vec<_> = expected.iter().filter(|(key, kind)| sent.get(*key) != Some(*kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let surplus: BTreeSet<&str> =
        sent.keys().filter(|key| !expected.contains_key(*key)).map(|key| key.0.as_str()).collect();
    assert!(surplus.is_empty(), "{surplus:?}");
    assert!(expected.len() > 180, "{}", expected.len());
}
