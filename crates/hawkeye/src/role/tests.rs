//! What the tests of several roles need, and tests of roles together.

mod alone;

use crate::engine::Engine;
use crate::engine::ingest::Ingest;
use crate::engine::pressure::Pressure;
use anyhow::Result;
use metrics::Metrics;
use std::path::Path;
use std::sync::Arc;

/// An engine with nothing in it, in a directory of its own under `dir`, and its door.
pub fn door(dir: &Path) -> Result<(Arc<Engine>, Arc<Ingest>)> {
    let options = store::Options { dir: dir.join("store"), shard_count: 1, ..store::Options::default() };
    let (store, _) = store::Store::open(options, crate::clock::now())?;
    let engine = Arc::new(Engine::new(store, 1, judge::Options::default(), None));
    let ingest =
        Ingest::new(engine.clone(), Arc::new(Pressure::new(u64::MAX, crate::clock::now())), 30, 300, &Metrics::new());
    Ok((engine, Arc::new(ingest)))
}
