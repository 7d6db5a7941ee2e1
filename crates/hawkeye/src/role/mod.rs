//! Roles: what one process can be; the listing of this folder shows the system.

pub mod agent;
