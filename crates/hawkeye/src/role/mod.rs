//! Roles: what one process can be; the listing of this folder shows the system.

pub mod alarm;
pub mod graph;
pub mod hbs;
pub mod judge;
pub mod redis;
pub mod transfer;
