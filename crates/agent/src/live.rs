//! Live: the settings that a reload of the configuration changes while the agent runs.
//!
//! How: readers take what is in effect now ([`Live::now`]) and keep that for a round, so that no round is half the one
//! and half the other.
//! Memory: one set of settings, and those before for as long as a round still uses them.

use super::batch::DefaultTags;
use super::plugin_config::PluginConfig;
use super::probes_config::ProbesConfig;
use probe::Scope;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Settings in effect at a moment.
pub struct Settings {
    pub scope: Scope,
    /// Collected metrics that are not sent.
    pub ignore: BTreeSet<String>,
    pub default_tags: DefaultTags,
    pub plugin: PluginConfig,
    pub probes: ProbesConfig,
}

/// Holder of the settings in effect.
pub struct Live(Mutex<Arc<Settings>>);

impl Live {
    /// Settings until the first reload.
    pub fn new(settings: Settings) -> Live {
        Live(Mutex::new(Arc::new(settings)))
    }

    /// Settings in effect now.
    pub fn now(&self) -> Arc<Settings> {
        self.0.lock().expect("nothing panics while this is locked").clone()
    }

    /// Makes these the settings in effect.
    pub fn change(&self, settings: Settings) {
        *self.0.lock().expect("nothing panics while this is locked") = Arc::new(settings);
    }
}
