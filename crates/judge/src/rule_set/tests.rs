use super::*;
use crate::Touched;
use model::Tags;

fn strategy(id: i64, metric: &str, tags: &str, func: &str) -> Arc<Strategy> {
    Arc::new(Strategy {
        id,
        metric: metric.into(),
        tags: tag_map(tags),
        func: func.into(),
        operator: ">".into(),
        right_value: 5.0,
        max_step: 3,
        ..Strategy::default()
    })
}

fn expression(id: i64, metric: &str, tags: &str) -> Arc<Expression> {
    let s = strategy(id, metric, tags, "all(#1)");
    Arc::new(Expression {
        id,
        metric: s.metric.clone(),
        tags: s.tags.clone(),
        func: s.func.clone(),
        operator: s.operator.clone(),
        right_value: 5.0,
        max_step: 3,
        ..Expression::default()
    })
}

fn tag_map(tags: &str) -> model::RuleTags {
    tags.split(',').filter_map(|tag| tag.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

fn rules(hosts: &[(&str, &[Arc<Strategy>])], expressions: &[Arc<Expression>]) -> Rules {
    let hosts = hosts.iter().map(|(name, list)| (name.to_string(), Arc::from(*list))).collect();
    Rules { version: 7, hosts, expressions: expressions.to_vec() }
}

fn compile_clean(rules: &Rules) -> Arc<RuleSet> {
    let (set, refused) = RuleSet::compile(rules, &Options::default());
    assert_eq!(refused, []);
    set
}

fn key<'a>(endpoint: &'a str, metric: &'a str, tags: &'a str) -> SeriesKey<'a> {
    SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) }
}

fn matched(set: &RuleSet, key: SeriesKey<'_>) -> String {
    let mut numbers = Vec::new();
    set.rules_of(key, &mut String::new(), &mut numbers);
    let names: Vec<String> = numbers.iter().map(|number| set.rules[*number as usize].id().to_string()).collect();
    names.join(", ")
}

#[test]
fn series_find_their_rules() {
    let list =
        [strategy(1, "m", "", "all(#1)"), strategy(2, "n", "", "all(#1)"), strategy(3, "m", "mount=/", "all(#1)")];
    let expressions = [
        expression(1, "m", "dc=x"),
        expression(2, "m", "dc=x,mount=/"),
        expression(3, "m", "endpoint=h"),
        expression(4, "n", "endpoint=h"),
    ];
    let set = compile_clean(&rules(&[("h", &list), ("other", &list[1..2])], &expressions));
    let check = |endpoint, metric, tags, expected: &str| {
        assert_eq!(matched(&set, key(endpoint, metric, tags)), expected, "{endpoint} {metric} {tags}");
    };
    check("h", "m", "", "strategy 1, expression 3");
    check("h", "m", "mount=/", "strategy 1, strategy 3, expression 3");
    check("h", "m", "mount=/home", "strategy 1, expression 3");
    check("h", "n", "", "strategy 2, expression 4");
    check("h", "unknown", "", "");
    check("other", "m", "", "");
    check("other", "n", "", "strategy 2");
    check("stranger", "m", "dc=x", "expression 1");
    check("stranger", "m", "dc=x,mount=/", "expression 1, expression 2");
    // The series' own tag of that name hides the endpoint, as scenario 178 recorded.
    check("h", "m", "endpoint=fake", "strategy 1");
    check("stranger", "m", "endpoint=h", "expression 3");
    check("h", "m", "endpoint=h", "strategy 1, expression 3");
}

/// However an expression is filed, series with the same ones have the same list.
#[test]
fn a_pattern_of_endpoints_finds_its_series() {
    let list = [
        expression(1, "m", "endpoint=web-*"),
        expression(2, "m", "endpoint=web-0?,dc=x"),
        expression(3, "m", "endpoint=web-01"),
        expression(4, "m", "dc=web-*"),
    ];
    let of_another = Expression { func: "all(#1) of n".into(), ..(*expression(5, "m", "endpoint=db-*")).clone() };
    let rules = rules(&[], &[&list[..], &[Arc::new(of_another)]].concat());
    let check = |set: &RuleSet, endpoint, metric, tags, expected: &str| {
        assert_eq!(matched(set, key(endpoint, metric, tags)), expected, "{endpoint} {metric} {tags}");
    };
    let set = compile_clean(&rules);
    check(&set, "web-01", "m", "", "expression 1, expression 3");
    check(&set, "web-02", "m", "dc=x", "expression 1, expression 2");
    check(&set, "web-100", "m", "dc=x", "expression 1");
    check(&set, "db-01", "m", "", "expression 5");
    check(&set, "db-01", "n", "", "expression 5");
    check(&set, "web-01", "n", "", "");
    check(&set, "web-*", "m", "", "expression 1");
    check(&set, "a", "m", "dc=web-1", "");
    check(&set, "a", "m", "dc=web-*", "expression 4");
    // The series' own tag comes before its endpoint, as without a pattern.
    check(&set, "web-02", "m", "endpoint=db-7", "expression 5");
    let literal = Options { endpoint_patterns: false, ..Options::default() };
    let set = RuleSet::compile(&rules, &literal).0;
    check(&set, "web-02", "m", "dc=x", "");
    check(&set, "web-*", "m", "", "expression 1");
    check(&set, "db-01", "n", "", "");
}

