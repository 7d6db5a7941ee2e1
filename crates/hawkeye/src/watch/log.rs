//! Log: structured lines on standard error.

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// Begins the log of the process. The variable `RUST_LOG` overrides `filter`, the configured one.
pub fn to_stderr(filter: &str) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => EnvFilter::try_new(&text)
            .with_context(|| format!("RUST_LOG is {text:?}: give a filter like \"info\" or \"hawkeye=debug,warn\""))?,
        Err(_) => EnvFilter::try_new(filter)
            .with_context(|| format!("log is {filter:?}: give a filter like \"info\" or \"hawkeye=debug,warn\""))?,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}
