//! Sizes: the numbers that all rooms of the store agree on.

/// Ids that are neighbours: they share a page of the table, a page of heads, a shard's lock and an index page of a
/// block.
pub const GROUP: u32 = 256;

/// Seconds of a UTC day: what a block is about.
pub const DAY_S: u32 = 86_400;

/// The longest step. Two bits of a packed `Meta` hold the type, and a record of the table has three
/// bits of its own beside it: four years are enough for a step.
pub const STEP_MAX: u32 = (1 << 27) - 1;

/// The longest text of an endpoint, a metric or tags. Open-Falcon accepts counters up to 510 bytes; a text beyond 4 KiB
/// is an accident and would only fill the index.
pub const TEXT_MAX: usize = 4096;
