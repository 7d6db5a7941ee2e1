//! Tests of the rules: inheritance, windows, maintenance, and rows that cannot be read.

use super::*;
use crate::portal::exception::Exception;
use crate::rules::snapshot::HostRow;
use std::time::Instant;

/// 12:30 UTC.
const NOON: i64 = 1_600_000_200 - 1_600_000_200 % 86_400 + 12 * 3600 + 30 * 60;

fn at(unix: i64) -> Zoned {
    jiff::Timestamp::from_second(unix).expect("in range").to_zoned(jiff::tz::TimeZone::UTC)
}

/// A snapshot from short texts. Templates are `id<parent`; strategies `id@template metric/tags`; hosts `name:
/// templates`.
fn snapshot(templates: &str, strategies: &str, hosts: &str) -> Snapshot {
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let mut snapshot = Snapshot::default();
    for text in templates.split_whitespace() {
        let (id, parent_id) = text.split_once('<').map_or_else(|| (number(text), 0), |(id, p)| (number(id), number(p)));
        let template =
            model::Template { id, name: format!("t{id}"), parent_id, action_id: id * 10, ..Default::default() };
        snapshot.parents.insert(id, parent_id);
        snapshot.templates.insert(id, template);
    }
    let strategy = |text: &str| {
        let (ids, counter) = text.trim().split_once(' ').expect("ids and counter");
        let (id, tpl_id) = ids.split_once('@').expect("id@template");
        let (metric, tags) = counter.split_once('/').unwrap_or((counter, ""));
        row(number(id), number(tpl_id), metric, tags)
    };
    snapshot.set_strategies(strategies.split(';').filter(|text| !text.trim().is_empty()).map(strategy).collect());
    for text in hosts.split(';') {
        let (name, templates) = text.split_once(':').expect("name: templates");
        let templates = templates.split_whitespace().map(number).collect();
        snapshot.hosts.push(HostRow { hostname: name.trim().to_string(), templates, ..HostRow::default() });
    }
    snapshot.hosts.sort_by(|a, b| a.hostname.cmp(&b.hostname));
    snapshot
}

fn row(id: i64, tpl_id: i64, metric: &str, tags: &str) -> strategy::Strategy {
    strategy::Strategy {
        id,
        metric: metric.to_string(),
        tags: tags.to_string(),
        max_step: 3,
        func: "all(#3)".to_string(),
        op: ">".to_string(),
        right_value: "90".to_string(),
        tpl_id,
        ..Default::default()
    }
}

/// The rules as `host: id@leaf …` joined by `; `.
fn shown(snapshot: &Snapshot, unix: i64) -> String {
    let (rules, _) = snapshot.rules(&at(unix), 1);
    let mut hosts: Vec<String> = rules
        .hosts
        .iter()
        .map(|(name, list)| {
            let list: Vec<String> =
                list.iter().map(|strategy| format!("{}@{}", strategy.id, strategy.tpl.id)).collect();
            format!("{name}: {}", list.join(" "))
        })
        .collect();
    hosts.sort();
    hosts.join("; ")
}

