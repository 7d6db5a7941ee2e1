//! Alarm: takes events from the durable queue, stores them, and delivers them to people and programs.

pub mod queue;
