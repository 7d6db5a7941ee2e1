//! hawkeye: the whole of Open-Falcon's job in one binary. This crate is the only place with sockets, async, SQL,
//! configuration and the wall clock; docs/architecture.md is the map.

mod api;
mod cli;
mod clock;
mod config;
mod metrics;
mod portal;
mod role;
mod ui;

fn main() -> std::process::ExitCode {
    cli::run()
}