#[test]
fn inheritance() {
    let check = |templates: &str, strategies: &str, hosts: &str, expected: &str| {
        assert_eq!(
            shown(&snapshot(templates, strategies, hosts), NOON),
            expected,
            "{templates} | {strategies} | {hosts}"
        );
    };
    // One template; a host without any, or with an unknown one, has no rules.
    check("1", "1@1 cpu", "a: 1; b:; c: 9", "a: 1@1");
    // A child takes its parent's strategies, and its own template is the one that counts.
    check("1 2<1", "1@1 cpu; 2@2 mem", "a: 2", "a: 1@2 2@2");
    // The same metric and tags replace all of the parent's, however many they are.
    check("1 2<1", "1@1 cpu; 2@1 cpu; 3@2 cpu", "a: 2", "a: 3@2");
    check("1 2<1", "1@1 cpu; 3@2 cpu; 4@2 cpu", "a: 2", "a: 3@2 4@2");
    // Tags are part of the key, in any order.
    check("1 2<1", "1@1 df/a=1; 2@2 df", "a: 2", "a: 1@2 2@2");
    check("1 2<1", "1@1 df/a=1,b=2; 2@2 df/b=2, a=1", "a: 2", "a: 2@2");
    // Over three levels; the middle one replaces, the leaf inherits.
    check("1 2<1 3<2", "1@1 cpu; 2@2 cpu; 3@1 mem", "a: 3", "a: 2@3 3@3");
    // A bound parent beside its child adds nothing.
    check("1 2<1", "1@1 cpu; 2@2 cpu", "a: 1 2", "a: 2@2");
    // Siblings: the parent's strategies come once, with the first chain's leaf; each keeps its own.
    check("1 2<1 3<1", "1@1 cpu; 2@2 mem; 3@3 mem", "a: 2 3", "a: 1@2 2@2 3@3");
    // A sibling's replacement does not touch the other chain.
    check("1 2<1 3<1", "1@1 cpu; 2@2 cpu", "a: 2 3", "a: 1@3 2@2");
    // A parent that is gone ends the chain; a cycle, and whatever hangs on it, counts for nothing.
    check("2<1", "2@2 cpu", "a: 2", "a: 2@2");
    check("1<2 2<1 3<2 4", "1@1 cpu; 3@3 mem; 4@4 swap", "a: 3 4", "a: 4@4");
}

#[test]
fn windows() {
    let check = |begin: &str, end: &str, now: &str, expected: bool| {
        assert_eq!(is_open(begin, end, now), expected, "{begin:?} to {end:?} at {now}");
    };
    check("", "", "12:00", true);
    check("08:00", "20:00", "08:00", true);
    check("08:00", "20:00", "20:00", true);
    check("08:00", "20:00", "20:01", false);
    check("00:00", "24:00", "23:59", true);
    // Overnight.
    check("20:00", "08:00", "23:00", true);
    check("20:00", "08:00", "08:00", true);
    check("20:00", "08:00", "12:00", false);
    // One side only: an empty end is smaller than any time, so the window is an overnight one.
    check("08:00", "", "09:00", true);
    check("08:00", "", "07:00", false);
    check("", "20:00", "07:00", true);
    check("", "20:00", "21:00", false);
}

#[test]
fn a_closed_window_is_as_if_the_strategy_were_not_there() {
    let mut snapshot = snapshot("1 2<1", "1@1 cpu; 2@2 cpu", "a: 2");
    let mut rows = snapshot.strategies.clone();
    (rows[1].run_begin, rows[1].run_end) = ("20:00".to_string(), "23:00".to_string());
    snapshot.set_strategies(rows);
    assert_eq!(shown(&snapshot, NOON), "a: 1@2", "the parent's is not replaced by a closed one");
    assert_eq!(shown(&snapshot, NOON + 8 * 3600), "a: 2@2");
}

#[test]
fn windows_are_in_local_time() {
    let mut snapshot = snapshot("1", "1@1 cpu", "a: 1");
    let mut rows = snapshot.strategies.clone();
    (rows[0].run_begin, rows[0].run_end) = ("20:00".to_string(), "21:00".to_string());
    snapshot.set_strategies(rows);
    let beijing = jiff::tz::TimeZone::fixed(jiff::tz::offset(8));
    let now = jiff::Timestamp::from_second(NOON).expect("in range");
    assert_eq!(snapshot.rules(&now.to_zoned(beijing), 1).0.hosts.len(), 1, "12:30 UTC is 20:30 there");
    assert_eq!(snapshot.rules(&at(NOON), 1).0.hosts.len(), 0);
}

