//! Roles: what one process can be; the listing of this folder shows the system.

pub mod aggregator;
pub mod alarm;
pub mod graph;
pub mod hbs;
pub mod job;
pub mod judge;
pub mod nodata;
pub mod p8s;
pub mod probe;
pub mod redis;
pub mod transfer;

#[cfg(test)]
mod tests;
