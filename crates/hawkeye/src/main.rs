//! hawkeye: the whole of Open-Falcon's job in one binary. This crate is the only place with sockets, async, SQL,
//! configuration and the wall clock; docs/architecture.md is the map.

mod api;
mod cli;
mod clock;
mod config;
mod engine;
mod growth;
mod handover;
mod ingest;
mod judges;
mod keeper;
mod loadgen;
mod local_time;
mod memory;
mod metrics;
mod mysql_url;
mod net;
#[cfg(test)]
mod patience;
mod portal;
mod pprof;
mod pressure;
mod protobuf;
mod redis_url;
mod replay;
mod role;
mod rules;
mod server;
mod ui;
mod ui_data;

/// Chosen because it returns memory after bursts; .cargo/config.toml holds its settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