#[test]
fn hosts_in_maintenance_have_no_rules() {
    let check = |begin: i64, end: i64, expected: &str| {
        let mut snapshot = snapshot("1", "1@1 cpu", "a: 1");
        (snapshot.hosts[0].maintain_begin, snapshot.hosts[0].maintain_end) = (begin, end);
        assert_eq!(shown(&snapshot, NOON), expected, "{begin} {end}");
    };
    check(0, 0, "a: 1@1");
    check(NOON - 10, NOON + 10, "");
    check(NOON, NOON, "");
    check(NOON + 1, NOON + 10, "a: 1@1");
    check(NOON - 10, NOON - 1, "a: 1@1");
}

#[test]
fn equal_lists_and_strategies_exist_once() {
    // c has another set of templates, but the same strategies: 3 is empty.
    let snapshot = snapshot("1 2 3", "1@1 cpu; 2@2 mem", "a: 1 2; b: 1 2; c: 1 2 3; d: 1");
    let (rules, skipped) = snapshot.rules(&at(NOON), 7);
    assert_eq!((rules.version, skipped), (7, vec![]));
    assert!(Arc::ptr_eq(&rules.hosts["a"], &rules.hosts["b"]));
    assert!(Arc::ptr_eq(&rules.hosts["a"], &rules.hosts["c"]));
    assert!(Arc::ptr_eq(&rules.hosts["a"][0], &rules.hosts["d"][0]));
}

#[test]
fn a_strategy_is_read_from_its_row() {
    let mut snapshot = snapshot("1 2<1", "1@1 df", "a: 2");
    let mut rows = snapshot.strategies.clone();
    let texts = ("k= v, novalue, x = y=z,k=w ", "note", "-5.5");
    (rows[0].tags, rows[0].note, rows[0].right_value) = (texts.0.into(), texts.1.into(), texts.2.into());
    (rows[0].priority, rows[0].max_step) = (2, 4);
    snapshot.set_strategies(rows);
    let (rules, _) = snapshot.rules(&at(NOON), 1);
    let strategy = &rules.hosts["a"][0];
    let tags: Vec<(&str, &str)> = strategy.tags.iter().collect();
    assert_eq!(tags, [("k", "w"), ("x", "y=z")], "as a point's tags are read");
    assert_eq!((strategy.right_value, strategy.max_step, strategy.priority), (-5.5, 4, 2));
    assert_eq!((strategy.tpl.id, strategy.tpl.parent_id, strategy.tpl.action_id), (2, 1, 20));
}

#[test]
fn unusable_rows_are_left_out_and_named() {
    let mut snapshot = snapshot("1 2<2", "1@1 cpu; 2@9 cpu; 3@1 mem; 4@1 swap", "a: 1");
    let mut rows = snapshot.strategies.clone();
    rows[2].right_value = "many".to_string();
    rows[3].max_step = i64::MAX;
    snapshot.set_strategies(rows);
    let expression = |id: i64, text: &str, right_value: &str| expression::Expression {
        id,
        expression: text.to_string(),
        right_value: right_value.to_string(),
        action_id: 5,
        ..Default::default()
    };
    snapshot.expressions = vec![
        expression(1, "each(metric=cpu a=b)", "1"),
        expression(2, "each metric=cpu", "1"),
        expression(3, "each(metric=cpu a=b)", "NaN"),
    ];
    let (rules, skipped) = snapshot.rules(&at(NOON), 1);
    assert_eq!(rules.hosts["a"].len(), 1);
    assert_eq!(rules.expressions.len(), 1);
    let parts = [
        "expression 2: no opening parenthesis",
        "expression 3: right_value \"NaN\"",
        "strategy 2: its template 9",
        "strategy 3: right_value \"many\"",
        "strategy 4: max_step",
        "template 2: its parents form a cycle",
    ];
    assert_eq!(skipped.len(), parts.len(), "{skipped:?}");
    for (reason, part) in skipped.iter().zip(parts) {
        assert!(reason.starts_with(part), "{reason:?}, want {part:?}");
    }
}

