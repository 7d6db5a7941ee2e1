//! The account of memory: what owners say adds up to what the allocator says, also under load.

use crate::alarms::make_strategy;
use crate::harness::{Server, Target, this_minute};
use serde_json::{Value, json};
use std::io::{BufReader, Write};

const HOSTS: usize = 150;
const METRICS: usize = 400;

/// Owners of memory in a server with all roles, besides the store.
const OWNERS: [&str; 21] = [
    "start",
    "time zones",
    "routes",
    "rule set",
    "rule texts",
    "rule bindings",
    "alert state",
    "joins",
    "host clocks",
    "events backlog",
    "recent series",
    "portal cache",
    "alarm queue",
    "alarm deliveries",
    "delivery clients",
    "logins",
    "ingest buffers",
    "rpc buffers",
    "connections",
    "http",
    "cpu samples",
];

const OWNERS_OF_STORE: [&str; 10] = [
    "series index",
    "series heads",
    "interner",
    "hot chunks",
    "log buffers",
    "block catalogue",
    "sleeping series",
    "flush buffers",
    "merge buffers",
    "read buffers",
];

fn look(server: &Server) -> Value {
    let (status, body) = server.http("admin", "GET", "/memory?format=json", "", "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("no {name} in {of}"))
}

fn owner<'l>(look: &'l Value, name: &str) -> &'l Value {
    let mut owners = look["owners"].as_array().into_iter().chain(look["elsewhere"].as_array()).flatten();
    owners.find(|owner| owner["owner"] == name).unwrap_or_else(|| panic!("no {name} in {look}"))
}

/// Checks the sums that hold in every server at any time.
fn check_sums(look: &Value) {
    let owners = look["owners"].as_array().expect("a list");
    let names: Vec<&str> = owners.iter().filter_map(|owner| owner["owner"].as_str()).collect();
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
    let owned = number(look, "owned_bytes");
    assert_eq!(owners.iter().map(|owner| number(owner, "bytes")).sum::<u64>(), owned);
    let (allocator, process) = (&look["allocator"], &look["process"]);
    let allocated = number(allocator, "allocated_bytes") - number(allocator, "thread_cache_bytes");
    assert_eq!(owned + number(look, "unaccounted_bytes"), allocated.max(owned), "{look}");
    for pair in ["allocated_bytes", "active_bytes", "resident_bytes"].windows(2) {
        assert!(number(allocator, pair[0]) <= number(allocator, pair[1]), "{allocator}");
    }
    let kinds = ["anonymous_bytes", "file_bytes", "shared_bytes"].map(|kind| number(process, kind));
    assert_eq!(kinds.iter().sum::<u64>(), number(process, "resident_bytes"), "{process}");
    assert_eq!(number(look, "resident_bytes"), number(process, "resident_bytes"));
    assert!(number(process, "resident_max_bytes") >= number(look, "resident_bytes"));
    assert!(number(process, "threads") > 1);
    let parts = ["owned_bytes", "unaccounted_bytes", "slack_bytes", "dirty_bytes", "outside_allocator_bytes"];
    let known = parts.iter().map(|part| number(look, part)).sum::<u64>()
        + ["thread_cache_bytes", "metadata_bytes"].iter().map(|part| number(allocator, part)).sum::<u64>()
        + kinds[1..].iter().sum::<u64>();
    let explained = known as i64 + look["other_bytes"].as_i64().expect("a number");
    assert_eq!(explained, number(look, "resident_bytes") as i64, "the parts are the whole: {look}");
}

