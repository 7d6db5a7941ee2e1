//! What reading the answers of an hbs costs: an unchanged one allocates nothing, a change what it changes, and the peak
//! stays within 8 MB above what is kept, for 1,000 hosts with 80 strategies each.

mod counting;

use counting::{ALLOCATIONS, LIVE, PEAK};
use model::Rules;
use std::fmt::Write;
use std::sync::Arc;
use wire::hbs::{AnswerLimits, AnswerReader, Call, KnownRules, Progress};

const HOSTS: usize = 1000;
const STRATEGIES: usize = 80;
const PEAK_MAX: isize = 8 << 20;
/// What a socket hands over at a time.
const READ: usize = 64 << 10;

/// As an original hbs writes it. `group` of a host says which strategies it has; `order` is where lists begin.
fn answer(groups: usize, order: usize, note: impl Fn(usize) -> &'static str) -> String {
    let mut text = String::from(r#"{"id":0,"result":{"hostStrategies":["#);
    for host in (0..HOSTS).map(|host| (host + order) % HOSTS) {
        let group = host % groups;
        let comma = if text.ends_with('[') { "" } else { "," };
        write!(text, r#"{comma}{{"hostname":"host-{host:05}.example.com","strategies":["#).expect("String");
        for number in (0..STRATEGIES).map(|number| (number + order) % STRATEGIES) {
            let id = group * STRATEGIES + number + 1;
            let comma = if text.ends_with('[') { "" } else { "," };
            write!(text, r#"{comma}{{"id":{id},"metric":"net.if.in.bytes.{number}","tags":{{"iface":"eth{number}","module":"team-{group}"}},"func":"all(#3)","operator":"\u003e","rightValue":{id}.5,"maxStep":3,"priority":2,"note":"{}","tpl":{{"id":{group},"name":"template of group {group}","parentId":0,"actionId":{group},"creator":"root"}}}}"#, note(host)).expect("String");
        }
        text.push_str("]}");
    }
    text.push_str("]},\"error\":null}\n");
    text
}

const EXPRESSIONS: &str = r#"{"id":1,"result":{"expressions":[{"id":1,"metric":"m","tags":{"k":"v"},"func":"all(#3)","operator":"\u003c","rightValue":1.5,"maxStep":3,"priority":1,"note":"","actionId":3}]},"error":null}"#;

struct Cost {
    allocations: usize,
    /// Of what is held afterwards above what was held before.
    kept: isize,
    /// Above what is held afterwards.
    peak: isize,
}

fn pull(reader: &mut AnswerReader, known: &mut KnownRules, strategies: &str) -> (Option<Arc<Rules>>, Cost) {
    let (allocations, live) = (ALLOCATIONS.get(), LIVE.get());
    PEAK.set(live);
    known.begin();
    for (call, id, text) in [(Call::Strategies, 0, strategies), (Call::Expressions, 1, EXPRESSIONS)] {
        reader.begin(call, id);
        let fed = text.as_bytes().chunks(READ).try_fold(Progress::More, |_, part| reader.feed(part, known));
        assert_eq!(fed, Ok(Progress::Done));
    }
    let rules = known.finish();
    let cost = Cost {
        allocations: ALLOCATIONS.get() - allocations,
        kept: LIVE.get() - live,
        peak: PEAK.get() - LIVE.get().max(live),
    };
    (rules, cost)
}

/// Pulls the same hosts in several states and prints what each costs.
fn check(groups: usize) {
    let first = answer(groups, 0, |_| "");
    println!("{HOSTS} hosts with {STRATEGIES} strategies of {groups} groups, {} bytes:", first.len());
    let (mut reader, mut known) = (AnswerReader::new(), KnownRules::new(AnswerLimits::default()));
    let mut report = |what: &str, text: &str, changes: bool| {
        let (rules, cost) = pull(&mut reader, &mut known, text);
        assert_eq!(rules.is_some(), changes, "{what}");
        println!(
            "  {what:28} {:8} allocations, {:9} bytes more kept, peak {:8} bytes above steady",
            cost.allocations, cost.kept, cost.peak
        );
        (rules, cost)
    };
    let (rules, cost) = report("the first answer", &first, true);
    assert!(cost.peak <= PEAK_MAX);
    let first_kept = cost.kept;
    let rules = rules.expect("new");
    assert_eq!((rules.hosts.len(), rules.expressions.len()), (HOSTS, 1));
    assert!(rules.hosts.values().all(|list| list.len() == STRATEGIES));
    drop((rules, first));

    let turned = answer(groups, 7, |_| "");
    let (_, cost) = report("the same in another order", &turned, false);
    assert!(cost.peak <= PEAK_MAX);
    let (_, cost) = report("the same once more", &turned, false);
    assert_eq!((cost.allocations, cost.kept, cost.peak), (0, 0, 0));

    let one = answer(groups, 0, |host| if host == 3 { "changed" } else { "" });
    let (rules, cost) = report("another note on one host", &one, true);
    assert!(cost.peak <= PEAK_MAX);
    // The map of hosts with a name each, one list, and a handful for each strategy that changed.
    assert!(cost.allocations <= HOSTS + 20 * STRATEGIES, "{}", cost.allocations);
    drop(rules);
    let (_, cost) = report("the same", &one, false);
    assert_eq!((cost.allocations, cost.kept), (0, 0));

    if groups == HOSTS {
        return; // the old rules and the new are as much again as was kept, which says nothing new, slowly
    }
    let all = answer(groups, 0, |_| "changed everywhere");
    let (_, cost) = report("another note everywhere", &all, true);
    // For a moment there are the old rules and the new.
    assert!(cost.peak <= PEAK_MAX + first_kept);
}

/// What is said to be held is what the allocator says, within a twentieth.
#[test]
fn what_is_shown() {
    let text = answer(40, 0, |_| "a note");
    let live = LIVE.get();
    let mut known = KnownRules::new(AnswerLimits::default());
    drop(pull(&mut AnswerReader::new(), &mut known, &text));
    let (held, shown) = (LIVE.get() - live, known.memory_bytes() as isize);
    println!("{held} bytes held, {shown} shown");
    assert!((held - shown).abs() <= held / 20);
}

#[test]
fn hosts_that_share_templates() {
    check(20);
}

#[test]
fn no_two_hosts_share_a_strategy() {
    check(HOSTS);
}
