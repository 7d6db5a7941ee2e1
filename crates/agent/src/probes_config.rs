//! Configuration of probes: the section `probes` of an agent's file.
//!
//! Invariants: what can be checked without looking at this host is checked here, and a fault names the key.

use super::user::User;
use netprobe::{CONCURRENT_MAX, Policy, Rest, Rule, Scripts};
use serde::Deserialize;
use settings::Faults;
use std::path::PathBuf;

/// Runs at a time that may be asked for: twice what 1,000 probes a minute of silent targets need, four times over.
const CONCURRENT_LIMIT: usize = 1024;

/// Section `probes`: what probes that hbs gives may do on this host.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbesConfig {
    pub enabled: bool,
    /// Targets that may be asked: networks, addresses, names, `.example.com` for all names below one.
    pub allow: Vec<String>,
    /// Targets that may not, whatever `allow` says.
    pub deny: Vec<String>,
    /// What is true of targets in neither list.
    pub rest: Rest,
    /// Folders whose programs probes of the kind script may run; none: no script runs.
    pub script_dirs: Vec<PathBuf>,
    /// The user whose rights they have: a name, or UID:GID; "" is the agent's own.
    pub script_user: String,
    /// Runs at a time; what is due meanwhile waits.
    pub concurrent_max: usize,
}

impl Default for ProbesConfig {
    fn default() -> Self {
        ProbesConfig {
            enabled: true,
            allow: Vec::new(),
            deny: Vec::new(),
            rest: Rest::Any,
            script_dirs: Vec::new(),
            script_user: String::new(),
            concurrent_max: CONCURRENT_MAX,
        }
    }
}

impl ProbesConfig {
    /// Checks everything but whether this host has the user.
    pub fn check(&self, faults: &mut Faults) {
        for (key, rules) in [("probes.allow", &self.allow), ("probes.deny", &self.deny)] {
            for error in rules.iter().filter_map(|rule| Rule::parse(rule).err()) {
                faults.add(format!("{key} has {error}"));
            }
        }
        if !self.allow.is_empty() && self.rest == Rest::Any {
            faults.add(
                "probes.allow has targets, and probes.rest is \"any\", which allows all others, too: give \"ordinary\" or \
                 \"nothing\" for probes.rest",
            );
        }
        if let Some(dir) = self.script_dirs.iter().find(|dir| !dir.is_absolute()) {
            faults.add(format!("probes.script_dirs has {dir:?}: give paths that begin with /"));
        }
        if !User::is_one(&self.script_user) {
            faults.add(format!("probes.script_user is {:?}: give a user's name, or UID:GID", self.script_user));
        }
        if !(1..=CONCURRENT_LIMIT).contains(&self.concurrent_max) {
            faults.add(format!("probes.concurrent_max is {}: give 1 to {CONCURRENT_LIMIT}", self.concurrent_max));
        }
    }

    /// The rules for probes, and why there are no scripts where their user cannot be had: other kinds run all the same.
    /// Fails where a rule is none.
    pub fn policy(&self) -> Result<(Policy, Option<String>), String> {
        let rules =
            |texts: &[String]| texts.iter().map(|text| Rule::parse(text)).collect::<Result<Vec<Rule>, String>>();
        let needs_user = self.enabled && !self.script_dirs.is_empty();
        let user = if needs_user { User::of("probes.script_user", &self.script_user) } else { Ok(None) };
        let (user, trouble) = user.map_or_else(|error| (None, Some(error)), |user| (user, None));
        let dirs = if trouble.is_some() { Vec::new() } else { self.script_dirs.clone() };
        let policy = Policy {
            allow: rules(&self.allow)?,
            deny: rules(&self.deny)?,
            rest: self.rest,
            scripts: Scripts { dirs, user: user.map(|user| user.ids()) },
            ..Policy::agent()
        };
        Ok((policy, trouble))
    }
}
