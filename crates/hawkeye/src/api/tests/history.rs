//! Tests of `POST /graph/history`: steps, stored points, changes of type, and damage.

use super::*;
use model::{CounterType, Point, Sample, SeriesKey, Tags};
use std::os::unix::fs::FileExt;
use std::time::Instant;

const HOUR: i64 = 3600;

/// The current minute.
fn minute() -> i64 {
    crate::clock::now() / 60 * 60
}

/// Takes in a point of `m` at the host `h`, as a door does.
fn push(site: &Site, counter_type: CounterType, step: u32, time: i64, value: f64) -> Result<()> {
    let engine = &site.context.engine;
    let key = SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY };
    let taken = engine.create(key, counter_type, step, time).and_then(|series| {
        let sample = Sample { series, point: Point { time, value } };
        engine.append(&[sample], crate::clock::now(), Instant::now())
    });
    taken.map_err(|error| anyhow::anyhow!("{error}"))
}

/// A request for `m` at `h`, with `more` in it.
fn request(from: i64, to: i64, more: Value) -> Value {
    let mut request = json!({ "hostnames": ["h"], "counters": ["m"], "start_time": from, "end_time": to });
    if let (Value::Object(request), Value::Object(more)) = (&mut request, more) {
        request.extend(more);
    }
    request
}

async fn history(site: &Site, from: i64, to: i64, more: Value) -> Result<Value> {
    let (status, answer) = site.ask("alice", "POST /graph/history", request(from, to, more)).await?;
    assert_eq!(status, 200, "{answer}");
    Ok(answer)
}

