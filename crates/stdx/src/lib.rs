//! Stdx: what std lacks and every part of Hawkeye needs, with no knowledge of monitoring.
//!
//! Absent on purpose: clocks, threads, sockets, signal handlers.

pub mod checked_line;
pub mod crc;
pub mod disk;
pub mod distinct;
pub mod fake_disk;
pub mod hidden;
pub mod interner;
pub mod ledger;
pub mod ranked;
pub mod small_file;
pub mod varint;

pub use crc::crc32;
pub use disk::{Disk, DiskFile, RealDisk};
pub use distinct::Distinct;
pub use fake_disk::FakeDisk;
pub use hidden::{is_direction, is_hidden};
pub use interner::Interner;
pub use ledger::Ledger;
pub use ranked::{Rank, RankedMutex, RankedRwLock};
