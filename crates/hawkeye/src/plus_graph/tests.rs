//! The client of old graphs against a recorded graph, and against graphs that hang, hang up or are gone.

use super::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::gob::client::Replies;

fn graphs(addresses: &[(&str, String)]) -> Result<(PlusGraphs, Health)> {
    let cluster: BTreeMap<String, String> =
        addresses.iter().map(|(name, address)| (name.to_string(), address.clone())).collect();
    let health = Health::default();
    let graphs = PlusGraphs::new(&GraphConfig { cluster, ..GraphConfig::default() }, &Metrics::new(), &health)?;
    Ok((graphs, health))
}

/// Where each reply of a recorded stream ends.
fn ends(stream: &[u8]) -> Vec<usize> {
    let (mut replies, mut at, mut ends) = (Replies::new(1 << 20), 0, Vec::new());
    while let Some((length, _)) = replies.next(&stream[at..]).expect("a recorded reply") {
        at += length;
        ends.push(at);
    }
    ends
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// The calls of the recorded client are said by this one, and the recorded answers are understood.
#[tokio::test]
async fn a_recorded_graph_is_asked_and_understood() -> Result<()> {
    let read = |suffix: &str| testdata::bytes(&format!("gob/client_graph.{suffix}"));
    let (s2c, json): (_, Value) = (read("s2c.bin"), serde_json::from_slice(&read("json"))?);
    let calls: Vec<Value> = json["calls"].as_array().expect("calls").clone();
    let asked = calls.iter().take_while(|call| call["method"] != "Graph.LastRaw").count();
    assert!(asked > 15, "{asked}");
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let replies = s2c.clone();
    let graph = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.expect("a client");
        let (mut taken, mut begin) = (Vec::with_capacity(64 << 10), 0);
        for end in ends(&replies).into_iter().take(asked) {
            let before = taken.len();
            while taken.len() == before {
                assert!(peer.read_buf(&mut taken).await.expect("a call") > 0, "the client hung up");
            }
            peer.write_all(&replies[begin..end]).await.expect("an open connection");
            begin = end;
        }
        taken
    });
    let (graphs, _) = graphs(&[("graph-00", address)])?;
    for call in &calls[..asked] {
        let (args, reply) = (&call["args"], &call["response"]["reply"]);
        let (endpoint, counter) = (args["Endpoint"].as_str().unwrap_or(""), args["Counter"].as_str().unwrap_or(""));
        match text(&call["method"]) {
            "Graph.Ping" => graphs.0.nodes[0].look().await,
            "Graph.Query" => {
                let number = |name: &str| args[name].as_i64().expect("a number");
                let query = GraphQuery {
                    start: number("Start"),
                    end: number("End"),
                    consol_fun: text(&args["ConsolFun"]).into(),
                    endpoint: endpoint.into(),
                    counter: counter.into(),
                    step: number("Step"),
                };
                let History { ds_type, step, values } = graphs.query(&query).await.map_err(anyhow::Error::msg)?;
                assert_eq!((ds_type.as_str(), step), (text(&reply["DsType"]), reply["Step"].as_i64().expect("a step")));
                let rows = reply["Values"].as_array().cloned().unwrap_or_default();
                assert_eq!(values.len(), rows.len());
                for ((time, value), row) in values.iter().zip(&rows) {
                    assert_eq!(row["Timestamp"], *time);
                    assert_eq!(row["Value"].as_f64(), Some(*value).filter(|value| value.is_finite()));
                }
            }
            "Graph.Info" => {
                let info = graphs.info(endpoint, counter).await.map_err(anyhow::Error::msg)?;
                let (ds_type, step) = info.map_or((String::new(), 0), |info| (info.ds_type, info.step));
                assert_eq!(
                    (ds_type.as_str(), step),
                    (text(&reply["ConsolFun"]), reply["Step"].as_i64().expect("a step"))
                );
            }
            "Graph.Last" => {
                let (time, value) = graphs.last(endpoint, counter).await.map_err(anyhow::Error::msg)?;
                assert_eq!(reply["Value"]["Timestamp"], time);
                // What JSON cannot say is a text.
                assert_eq!(reply["Value"]["Value"].as_f64(), Some(value).filter(|value| value.is_finite()));
            }
            other => panic!("{other} was recorded before the first LastRaw"),
        }
    }
    let taken = graph.await?;
    // Names of types are each client's own; the calls are the same.
    let (mut decoder, mut rest) = (wire::gob::Decoder::new(1 << 20), &taken[..]);
    for (seq, recorded) in (0..).zip(&calls[..asked]) {
        let (length, call) = decoder.next(rest).expect("gob").expect("a whole call");
        assert_eq!((call.method, call.seq), (text(&recorded["method"]), seq));
        rest = &rest[length..];
    }
    Ok(())
}

