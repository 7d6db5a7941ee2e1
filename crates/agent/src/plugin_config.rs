//! Plugin configuration: the section `plugin` of an agent's file, and a cfg.json's of the same name.
//!
//! Invariants: what can be checked without looking at this host is checked here, and a fault names the key.

use super::user::User;
use serde::Deserialize;
use settings::Faults;
use std::path::PathBuf;

/// Section `plugin`: files of a git repository that hbs has this host run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginConfig {
    pub enabled: bool,
    /// The directory of the plugins, a clone of `git`.
    pub dir: PathBuf,
    /// The address of the repository, for `/plugin/update`; "" has nothing cloned.
    pub git: String,
    /// The directory for what plugins write to their stderr.
    pub logs: PathBuf,
    /// The user whose rights plugins have: a name, or UID:GID; "" is the agent's own.
    pub user: String,
}

impl Default for PluginConfig {
    fn default() -> Self {
        // The directories are Open-Falcon's; its repository is not the operator's, so none is the default.
        PluginConfig {
            enabled: false,
            dir: "./plugin".into(),
            git: String::new(),
            logs: "./logs".into(),
            user: String::new(),
        }
    }
}

impl PluginConfig {
    /// Checks what is used while plugins are on: a cfg.json may hold anything in a section that is off.
    pub fn check(&self, faults: &mut Faults) {
        if !self.enabled {
            return;
        }
        for (key, path) in [("plugin.dir", &self.dir), ("plugin.logs", &self.logs)] {
            if path.as_os_str().is_empty() {
                faults.add(format!("{key} is \"\": give a directory, like \"./plugin\""));
            }
        }
        if self.git.starts_with('-') || self.git.contains(|c: char| c.is_whitespace() || c.is_control()) {
            faults.add(
                "plugin.git begins with - or has a blank: give the address of a repository, as git clone takes it",
            );
        }
        if !User::is_one(&self.user) {
            faults.add(format!("plugin.user is {:?}: give a user's name, or UID:GID", self.user));
        }
    }
}
