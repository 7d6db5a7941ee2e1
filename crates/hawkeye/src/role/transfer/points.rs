//! Points: what is behind the doors of transfer: this server's own store and judges, or the buffers of next hops.

use super::fanout::{self, Fanout};
use crate::engine::ingest::{self, Door, Ingest, Received};
use std::net::IpAddr;
use std::sync::Arc;
use wire::{Item, JsonError};

/// Where points go; clones share it.
#[derive(Clone)]
pub enum Points {
    Own(Arc<Ingest>),
    Next(Arc<Fanout>),
}

/// A batch on its way to either.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation for each batch")]
pub enum Batch<'b> {
    Own(ingest::Batch<'b>),
    Next(fanout::Batch<'b>),
}

impl Points {
    /// Begins a batch that `sender` sent by `door` at `now` (Unix seconds).
    pub fn begin(&self, door: Door, now: i64, sender: IpAddr) -> Batch<'_> {
        match self {
            Points::Own(ingest) => Batch::Own(ingest.begin(door, now).from(sender)),
            Points::Next(fanout) => Batch::Next(fanout.begin(door, now)),
        }
    }

    /// Items that came by a door since the start, valid or not.
    pub fn received_by(&self, door: Door) -> u64 {
        match self {
            Points::Own(ingest) => ingest.received_by(door),
            Points::Next(fanout) => fanout.received_by(door),
        }
    }

    /// The smallest step of an item (seconds).
    pub fn min_step(&self) -> u32 {
        match self {
            Points::Own(ingest) => ingest.min_step(),
            Points::Next(fanout) => fanout.min_step(),
        }
    }
}

impl Batch<'_> {
    /// Pushes the items of a JSON array of metric objects; those that cannot be used are refused one by one.
    pub fn push_json(&mut self, array: &[u8]) -> Result<(), JsonError> {
        match self {
            Batch::Own(batch) => batch.push_json(array),
            Batch::Next(batch) => batch.push_json(array),
        }
    }

    /// Pushes an item.
    pub fn push(&mut self, item: &Item<'_>) {
        match self {
            Batch::Own(batch) => batch.push(item),
            Batch::Next(batch) => batch.push(item),
        }
    }

    /// Counts an item that came and cannot be used.
    pub fn refuse(&mut self, reason: &'static str) {
        match self {
            Batch::Own(batch) => batch.refuse(reason),
            Batch::Next(batch) => batch.refuse(reason),
        }
    }

    /// Keeps what was pushed. On an error the batch is to be sent again.
    pub fn finish(self) -> Result<Received, String> {
        match self {
            Batch::Own(batch) => batch.finish().map_err(|error| error.to_string()),
            Batch::Next(batch) => batch.finish(),
        }
    }
}
