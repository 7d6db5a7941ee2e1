//! Delivery: what an agent and hbs say to each other about probes, as JSON over the connection of the heartbeat.
//!
//! Why: probes reach hundreds of agents each minute, and change once a week; so that what is unchanged costs some
//! bytes, and what is changed costs what has changed.
//! How: with each heartbeat an agent asks `Hawkeye.Probes` with the version of what it has. Where that is still so, the
//! answer has no handles. Otherwise it names each probe by id and digest, and the agent asks
//! `Hawkeye.ProbeDefinitions` for those that it does not have, [`ASKED_MAX`] at a time. Who has become up or down, or
//! is down for another reason, is told with `Hawkeye.ProbeStates`, [`ASKED_MAX`] at a time, before the points are sent
//! that may raise an alarm: so that its text knows the reason.
//! Invariants: equal versions are equal sets of (id, digest). A version names no order.
//! Compat: methods of an original hbs have other names; it answers these with an error, and then there are no probes.

use crate::Definition;
use serde::{Deserialize, Serialize};

/// Probes of one agent at most.
pub const PROBES_MAX: usize = 2000;
/// Definitions, or states, of one call: 100 states with the longest reasons have some 100 KiB.
pub const ASKED_MAX: usize = 100;
/// Bytes of the definitions of one answer, but for the first: what is beyond is left out, and asked for again.
pub const ANSWER_BYTES_MAX: usize = 512 << 10;

/// Parameter of `Hawkeye.Probes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ask {
    pub hostname: String,
    /// Version of what the agent has; "" has nothing.
    pub version: String,
}

/// Answer to `Hawkeye.Probes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Told {
    pub version: String,
    /// All probes of the agent; none where the agent has this version.
    pub probes: Option<Vec<Handle>>,
}

/// A probe without its definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Handle {
    pub id: i64,
    /// Changes with the definition; hex.
    pub digest: String,
}

/// Parameter of `Hawkeye.ProbeDefinitions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Want {
    pub hostname: String,
    pub ids: Vec<i64>,
}

/// Answer to `Hawkeye.ProbeDefinitions`: of the probes that were asked for, those that the agent is to run, as many as
/// there is room for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Given {
    pub probes: Vec<Defined>,
}

/// A probe as it is to be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Defined {
    pub id: i64,
    pub digest: String,
    pub definition: Definition,
}

/// Parameter of `Hawkeye.ProbeStates`; the answer is `{"code":0}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct States {
    pub hostname: String,
    pub states: Vec<State>,
}

/// What the last run of a probe has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    pub id: i64,
    pub up: bool,
    /// [`Code`](crate::Code) of the failure; "" where there is none.
    pub code: String,
    /// One line; "" where there is none.
    pub reason: String,
    /// Unix seconds of the run.
    pub time: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_look_like_those_of_agents() {
        let told = json!({ "Version": "a1", "Probes": [{ "Id": 7, "Digest": "0f" }] });
        let read: Told = serde_json::from_value(told.clone()).expect("an answer");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), told);
        let unchanged: Told = serde_json::from_value(json!({ "Version": "a1" })).expect("an answer");
        assert_eq!(unchanged.probes, None);
        let definition = json!({ "name": "gateway", "kind": "icmp", "target": "10.0.0.1" });
        let given = json!({ "Probes": [{ "Id": 7, "Digest": "0f", "Definition": definition }] });
        let given: Given = serde_json::from_value(given).expect("an answer");
        assert_eq!(given.probes[0].definition.name, "gateway");
    }
}
