//! The server's probes, and what places say together, over a store in a temporary directory.

use super::places::Together;
use super::*;
use crate::portal::probe::Probe;
use crate::portal::tests::{run, temporary};
use crate::role::tests::door;
use crate::watch::health::Health;
use netprobe::{Code, Outcome, Reason};
use probe::Reading;
use std::net::TcpListener;

fn row(id: i64, grp_id: i64, target: &str) -> Probe {
    let definition = format!(r#"{{"name":"p","kind":"tcp","target":"{target}","step":5,"tags":{{"team":"web"}}}}"#);
    Probe { id, name: format!("p{id}"), grp_id, definition, ..Probe::default() }
}

fn ran(probes: &Probes, id: i64, why: Option<&str>, time: i64) -> Ran {
    let definition = probes.by_id(id).expect("a probe").definition.clone();
    let up = if why.is_none() { 1.0 } else { 0.0 };
    let readings = vec![Reading::gauge("probe.up", &definition.series_tags(), up)];
    let reason = why.map(|why| Reason::new(Code::Refused, why));
    let outcome = Outcome { up: why.is_none(), reason, phases: Vec::new(), peer: None, readings };
    Ran { definition, time, outcome }
}

#[tokio::test]
async fn what_is_found_is_told_once_and_stored_each_time() -> Result<()> {
    let (_portal, portal) = temporary().await?;
    run(&portal, "INSERT INTO falcon_portal.hawkeye_probe (id, name, definition) VALUES (1, 'p1', '{}')").await?;
    let dir = tempfile::tempdir()?;
    let (engine, ingest) = door(dir.path())?;
    let health = Health::default();
    let (unkept, untold) = (health.outage("points"), health.outage("states"));
    let config = ProbeConfig::default();
    let probes = ServerProbes { engine: engine.clone(), ingest, portal: portal.clone(), config, unkept, untold };
    let (known, mut said) = (Probes::of(vec![row(1, 0, "h:1")]), HashMap::new());
    let now = clock::now();
    let first = [ran(&known, 1, Some("refused by h"), now)];
    probes.tell(&known, &first, &mut said).await?;
    assert!(probes.send(&first).is_ok());
    let (down, _) = probe_state::down(&portal, "p1", Some(SERVER)).await?;
    assert_eq!((down[0].reason.as_str(), down[0].code.as_str(), down[0].changed_at), ("refused by h", "refused", now));
    let found = engine.store().find("p1", "probe.up/from=server,target=h:1,team=web")?.expect("a series");
    assert_eq!(engine.store().last(found).map(|point| point.value), Some(0.0));
    // Who says the same again asks no database; a probe that is gone says nothing.
    portal.close().await;
    probes.tell(&known, &[ran(&known, 1, Some("refused by h"), now + 5)], &mut said).await?;
    assert!(probes.tell(&known, &[ran(&known, 1, None, now + 10)], &mut said).await.is_err());
    assert_eq!(said.len(), 1);
    probes.tell(&Probes::default(), &[ran(&known, 1, None, now + 15)], &mut said).await?;
    assert!(said.is_empty());
    Ok(())
}

/// A probe that appears in the rules is run, under the policy, and one that goes is not.
#[tokio::test]
async fn the_server_runs_what_has_no_group() -> Result<()> {
    let (_portal, portal) = temporary().await?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (dir, target) = (tempfile::tempdir()?, listener.local_addr()?.to_string());
    let (engine, ingest) = door(dir.path())?;
    let (health, metrics) = (Health::default(), Arc::new(Metrics::new()));
    let (unkept, untold) = (health.outage("points"), health.outage("states"));
    let config =
        ProbeConfig { allow: vec![netprobe::Rule::parse("127.0.0.0/8").expect("a rule")], ..ProbeConfig::default() };
    let probes = ServerProbes { engine: engine.clone(), ingest, portal: portal.clone(), config, unkept, untold };
    let effect = |rows: Vec<Probe>| {
        let probes = Arc::new(Probes::of(rows));
        let snapshot = crate::rules::snapshot::Snapshot { probes, ..Default::default() };
        Arc::new(InEffect::new(Arc::new(snapshot), model::Rules::default()))
    };
    let (tell, in_effect) = watch::channel(effect(Vec::new()));
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(probes.run(in_effect, metrics.clone(), stopping));
    tell.send_replace(effect(vec![row(1, 0, &target), row(2, 7, &target)]));
    let counter = format!("probe.up/from=server,target={target},team=web");
    let last = || Some(engine.store().last(engine.store().find("p1", &counter).ok()??)?.value);
    net::patience::until("a point of the probe", async || last() == Some(1.0)).await;
    assert!(engine.store().find("p2", &counter)?.is_none(), "agents run it");
    assert!(metrics.text().contains("probe_runs"));
    stop.send_replace(true);
    task.await??;
    assert_eq!(health.reasons(), []);
    Ok(())
}

#[tokio::test]
async fn places_are_counted_together() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (engine, ingest) = door(dir.path())?;
    let (probes, now) = (Probes::of(vec![Probe { name: "shop".into(), ..row(1, 7, "h:1") }]), clock::now());
    let definition = probes.by_id(1).expect("a probe").definition.clone();
    let mut batch = ingest.begin(Door::Rpc, now);
    for (place, value, time) in [("a", 1.0, now), ("b", 0.0, now), ("c", 0.0, now - 5), ("d", 1.0, now - 600)] {
        batch.push(&Item {
            endpoint: "shop",
            metric: "probe.up",
            tags: &from(&definition.series_tags(), place),
            value,
            step: 60,
            counter_type: model::CounterType::Gauge,
            timestamp: time,
        });
    }
    assert!(batch.finish().is_ok());
    let together = Together { engine: engine.clone(), ingest };
    // A definition with a step of a minute, so that all but one have just reported.
    let definition = row(1, 7, "h:1").definition.replace("\"step\":5", "\"step\":60");
    let minute = Probe { definition, name: "shop".into(), ..row(1, 7, "") };
    // Two that are due at once, and one that is gone.
    let probes = Probes::of(vec![minute, row(3, 7, "h:2")]);
    assert!(together.compute(&probes, &[1, 2, 3], now).is_ok());
    let value = |metric: &str| {
        let found = engine.store().find("shop", &format!("{metric}/target=h:1,team=web")).ok()??;
        Some(engine.store().last(found)?.value)
    };
    let all = ["probe.places", "probe.places_down", "probe.places_down_percent"].map(value);
    assert_eq!(all, [Some(3.0), Some(2.0), Some(200.0 / 3.0)]);
    Ok(())
}
