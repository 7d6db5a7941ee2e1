//! Judge: what it needs of others, and what others get from it.

pub mod redis;
