use super::*;
use model::Tags;
use proptest::prelude::*;

fn admit(growth: &mut Growth, endpoint: &str, metric: &str, tags: &str, room: f64, now: i64) -> bool {
    growth.admit(SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) }, room, now)
}

/// One request of the culprit.
fn explode(growth: &mut Growth, request: usize, room: f64, now: i64) -> bool {
    let tags = format!("dc=bj,request_id={request:032x}");
    admit(growth, "shop-07", "http.latency", &tags, room, now)
}

#[test]
fn with_room_everybody_is_taken_and_without_nobody() {
    let mut growth = Growth::default();
    assert!((0..10_000).all(|i| explode(&mut growth, i, 1.0, 0)));
    assert!(!admit(&mut growth, "new", "cpu.idle", "", 0.0, 0));
    assert_eq!((growth.attempts(), growth.refused()), (10_001, 1));
    let report = growth.report();
    assert_eq!(report.last_refused, Some(Refusal { time: 0, endpoint: "new".into(), counter: "cpu.idle".into() }));
    assert_eq!(report.refused_since, Some(0));
}

#[test]
fn the_largest_grower_is_refused_first_and_few_last() {
    let mut growth = Growth::default();
    (0..6000).for_each(|i| assert!(explode(&mut growth, i, 2.0, 0)));
    // A tenth of it, from somebody else.
    let other = |growth: &mut Growth, i: usize, room| admit(growth, "ci", "build.time", &format!("id={i}"), room, 0);
    (0..600).for_each(|i| assert!(other(&mut growth, i, 2.0)));
    let host = |growth: &mut Growth, host: usize, room| {
        ["cpu.idle", "mem.free", "df.bytes.free"]
            .iter()
            .all(|metric| admit(growth, &format!("web-{host}"), metric, "", room, 0))
    };
    for (room, culprit, smaller, new_host) in
        [(1.0, true, true, true), (0.99, false, true, true), (0.05, false, false, true), (0.0, false, false, false)]
    {
        assert_eq!(explode(&mut growth, 7000 + (room * 100.0) as usize, room, 0), culprit, "room {room}");
        assert_eq!(other(&mut growth, 7000 + (room * 100.0) as usize, room), smaller, "room {room}");
        assert_eq!(host(&mut growth, (room * 100.0) as usize, room), new_host, "room {room}");
    }
}

/// Many hosts bring the same explosion, each a little of it, while others start up.
#[test]
fn an_explosion_over_many_hosts_is_told_from_new_hosts() {
    let mut growth = Growth::default();
    for i in 0..200_000usize {
        let tags = format!("request_id={i}");
        admit(&mut growth, &format!("shop-{}", i % 1000), "http.latency", &tags, 1.0, 0);
    }
    let caught =
        (0..1000).filter(|i| !admit(&mut growth, &format!("shop-{i}"), "http.latency", "request_id=x", 0.5, 0));
    assert_eq!(caught.count(), 1000);
    let mut refused = 0;
    for host in 0..50 {
        for metric in 0..100 {
            let is_taken = admit(&mut growth, &format!("new-{host}"), &format!("metric.{metric}"), "", 0.5, 0);
            refused += i32::from(!is_taken);
        }
    }
    // Those whose four counters are all shared with a culprit; one is expected.
    assert!(refused < 10, "{refused} of 5000");
    assert_eq!(growth.report().metrics[0].name, "http.latency");
    assert_eq!(growth.report().tag_keys[0].name, "request_id");
}

#[test]
fn weights_are_of_the_last_minutes() {
    let mut growth = Growth::default();
    let mut rate = |second: i64| {
        (0..100).for_each(|i| _ = explode(&mut growth, second as usize * 100 + i, 1.0, second));
        growth.report().endpoints[0].per_minute
    };
    (0..600).for_each(|second| _ = rate(second));
    let per_minute = rate(600);
    assert!((4000..9000).contains(&per_minute), "{per_minute} of 6000");
    growth.halve_if_due(600 + 40 * 60);
    assert_eq!(growth.report().endpoints, [], "what is over is forgotten");
    // A clock that was far ahead.
    assert!(explode(&mut growth, 0, 1.0, i64::from(u32::MAX)));
    assert!(explode(&mut growth, 0, 1.0, 700));
    growth.halve_if_due(700 + HALVING_S);
    assert_eq!(growth.report().endpoints[0].per_minute, 0);
}

#[test]
fn names_are_cut_and_memory_is_bounded() {
    let mut growth = Growth::default();
    let long = "ü".repeat(2000);
    for i in 0..5000 {
        let (endpoint, tags) = (format!("{i}{long}"), format!("k{i}{long}={i}"));
        admit(&mut growth, &endpoint, &endpoint, &tags, 0.0, i);
    }
    for list in [&growth.endpoints, &growth.metrics, &growth.tag_keys] {
        assert!(list.listed.len() <= LISTED);
        assert!(list.listed.iter().all(|listed| listed.name.len() <= NAME_MAX));
    }
    assert!(growth.report().last_refused.expect("refused").counter.len() <= NAME_MAX);
}

proptest! {
    /// Whatever the churn, whoever makes a third of all new series is named first, with the tag key that does it, and
    /// caught by any net.
    #[test]
    fn the_culprit_is_found_among_churn(
        churn in prop::collection::vec((0u16..2000, 0u16..300, 0u16..50), 500..3000),
        minutes in 1i64..5,
    ) {
        let mut growth = Growth::default();
        let total = churn.len() as i64;
        let second = |i: usize| i as i64 * minutes * 60 / total;
        for (i, (host, metric, tag)) in churn.iter().enumerate() {
            let tags = format!("dc=bj,disk=sd{tag}");
            admit(&mut growth, &format!("host-{host}"), &format!("metric.{metric}"), &tags, 1.0, second(i));
            if i % 2 == 0 {
                explode(&mut growth, i, 1.0, second(i));
            }
        }
        prop_assert!(!explode(&mut growth, usize::MAX, 0.95, second(churn.len() - 1)));
        let report = growth.report();
        prop_assert_eq!(&report.endpoints[0].name, "shop-07");
        prop_assert_eq!(&report.metrics[0].name, "http.latency");
        prop_assert_eq!(&report.tag_keys[0].name, "request_id");
        prop_assert_eq!(report.endpoints[0].refused, 1);
        prop_assert!(report.endpoints.len() <= REPORTED);
    }

    /// A sketch never says less than the truth, and of few keys not much more.
    #[test]
    fn the_sketch_counts_at_least(keys in prop::collection::vec(0u64..400, 1..4000)) {
        let (mut sketch, hasher) = (Sketch::default(), RandomState::new());
        let mut truth = std::collections::HashMap::new();
        for key in keys {
            let weight = sketch.add([hasher.hash_one(key), hasher.hash_one((key, 1))]);
            let count = truth.entry(key).or_insert(0u32);
            *count += 1;
            prop_assert!(weight >= *count && weight <= *count + 40, "{weight} for {count}");
            prop_assert!(sketch.heaviest >= *count);
        }
    }
}
