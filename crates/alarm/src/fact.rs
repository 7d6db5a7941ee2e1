//! Fact: what is known of an alarm when it is decided whom to tell.
//!
//! Memory: a fact shares with all others of its rule what the rule says, and with all others of its host the names of
//! the groups.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a rule says of each of its alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// 0 is the highest.
    pub priority: i32,
    pub metric: String,
    pub note: String,
    /// Name of the template; "" of an expression.
    pub template: String,
    /// Ids; 0 where there is none.
    pub template_id: i64,
    pub strategy_id: i64,
    pub expression_id: i64,
}

/// What matchers look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fact {
    pub rule: Arc<Rule>,
    pub endpoint: Box<str>,
    /// Canonical tags, `k=v,k2=v2`.
    pub tags: Box<str>,
    /// Names of the host groups that the endpoint is in.
    pub groups: Arc<[Box<str>]>,
}

impl Fact {
    /// Value of a tag; none where it has none of this key.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags
            .split(',')
            .find_map(|tag| tag.split_once('=').filter(|(name, _)| *name == key))
            .map(|(_, value)| value)
    }

    /// Bytes on the heap that are this fact's alone.
    pub fn own_bytes(&self) -> usize {
        self.endpoint.len() + self.tags.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_by_their_whole_key() {
        let fact = Fact { tags: "disk=sda,mount=/data=x".into(), ..Fact::default() };
        assert_eq!((fact.tag("mount"), fact.tag("disk")), (Some("/data=x"), Some("sda")));
        assert_eq!((fact.tag("mou"), fact.tag("")), (None, None));
    }
}
