//! Watch: the process shows what of it does not work, who holds its memory, profiles of itself, and its log.
//!
//! Reading order: `health` (`/health`), `memory` (`/memory`), `pprof` (`/debug/pprof/*`) with `cpu_samples` behind it,
//! `counters` and `envelope` (figures and answers as old monitors read them), `log`.
//! `c_heap` and `code_pages` are the two places where the process asks the C library and the kernel about its own
//! pages.
//! Invariants: nothing here knows points, rules or roles; whoever has figures registers them.

pub mod c_heap;
pub mod code_pages;
pub mod counters;
pub mod cpu_samples;
pub mod envelope;
pub mod health;
pub mod memory;
pub mod pprof;

pub use supervisor::log;
