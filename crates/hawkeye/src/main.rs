//! hawkeye: the whole of Open-Falcon's job in one binary. SQL, configuration and the wall clock are here, sockets and
//! async here, in `net` and in `agent`; docs/architecture.md is the map.

mod api;
mod cli;
mod clock;
mod config;
mod engine;
mod loadgen;
mod page;
mod plus_api;
mod plus_graph;
mod plus_redis;
mod portal;
mod releases;
mod role;
mod rules;
mod server;
mod watch;

/// Chosen because it returns memory after bursts; .cargo/config.toml holds its settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