/// Times, counted from `begin`, and values of an entry; unknown values are left out.
fn values(entry: &Value, begin: i64) -> Vec<(i64, f64)> {
    let rows = entry["Values"].as_array().map_or(&[][..], Vec::as_slice);
    rows.iter().filter_map(|row| Some((row["timestamp"].as_i64()? - begin, row["value"].as_f64()?))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_the_series_own_however_wide_its_rows_are() -> Result<()> {
    let site = site(|_| {}).await?;
    let now = minute();
    for time in [now - 13 * HOUR, now - 60] {
        push(&site, CounterType::Gauge, 60, time, 1.0)?;
    }
    for (back, rows_s) in [(HOUR, 60), (14 * HOUR, 300), (3 * 24 * HOUR, 1200)] {
        let answer = history(&site, now - back, now, json!({ "consol_fun": "AVERAGE", "step": 60 })).await?;
        let times: Vec<i64> = answer[0]["Values"]
            .as_array()
            .map_or(Vec::new(), |rows| rows.iter().filter_map(|row| row["timestamp"].as_i64()).collect());
        assert_eq!((&answer[0]["step"], times[1] - times[0]), (&json!(60), rows_s));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_inside_one_step_has_no_rows() -> Result<()> {
    let site = site(|_| {}).await?;
    let time = minute() - 600;
    push(&site, CounterType::Gauge, 60, time, 1.0)?;
    let count = async |from: i64, to: i64| -> Result<usize> {
        let answer = history(&site, from, to, json!({ "consol_fun": "AVERAGE" })).await?;
        Ok(values(&answer[0], 0).len())
    };
    assert_eq!(count(time, time).await?, 0);
    assert_eq!(count(time, time + 59).await?, 0);
    assert_eq!(count(time + 60, time).await?, 0);
    assert_eq!(count(time - 1, time).await?, 1);
    assert_eq!(count(time, time + 60).await?, 1);
    Ok(())
}

/// Ten minutes of a counter that grows by two a second, then ten of a gauge of 7.
fn push_both_types(site: &Site, begin: i64) -> Result<()> {
    for i in 0..10 {
        push(site, CounterType::Counter, 60, begin + 60 * i, 1e6 + 120.0 * i as f64)?;
    }
    (10..20).try_for_each(|i| push(site, CounterType::Gauge, 30, begin + 60 * i, 7.0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_that_changes_its_type_keeps_what_each_stretch_was() -> Result<()> {
    let site = site(|_| {}).await?;
    let begin = minute() - 2 * HOUR;
    push_both_types(&site, begin)?;
    let expected: Vec<(i64, f64)> = (1..20).map(|i| (60 * i, if i < 10 { 2.0 } else { 7.0 })).collect();
    for flush in [false, true] {
        if flush {
            site.context.engine.store().flush(crate::clock::now())?;
        }
        let answer = history(&site, begin, begin + 20 * 60, json!({ "consol_fun": "AVERAGE" })).await?;
        assert_eq!((&answer[0]["dstype"], &answer[0]["step"]), (&json!("GAUGE"), &json!(30)));
        assert_eq!(values(&answer[0], begin), expected, "flushed: {flush}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_points_are_answered_as_they_are_however_old() -> Result<()> {
    let site = site(|config| config.graph.query_points_max = 9000).await?;
    let begin = minute() - 3 * 24 * HOUR;
    push_both_types(&site, begin)?;
    let raw = json!({ "raw": true });
    for flush in [false, true] {
        if flush {
            site.context.engine.store().flush(crate::clock::now())?;
        }
        let answer = history(&site, begin, begin + 24 * HOUR, raw.clone()).await?;
        let entry = |i: usize| (answer[i]["dstype"].clone(), answer[i]["step"].clone(), answer[i]["counter"].clone());
        assert_eq!(entry(0), (json!("DERIVE"), json!(60), json!("m")));
        assert_eq!(entry(1), (json!("GAUGE"), json!(30), json!("m")));
        assert_eq!(answer.as_array().map(Vec::len), Some(2));
        let readings: Vec<(i64, f64)> = (0..10).map(|i| (60 * i, 1e6 + 120.0 * i as f64)).collect();
        assert_eq!(values(&answer[0], begin), readings);
        assert_eq!(values(&answer[1], begin), (10..20).map(|i| (60 * i, 7.0)).collect::<Vec<_>>());
        // The bounds of the range count, also one that is a single second.
        let one = history(&site, begin + 60, begin + 60, raw.clone()).await?;
        assert_eq!(values(&one[0], begin), [(60, 1_000_120.0)]);
    }
    // As stored: what rows would refuse, and what is too much.
    let wide = request(0, i64::MAX, raw.clone());
    let (status, answer) = site.ask("alice", "POST /graph/history", wide).await?;
    let text = answer["error"].as_str().unwrap_or_default();
    assert!(status == 400 && text.contains("graph.query_points_max = 9000"), "{answer}");
    let unknown = json!({ "hostnames": ["nobody"], "counters": ["m"], "start_time": 0, "end_time": 1, "raw": true });
    site.check("alice", "POST /graph/history", unknown, 200, json!([])).await?;
    let missing = "consol_fun is missing: give AVERAGE, MAX, MIN or LAST";
    site.check("alice", "POST /graph/history", request(0, 60, json!({})), 400, missing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_said_in_the_answer_that_lacks_something() -> Result<()> {
    let site = site(|_| {}).await?;
    let begin = minute() - 6 * HOUR;
    for i in 0..6 * 60 {
        push(&site, CounterType::Gauge, 60, begin + 60 * i, i as f64)?;
    }
    site.context.engine.store().flush(crate::clock::now())?;
    let ask = async |body: Value| -> Result<(Option<String>, Value)> {
        let request = Request::builder()
            .method("POST")
            .uri("/api/v1/graph/history")
            .header("content-type", "application/json")
            .header("apitoken", site.token("alice").await?);
        let response = site.router.clone().oneshot(request.body(Body::from(body.to_string()))?).await?;
        let header = response.headers().get("hawkeye-incomplete").and_then(|value| value.to_str().ok());
        let header = header.map(str::to_string);
        Ok((header, serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await?)?))
    };
    let rows = || request(begin, begin + 6 * HOUR, json!({ "consol_fun": "AVERAGE" }));
    let (header, answer) = ask(rows()).await?;
    assert_eq!((header, answer[0].get("incomplete")), (None, None));
    let names: Vec<String> = std::fs::read_dir(site._dir.path().join("store/block"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    for name in &names {
        let path = site._dir.path().join("store/block").join(name);
        std::fs::File::options().write(true).open(path)?.write_all_at(&[0xff; 8], 30)?;
    }
    for body in [rows(), request(begin, begin + 6 * HOUR, json!({ "raw": true }))] {
        let (header, answer) = ask(body).await?;
        let header = header.unwrap_or_default();
        assert!(names.contains(&header), "{header:?}");
        assert_eq!(answer[0]["incomplete"], json!(header));
        let times: Vec<i64> = values(&answer[0], begin).into_iter().map(|(time, _)| time).collect();
        assert!(!times.contains(&0) && times.contains(&(6 * HOUR - 60)), "memory has the newest: {times:?}");
    }
    let damaged = site.context.engine.store().damaged_files();
    assert!(!damaged.is_empty() && damaged.iter().all(|text| text.contains(".blk is corrupt")), "{damaged:?}");
    Ok(())
}