#[test]
fn owners_account_for_what_a_loaded_server_holds() {
    let (server, target) = (Server::start(""), Target::start());
    make_strategy(&server.admin(), "host-0000", &target);
    let empty = look(&server);
    check_sums(&empty);
    let newest = this_minute();
    let mut stream = server.connect("transfer_rpc");
    let mut answers = BufReader::new(stream.try_clone().expect("clone"));
    for round in 0..10 {
        for host in 0..HOSTS {
            let item = |metric: usize| {
                json!({"endpoint": format!("host-{host:04}"), "metric": format!("group{}.metric.{metric}", metric % 9),
                    "value": ((host + metric * 31 + round * 7) % 199) as f64 / 3.0, "step": 60, "counterType": "GAUGE",
                    "tags": "", "timestamp": newest - 600 + 60 * round as i64})
            };
            let items: Vec<Value> = (0..METRICS).map(item).collect();
            let request = json!({"method": "Transfer.Update", "params": [items], "id": 1});
            stream.write_all(request.to_string().as_bytes()).expect("write");
            let answer = crate::harness::read_line(&mut answers);
            assert_eq!(answer["result"]["Total"], METRICS, "{answer}");
        }
    }
    let full = look(&server);
    check_sums(&full);
    for name in OWNERS.iter().chain(&OWNERS_OF_STORE).chain(&["telnet", "portal database"]) {
        let bytes = number(owner(&full, name), "bytes");
        let bound = owner(&full, name)["bound_bytes"].as_u64();
        assert!(bound.is_none_or(|bound| bytes <= bound), "{name}: {bytes} above {bound:?}");
    }
    let series = (HOSTS * METRICS) as u64;
    assert_eq!((number(&full, "series"), number(&full, "points")), (series, 10 * series));
    for (name, least) in [("series heads", 32), ("series index", 25), ("hot chunks", 5)] {
        let line = owner(&full, name);
        assert!(number(line, "bytes") >= least * series, "{line}");
        let each = line["bytes_per_series"].as_f64().expect("a number");
        assert!((each - number(line, "bytes") as f64 / series as f64).abs() < 0.1, "{line}");
    }
    let held = [
        "start",
        "time zones",
        "routes",
        "rule set",
        "rule texts",
        "rule bindings",
        "portal cache",
        "connections",
        "ingest buffers",
    ];
    for name in held.iter().chain(&["delivery clients", "portal database"]) {
        assert!(number(owner(&full, name), "bytes") > 0, "{name} in {full}");
    }
    let (unaccounted, allocated) = (number(&full, "unaccounted_bytes"), number(&full["allocator"], "allocated_bytes"));
    println!("{unaccounted} of {allocated} bytes are not accounted for");
    assert!(unaccounted * 10 < allocated, "more than a tenth: {unaccounted} of {allocated}: {full}");
    // The account must not say more than there is, either.
    assert!(number(&full, "owned_bytes") * 20 < allocated * 21, "{full}");

    let held = server.metric("hawkeye_memory_bytes{owner=\"series heads\"}");
    assert_eq!(held as u64, number(owner(&full, "series heads"), "bytes"));
    assert!(server.metric("hawkeye_memory_bound_bytes{owner=\"rpc buffers\"}") > 0.0);
    assert!(server.metric("hawkeye_allocator_allocated_bytes") > 1e6);
    let (_, page) = server.http("admin", "GET", "/metrics", "", "");
    for name in ["memory_unaccounted_bytes", "memory_budget_bytes", "allocator_resident_bytes", "resident_part_bytes"] {
        assert_eq!(page.matches(&format!("# TYPE hawkeye_{name} gauge")).count(), 1, "{name}");
    }
}

#[test]
fn the_page_is_for_people_in_two_languages() {
    let server = Server::start("roles = [\"graph\"]\n");
    let page = |path: &str, headers: &str| server.http("admin", "GET", path, headers, "").1;
    let browser = "Accept: text/html,application/json;q=0.9\r\n";
    let english = page("/memory", browser);
    assert!(english.contains("<h2>Who holds memory</h2>") && english.contains("hot chunks"), "{english}");
    assert!(english.contains("not accounted for") && english.contains("/debug/pprof/"));
    for chinese in [page("/memory?lang=zh", ""), page("/memory", "Accept-Language: zh-CN,zh;q=0.9,en;q=0.8\r\n")] {
        assert!(chinese.contains("lang=\"zh\"") && chinese.contains("热数据块"), "{chinese}");
    }
    assert!(page("/memory?lang=en", "Accept-Language: zh\r\n").contains("hot chunks"));
    let json: Value = serde_json::from_str(&page("/memory", "Accept: application/json\r\n")).expect("JSON");
    check_sums(&json);
    for name in OWNERS_OF_STORE {
        owner(&json, name);
    }
    // The graph alone has no portal and no alarm.
    assert!(!json["owners"].as_array().expect("a list").iter().any(|owner| owner["owner"] == "portal cache"));
}

/// The peak of a server's memory is the server's, also after somebody looked at it.
#[test]
fn a_heap_profile_leaves_no_mark_on_the_server() {
    let server = Server::start("");
    let peak = || number(&look(&server)["process"], "resident_max_bytes");
    let before = peak();
    let (status, svg) = server.http("admin", "GET", "/debug/pprof/allocs?format=svg", "", "");
    assert_eq!(status, 200, "{svg}");
    // Resolved with lines and inlined functions, which the symbol table alone does not have.
    assert!(svg.contains("hawkeye") && svg.contains("__libc_start_main"), "{svg}");
    let grown = peak() - before;
    println!("the peak grew by {grown} bytes");
    // Resolved in the server it grows by more than 100 MB.
    assert!(grown < 32 << 20, "{grown} bytes after {before}");
}
