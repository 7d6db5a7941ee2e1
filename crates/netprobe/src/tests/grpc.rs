//! gRPC: health services of the tests, made of the library that also asks them.

use super::world::*;
use crate::Code;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// What a health service says of services: their names with message and gRPC status.
type Health = fn(&str) -> (&'static [u8], &'static str);

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
const NOT_SERVING: &[u8] = b"\0\0\0\0\x02\x08\x02";

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, health: Health) {
    let answer = service_fn(move |request: Request<Incoming>| async move {
        let path = request.uri().path().to_string();
        let asked = request.into_body().collect().await.expect("a body").to_bytes();
        let name = String::from_utf8_lossy(asked.get(7..).unwrap_or_default()).into_owned();
        assert_eq!(path, "/grpc.health.v1.Health/Check");
        let (message, status) = health(&name);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().expect("a value"));
        let frames = [Frame::data(Bytes::from_static(message)), Frame::trailers(trailers)];
        let body = Frames(frames.into());
        Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).expect("one"))
    });
    // Who has heard enough ends the connection.
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
}

/// Frames of a body, one after the other.
struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

async fn plain(health: Health) -> SocketAddr {
    listen(move |stream| serve(stream, health)).await
}

#[tokio::test]
async fn services_that_serve() {
    let health: Health = |name| match name {
        "" | "shop.Cart" => (SERVING, "0"),
        "shop.Search" => (NOT_SERVING, "0"),
        "odd" => (b"\0\0\0\0\0", "0"),
        _ => (b"", "5"),
    };
    let server = plain(health).await;
    let outcome = up("grpc", server, json!({})).await;
    assert!(value(&outcome, "probe.grpc.answer_ms").is_some_and(|ms| ms > 0.0));
    up("grpc", server, json!({"service": "shop.Cart"})).await;
    let more = json!({"service": "shop.Search"});
    down("grpc", server, more, Code::NotServing, "shop.Search is NOT_SERVING, want SERVING").await;
    down("grpc", server, json!({"service": "odd"}), Code::NotServing, "odd is UNKNOWN").await;
    let more = json!({"service": "unheard of"});
    down("grpc", server, more, Code::Grpc, "gRPC status 5, NOT_FOUND").await;
}

#[tokio::test]
async fn over_tls() {
    let acceptor = acceptor("good.crt", &["h2"]);
    let server = listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, |_| (SERVING, "0")).await;
            }
        }
    });
    let outcome = up("grpc", server.await, json!({"tls": {"ca": ca()}})).await;
    assert!(value(&outcome, "probe.tls.days_left").is_some());
}

#[tokio::test]
async fn servers_that_are_none() {
    let late = json!({"timeout_ms": 500});
    down("grpc", nobody().await, json!({}), Code::Refused, "connection refused by").await;
    down("grpc", silent().await, late, Code::Timeout, "no answer from").await;
    down("grpc", replying("HTTP/1.1 400 Bad Request\r\n\r\n").await, json!({}), Code::Protocol, "HTTP/2").await;
    down("grpc", plain(|_| (b"nonsense", "0")).await, json!({}), Code::Protocol, "no message of grpc.health.v1").await;
    let endless: Health = |_| (&[0; 4096], "0");
    let reason = outcome("grpc", plain(endless).await, json!({})).await.reason.expect("a reason");
    assert_eq!(reason.code, Code::Protocol, "{reason:?}");
    let page = listen(|stream| async move {
        let answer = service_fn(|_| async {
            Ok::<_, Infallible>(Response::builder().status(404).body(Full::new(Bytes::new())).expect("an answer"))
        });
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
    });
    down("grpc", page.await, json!({}), Code::Protocol, "status 404 of HTTP, want 200").await;
}
