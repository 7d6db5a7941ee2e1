use super::*;
use crate::hbs::{AnswerLimits, Omissions};
use model::Rules;
use std::sync::Arc;

/// `{"id":…}` of a strategy with the right value that tells it from others with its id.
fn strategy(id: i64, right: u32) -> String {
    format!(r#"{{"id":{id},"metric":"m{id}","tags":{{}},"func":"all(#3)","operator":"\u003e","rightValue":{right}}}"#)
}

fn host(name: &str, strategies: &[String]) -> String {
    format!(r#"{{"hostname":"{name}","strategies":[{}]}}"#, strategies.join(","))
}

fn answer(id: u64, result: &str) -> String {
    format!("{{\"id\":{id},\"result\":{result},\"error\":null}}\n")
}

fn strategies_answer(hosts: &[String]) -> String {
    answer(0, &format!(r#"{{"hostStrategies":[{}]}}"#, hosts.join(",")))
}

fn expressions_answer(expressions: &[String]) -> String {
    answer(1, &format!(r#"{{"expressions":[{}]}}"#, expressions.join(",")))
}

fn feed(known: &mut KnownRules, call: Call, id: u64, text: &[u8], size: usize) -> Result<Progress, AnswerError> {
    let mut reader = AnswerReader::new();
    reader.begin(call, id);
    text.chunks(size).try_fold(Progress::More, |_, part| reader.feed(part, known))
}

/// A pass of both answers; none when nothing changed.
fn pull(known: &mut KnownRules, strategies: &str, expressions: &str) -> Option<Arc<Rules>> {
    known.begin();
    assert_eq!(feed(known, Call::Strategies, 0, strategies.as_bytes(), 7), Ok(Progress::Done), "{strategies}");
    assert_eq!(feed(known, Call::Expressions, 1, expressions.as_bytes(), 7), Ok(Progress::Done), "{expressions}");
    known.finish()
}

fn none() -> String {
    answer(1, r#"{"expressions":null}"#)
}

fn ids(rules: &Rules, host: &str) -> Vec<i64> {
    rules.hosts.get(host).map(|list| list.iter().map(|strategy| strategy.id).collect()).unwrap_or_default()
}

#[test]
fn hosts_with_the_same_strategies_share_one_list() {
    let mut known = KnownRules::new(AnswerLimits::default());
    let (one, two) = (strategy(1, 5), strategy(2, 5));
    let hosts = [host("a", &[one.clone(), two.clone()]), host("b", &[two.clone(), one.clone()]), host("c", &[two])];
    let rules = pull(&mut known, &strategies_answer(&hosts), &expressions_answer(&[one])).expect("new");
    assert_eq!(rules.version, 1);
    assert_eq!((ids(&rules, "a"), ids(&rules, "c")), (vec![1, 2], vec![2]));
    assert!(Arc::ptr_eq(&rules.hosts["a"], &rules.hosts["b"]));
    assert!(Arc::ptr_eq(&rules.hosts["a"][1], &rules.hosts["c"][0]));
    assert_eq!(rules.hosts["a"][0].operator, ">");
    assert_eq!((rules.expressions.len(), rules.expressions[0].id), (1, 1));
    assert_eq!(known.distinct(), 3);
}

#[test]
fn order_is_no_change_and_a_change_touches_what_it_changes() {
    let mut known = KnownRules::new(AnswerLimits::default());
    let (one, two, three) = (strategy(1, 5), strategy(2, 5), strategy(3, 5));
    let both = [one.clone(), two.clone()];
    let first = [host("a", &both), host("b", &both), host("c", std::slice::from_ref(&three))];
    let expressions = expressions_answer(&[one.clone(), two.clone()]);
    let before = pull(&mut known, &strategies_answer(&first), &expressions).expect("new");

    let turned = [two.clone(), one.clone()];
    let again = [host("c", std::slice::from_ref(&three)), host("b", &turned), host("a", &turned)];
    let other_order = expressions_answer(&[two.clone(), one.clone()]);
    assert!(pull(&mut known, &strategies_answer(&again), &other_order).is_none());

    let changed = [host("a", &[one, strategy(2, 6)]), host("b", &turned), host("c", &[three])];
    let after = pull(&mut known, &strategies_answer(&changed), &expressions).expect("a change");
    assert_eq!(after.version, 2);
    assert!(Arc::ptr_eq(&before.hosts["b"], &after.hosts["b"]), "what did not change is not built");
    assert!(Arc::ptr_eq(&before.hosts["c"], &after.hosts["c"]));
    assert!(Arc::ptr_eq(&before.hosts["a"][0], &after.hosts["a"][0]));
    assert_eq!((before.hosts["a"][1].right_value, after.hosts["a"][1].right_value), (5.0, 6.0));

    let gone = [host("b", &turned)];
    let rules = pull(&mut known, &strategies_answer(&gone), &none()).expect("a change");
    assert_eq!((rules.version, rules.hosts.len(), rules.expressions.len()), (3, 1, 0));
    assert!(pull(&mut known, &strategies_answer(&gone), &none()).is_none());
    drop((before, after));
    known.begin();
    known.abandon();
    assert_eq!(known.distinct(), 2, "what nobody uses is forgotten");
}

#[test]
fn another_spelling_is_no_change() {
    let mut known = KnownRules::new(AnswerLimits::default());
    let usual = r#"{"id":1,"metric":"m","tags":{"k":"a/b"},"func":"all(#3)","operator":">","rightValue":5,"maxStep":3,"priority":0,"note":"","tpl":{"id":1,"name":"t","parentId":0,"actionId":2,"creator":"root"}}"#;
    let other = r#"{ "ID": 1, "tpl":{"name":"t","id":1,"creator":"root","actionId":2}, "metric":"\u006d","tags":{"k":"a\/b"},
        "func":"all(#3)","operator":"\u003e","rightValue":5.0,"maxStep":3 }"#;
    let both = [host("a", &[usual.to_string()]), host("b", &[other.to_string()])];
    let rules = pull(&mut known, &strategies_answer(&both), &none()).expect("new");
    assert!(Arc::ptr_eq(&rules.hosts["a"], &rules.hosts["b"]));
    let turned = [host("b", &[usual.to_string()]), host("a", &[other.to_string()])];
    assert!(pull(&mut known, &strategies_answer(&turned), &none()).is_none());
}

#[test]
fn a_bad_rule_costs_nobody_else() {
    let mut known = KnownRules::new(AnswerLimits::default());
    let (good, other) = (strategy(1, 5), strategy(2, 5));
    let bad = r#"{"id":7,"metric":"x","maxStep":"three"}"#.to_string();
    let hosts = [
        host("a", &[good.clone(), bad.clone(), "null".into(), r#"{"metric":"y"}"#.into(), "[1,[2]]".into()]),
        "5".to_string(),
        host("", std::slice::from_ref(&good)),
        host("b", std::slice::from_ref(&bad)),
        r#"{"hostname":["c"],"strategies":null}"#.to_string(),
        r#"{"hostname":"d","strategies":{}}"#.to_string(),
        r#"{"hostname":"e","strategies":null}"#.to_string(),
        host("f", &[other.clone(), strategy(2, 6)]),
        host("f", &[good]),
    ];
    let strategies = strategies_answer(&hosts);
    let rules = pull(&mut known, &strategies, &expressions_answer(&[other, bad])).expect("new");
    assert_eq!((ids(&rules, "a"), ids(&rules, "f")), (vec![1], vec![2]));
    assert_eq!((rules.hosts.len(), rules.expressions.len()), (2, 1));
    let Omissions { count, named, sum } = known.left_out().clone();
    assert_eq!(count, 12);
    assert_eq!(
        named,
        [
            r#"strategy 7 of host "a": maxStep must be an integer that fits"#,
            r#"strategy without id of host "a": id must be a number above 0"#,
            r#"strategy without id of host "a": id must be a number above 0"#,
            r#"strategy without id of host "a": invalid JSON at byte 0: an object must stand here"#,
            r#"host "": a host must be an object"#,
            r#"host "": hostname must not be empty"#,
            r#"strategy 7 of host "b": maxStep must be an integer that fits"#,
            r#"host "": hostname must be a text"#,
        ]
    );
    assert!(
        pull(
            &mut known,
            &strategies,
            &expressions_answer(&[strategy(2, 5), r#"{"id":7,"metric":"x","maxStep":"three"}"#.into()])
        )
        .is_none()
    );
    assert_eq!((known.left_out().count, known.left_out().sum), (count, sum));
}

#[test]
fn fields_in_any_order_and_case() {
    let mut known = KnownRules::new(AnswerLimits::default());
    let list = strategy(1, 5);
    let text = format!(
        r#" {{ "Error" : null , "jsonrpc":"2.0", "RESULT" : {{ "more": [ {{ }} , [ ] , "]" ] , "HostStrategies" : [ {{ "Strategies" : [ {list} ] , "x" : -1e3 , "HostName" : "\u0061" }} ] }} , "id" : 0 }} "#
    );
    let rules = pull(&mut known, &text, &none()).expect("new");
    assert_eq!(ids(&rules, "a"), [1]);
    assert_eq!(known.left_out().count, 0);
}

#[test]
fn answers_that_cannot_be_used() {
    let limits = AnswerLimits {
        rule_bytes: 200,
        hostname_bytes: 6,
        hosts: 2,
        strategies_per_host: 2,
        expressions: 1,
        answer_bytes: 1000,
        distinct_bytes: 500,
    };
    let check = |call: Call, text: &str, expected: &str| {
        for size in [1, 2, 63, text.len()] {
            let mut known = KnownRules::new(limits);
            known.begin();
            let error = feed(&mut known, call, 1, text.as_bytes(), size).expect_err(text);
            assert_eq!(error.to_string(), expected, "of {text} in parts of {size}");
        }
    };
    let strategies = |text: &str, expected: &str| check(Call::Strategies, text, expected);
    let refused = r#"{"id":1,"result":null,"error":"rpc: can't find service Hbs.GetStrategies"}"#;
    strategies(refused, "hbs answered with an error: rpc: can't find service Hbs.GetStrategies");
    strategies(r#"{"id":1,"result":{"hostStrategies":[]},"error":{"a":1}}"#, r#"hbs answered with an error: {"a":1}"#);
    strategies(r#"{"id":2,"result":{"hostStrategies":[]}}"#, "the answer has id 2, want 1");
    strategies(r#"{"id":-1,"result":{"hostStrategies":[]}}"#, "the answer has id -1, want 1");
    strategies(r#"{"result":{"hostStrategies":[]}}"#, "the answer has no id, want 1");
    strategies(r#"{"id":1,"result":null,"error":null}"#, "hostStrategies of the answer must be in the result");
    strategies(r#"{"id":1,"result":{"code":0},"error":null}"#, "hostStrategies of the answer must be in the result");
    strategies(r#"{"id":1,"result":[],"error":null}"#, "result of the answer must be an object");
    strategies(r#"{"id":1,"result":{"hostStrategies":{}}}"#, "hostStrategies of the answer must be a list");
    strategies("[]", "the answer is broken at byte 0: an answer begins with {");
    strategies("HTTP/1.1 400", "the answer is broken at byte 0: an answer begins with {");
    strategies(r#"{"id":1,}"#, "the answer is broken at byte 8: a name must stand here");
    strategies(r#"{"id" 1}"#, "the answer is broken at byte 6: a colon must stand here");
    strategies(r#"{"id":1 "a"}"#, "the answer is broken at byte 8: a comma or } must stand here");
    strategies(r#"{"id":01}"#, "the answer is broken at byte 6: a number must not start with 0");
    strategies(r#"{"id":}"#, "the answer is broken at byte 6: a value must stand here");
    strategies(r#"{"x":[}]"#, "the answer is broken at byte 6: a bracket closes another kind of bracket");
    strategies(r#"{"result":{"hostStrategies":[,]}}"#, "the answer is broken at byte 29: a value must stand here");
    strategies(
        r#"{"result":{"hostStrategies":[{} {}]}}"#,
        "the answer is broken at byte 32: a comma or ] must stand here",
    );
    let deep = format!(r#"{{"x":{}"#, "[".repeat(65));
    strategies(&deep, "the answer is broken at byte 69: nested deeper than 64 levels");
    let text = answer(1, r#"{"hostStrategies":null}"#) + "{";
    strategies(&text, "the answer is broken at byte 55: nothing may follow the answer");

    let many = |hosts: &[String]| answer(1, &format!(r#"{{"hostStrategies":[{}]}}"#, hosts.join(",")));
    let one = [strategy(1, 5)];
    strategies(
        &many(&[host("a", &one), host("b", &one), host("c", &one)]),
        "the answer has more hosts than allowed (2)",
    );
    strategies(
        &many(&[host("a", &[strategy(1, 5), strategy(2, 5), strategy(3, 5)])]),
        "the answer has more strategies of a host than allowed (2)",
    );
    strategies(&many(&[host("abcde", &one)]), "the answer has more bytes in a hostname than allowed (6)");
    strategies(
        &many(&[host("a", &["\"".to_string() + &"x".repeat(300)])]),
        "the answer has more bytes in one rule than allowed (200)",
    );
    strategies(
        &many(&[host("a", &["{\"x\":".to_string() + &"1".repeat(300)])]),
        "the answer has more bytes in one rule than allowed (200)",
    );
    strategies(&many(&[host("a", &["1".repeat(300)])]), "the answer has more bytes in one rule than allowed (200)");
    strategies(&format!(r#"{{"id":{}"#, "1".repeat(201)), "the answer has more bytes in one value than allowed (200)");
    strategies(&format!("{{\"id\":{}", " ".repeat(1000)), "the answer has more bytes than allowed (1000)");
    let distinct = [host("a", &[strategy(1, 5), strategy(2, 5)]), host("b", &[strategy(3, 5), strategy(4, 5)])];
    strategies(&many(&distinct), "the answer has more bytes of distinct rules than allowed (500)");
    let two = answer(1, &format!(r#"{{"expressions":[{},{}]}}"#, strategy(1, 5), strategy(2, 5)));
    check(Call::Expressions, &two, "the answer has more expressions than allowed (1)");
}

#[test]
fn a_pass_that_fails_leaves_the_rules_as_they_were() {
    let mut known = KnownRules::new(AnswerLimits::default());
    let first = [host("a", &[strategy(1, 5)]), host("b", &[strategy(1, 5)])];
    let before = pull(&mut known, &strategies_answer(&first), &none()).expect("new");
    let other = strategies_answer(&[host("a", &[strategy(1, 6)]), host("c", &[strategy(9, 5)])]);
    for end in 1..other.len() - 1 {
        known.begin();
        assert_eq!(feed(&mut known, Call::Strategies, 0, &other.as_bytes()[..end], 5), Ok(Progress::More));
        known.abandon();
        assert!(Arc::ptr_eq(known.rules(), &before));
        assert_eq!(known.distinct(), 1, "nothing is kept of what was cut off at {end}");
    }
    assert!(pull(&mut known, &strategies_answer(&first), &none()).is_none(), "and the next pass compares with them");
    let after = pull(&mut known, &other, &none()).expect("a change");
    assert_eq!((after.version, ids(&after, "b"), ids(&after, "c")), (2, vec![], vec![9]));
}

#[test]
fn emptied() {
    let mut known = KnownRules::new(AnswerLimits::default());
    let empty = strategies_answer(&[]);
    let mut check = |strategies: &str, expressions: &str, expected: bool| {
        known.begin();
        assert_eq!(feed(&mut known, Call::Strategies, 0, strategies.as_bytes(), 99), Ok(Progress::Done));
        assert_eq!(feed(&mut known, Call::Expressions, 1, expressions.as_bytes(), 99), Ok(Progress::Done));
        assert_eq!(known.has_emptied(), expected);
        if expected {
            known.abandon();
        } else {
            known.finish();
        }
    };
    let (some, expressions) =
        (strategies_answer(&[host("a", &[strategy(1, 5)])]), expressions_answer(&[strategy(2, 5)]));
    check(&empty, &none(), true);
    check(&some, &none(), false);
    check(&some, &expressions, false);
    check(&some, &none(), true);
    check(&empty, &expressions, true);
    check(&some, &expressions, false);
    let rules = pull(&mut known, &empty, &none()).expect("the caller may insist");
    assert!(rules.hosts.is_empty() && rules.expressions.is_empty());
    known.begin();
    assert!(!known.has_emptied(), "what was empty before is in no doubt");
}
