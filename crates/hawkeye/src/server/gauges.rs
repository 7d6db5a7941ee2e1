//! Gauges: what `/metrics` shows of the store, the engine, and the memory they may take.

use crate::clock;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::pressure::{Level, Pressure};
use crate::watch::health::{Health, Reason};
use metrics::{Metrics, resident_bytes};
use std::sync::Arc;

/// Begins to measure growth against `memory_budget`; call this when what the data needs at the start is in memory.
pub fn watch_memory(config: &Config, metrics: &Metrics, health: &Health) -> Arc<Pressure> {
    let pressure = Arc::new(Pressure::new(config.memory_budget, clock::now()));
    let shown = pressure.clone();
    metrics.source(move |figures| shown.show(figures));
    let told = pressure.clone();
    metrics.ledger().source(move |report| report.line("growth", told.memory_bytes() as u64, None, None));
    let asked = pressure.clone();
    health.source(move |reasons| reasons.extend(memory_is_short(&asked)));
    pressure
}

fn memory_is_short(pressure: &Pressure) -> Option<Reason> {
    let report = pressure.report();
    (report.level == Level::Refuse).then(|| Reason {
        what: "memory_budget is nearly used: new series of the largest growers are refused (see /memory)",
        why: format!(
            "{} of {} bytes, {} series refused",
            report.used_bytes, report.budget_bytes, report.refused_series
        ),
        since: report.level_since,
    })
}

/// Shows the figures of the store and the engine.
pub fn show_gauges(metrics: &Metrics, engine: &Arc<Engine>) {
    let engine = engine.clone();
    metrics.source(move |figures| {
        let store = engine.store().stats();
        figures.gauge("resident_bytes", "Resident memory of this process", resident_bytes().unwrap_or(0) as f64);
        figures.gauge("series", "Series in memory", store.series as f64);
        figures.gauge("series_asleep", "Names in cold runs, of silent series", store.series_asleep as f64);
        figures.gauge("endpoints", "Endpoints with a series in memory", store.endpoints as f64);
        figures.gauge("store_cold_runs", "Files with names of silent series", store.cold_runs as f64);
        figures.gauge("store_cold_bytes", "Size of the files with names of silent series", store.cold_bytes as f64);
        figures.gauge("store_hot_points", "Points in hot chunks", store.hot_points as f64);
        figures.gauge("store_hot_bytes", "Memory of hot chunks", store.hot_bytes as f64);
        figures.gauge("store_index_bytes", "Memory of the series table", store.index_bytes as f64);
        figures.gauge("store_log_bytes", "Size of the log's segments", store.log_bytes as f64);
        figures.gauge("store_block_bytes", "Size of the block files", store.block_bytes as f64);
        figures.gauge("store_blocks", "Block files", store.blocks as f64);
        let kinds = [("raw", store.raw), ("5m", store.rollups_5m), ("1h", store.rollups_1h)];
        for (kind, stats) in kinds {
            let (help, points) = ("Blocks of this kind", stats.points as f64);
            figures.gauge(&format!("store_{kind}_blocks"), help, stats.blocks as f64);
            figures.gauge(&format!("store_{kind}_bytes"), "Size of them", stats.bytes as f64);
            figures.gauge(&format!("store_{kind}_points"), "Points, or buckets of roll-ups, in them", points);
        }
        figures.counter("store_merges", "Merges of blocks that ended", store.merges);
        figures.counter("store_merge_errors", "Merges that failed and are tried again", store.merge_errors);
        figures.counter("store_merge_bytes", "Bytes that merges read and wrote", store.merge_bytes);
        figures.counter("store_rollup_bytes", "Bytes of roll-ups written", store.rollup_bytes);
        figures.counter("points_stored", "Points taken into the store", store.points_total);
        figures.counter("points_duplicate", "Points whose time the series already had", store.duplicates);
        figures.counter("points_late", "Points merged behind newer ones", store.late);
        let help = "Points from a clock that was ahead: kept, but judged no more";
        figures.counter("points_set_aside", help, store.set_aside);
        figures.counter("points_too_old", "Points older than the retention, not kept", store.too_old);
        figures.counter("points_unknown", "Points of series deleted meanwhile, not kept", store.unknown);
        figures.gauge(
            "store_unflushed_bytes",
            "Bytes of points that are not in a block yet",
            store.unflushed_bytes as f64,
        );
        figures.counter("store_log_errors", "Batches that the log could not take", store.log_errors);
        figures.counter("store_log_syncs", "Syncs of the log", store.log_syncs);
        figures.counter("points_unjudged", "Points refused unjudged: disk and memory full", store.unjudged);
        figures.counter("store_flushes", "Flushes that wrote blocks", store.flushes);
        figures.counter("store_flush_errors", "Flushes that failed and are tried again", store.flush_errors);
        figures.counter("store_corrupt_reads", "Reads that met damage in a block", store.corrupt_reads);
        engine.show(figures);
    });
}