/// A graph that hangs up on idle connections is dialled again; one that is gone is told, fails at once, and comes back.
#[tokio::test]
async fn a_graph_that_goes_is_told_until_it_is_back() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // Answers one call on each connection, and hangs up.
    let serve = |listener: TcpListener| async move {
        loop {
            let (mut peer, _) = listener.accept().await.expect("a client");
            let (mut input, mut out) = (Vec::with_capacity(4096), Vec::new());
            if peer.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
                let mut decoder = wire::gob::Decoder::new(1 << 20);
                let (_, call) = decoder.next(&input).expect("gob").expect("a whole call");
                match call.method {
                    "Graph.Ping" => wire::gob::Encoder::new().simple(&mut out, call.method, call.seq, 0),
                    _ => wire::gob::Encoder::new().graph_last(&mut out, call.method, call.seq, "h", "m", (60, 1.5)),
                }
                peer.write_all(&out).await.expect("an open connection");
            }
        }
    };
    let serving = tokio::spawn(serve(listener));
    let (graphs, health) = graphs(&[("graph-00", address.to_string())])?;
    for _ in 0..5 {
        assert_eq!(graphs.last("h", "m").await, Ok((60, 1.5)));
    }
    assert_eq!(health.reasons(), []);
    serving.abort();
    let _ = serving.await;
    let why = graphs.last("h", "m").await.expect_err("it is gone");
    assert!(why.starts_with(&format!("graph-00 ({address}): ")), "{why}");
    assert!(health.reasons()[0].line().contains("old graphs do not answer"), "{:?}", health.reasons());
    let calls = graphs.0.calls.load(Relaxed);
    assert_eq!(graphs.last("h", "m").await.expect_err("it is away"), why);
    assert_eq!((graphs.0.calls.load(Relaxed) - calls, graphs.0.failures.load(Relaxed)), (1, 2));
    let listener = TcpListener::bind(address).await?;
    let serving = tokio::spawn(serve(listener));
    let (stop, stopping) = watch::channel(false);
    let watching = tokio::spawn(graphs.clone().watch(stopping));
    net::patience::until("the end of the reason", async || health.reasons().is_empty()).await;
    assert_eq!(graphs.last("h", "m").await, Ok((60, 1.5)));
    stop.send(true)?;
    watching.await??;
    serving.abort();
    Ok(())
}

/// A call that gets no answer makes its graph away, so that the next one does not wait.
#[tokio::test]
async fn a_graph_that_hangs_is_waited_for_once() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (graphs, _) = graphs(&[("graph-00", listener.local_addr()?.to_string())])?;
    let why = graphs.last("h", "m").await.expect_err("nobody answers");
    assert!(why.ends_with("no answer within 5s"), "{why}");
    let _ = listener.accept().await?;
    assert_eq!(graphs.last("h", "n").await.expect_err("it is away"), why);
    // The second call has not even knocked.
    let mut waiting = std::pin::pin!(listener.accept());
    assert!(std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await);
    Ok(())
}

/// Series are asked where the ring of transfer has put them, and deleted there.
#[test]
fn series_are_where_transfer_puts_them() -> Result<()> {
    let names = ["graph-00", "graph-01"].map(|name| (name, "127.0.0.1:1".to_string()));
    let (graphs, _) = graphs(&names)?;
    let ring = Ring::new(["graph-00", "graph-01"], 500).expect("a ring");
    let mut seen = [0; 2];
    for i in 0..100 {
        let counter = format!("m{i}/a=b,c={i}");
        let (metric, tags) = counter.split_once('/').expect("tags");
        let place = ring.node_of(&SeriesKey { endpoint: "h", metric, tags: Tags::assume_canonical(tags) });
        assert_eq!(graphs.node_of("h", &counter).name, names[place].0);
        seen[place] += 1;
    }
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
    Ok(())
}
