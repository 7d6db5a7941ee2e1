//! The house: what must hold of this repository as a whole, read from its files.
//!
//! Why: a rule that nobody checks holds for some weeks. Each file here checks one rule that CONTRIBUTING.md or
//! docs/architecture.md states, and its message says what to do.
//! How: every check is a function over texts, tried first on made-up ones that break the rule, and then applied to the
//! working copy; so no check passes by finding nothing.
//! Invariants: reads files and runs `cargo metadata`; writes nothing, skips nothing.

mod arrows;
mod changes;
mod circles;
mod columns;
mod crates;
mod layers;
mod licences;
mod named;
mod repository;
mod unsafety;
