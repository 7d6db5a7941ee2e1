//! Judge alone: `Judge.Send` and `Judge.Ping` over Go's net/rpc, as an old transfer calls them, and the old HTTP
//! routes.
//!
//! How: items go straight into the windows and their judges (`windowed.rs`), or, in a whole server, through the one
//! door of all points. Rules come from an original hbs (`pull.rs`), events go to its Redis (`redis.rs`). What a start
//! puts back is kept in `kept.rs`.
//! Invariants: a `Judge.Send` is answered after the events of its items are in the durable queue (the original answers
//! after pushing them to Redis, whether that worked or not); no tag map is built; items are refused one by one,
//! counted, and the call is answered as if they had been taken, for the original refuses none.
//! Compat: docs/open-falcon/judge.md §2, §8; docs/open-falcon/wire.md §8.

pub mod http;
pub mod kept;
pub mod pull;
#[cfg(test)]
mod tests;

use crate::engine::ingest::{Door, Ingest};
use crate::engine::windowed::Windowed;
use net::gob::{Service, Session};
use std::sync::Arc;
use wire::gob::Call;
use wire::jsonrpc::unknown_method;

/// `Judge.Send` and `Judge.Ping` over one home of points; clones share it.
#[derive(Clone)]
pub struct JudgeService {
    points: Points,
    now: fn() -> i64,
}

/// Home of the items of a `Judge.Send`.
#[derive(Clone)]
enum Points {
    Windowed(Arc<Windowed>),
    Store(Arc<Ingest>),
}

impl JudgeService {
    /// Service of a judge that runs alone.
    pub fn new(windowed: Arc<Windowed>) -> JudgeService {
        JudgeService { points: Points::Windowed(windowed), now: crate::clock::now }
    }

    /// Service within a whole server: items are stored and judged like those of every door.
    pub fn into_store(ingest: Arc<Ingest>) -> JudgeService {
        JudgeService { points: Points::Store(ingest), now: crate::clock::now }
    }

    fn send(&self, call: &Call<'_>, session: &mut Session) -> Result<(), String> {
        let Session { decoder, scratch, .. } = session;
        let now = (self.now)();
        match &self.points {
            Points::Windowed(windowed) => {
                let mut batch = windowed.begin(now);
                let decoded = call.judge_items(decoder, scratch, &mut |item| batch.push(&item));
                let finished = batch.finish().map_err(str::to_string);
                decoded.map_err(|error| error.to_string()).and(finished)
            }
            Points::Store(ingest) => {
                let mut batch = ingest.begin(Door::Judge, now);
                let decoded = call.judge_items(decoder, scratch, &mut |item| batch.push_without_step(&item));
                decoded.map_err(|error| error.to_string())?;
                batch.finish().map(|_| ()).map_err(|error| error.to_string())
            }
        }
    }
}

impl Service for JudgeService {
    async fn call(&self, call: Call<'_>, session: &mut Session, out: &mut Vec<u8>) {
        let (method, seq) = (call.method, call.seq);
        let answered = match method {
            "Judge.Send" => self.send(&call, session),
            "Judge.Ping" => Ok(()),
            _ => Err(unknown_method(&["Judge"], method)),
        };
        match answered {
            Ok(()) => session.encoder.simple(out, method, seq, 0),
            Err(text) => {
                tracing::debug!(method, text, "answered with an error");
                session.encoder.error(out, method, seq, &text);
            }
        }
    }
}