#[tokio::test]
async fn a_snapshot_holds_what_the_tables_hold() -> anyhow::Result<()> {
    use crate::portal::{action, group, host};
    let (_dir, portal) = crate::portal::tests::temporary().await?;
    let group = group::create(&portal, "g", "root").await?.id;
    group::replace_hosts(&portal, group, &["b".to_string(), "a".to_string()]).await?;
    let tpl_id = template::create(&portal, "t", 0, 0, "root").await?.id;
    group::bind_template(&portal, group, tpl_id, "root").await?;
    strategy::create(&portal, &row(0, tpl_id, "cpu", "")).await?;
    let text = "each(metric=cpu a=b)".to_string();
    let (right_value, func) = ("1".to_string(), "all(#1)".to_string());
    let expression = expression::Expression { expression: text, right_value, func, ..Default::default() };
    let paused = expression::Expression { pause: 1, ..expression.clone() };
    expression::create(&portal, &expression, &action::Action::default()).await?;
    expression::create(&portal, &paused, &action::Action::default()).await?;
    let load = async || anyhow::Ok(Snapshot::load(&portal).await?.rules(&at(NOON), 1).0);
    let rules = load().await?;
    assert_eq!(rules.hosts.len(), 2);
    assert_eq!(rules.hosts["a"][0].tpl.name, "t");
    assert_eq!(rules.expressions.len(), 1, "a paused expression is not in effect");
    let before = portal.version();
    host::maintain(&portal, &host::Selection::Names(vec!["a".to_string()]), NOON - 1, NOON + 1).await?;
    assert_eq!(portal.version(), before + 1, "each change is announced");
    assert_eq!(load().await?.hosts.keys().collect::<Vec<_>>(), ["b"]);
    group::delete(&portal, group).await?;
    assert!(load().await?.hosts.is_empty());
    Ok(())
}

/// Prints what it costs; the sizes are checked, the time is not.
#[test]
fn a_thousand_hosts_with_eighty_strategies() {
    let strategies: Vec<String> = (1..=80).map(|id| format!("{id}@{} metric.{id}/k=v", id % 8 + 1)).collect();
    let templates = "1 2<1 3<2 4<3 5 6<5 7 8";
    let hosts: Vec<String> = (0..1000).map(|id| format!("host-{id}: 4 6 7 8")).collect();
    let same = snapshot(templates, &strategies.join(";"), &hosts.join(";"));
    let started = Instant::now();
    let (rules, _) = same.rules(&at(NOON), 1);
    println!("1,000 hosts x 80 strategies, one set of templates: {:?}", started.elapsed());
    assert_eq!(rules.hosts.len(), 1000);
    assert!(rules.hosts.values().all(|list| list.len() == 80));
    // The worst case: each host has a template of its own below the shared ones.
    let own: Vec<String> = (100..1100).map(|id| format!("{id}<{}", id % 4 + 1)).collect();
    let hosts: Vec<String> = (0..1000).map(|id| format!("host-{id}: 4 6 7 8 {}", id + 100)).collect();
    let distinct = snapshot(&format!("{templates} {}", own.join(" ")), &strategies.join(";"), &hosts.join(";"));
    let started = Instant::now();
    let (rules, _) = distinct.rules(&at(NOON), 1);
    println!("1,000 hosts x 80 strategies, a template per host: {:?}", started.elapsed());
    assert!(rules.hosts.values().all(|list| list.len() == 80));
}

