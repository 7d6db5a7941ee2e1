//! Probes from their definition over REST, by way of agents, to the alarm that says why.

use crate::harness::{Api, Server, Target, find, now, until};
use serde_json::{Value, json};

/// Cases of the probe.
const CASES: &str = "/alarm/eventcases?endpoints=shop&startTime=0&endTime=4102444800";
const HOSTS: [&str; 3] = ["web-01", "web-02", "web-03"];

/// An agent, as far as it is about probes.
struct Agent<'s> {
    server: &'s Server,
    hostname: &'static str,
    version: String,
    ids: Vec<i64>,
}

impl<'s> Agent<'s> {
    fn new(server: &'s Server, hostname: &'static str) -> Agent<'s> {
        Agent { server, hostname, version: String::new(), ids: Vec::new() }
    }

    fn call(&self, method: &str, mut param: Value) -> Value {
        param["Hostname"] = self.hostname.into();
        let answer = self.server.call("hbs_rpc", method, param);
        assert_eq!(answer["error"], Value::Null, "{answer}");
        answer["result"].clone()
    }

    /// Asks which probes it is to run, as it does each minute.
    fn ask(&mut self) {
        let told = self.call("Hawkeye.Probes", json!({ "Version": self.version }));
        if let Some(probes) = told["Probes"].as_array() {
            self.ids = probes.iter().filter_map(|probe| probe["Id"].as_i64()).collect();
        }
        self.version = told["Version"].as_str().expect("a version").to_string();
    }

    fn definitions(&self, ids: &[i64]) -> Value {
        self.call("Hawkeye.ProbeDefinitions", json!({ "Ids": ids }))["Probes"].clone()
    }

    /// Tells that a probe is down.
    fn tell(&self, id: i64, reason: &str) {
        let state = json!({ "Id": id, "Up": false, "Code": "status", "Reason": reason, "Time": now() });
        let answer = self.call("Hawkeye.ProbeStates", json!({ "States": [state] }));
        assert_eq!(answer, json!({ "code": 0 }));
    }
}

/// The point of `probe.up` that says that it is down.
fn down(from: &str) -> Value {
    json!({ "endpoint": "shop", "metric": "probe.up", "value": 0, "step": 30, "counterType": "GAUGE",
            "tags": format!("from={from},target=shop.example:443"), "timestamp": now() })
}

/// An expression over series of probes that calls `target`.
fn make_expression(api: &Api<'_>, target: &Target, expression: &str, op: &str, right_value: &str) {
    api.post(
        "/expression",
        json!({"expression": expression, "func": "all(#1)", "op": op, "right_value": right_value, "max_step": 1,
               "priority": 2, "note": "shop is down", "pause": 0,
               "action": {"uic": [], "url": target.url, "callback": 1, "before_callback_sms": 0,
                          "before_callback_mail": 0, "after_callback_sms": 0, "after_callback_mail": 0}}),
    );
}

/// Reason of the alarm with this metric, as its event has it.
fn reason(api: &Api<'_>, metric: &str) -> String {
    let cases = api.get(CASES);
    let of_metric = |case: &&Value| case["metric"].as_str().is_some_and(|text| text.starts_with(metric));
    let case = cases.as_array().and_then(|cases| cases.iter().find(of_metric)).expect("a case");
    let id = case["id"].as_str().expect("an id");
    let events = api.get(&format!("/alarm/events?event_id={id}&startTime=0&endTime=4102444800"));
    events[0]["explanation"]["reason"].as_str().unwrap_or_default().to_string()
}

#[test]
fn a_probe_runs_at_its_places_and_its_alarms_say_why() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    let group = api.post("/hostgroup", json!({"name": "web"}));
    api.post("/hostgroup/host", json!({"hostgroup_id": group["id"], "hosts": HOSTS}));
    let definition = json!({"name": "shop", "kind": "http", "target": "https://shop.example/", "step": 30,
                            "headers": {"authorization": "Bearer secret"}, "from": {"group": "web", "places": 2}});
    let id = api.post("/probe", definition)["id"].as_i64().expect("an id");
    make_expression(&api, &target, "each(metric=probe.up target=shop.example:443)", "==", "0");
    make_expression(&api, &target, "each(metric=probe.places_down endpoint=shop)", ">=", "2");

    // Two of three run it, as soon as all are there.
    let mut agents = HOSTS.map(|hostname| Agent::new(&server, hostname));
    for _ in 0..2 {
        agents.iter_mut().for_each(Agent::ask);
    }
    let (run, idle): (Vec<&Agent<'_>>, Vec<&Agent<'_>>) = agents.iter().partition(|agent| agent.ids == [id]);
    assert_eq!((run.len(), idle.len()), (2, 1));
    let defined = run[0].definitions(&[id, id + 1]);
    assert_eq!(defined[0]["Definition"]["headers"]["authorization"], "Bearer secret");
    assert_eq!(defined.as_array().map(Vec::len), Some(1), "{defined}");
    assert_eq!(idle[0].definitions(&[id]), json!([]), "who does not run it learns no secret");
    assert_eq!(idle[0].ids, [0; 0]);
    let own = server.call("hbs_rpc", "Hawkeye.Probe", json!({}));
    assert!(own["error"].as_str().is_some_and(|error| error.contains("can't find method")), "{own}");

    // States come before the points that raise the alarms.
    run[0].tell(id, "status 503, want 200-299");
    run[1].tell(id, "status 500, want 200-299");
    let places = [run[0].hostname, run[1].hostname];
    server.update(json!([down(places[0]), down(places[1])]));
    let together = find("an alarm of both places", || {
        let request = target.next();
        request.contains("metric=probe.places_down").then_some(request)
    });
    assert!(together.contains("left_value=2"), "{together}");
    let (first, second) = match places[0] < places[1] {
        true => ((places[0], 503), (places[1], 500)),
        false => ((places[1], 500), (places[0], 503)),
    };
    let line = |(place, status): (&str, i32)| format!("{place}: status {status}, want 200-299");
    assert_eq!(reason(&api, "probe.places_down"), format!("{}; {}", line(first), line(second)));
    let up = |place: &str| format!("probe.up/from={place}");
    until("an alarm of each place", || {
        let cases = api.get(CASES).to_string();
        places.iter().all(|place| cases.contains(&up(place)))
    });
    assert_eq!(reason(&api, &up(places[0])), "status 503, want 200-299");
    assert_eq!(reason(&api, &up(places[1])), "status 500, want 200-299");
    // What the places have said is shown with the probe.
    let shown = api.get(&format!("/probe/{id}"));
    assert_eq!(shown["states"].as_array().map(Vec::len), Some(2), "{shown}");

    // A pause ends it everywhere.
    let (status, answer) = server.admin().request("PUT", &format!("/probe/{id}"), json!({"pause": 1}));
    assert_eq!(status, 200, "{answer}");
    agents.iter_mut().for_each(Agent::ask);
    assert!(agents.iter().all(|agent| agent.ids.is_empty()));
}
