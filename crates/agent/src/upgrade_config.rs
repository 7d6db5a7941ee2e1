//! Upgrade configuration: the section `upgrade` of an agent's file.

use crate::signature::PublicKey;
use serde::Deserialize;
use settings::Faults;
use std::path::PathBuf;

/// Folder of programs that were taken, in the directory that systemd gives.
pub const FOLDER: &str = "agent-upgrade";

/// Section `upgrade`: programs by the server's word, signed by the operator.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpgradeConfig {
    /// The operator's public key, base64 of ed25519; "" takes no program of anybody.
    pub public_key: String,
    /// The directory of programs that were taken, for one agent; "" is a folder of `$STATE_DIRECTORY`.
    pub dir: PathBuf,
}

impl UpgradeConfig {
    /// Whether programs are taken.
    pub fn is_on(&self) -> bool {
        !self.public_key.is_empty()
    }

    /// The key; none while this is off, or wrong.
    pub fn key(&self) -> Option<PublicKey> {
        self.public_key.parse().ok()
    }

    /// Checks what can be checked without a disk.
    pub fn check(&self, faults: &mut Faults) {
        if self.is_on()
            && let Err(error) = self.public_key.parse::<PublicKey>()
        {
            faults.add(format!("upgrade.public_key {error}"));
        }
        if !self.dir.as_os_str().is_empty() && !self.dir.is_absolute() {
            faults.add(format!("upgrade.dir is {:?}: give a path that begins with /", self.dir));
        } else if self.is_on() && self.dir.as_os_str().is_empty() {
            faults.add(
                "upgrade.dir is \"\", and nothing gives a $STATE_DIRECTORY: give a directory that the agent alone writes to",
            );
        }
    }
}