/// Exceptions from short texts: `strategy kind target right_value/max_step`, with `-` for a pause.
fn except(snapshot: &mut Snapshot, texts: &str) {
    let row = |(at, text): (usize, &str)| {
        let [strategy, kind, target, change] = text.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{text}: strategy kind target change")
        };
        let (right_value, max_step) = change.split_once('/').unwrap_or((change, "0"));
        Exception {
            id: at as i64 + 1,
            strategy_id: strategy.parse().expect("an id"),
            kind: kind.to_string(),
            target: target.to_string(),
            right_value: if change == "-" { String::new() } else { right_value.to_string() },
            max_step: max_step.parse().expect("a number"),
            pause: i64::from(change == "-"),
            ..Exception::default()
        }
    };
    snapshot.exceptions = texts.split(';').filter(|text| !text.trim().is_empty()).enumerate().map(row).collect();
}

/// Rules of a host as `right_value/max_step`, those of a tag as `key=value:…`, joined by blanks.
fn held(snapshot: &Snapshot, host: &str) -> String {
    let (rules, skipped) = snapshot.rules(&at(NOON), 1);
    assert_eq!(skipped, Vec::<String>::new());
    let of_host = rules.hosts.get(host).map_or(&[][..], |list| &list[..]);
    let one = |strategy: &Arc<Strategy>| {
        let part = strategy.part();
        let part = if part.is_empty() { part } else { format!("{part}:") };
        format!("{part}{}/{}", strategy.right_value, strategy.max_step)
    };
    of_host.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn exceptions_count_by_host_then_tag_then_group() {
    let check = |exceptions: &str, expected: &str| {
        let mut snapshot = snapshot("1", "1@1 df", "a: 1; b: 1");
        for host in &mut snapshot.hosts {
            host.groups = vec![10, 20];
        }
        snapshot.groups = [(10, "Web".to_string()), (20, "db".to_string())].into();
        except(&mut snapshot, exceptions);
        assert_eq!(held(&snapshot, "a"), expected, "{exceptions}");
    };
    check("", "90/3");
    check("1 host a 95", "95/3");
    check("1 host a 95/1", "95/1");
    check("1 host b 95", "90/3");
    check("1 host a -", "");
    check("1 group web 95", "95/3");
    check("1 group web 95; 1 host a 80", "80/3");
    // Among several groups the older exception counts, but one that pauses last.
    check("1 group db 95; 1 group web 97", "95/3");
    check("1 group db -; 1 group web 97", "97/3");
    check("1 group db -", "");
    // A tag takes its series out of the rest; the group is for the others.
    check("1 tag mount=/data 99", "90/3 mount=/data:99/3");
    check("1 tag mount=/data -", "90/3");
    check("1 group web 95; 1 tag mount=/data 99/1", "95/3 mount=/data:99/1");
    check("1 group web -; 1 tag mount=/data 99", "mount=/data:99/3");
    check("1 host a 80; 1 tag mount=/data 99", "80/3");
    // What an exception leaves out is the strategy's, not that of another exception.
    check("1 group web 95; 1 host a /1", "90/1");
    check("2 host a 95", "90/3");
}

#[test]
fn tags_count_in_their_order() {
    let mut snapshot = snapshot("1", "1@1 df", "a: 1");
    except(&mut snapshot, "1 tag fstype=nfs -; 1 tag mount=/data 95; 1 tag disk=ssd 97");
    let (rules, _) = snapshot.rules(&at(NOON), 1);
    let right = |tags: &str| {
        let tags = model::Tags::assume_canonical(tags);
        let of_series = rules.hosts["a"].iter().filter(|one| one.scope.as_ref().is_none_or(|scope| scope.takes(tags)));
        let values: Vec<f64> = of_series.map(|one| one.right_value).collect();
        assert!(values.len() < 2, "{tags:?} has {values:?}");
        values.first().copied()
    };
    assert_eq!((right(""), right("mount=/")), (Some(90.0), Some(90.0)));
    assert_eq!((right("mount=/data"), right("disk=ssd"), right("fstype=nfs")), (Some(95.0), Some(97.0), None));
    assert_eq!(right("disk=ssd,mount=/data"), Some(95.0), "the older one");
    assert_eq!(right("fstype=nfs,mount=/data"), Some(95.0), "one that pauses counts last");
}

#[test]
fn hosts_without_exceptions_go_on_sharing() {
    let mut snapshot = snapshot("1", "1@1 df; 2@1 mem", "a: 1; b: 1; c: 1; d: 1; e: 1");
    except(&mut snapshot, "1 host c 95; 1 host d 95; 2 host e -; 9 host a 1");
    let (rules, _) = snapshot.rules(&at(NOON), 1);
    assert!(Arc::ptr_eq(&rules.hosts["a"], &rules.hosts["b"]));
    for changed in ["c", "d", "e"] {
        assert!(!Arc::ptr_eq(&rules.hosts["a"], &rules.hosts[changed]));
    }
    let of = |host: &str, id: i64| rules.hosts[host].iter().find(|one| one.id == id).cloned().expect("there");
    assert!(Arc::ptr_eq(&of("a", 2), &of("c", 2)) && Arc::ptr_eq(&of("a", 1), &of("e", 1)), "what is not excepted");
    assert_eq!(rules.hosts["e"].len(), 1);
    // Equal exceptions of a group make one list.
    snapshot.groups = [(10, "web".to_string())].into();
    for host in snapshot.hosts.iter_mut().filter(|host| host.hostname.as_str() < "c") {
        host.groups = vec![10];
    }
    except(&mut snapshot, "1 group web 95; 1 tag mount=/data -");
    let (rules, _) = snapshot.rules(&at(NOON), 1);
    assert!(Arc::ptr_eq(&rules.hosts["a"], &rules.hosts["b"]) && Arc::ptr_eq(&rules.hosts["c"], &rules.hosts["d"]));
}

#[test]
fn exceptions_that_cannot_be_read_are_named() {
    let mut snapshot = snapshot("1", "1@1 df", "a: 1");
    except(&mut snapshot, "1 host a many; 1 group none 5; 1 tag mount 5; 1 other a 5");
    let (rules, skipped) = snapshot.rules(&at(NOON), 1);
    assert_eq!(rules.hosts["a"][0].right_value, 90.0);
    let parts = [
        "exception 1 of strategy 1: right_value \"many\" is not a finite number",
        "exception 2 of strategy 1: there is no group \"none\"",
        "exception 3 of strategy 1: tag \"mount\" is no host, group or tag like key=value",
        "exception 4 of strategy 1: other \"a\" is no host",
    ];
    assert_eq!(skipped.len(), parts.len(), "{skipped:?}");
    for (reason, part) in skipped.iter().zip(parts) {
        assert!(reason.starts_with(part), "{reason:?}, want {part:?}");
    }
}

/// An old judge gets the strategy of a host as its exception changes it, and nothing of tags.
#[test]
fn an_old_judge_is_told_of_hosts_and_groups_only() {
    let mut snapshot = snapshot("1", "1@1 df", "a: 1; b: 1; c: 1");
    let told = |snapshot: &Snapshot| {
        let mut out = Vec::new();
        wire::hbs::write_strategies(&mut out, &snapshot.rules(&at(NOON), 1).0);
        let answer: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let hosts = answer["hostStrategies"].as_array().cloned().unwrap_or_default();
        let one = |host: &serde_json::Value| {
            let rights = host["strategies"].as_array().into_iter().flatten().map(|one| one["rightValue"].to_string());
            format!("{}:{}", host["hostname"].as_str().unwrap_or_default(), rights.collect::<Vec<_>>().join(","))
        };
        hosts.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    except(&mut snapshot, "1 host a 95; 1 host b -; 1 tag mount=/data 99");
    assert_eq!(told(&snapshot), "a:95 c:90");
    // Where only a tag holds, nothing can be told.
    snapshot.groups = [(10, "web".to_string())].into();
    snapshot.hosts[2].groups = vec![10];
    except(&mut snapshot, "1 group web -; 1 tag mount=/data 99");
    assert_eq!(told(&snapshot), "a:90 b:90");
}
