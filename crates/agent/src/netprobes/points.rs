//! Points: what runs of probes have found, as items for a transfer.
//!
//! How: the endpoint is the probe's name, the step its own, the time that of the run, which lies in its slot. The tag
//! `from` says where it ran. Neither `default_tags` nor `ignore` count, which are about this host: a probe that runs at
//! several agents has the same series at each of them but for `from`, and a rule over all of them sees as much.
//! Memory: [`ITEMS_MAX`] items.

use crate::batch::{Batch, Batches};
use model::tags::canonical_string;
use netprobe::Ran;
use wire::item::OutItem;

/// Items that are gathered; some 1.5 MB. An agent's 2,000 probes have a tenth of it in a second.
pub const ITEMS_MAX: usize = 8192;

/// Items that wait to be queued.
#[derive(Default)]
pub struct Gathered {
    batches: Batches,
    items: usize,
}

impl Gathered {
    /// Adds the points of a run at the host `from`; answers whether there are so many that they are to be queued.
    pub fn push(&mut self, ran: &Ran, from: &str) -> bool {
        let from = probe::tag("from", from);
        for reading in &ran.outcome.readings {
            self.batches.push(&OutItem {
                endpoint: &ran.definition.name,
                metric: &reading.metric,
                value: reading.value,
                step: ran.definition.step,
                counter_type: reading.counter_type,
                tags: &canonical_string(&format!("{},{from}", reading.tags)),
                timestamp: ran.time,
            });
        }
        self.items += ran.outcome.readings.len();
        self.items >= ITEMS_MAX
    }

    /// The items as batches for the queue.
    pub fn finish(self) -> Vec<Batch> {
        self.batches.finish()
    }
}
