//! Reload: the configuration read again while the agent runs.
//!
//! How: the same file, variables and flags as at the start are read and checked; what is wrong changes nothing. The
//! keys of [`IN_PLACE`] are in effect from the next round on; others that differ are named, for they need a restart.
//! Invariants: all or nothing; one reload at a time.
//! Compat: the original ends itself where the file is wrong, and reads its settings from the new file wherever it looks
//! at them next, addresses and intervals of running loops not among them.

use super::batch::DefaultTags;
use super::config::AgentConfig;
use super::hand::Hand;
use super::live::Settings;
use super::shown::{self, Key};
use super::{Agent, plugin};
use probe::{Roots, Scope};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use supervisor::causes::line_of;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The time that reading the file may take; it may lie on a mount that hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys, and begins of keys, that are changed in place.
const IN_PLACE: [&str; 8] = [
    "iface_prefixes",
    "virtual_ifaces",
    "mount_points",
    "container_mounts",
    "ignore",
    "default_tags",
    "plugin.",
    "probes.",
];

/// Reloads of an agent so far.
#[derive(Default)]
pub struct Reload {
    hand: Hand,
    /// Configuration that was read last; none before the first reload.
    last: Mutex<Option<AgentConfig>>,
}

/// What a reload has done.
pub struct Reloaded {
    keys: Vec<Key>,
    changed: Vec<&'static str>,
    needs_restart: Vec<&'static str>,
}

impl Reloaded {
    /// The original's envelope with the new configuration, and which keys are in effect and which are not.
    pub fn shown(&self) -> Value {
        json!({
            "msg": "success",
            "data": shown::object(&self.keys),
            "changed": self.changed,
            "needs_restart": self.needs_restart,
        })
    }
}

/// Reads the configuration again, and changes what can be changed. The error says what is wrong with it.
pub async fn reload(agent: &Arc<Agent>) -> Result<Reloaded, String> {
    let source = agent.config.source.clone().ok_or("this agent has no file of its own: restart the server instead")?;
    let mut last = agent.reload.last.lock().await;
    let read = agent.reload.hand.run(Instant::now() + READ_TIMEOUT, move || source.load()).await;
    let config = read
        .ok_or_else(|| format!("the configuration could not be read within {READ_TIMEOUT:?}"))?
        .map_err(|error| line_of(&*error))?;
    if config.plugin.enabled {
        plugin::check_user(&config.plugin.user)?;
    }
    config.probes.policy()?;
    let (before, keys) = (shown::keys(last.as_ref().unwrap_or(&agent.config)), shown::keys(&config));
    let changed = differing(&before, &keys, is_in_place);
    let needs_restart = differing(&shown::keys(&agent.config), &keys, |name| !is_in_place(name));
    agent.live.change(settings_of(&config));
    agent.facts.change(&in_effect(shown::keys(&agent.config), &keys));
    agent.plugins.look_again();
    agent.probes.look_again();
    tracing::info!(?changed, ?needs_restart, "read the configuration again");
    *last = Some(config);
    Ok(Reloaded { keys, changed, needs_restart })
}

/// The part of a configuration that a reload changes.
pub fn settings_of(config: &AgentConfig) -> Settings {
    Settings {
        scope: Scope {
            roots: Roots::new(&config.rootfs),
            iface_prefixes: config.iface_prefixes.clone(),
            virtual_ifaces: config.virtual_ifaces,
            mount_points: config.mount_points.clone(),
            container_mounts: config.container_mounts,
        },
        ignore: config.ignore.clone(),
        default_tags: DefaultTags::new(&config.default_tags),
        plugin: config.plugin.clone(),
        probes: config.probes.clone(),
    }
}

/// Keys that are in effect after a reload: those that need a restart are as they were at the start.
fn in_effect(start: Vec<Key>, now: &[Key]) -> Vec<Key> {
    let pairs = start.into_iter().zip(now);
    pairs.map(|(old, new)| if is_in_place(new.name) { new.clone() } else { old }).collect()
}

fn is_in_place(name: &str) -> bool {
    IN_PLACE.iter().any(|key| name == *key || key.ends_with('.') && name.starts_with(key))
}

fn differing(before: &[Key], now: &[Key], counts: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let pairs = before.iter().zip(now).filter(|(old, new)| old.value != new.value && counts(new.name));
    pairs.map(|(_, new)| new.name).collect()
}
