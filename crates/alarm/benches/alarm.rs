//! `cargo bench -p alarm`: what an alarm costs the core: its opening, its message, its end, and its memory, in a tree
//! of 200 routes, alone and in groups, with and without inhibitions.

use alarm::{By, Explaining, Fact, Inhibition, Matcher, Pipeline, Policy, Rule, Tree};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const ALARMS: usize = 10_000;
const ROUTES: usize = 200;

/// Counts the bytes that live.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each call goes on to the system's allocator with the same arguments; only a number is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    println!("{ALARMS} alarms, {ROUTES} routes, on one core");
    println!("{:<28} {:>9} {:>9} {:>9} {:>9}", "", "open us", "tell us", "end us", "bytes");
    report("the rule's action", Policy::default());
    report("each alone", policy("[\"alarm\"]", false));
    report("by endpoint", policy("[\"endpoint\"]", false));
    report("by metric", policy("[\"metric\"]", false));
    report("by metric, 20 inhibitions", policy("[\"metric\"]", true));
}

fn policy(group_by: &str, inhibits: bool) -> Policy {
    let route = |at: usize| {
        format!(
            r#"{{"name":"r{at}","when":["group=team{at}"],"to":[{{"to":{{"team":"t{at}"}}}}],"group_by":{group_by}}}"#
        )
    };
    let routes: Vec<String> = (0..ROUTES).map(route).collect();
    let text = format!(r#"{{"wait":0,"routes":[{}]}}"#, routes.join(","));
    let text = serde_json::from_str(&text).expect("a text");
    let matchers = |texts: &[String]| texts.iter().map(|text| Matcher::parse(text).expect(text)).collect();
    let inhibition = |at: usize| Inhibition {
        name: format!("i{at}").into(),
        cause: matchers(&[format!("metric=cause{at}")]),
        explains: matchers(&[format!("metric!=cause{at}")]),
        equal: vec![By::Endpoint],
    };
    Policy {
        tree: Tree::compile(&text, &|_| Some(jiff::tz::TimeZone::UTC), &[]).expect("a tree"),
        explaining: Explaining {
            rules: (0..if inhibits { 20 } else { 0 }).map(inhibition).collect(),
            ..Explaining::default()
        },
        ..Policy::default()
    }
}

fn report(name: &str, policy: Policy) {
    let mut pipeline = Pipeline::new(Arc::new(policy), 0);
    let rules: Vec<Arc<Rule>> = (0..50)
        .map(|at| Rule {
            metric: format!("metric.of.rule.{at}"),
            note: "a note of some length".into(),
            ..Rule::default()
        })
        .map(Arc::new)
        .collect();
    let teams: Vec<Arc<[Box<str>]>> = (0..ROUTES).map(|at| Arc::from([format!("team{at}").into()])).collect();
    let facts: Vec<(String, Fact)> = (0..ALARMS)
        .map(|at| {
            let (rule, groups) = (rules[at % 50].clone(), teams[at % ROUTES].clone());
            let (endpoint, tags) = (format!("host-{:05}.example", at / 50).into(), "device=sda,mount=/data".into());
            (format!("s_{}_{:032x}", at % 50, at), Fact { rule, endpoint, tags, groups })
        })
        .collect();
    let before = LIVE.load(Ordering::Relaxed);
    let began = Instant::now();
    facts.iter().for_each(|(id, fact)| pipeline.problem(id, fact.clone(), 1));
    let open = each(began);
    pipeline.tick(1);
    let told = each(began) - open;
    // Effects are taken, and rows written, by whoever stores them.
    drop((pipeline.drain(), pipeline.changes()));
    let bytes = (LIVE.load(Ordering::Relaxed) - before) / ALARMS;
    let began = Instant::now();
    facts.iter().for_each(|(id, _)| pipeline.recovered(id, "", 2));
    pipeline.tick(1000);
    println!("{name:<28} {open:>9.2} {told:>9.2} {:>9.2} {bytes:>9}", each(began));
}

fn each(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e6 / ALARMS as f64
}
