//! `Transfer.Update` and `Transfer.Ping` (docs/open-falcon/wire.md §2).
//!
//! The answer leaves after the batch is in the log, or in the buffers of its next hops. A batch that is no array, or
//! that the disk refuses, gets an error; a bad item only counts as `Invalid`.

use super::points::Points;
use crate::clock;
use crate::engine::ingest::Door;
use net::rpc::Service;
use std::net::IpAddr;
use std::time::Instant;
use wire::jsonrpc::{self, Request};
use wire::transfer::{UpdateAnswer, write_answer};

/// `Transfer.*` over the one door of points; clones share it.
#[derive(Clone)]
pub struct TransferService {
    pub points: Points,
}

impl Service for TransferService {
    async fn call(&self, peer: IpAddr, request: Request<'_, '_>, out: &mut Vec<u8>) {
        let Some(param) = request.param else {
            return jsonrpc::write_error(out, request.id, request.param_fault);
        };
        match request.method {
            "Transfer.Update" => self.update(peer, request.id, param, out),
            "Transfer.Ping" => jsonrpc::write_result(out, request.id, br#"{"code":0}"#),
            method => jsonrpc::write_error(out, request.id, &jsonrpc::unknown_method(&["Transfer"], method)),
        }
    }
}

impl TransferService {
    fn update(&self, peer: IpAddr, id: &[u8], param: &[u8], out: &mut Vec<u8>) {
        let start = Instant::now();
        let mut batch = self.points.begin(Door::Rpc, clock::now(), peer);
        let received = match batch.push_json(param) {
            Ok(()) => batch.finish(),
            Err(error) => Err(error.to_string()),
        };
        match received {
            Ok(received) => {
                let latency_ms = start.elapsed().as_millis() as u64;
                jsonrpc::begin_result(out, id);
                write_answer(out, &UpdateAnswer { total: received.total, invalid: received.invalid, latency_ms });
                jsonrpc::end_result(out);
            }
            Err(error) => {
                tracing::debug!(error, "Transfer.Update refused");
                jsonrpc::write_error(out, id, &error);
            }
        }
    }
}
