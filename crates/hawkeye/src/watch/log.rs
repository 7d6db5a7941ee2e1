//! Log: structured lines on standard error, and the few lines for who starts a program by hand on standard output.
//!
//! Invariants: what cannot be written (a closed pipe, a full disk) is left out; no line ends or stops the process.

use anyhow::{Context, Result};
use std::fmt::Display;
use std::io::Write;
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
        // Else a line that cannot be written is complained of on standard error, which panics.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}

/// Prints a line for who has started the program.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints the one line with which a program gives up.
pub fn give_up(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
