//! Work: everything that changes what is stored.
//!
//! For callers: `append.rs` takes points, `names.rs` gives, changes and removes series. From time to time: `flush.rs`
//! writes points to blocks, `merge/` makes few blocks of many, `retention.rs` drops old ones, `sleep.rs` lets silent
//! series leave memory. At start: `open.rs` puts the store together, `warm.rs` reads the hot window back.

mod append;
mod flush;
mod merge;
mod names;
mod open;
mod retention;
mod sleep;
mod warm;

pub use append::Appended;
pub use flush::Flusher;
pub use merge::{Merged, Merger};
pub use names::Finder;
pub use open::{Opened, Recovery, open};
pub use retention::Past;
pub use sleep::{IsNeeded, Sleeper, Slept};
