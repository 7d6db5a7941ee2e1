//! Aggregators over a store in a temporary directory.

use super::*;
use crate::rules::snapshot::{HostRow, Snapshot};
use model::Rules;

const NOW: i64 = 1_700_000_000;

fn row(id: i64, step: i64) -> Aggregator {
    let text = str::to_string;
    Aggregator {
        id,
        grp_id: 1,
        numerator: text("$(cpu.idle/core=0)+$(cpu.busy)"),
        denominator: text("$#"),
        endpoint: text("web"),
        metric: text("cpu.mean"),
        tags: text("b=2, a=1"),
        ds_type: text("GAUGE"),
        step,
        creator: text("alice"),
    }
}

#[test]
fn each_row_is_due_once_a_step() {
    let (mut due, rows) = (Due::default(), [row(1, 60), row(2, 10), row(3, 0)]);
    assert_eq!(due.take(&rows, NOW), [0; 0], "a new row waits for its second");
    let mut times = [0; 3];
    for second in 1..=60 {
        due.take(&rows, NOW + second).into_iter().for_each(|row| times[row] += 1);
    }
    assert_eq!(times, [1, 6, 60]);
    // Late looks and a clock that was set back are one computation each.
    assert_eq!(due.take(&rows[..1], NOW + 600), [0]);
    assert_eq!(due.take(&rows[..1], NOW), [0]);
    assert_eq!(due.take(&[], NOW), [0; 0]);
    assert_eq!(due.take(&rows[..1], NOW + 60), [0; 0], "it was forgotten, and is new");
}

/// Host a has both counters, b one, c old values, and d is in maintenance.
#[tokio::test]
async fn the_mean_of_a_group_is_a_point_like_others() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (engine, ingest) = crate::role::tests::door(dir.path())?;
    let now = crate::clock::now();
    let mut batch = ingest.begin(Door::Rpc, now);
    for (endpoint, metric, tags, value, time) in [
        ("a", "cpu.idle", "core=0", 30.0, now),
        ("a", "cpu.busy", "", 10.0, now - 60),
        ("b", "cpu.idle", "core=0", 20.0, now),
        ("c", "cpu.idle", "core=0", 99.0, now - 300),
        ("c", "cpu.busy", "", 99.0, now - 300),
        ("d", "cpu.idle", "core=0", 99.0, now),
        ("d", "cpu.busy", "", 99.0, now),
    ] {
        batch.push(&Item {
            endpoint,
            metric,
            tags,
            value,
            step: 60,
            counter_type: CounterType::Gauge,
            timestamp: time,
        });
    }
    assert!(batch.finish().is_ok());
    let host = |name: &str, maintain_end: i64| HostRow {
        hostname: name.to_string(),
        maintain_end,
        groups: vec![1],
        ..HostRow::default()
    };
    let hosts = vec![host("a", 0), host("b", 0), host("c", 0), host("d", now + 600), HostRow::default()];
    let broken = Aggregator { numerator: "$(".to_string(), ..row(2, 60) };
    let empty = Aggregator { grp_id: 2, ..row(3, 60) };
    let snapshot = Snapshot { hosts, aggregators: vec![row(1, 60), broken, empty], ..Snapshot::default() };
    let rules = InEffect::new(Arc::new(snapshot), Rules::default());
    let aggregators = Aggregators { engine: engine.clone(), ingest, lasts: Lasts::default() };
    assert!(aggregators.compute(&rules, &[0, 1, 2], now).is_ok());

    let last = aggregators.lasts.of(1).expect("computed");
    assert_eq!((last.value, last.hosts, last.valid, last.why.as_str()), (Some(40.0), 3, 1, ""));
    let missing: Vec<_> = last.missing.iter().map(|one| (one.endpoint.as_str(), one.counter.as_str())).collect();
    assert_eq!(missing, [("b", "cpu.busy"), ("c", "cpu.idle/core=0")]);
    let found = engine.store().find("web", "cpu.mean/a=1,b=2")?.expect("a series");
    let point = engine.store().last(found).expect("a point");
    assert_eq!((point.time, point.value), (model::point::align(now, 60), 40.0));
    assert!(aggregators.lasts.of(2).expect("noted").why.starts_with("numerator: "));
    assert_eq!(aggregators.lasts.of(3).expect("noted").why, "the group has no host outside maintenance");
    assert_eq!(aggregators.lasts.failed(), 2);
    aggregators.lasts.keep(|id| id == 1);
    assert_eq!(aggregators.lasts.failed(), 0);
    Ok(())
}
