//! Aggregator and nodata alone, beside an api and a transfer of this test.

use crate::plus_api::PlusApi;
use crate::role::aggregator::alone::{Alone as Aggregators, trouble};
use crate::role::nodata::Looks;
use crate::role::nodata::alone::Alone as Nodata;
use crate::rules::computed::Lasts;
use crate::rules::pull::{Wanted, pull};
use crate::watch::health::Health;
use anyhow::Result;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use net::seldom::Seldom;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const NOW: i64 = 1_700_000_040;

/// What was pushed, point by point.
type Pushed = Arc<Mutex<Vec<Value>>>;

/// An api whose group web has hosts a, b and c, of which c is in maintenance; host b never reported `alive`, a is
/// silent.
async fn neighbours() -> Result<(String, Pushed)> {
    let pushed = Pushed::default();
    let shared = pushed.clone();
    let answer = move |request: Request| {
        let pushed = shared.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.expect("a body");
            if parts.uri.path() == "/api/push" {
                let points: Vec<Value> = serde_json::from_slice(&body).expect("points");
                pushed.lock().expect("unbroken").extend(points);
                return (StatusCode::OK, axum::Json(json!({ "msg": "success" })));
            }
            assert!(parts.headers["apitoken"].to_str().expect("text").contains("\"sig\":\"secret\""));
            let (status, answer) = old_api(parts.uri.path(), &body);
            (StatusCode::from_u16(status).expect("a status"), axum::Json(answer))
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await.expect("serves") });
    Ok((url, pushed))
}

fn old_api(path: &str, body: &[u8]) -> (u16, Value) {
    let host = |name: &str, end: i64| json!({ "id": 1, "hostname": name, "maintain_begin": 0, "maintain_end": end });
    let row = |id: i64, numerator: &str| {
        json!({ "id": id, "grp_id": 7, "numerator": numerator, "denominator": "$#", "endpoint": "web", "metric": "mean",
                "tags": "", "ds_type": "GAUGE", "step": 60, "creator": "root" })
    };
    match path {
        "/api/v1/hostgroup" => {
            let groups =
                [(7, "web"), (8, "gone")].map(|(id, name)| json!({ "id": id, "grp_name": name, "create_user": "" }));
            (200, json!(groups))
        }
        "/api/v1/hostgroup/7" => {
            (200, json!({ "hostgroup": {}, "hosts": [host("b", 0), host("a", 0), host("c", NOW + 600)] }))
        }
        "/api/v1/hostgroup/7/aggregators" => {
            (200, json!({ "hostgroup": "web", "aggregators": [row(1, "$(cpu)"), row(2, "nonsense")] }))
        }
        "/api/v1/nodata" => {
            let mock = json!({ "id": 3, "name": "n", "obj": "web", "obj_type": "group", "metric": "alive", "tags": "y=2,x=1",
                               "dstype": "GAUGE", "step": 60, "mock": -1, "creator": "root" });
            (200, json!([mock]))
        }
        "/api/v1/graph/lastpoint" => {
            let pairs: Vec<Value> = serde_json::from_slice(body).expect("pairs");
            let point = |pair: &Value| {
                let (time, value) = match (pair["endpoint"].as_str(), pair["counter"].as_str()) {
                    (Some("a"), Some("cpu")) => (NOW - 60, 10.0),
                    (Some("b"), Some("cpu")) => (NOW - 110, 20.0),
                    (Some("a"), Some("alive/x=1,y=2")) => (NOW - 3600, 1.0),
                    (Some("b"), Some("alive/x=1,y=2")) => (0, 0.0),
                    other => panic!("nobody asks for {other:?}"),
                };
                json!({ "endpoint": pair["endpoint"], "counter": pair["counter"],
                        "value": { "timestamp": time, "value": value } })
            };
            (200, pairs.iter().map(point).collect())
        }
        _ => (400, json!({ "error": "record not found" })),
    }
}

#[tokio::test]
async fn aggregators_and_nodata_work_beside_an_old_api() -> Result<()> {
    let (url, pushed) = neighbours().await?;
    let (api, health) = (PlusApi::new(&url, "falcon-test", "secret", None)?, Health::default());
    let push_api = format!("{url}/api/push");
    let rows = pull(&api, Wanted { aggregators: true, mocks: true }).await?;
    assert_eq!(rows.hosts.iter().map(|host| host.hostname.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let lasts = Lasts::default();
    let outage = || health.outage("a part fails");
    let (lasts, told) = (lasts.clone(), Seldom::default());
    let alone =
        Aggregators { api: api.clone(), push_api: push_api.clone(), lasts: lasts.clone(), outage: outage(), told };
    alone.compute(&rows, &[0, 1], NOW).await?;
    let mean = json!({ "endpoint": "web", "metric": "mean", "tags": "", "value": 15.0, "counterType": "GAUGE", "step": 60,
                       "timestamp": NOW });
    assert_eq!(std::mem::take(&mut *pushed.lock().expect("unbroken")), [mean]);
    assert_eq!(lasts.of(1).map(|last| (last.valid, last.hosts)), Some((2, 2)));
    assert!(lasts.of(2).is_some_and(|last| last.why.contains("numerator")));
    let trouble = trouble(&lasts).expect("one has none");
    assert!(trouble.since == NOW && trouble.why.starts_with("2 (") && trouble.why.contains("numerator"), "{trouble:?}");

    let looks = Looks::default();
    let alone = Nodata { api: api.clone(), push_api, flood_share: 1.0, looks: looks.clone(), outage: outage() };
    alone.look(&rows, NOW - 60, NOW).await?;
    assert_eq!(*pushed.lock().expect("unbroken"), [Value::Null; 0], "nobody has listened for long enough");
    alone.look(&rows, 0, NOW).await?;
    let mock = |endpoint: &str| {
        json!({ "endpoint": endpoint, "metric": "alive", "tags": "y=2,x=1", "value": -1.0, "counterType": "GAUGE",
                "step": 60, "timestamp": NOW - NOW % 60 - 120 })
    };
    let mut got = std::mem::take(&mut *pushed.lock().expect("unbroken"));
    got.sort_by_key(|point| point["endpoint"].to_string());
    assert_eq!(got, ["a", "b"].map(mock));
    assert_eq!(looks.counts().sent, 2);
    // A transfer that is away, and an api that refuses.
    let away = Nodata { push_api: "http://127.0.0.1:1/".to_string(), looks: Looks::default(), ..alone };
    let error = away.look(&rows, 0, NOW).await.expect_err("nobody takes it");
    assert!(format!("{error:#}").starts_with("nodata.push_api takes no points: "), "{error:#}");
    let wrong = PlusApi::new("http://127.0.0.1:1", "falcon-test", "secret", None)?;
    let error = pull(&wrong, Wanted { aggregators: true, mocks: false }).await.err();
    assert!(error.is_some_and(|error| !format!("{error:#}").contains("secret")));
    Ok(())
}
