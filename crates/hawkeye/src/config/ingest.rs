//! `[ingest]`: who may send, how much, and how far from the clock.

use anyhow::{Context, Result, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use settings::units::{networks, seconds, size};
use settings::{Faults, Secret};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use stdx::small_file;

/// Bytes of the token's file at most; a token has some dozen.
const TOKEN_FILE_BYTES_MAX: u64 = 1 << 20;

/// Section `ingest`: who may send, and how much.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Networks that may send points, heartbeats and telnet lines, e.g. "10.0.0.0/8".
    #[serde(deserialize_with = "networks")]
    pub allow: Vec<IpNet>,
    /// A token that senders show before anything else; "" is none.
    pub token: Secret,
    /// A file that holds the token instead.
    pub token_file: PathBuf,
    /// Points further ahead of the clock are refused (seconds).
    #[serde(deserialize_with = "seconds")]
    pub future_max: i64,
    /// A smaller step counts as this one (seconds); Open-Falcon's minStep.
    pub min_step: u32,
    /// The longest JSON-RPC message or HTTP body (bytes).
    #[serde(deserialize_with = "size")]
    pub message_max: u64,
    /// The most connections per listener; for one more, another gives way (`net::places`), or it is closed at once.
    pub connections_max: usize,
    /// A started message must be complete after this time (seconds).
    #[serde(deserialize_with = "seconds")]
    pub message_timeout: i64,
    /// The most series; a point of one more is refused.
    pub series_max: u32,
}

impl Default for IngestConfig {
    fn default() -> Self {
        IngestConfig {
            allow: vec![
                Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
                Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
            ],
            token: Secret::default(),
            token_file: PathBuf::new(),
            future_max: 300,
            min_step: 30,
            // The largest message of a real agent is below 100 kB; a gateway sends 200 items, a script perhaps 10,000.
            message_max: 16 << 20,
            connections_max: 16_384,
            message_timeout: 60,
            series_max: 4_000_000,
        }
    }
}

impl IngestConfig {
    /// The token that senders show, if one is configured. The error names the key and the fix.
    pub fn secret(&self) -> Result<Option<Secret>> {
        if !self.token.is_none() {
            return Ok(Some(self.token.clone()));
        }
        if self.token_file.as_os_str().is_empty() {
            return Ok(None);
        }
        let file = self.token_file.display();
        let bytes = small_file::read(&self.token_file, TOKEN_FILE_BYTES_MAX)
            .with_context(|| format!("ingest.token_file: cannot read {file}: give a file that this user may read"))?;
        let text = std::str::from_utf8(&bytes).ok();
        let text =
            text.with_context(|| format!("ingest.token_file: {file} is no UTF-8: give a file with the token"))?;
        let secret = Secret::new(text.trim());
        let fault = secret.fault_as_token();
        ensure!(fault.is_none(), "ingest.token_file: what {file} holds {}", fault.unwrap_or_default());
        Ok(Some(secret))
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        if !self.token.is_none()
            && let Some(fault) = self.token.fault_as_token()
        {
            faults.add(format!("ingest.token {fault}"));
        }
        if !self.token.is_none() && !self.token_file.as_os_str().is_empty() {
            faults.add("ingest.token_file is set beside ingest.token: leave one of them \"\"");
        }
        if self.min_step == 0 || self.min_step > 86_400 {
            faults.add(format!("ingest.min_step is {}: give seconds from 1 to 86400", self.min_step));
        }
        if !(1024..=1 << 30).contains(&self.message_max) {
            faults.add(format!("ingest.message_max is {} bytes: give \"1KiB\" to \"1GiB\"", self.message_max));
        }
        if !(1..=3600).contains(&self.message_timeout) {
            faults.add(format!("ingest.message_timeout is {} s: give \"1s\" to \"1h\"", self.message_timeout));
        }
        if !(0..=86_400).contains(&self.future_max) {
            faults.add(format!("ingest.future_max is {} s: give \"0s\" to \"1day\"", self.future_max));
        }
        if self.allow.is_empty() {
            faults.add(
                "ingest.allow is []: nobody could send points; give networks, like [\"127.0.0.0/8\", \"10.0.0.0/8\"]",
            );
        }
        // The last number stands for no series.
        if self.series_max == 0 || self.series_max == u32::MAX {
            faults.add(format!("ingest.series_max is {}: give a number from 1 to 4294967294", self.series_max));
        }
        // A listener cannot have more descriptors than a process has.
        if !(1..=1 << 30).contains(&self.connections_max) {
            faults.add(format!("ingest.connections_max is {}: give a number from 1 to 2^30", self.connections_max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_kind_holds_no_token() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        let secret = |token_file: PathBuf| IngestConfig { token_file, ..IngestConfig::default() }.secret();
        std::fs::write(&file, "\u{feff}0123456789abcdef\r\n").expect("room");
        assert_eq!(secret(file.clone()).expect("a token").expect("one").text(), "0123456789abcdef");
        let refused = |path: PathBuf, part: &str| {
            let error = format!("{:#}", secret(path).expect_err("of no use"));
            assert!(error.starts_with("ingest.token_file: ") && error.contains(part), "{error}");
        };
        for path in ["/dev/null", "/dev/zero", "/"] {
            refused(path.into(), "give a file that this user may read: it is no regular file");
        }
        std::fs::write(&file, vec![b'a'; TOKEN_FILE_BYTES_MAX as usize + 1]).expect("room");
        refused(file.clone(), "it has more than 1048576 bytes");
        std::fs::write(&file, [0xff; 20]).expect("room");
        refused(file, "is no UTF-8");
    }
}
