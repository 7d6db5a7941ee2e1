//! `[probe]`: whom probes that the server runs may speak to.
//!
//! Why: who may write a probe is not who may log in on the server, so what listens there on loopback, and what a cloud
//! gives away to its host alone, is out of reach unless the site says otherwise.

use netprobe::{Policy, Rest, Rule};
use serde::Deserialize;

/// Section `probe`: the policy of the server's own probes, in the portal's probes without a group and in tests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeConfig {
    /// Targets that are permitted: networks, addresses, names, `.example.com` for all names below one.
    pub allow: Vec<Rule>,
    /// Targets that are not, whatever `allow` says.
    pub deny: Vec<Rule>,
    /// What is true of targets in neither list.
    pub rest: Rest,
}

impl ProbeConfig {
    /// The policy as probes take it. No script runs on the server.
    pub fn policy(&self) -> Policy {
        Policy { allow: self.allow.clone(), deny: self.deny.clone(), rest: self.rest, ..Policy::server() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_is_the_policy() {
        let policy = ProbeConfig::default().policy();
        assert!(policy.allow.is_empty() && policy.deny.is_empty() && policy.scripts.dirs.is_empty());
        assert_eq!(policy.rest, Rest::Ordinary);
        let text = "allow = [\"127.0.0.0/8\", \".example.com\"]\ndeny = [\"10.0.0.1\"]\nrest = \"nothing\"";
        let policy = toml::from_str::<ProbeConfig>(text).expect("a section").policy();
        assert_eq!((policy.allow.len(), policy.deny.len(), policy.rest), (2, 1, Rest::Nothing));
    }
}
