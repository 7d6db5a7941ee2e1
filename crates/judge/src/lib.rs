//! Judge: points and rules in, events out. No IO, no clock, no async: time is an argument, points come from a
//! [`PointSource`].
//!
//! Why: the original keeps the last eleven whole items of every series, with their tag maps, and parses each rule's
//! text at each point; 100,000 series cost it 1.4 GB. Here points are kept once, by the store; a rule is compiled once
//! and bound to a series once; what is left per point is one look-up and a few comparisons.
//! How: a [`RuleSet`] is compiled from the portal's rules and shared by all shards. A [`Judge`] belongs to one shard of
//! the store: it binds series to rules, and each newest point of a bound series goes through [`Judge::on_point`].
//! Reading order: `judge.rs`, `judging.rs`; from a rule's text to a series, `rule_text.rs`, `check.rs`,
//! `rule_set.rs`, `pattern.rs`, `touched.rs`, `binding.rs` (`filter.rs`, `list.rs`); from points to an event,
//! `values.rs`, `function.rs`, `state.rs`, `explain.rs`. Conditions that are more than one function: `grammar.rs`,
//! `program.rs`, `finding.rs`, `joins.rs` (several series), `silence.rs` (`nodata`). Points without a store:
//! `windows.rs`, `rings.rs`. A rule tried over history before it is saved: `rehearsal.rs`.
//! Invariants: nothing is allocated per point unless an event is made; a series without rules costs no memory here;
//! no text of a rule, however broken, panics; the same points and rules give the same events, restarts or not.
//! Memory: [`Judge::stats`] per shard and [`RuleSet::memory_bytes`] once. About 11 to 23 bytes per bound series (a
//! table slot and some bits), 32 bytes per open PROBLEM, 24 per series that `nodata` asks about; lists of rules are
//! shared by the series that have the same. [`Joins::stats`] counts once for all shards.
//! Compat: docs/open-falcon/judge.md §3–6, §10; `tests/vectors.rs` replays what the original sent. What differs under
//! [`Semantics::Hawkeye`] is listed in `values.rs`, `function.rs` and `rule_set.rs`.

mod binding;
mod check;
mod error;
mod explain;
mod filter;
mod finding;
mod function;
mod grammar;
mod join;
mod joins;
mod judge;
mod judging;
mod list;
pub mod locks;
mod occasion;
mod options;
pub mod pattern;
mod program;
mod rehearsal;
mod rings;
mod rule_set;
mod rule_text;
mod silence;
mod state;
mod touched;
mod values;
mod windows;

pub use check::check;
pub use error::RuleError;
pub use joins::{JoinStats, Joins, SEATS_MAX};
pub use judge::{Judge, PointSource, Stats};
pub use options::{Options, Semantics};
pub use rehearsal::{Before, History, Involvement, Rehearsal, Schedule};
pub use rule_set::{RefusedRule, RuleSet};
pub use state::{OpenProblem, RuleId};
pub use touched::Touched;
pub use windows::file::{MAGIC as WINDOWS_MAGIC, WindowsError, end_windows, read_windows};
pub use windows::{Fate, Room, Windows};
