//! Judge alone: rules from an original hbs.

#[allow(dead_code)] // wired by the role
pub mod pull;
