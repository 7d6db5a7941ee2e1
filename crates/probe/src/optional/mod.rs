//! Optional: collectors that are off until a host's owner switches them on, and are the agent's own.
//!
//! Why: what a fleet looks at should not grow with an upgrade, and each of these has its price in series.
//! How: one file per collector, as for the others; [`ProcessGroups`] and [`Logs`] keep what they have seen between two
//! reports, and get the time. Each metric is in docs/agent-metrics.md, which the tests compare with what comes out.
//! Invariants: what is asked for and is not there is a failure that names its file; no name is that of a metric of the
//! original, for a rule without tags is for every series of its metric.

mod cgroup;
mod files;
mod limits;
mod logs;
mod pressure;
mod processes;

pub use cgroup::collect as collect_cgroups;
pub use files::{glob_fault, matching_files};
pub use limits::collect as collect_limits;
pub use logs::{LogPattern, Logs};
pub use pressure::collect as collect_pressure;
pub use processes::{ProcessGroup, ProcessGroups};

use regex::bytes::{Regex, RegexBuilder};

/// Bytes of a compiled pattern; one over lines of a log has some kilobytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Compiles a pattern over bytes: a dot is any byte but a line break, `\w` and its like are those of ASCII. The error
/// says what is wrong with the pattern.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).unicode(false).size_limit(PATTERN_BYTES_MAX).build();
    // The library draws an arrow below the pattern; its last line says the reason.
    built
        .map_err(|error| error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_string())
}

#[cfg(test)]
mod tests;
