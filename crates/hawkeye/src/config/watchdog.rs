//! `[watchdog]`: whom this server tells that it lives.

use reqwest::Url;
use serde::Deserialize;
use settings::units::seconds;
use settings::{Faults, Secret};

/// Seconds between two signs of life.
const INTERVALS: std::ops::RangeInclusive<i64> = 10..=3600;

/// Section `watchdog`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchdogConfig {
    /// Address that is asked with POST, mostly a secret by itself; "" is none.
    pub url: Secret,
    /// Seconds between two signs of life.
    #[serde(deserialize_with = "seconds")]
    pub interval: i64,
}

impl Default for WatchdogConfig {
    fn default() -> WatchdogConfig {
        WatchdogConfig { url: Secret::default(), interval: 60 }
    }
}

impl WatchdogConfig {
    /// The address; none where there is none, or no good one.
    pub fn address(&self) -> Option<Url> {
        Url::parse(self.url.text()).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        // The URL is a secret, and not quoted.
        if !self.url.is_none() && self.address().is_none() {
            faults.add("watchdog.url is no URL: give one like https://hc.example.com/ping/UUID, or \"\"");
        }
        if !INTERVALS.contains(&self.interval) {
            let (least, most) = (INTERVALS.start(), INTERVALS.end());
            faults.add(format!("watchdog.interval is {} s: give {least} s to {most} s", self.interval));
        }
    }
}