#[test]
fn a_changed_pattern_touches_the_series_of_its_metric() {
    let set = |pattern: &str| compile_clean(&rules(&[], &[expression(1, "m", pattern)]));
    let touched = Touched::between(set("endpoint=web-*"), set("endpoint=db-*"));
    assert!(touched.covers(key("web-01", "m", "")) && touched.covers(key("db-01", "m", "")));
    assert!(!touched.covers(key("web-01", "n", "")));
    assert!(!Touched::between(set("endpoint=web-*"), set("endpoint=web-*")).covers(key("web-01", "m", "")));
}

#[test]
fn expressions_are_in_the_portals_order() {
    let set = compile_clean(&rules(&[], &[expression(1, "m", "b=2"), expression(2, "m", "a=1")]));
    assert_eq!(matched(&set, key("h", "m", "a=1,b=2")), "expression 1, expression 2");
}

#[test]
fn a_strategy_given_twice_counts_once() {
    let (one, same) = (strategy(1, "m", "", "all(#1)"), strategy(1, "m", "", "all(#1)"));
    let set = compile_clean(&rules(&[("h", &[one.clone(), same.clone(), one])], &[]));
    assert_eq!((matched(&set, key("h", "m", "")).as_str(), set.rule_count()), ("strategy 1", 1));
}

/// The strategies of one host, of which a second host has the same as values of its own.
#[test]
fn memory_follows_distinct_strategies_not_hosts() {
    let list =
        |salt: i64| -> Vec<Arc<Strategy>> { (0..80).map(|id| strategy(id + salt, "m", "", "all(#3)")).collect() };
    let names: Vec<String> = (0..1000).map(|host| format!("host{host:04}")).collect();
    let mut shared = Rules::default();
    let mut copied = Rules::default();
    let one: model::rule::HostStrategies = list(0).into();
    for name in &names {
        shared.hosts.insert(name.clone(), one.clone());
        copied.hosts.insert(name.clone(), list(0).into());
    }
    let (shared, copied) = (compile_clean(&shared), compile_clean(&copied));
    assert_eq!((shared.rule_count(), copied.rule_count()), (80, 80));
    assert_eq!((shared.host_lists.len(), copied.host_lists.len()), (1, 1));
    // 80 strategies and a name per host, in a table that may be half empty; 80,000 pairs would take over 600 kB.
    let bytes = copied.memory_bytes();
    println!("1,000 hosts x 80 strategies: {bytes} bytes");
    assert!(bytes < 80 * 100 + 1000 * 60, "{bytes}");
}

#[test]
fn refusals_name_the_rule_once() {
    let bad =
        [strategy(12, "m", "", "all(3)"), strategy(13, "m", "", "all(#500)"), strategy(14, "m", "", "lookup(#0,3)")];
    let rules = rules(&[("a", &bad), ("b", &bad[..1])], &[expression(3, "m", "")]);
    let (set, refused) = RuleSet::compile(&rules, &Options::default());
    let shown: Vec<String> = refused.iter().map(|refused| format!("{}: {}", refused.name, refused.error)).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(shown[0].starts_with("strategy 12: func `all(3)`, column 4: want"), "{shown:?}");
    assert!(shown[1].starts_with("strategy 13: func `all(#500)`, column 6: needs 500 points"), "{shown:?}");
    assert!(shown[2].starts_with("strategy 14: func `lookup(#0,3)`, column 9: want M"), "{shown:?}");
    assert!(shown[3].starts_with("expression 3: tags: want at least one tag"), "{shown:?}");
    assert_eq!((set.rule_count(), set.uses_metric("m")), (0, false));
}

/// What the original computes although it can never hold: it still recovers (docs/open-falcon/judge.md §10).
#[test]
fn open_falcon_keeps_rules_that_never_hold() {
    let options = Options { semantics: Semantics::OpenFalcon, ..Options::default() };
    let check = |func: &str, operator: &str, is_kept: bool| {
        let mut strategy = Strategy::clone(&strategy(1, "m", "", func));
        strategy.operator = operator.into();
        let (set, _) = RuleSet::compile(&rules(&[("h", &[Arc::new(strategy)])], &[]), &options);
        assert_eq!(set.rule_count() == 1, is_kept, "{func} {operator}");
    };
    check("all(#11)", ">", true);
    check("all(#12)", ">", false);
    check("diff(#10)", ">", true);
    check("diff(#11)", ">", false);
    check("all(#1)", "=>", true);
    check("lookup(#0,3)", ">", true);
    check("lookup(#4,3)", ">", true);
    check("kdiff(#3,0)", ">", true);
    check("all(#0)", ">", false);
    check("all(#-1)", ">", false);
    check("kdiff(#-9223372036854775808,-1)", ">", false);
    check("kdiff(#9223372036854775807,9223372036854775807)", ">", false);
}

