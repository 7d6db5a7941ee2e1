//! Answer limits: what the answer of an hbs may have at most. An answer with more is refused, and the rules in effect
//! stay.

/// Bounds of one answer and of what is kept of it.
#[derive(Clone, Copy, Debug)]
pub struct AnswerLimits {
    /// Bytes of one strategy or expression, and of every value that is passed over.
    pub rule_bytes: usize,
    /// Bytes of a hostname with its quotes and escapes.
    pub hostname_bytes: usize,
    pub hosts: usize,
    pub strategies_per_host: usize,
    pub expressions: usize,
    pub answer_bytes: u64,
    /// Bytes of the texts of distinct rules: these stay in memory, hosts only point at them.
    pub distinct_bytes: usize,
}

impl Default for AnswerLimits {
    fn default() -> AnswerLimits {
        AnswerLimits {
            // The columns of Open-Falcon's table together have below 1 KB, each byte at most six when escaped.
            rule_bytes: 64 << 10,
            // `host.hostname` is a varchar(255): at most four bytes a character.
            hostname_bytes: 1024,
            // An original hbs serves some thousands of hosts; its answer to 1,000 with 80 strategies each has 26 MB.
            hosts: 100_000,
            strategies_per_host: 10_000,
            expressions: 100_000,
            answer_bytes: 1 << 30,
            // About 100,000 strategies. They take 3.5 times as much when read (`tests/hbs_memory.rs`).
            distinct_bytes: 32 << 20,
        }
    }
}
