//! Graph: what an old Open-Falcon around this process needs of its graph.

pub mod index;