#[test]
fn windows_hold_one_point_more_for_counters() {
    let list = [strategy(1, "m", "", "all(#3)"), strategy(2, "m", "", "kdiff(#4,5)")];
    assert_eq!(compile_clean(&rules(&[("h", &list)], &[])).window_points(), 10);
}

fn covered(old: &Rules, new: &Rules, key: SeriesKey<'_>) -> bool {
    Touched::between(compile_clean(old), compile_clean(new)).covers(key)
}

#[test]
fn a_change_touches_only_its_own_series() {
    let (a, b) = (strategy(1, "m", "", "all(#1)"), strategy(2, "n", "", "all(#1)"));
    let old = rules(&[("h1", std::slice::from_ref(&a)), ("h2", std::slice::from_ref(&a))], &[]);
    let new = rules(&[("h1", &[a.clone(), b]), ("h2", &[a])], &[]);
    assert!(covered(&old, &new, key("h1", "n", "")));
    assert!(!covered(&old, &new, key("h1", "m", "")));
    assert!(!covered(&old, &new, key("h2", "n", "")));
    assert!(covered(&new, &old, key("h1", "n", "")));
}

#[test]
fn a_new_threshold_touches_nothing() {
    let old = rules(&[("h", &[strategy(1, "m", "", "all(#1)")])], &[expression(1, "m", "a=1")]);
    let mut changed = Expression::clone(&expression(1, "m", "a=1"));
    changed.right_value = 9.0;
    let new = rules(&[("h", &[strategy(1, "m", "", "all(#2)")])], &[Arc::new(changed)]);
    assert!(!covered(&old, &new, key("h", "m", "a=1")));
}

#[test]
fn other_tags_and_expressions_touch_their_metric() {
    let old = rules(&[("h", &[strategy(1, "m", "", "all(#1)")])], &[expression(1, "e", "a=1")]);
    let tags = rules(&[("h", &[strategy(1, "m", "a=1", "all(#1)")])], &[expression(1, "e", "a=1")]);
    let expressions = rules(&[("h", &[strategy(1, "m", "", "all(#1)")])], &[expression(1, "e", "a=2")]);
    assert!(covered(&old, &tags, key("h", "m", "")));
    assert!(!covered(&old, &tags, key("h", "e", "a=1")));
    assert!(covered(&old, &expressions, key("x", "e", "a=2")));
    assert!(!covered(&old, &expressions, key("h", "m", "")));
}

/// The parts of a strategy with the tag `mount=/data` excepted: the rest, and the series with the tag above 9.
fn in_parts() -> [Arc<Strategy>; 2] {
    let tag = ("mount".to_string(), "/data".to_string());
    let whole = strategy(1, "m", "", "all(#1)");
    let part = |only: Option<(String, String)>, except, right_value| {
        let scope = Some(Box::new(model::rule::TagScope { only, except }));
        Arc::new(Strategy { right_value, scope, ..Strategy::clone(&whole) })
    };
    [part(None, vec![tag.clone()], 5.0), part(Some(tag), Vec::new(), 9.0)]
}

#[test]
fn parts_of_a_strategy_share_no_series() {
    let set = compile_clean(&rules(&[("h", &in_parts())], &[]));
    let right = |tags: &str| {
        let mut numbers = Vec::new();
        set.rules_of(key("h", "m", tags), &mut String::new(), &mut numbers);
        let rules = numbers.iter().map(|number| &set.rules[*number as usize].source);
        rules.map(|rule| if let EventRule::Strategy(one) = rule { one.right_value } else { 0.0 }).collect::<Vec<_>>()
    };
    assert_eq!((right("mount=/data"), right("a=b,mount=/data")), (vec![9.0], vec![9.0]));
    assert_eq!((right(""), right("mount=/data2"), right("mount=/")), (vec![5.0], vec![5.0], vec![5.0]));
}

#[test]
fn an_exception_of_a_tag_touches_the_series_of_its_strategy() {
    let other = strategy(2, "n", "", "all(#1)");
    let whole = [strategy(1, "m", "", "all(#1)"), other.clone()];
    let [rest, part] = in_parts();
    let parts = [rest.clone(), part.clone(), other.clone()];
    let (before, after) = (rules(&[("h", &whole), ("g", &whole)], &[]), rules(&[("h", &parts), ("g", &whole)], &[]));
    assert!(covered(&before, &after, key("h", "m", "mount=/data")));
    assert!(!covered(&before, &after, key("h", "n", "")) && !covered(&before, &after, key("g", "m", "")));
    // Another threshold of a part is a successor, as another threshold of a strategy is.
    let higher = Arc::new(Strategy { right_value: 10.0, ..Strategy::clone(&part) });
    let changed = rules(&[("h", &[rest, higher, other]), ("g", &whole)], &[]);
    assert!(!covered(&after, &changed, key("h", "m", "mount=/data")));
}
