//! Events: the durable queue between the judge and its readers (alarm, Redis): append-only files in
//! `<data_dir>/events/`.
//!
//! Why: in the original an event is popped from Redis before anything is done with it, and a restarted judge has
//! forgotten which alarms are open, so it repeats them and never sends their recovery. Here the RPC whose point made an
//! event is answered after the event is in this queue, and the queue also knows the alarms that are open.
//! How: `record` and `segment` are the bytes, `entry` what they mean, `recovery` how they are opened, `consumer` and
//! `readers` who takes them, `queue` who appends them, and `upkeep` what waits for the disk. docs/format/events.md
//! draws the bytes.
//! Invariants: no clock and no configuration: time is an argument, and settings are [`Options`]. No rule is parsed
//! here.

mod consumer;
mod entry;
mod queue;
mod readers;
mod record;
mod recovery;
mod segment;
mod trouble;
mod upkeep;

pub use consumer::Consumer;
pub use entry::{AlarmEnd, AlarmKey, Entry, Record};
pub use queue::{EventQueue, Fsync, Options, Problems, Receipt, Stats};
pub use readers::Lag;
pub use recovery::{Damage, Recovery};
pub use trouble::Trouble;

#[cfg(test)]
mod tests;
