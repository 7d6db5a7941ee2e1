//! Settings: the configuration of Hawkeye's programs: one TOML file, variables and flags laid over it, values with
//! units.
//!
//! Why: the server and the agent are configured in the same way and are separate programs; the keys are theirs.
//! How: a file becomes a [`toml::Table`], [`overlay()`] sets single keys by their dotted path, and serde turns the
//! result into the program's own structs, whose fields name the functions of [`units`] for durations, sizes and
//! networks.
//! Invariants: an error names the key or the line and never repeats the text of a line, which may hold a password.

mod environment;
mod faults;
mod form;
#[cfg(test)]
mod keys;
mod overlay;
mod secret;
pub mod units;

pub use environment::variables;
pub use faults::{Faults, read};
pub use form::{is_json, without_mark};
pub use overlay::{not_toml, overlay, overlay_variables, pair};
pub use secret::Secret;
