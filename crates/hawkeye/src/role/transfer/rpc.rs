//! `Transfer.Update` and `Transfer.Ping` (docs/open-falcon/wire.md §2), and the same batch compressed
//! (`Transfer.UpdateCompressed`, [`wire::packed`]).
//!
//! The answer leaves after the batch is in the log, or in the buffers of its next hops. A batch that is no array, or
//! that the disk refuses, gets an error; a bad item only counts as `Invalid`.
//! Memory: a compressed batch is unpacked while its call is answered, so each thread has one of them at most, with the
//! bytes that [`wire::packed`] allows.

use super::points::Points;
use crate::clock;
use crate::engine::ingest::Door;
use metrics::Metrics;
use net::rpc::Service;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::net::IpAddr;
use std::time::Instant;
use wire::jsonrpc::{self, Request};
use wire::packed::{self, read_packed};
use wire::transfer::{UpdateAnswer, write_answer};

/// `Transfer.*` over the one door of points; clones share it.
#[derive(Clone)]
pub struct TransferService {
    points: Points,
    packed: PackedMetrics,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Counters of compressed batches.
#[derive(Clone, Default)]
struct PackedMetrics {
    unpacked: Counter,
    refused: Family<ReasonLabel, Counter>,
}

impl PackedMetrics {
    fn register(metrics: &Metrics) -> PackedMetrics {
        let counters = PackedMetrics::default();
        metrics.register(|registry| {
            let unpacked = "Compressed batches that were unpacked";
            registry.register("transfer_compressed_batches", unpacked, counters.unpacked.clone());
            let refused = "Compressed batches that could not be, or were beyond a bound";
            registry.register("transfer_compressed_refused", refused, counters.refused.clone());
        });
        counters
    }
}

impl Service for TransferService {
    async fn call(&self, peer: IpAddr, request: Request<'_, '_>, out: &mut Vec<u8>) {
        let Some(param) = request.param else {
            return jsonrpc::write_error(out, request.id, request.param_fault);
        };
        match request.method {
            "Transfer.Update" => self.update(peer, request.id, param, out),
            packed::METHOD => self.update_packed(peer, request.id, param, out),
            "Transfer.Ping" => jsonrpc::write_result(out, request.id, br#"{"code":0}"#),
            method => jsonrpc::write_error(out, request.id, &jsonrpc::unknown_method(&["Transfer"], method)),
        }
    }
}

impl TransferService {
    /// The calls that end in `points`; their counters are on the page of `metrics`.
    pub fn new(points: Points, metrics: &Metrics) -> TransferService {
        TransferService { points, packed: PackedMetrics::register(metrics) }
    }

    fn update_packed(&self, peer: IpAddr, id: &[u8], param: &[u8], out: &mut Vec<u8>) {
        let mut array = Vec::new();
        match read_packed(param, &mut array) {
            Ok(()) => {
                self.packed.unpacked.inc();
                self.update(peer, id, &array, out);
            }
            Err(error) => {
                self.packed.refused.get_or_create(&ReasonLabel { reason: error.as_str() }).inc();
                tracing::debug!(%error, "a compressed batch is refused");
                jsonrpc::write_error(out, id, &error.to_string());
            }
        }
    }

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
