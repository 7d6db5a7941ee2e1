//! Queue: opens the durable queue of events, and says how rules are judged into it.

use crate::clock;
use crate::config::{Config, Fsync, Semantics};
use anyhow::{Context, Result};
use events::{EventQueue, Recovery};
use std::sync::Arc;

/// Opens the event queue; answers with it the alarms that were open when it was closed.
pub fn open_event_queue(config: &Config) -> Result<(Arc<EventQueue>, Recovery)> {
    let fsync = match config.graph.fsync {
        Fsync::Always => events::Fsync::Always,
        Fsync::Second => events::Fsync::EverySecond,
        Fsync::Never => events::Fsync::Never,
    };
    let (queue, recovered) = EventQueue::open(&config.data_dir.join("events"), fsync, clock::now())
        .with_context(|| format!("cannot open the event queue in {}", config.data_dir.display()))?;
    if recovered.torn_bytes_cut > 0 {
        tracing::warn!(bytes = recovered.torn_bytes_cut, "cut off an unfinished write of events");
    }
    for damage in &recovered.damaged {
        tracing::error!(file = %damage.file.display(), bytes = ?damage.bytes, "events are damaged; the rest was read");
    }
    if recovered.unreadable > 0 {
        tracing::error!(
            count = recovered.unreadable,
            "events of the queue are not understood: another version may have written them"
        );
    }
    Ok((Arc::new(queue), recovered))
}

/// Options of every judge of this process.
pub fn judge_options(config: &Config) -> ::judge::Options {
    ::judge::Options {
        semantics: match config.judge.semantics {
            Semantics::Hawkeye => ::judge::Semantics::Hawkeye,
            Semantics::OpenFalcon => ::judge::Semantics::OpenFalcon,
        },
        min_interval_s: config.judge.min_interval,
        points_max: config.rule_points_max(),
        endpoint_patterns: config.judge.endpoint_patterns,
        future_max_s: config.ingest.future_max,
    }
}
