//! `[judge]`: how rules are judged, and the neighbours of a judge that runs alone.

use super::{Mode, RedisUrl};
use serde::Deserialize;
use settings::units::{is_place, seconds};
use settings::{Faults, Secret};

/// Section `judge`: how rules are judged, and the neighbours of a judge that runs alone.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeConfig {
    /// "hawkeye", or "open-falcon": the original's results also where they are wrong.
    pub semantics: Semantics,
    /// The least time between two PROBLEMs of one alarm (seconds).
    #[serde(deserialize_with = "seconds")]
    pub min_interval: i64,
    /// Whether `*` and `?` in an expression's `endpoint=` stand for any text and for one character.
    pub endpoint_patterns: bool,
    /// Rules come from one of these (original) hbs, for the judge alone; they are tried in turn.
    pub hbs_addrs: Vec<String>,
    /// The `ingest.token` of a Hawkeye's hbs; "" shows none.
    pub hbs_token: Secret,
    /// The time between two pulls of all rules from an hbs (seconds).
    #[serde(deserialize_with = "seconds")]
    pub hbs_interval: i64,
    /// The judge alone forgets a series without a point for so long (seconds).
    #[serde(deserialize_with = "seconds")]
    pub silent_after: i64,
    /// A Redis whose queues `event:p<priority>` get every event, for an old alarm; "" is none.
    pub redis_url: RedisUrl,
}

/// Results that the judge gives where the original's are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Semantics {
    Hawkeye,
    OpenFalcon,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        JudgeConfig {
            semantics: Semantics::Hawkeye,
            min_interval: 300,
            endpoint_patterns: true,
            hbs_addrs: Vec::new(),
            hbs_token: Secret::default(),
            hbs_interval: 60,
            // A week, as in the original.
            silent_after: 7 * 86_400,
            redis_url: RedisUrl::default(),
        }
    }
}

impl JudgeConfig {
    pub(super) fn check(&self, mode: Option<Mode>, faults: &mut Faults) {
        if mode == Some(Mode::Judge) {
            self.check_alone(faults);
        }
        if self.silent_after < 3600 {
            faults.add(format!("judge.silent_after is {} s: give at least \"1h\"", self.silent_after));
        }
        // What is repeated more rarely is not repeated at all.
        if self.min_interval > 7 * 86_400 {
            faults.add(format!("judge.min_interval is {} s: give \"0s\" to \"7days\"", self.min_interval));
        }
        for address in &self.hbs_addrs {
            if !is_place(address) || address.ends_with(":0") {
                faults.add(format!(
                    "judge.hbs_addrs has {address:?}: give addresses like \"10.0.0.5:6030\", or \"tls://10.0.0.5:6030\""
                ));
            }
        }
        if !self.hbs_token.is_none() {
            if let Some(fault) = self.hbs_token.fault_as_token() {
                faults.add(format!("judge.hbs_token {fault}"));
            }
            if self.hbs_addrs.is_empty() {
                faults.add("judge.hbs_token is set, and nobody is shown it: set judge.hbs_addrs, or leave it \"\"");
            }
        }
        // Two judges that each follow another portal would be one too many in a process.
        if !self.hbs_addrs.is_empty() && mode.is_some_and(|mode| mode != Mode::Judge) {
            faults.add(format!(
                "judge.hbs_addrs is {:?}: only the judge alone (roles = [\"judge\"]) takes its rules from another hbs; leave \
                 the key out",
                self.hbs_addrs
            ));
        }
        if !(5..=3600).contains(&self.hbs_interval) {
            faults.add(format!("judge.hbs_interval is {} s: give \"5s\" to \"1h\"", self.hbs_interval));
        }
    }

    /// Checks the settings that the judge alone cannot do without.
    fn check_alone(&self, faults: &mut Faults) {
        if self.hbs_addrs.is_empty() {
            faults.add(
                "judge.hbs_addrs is []: the judge alone has no portal; give the hbs that it takes its rules from, like \
                 [\"10.0.0.5:6030\"]",
            );
        }
        if self.redis_url.is_none() {
            faults.add(
                "judge.redis_url is \"\": the judge alone sends its events to the queues of an old alarm; give a Redis like \
                 \"redis://:password@10.0.0.6:6379\"",
            );
        }
    }
}
