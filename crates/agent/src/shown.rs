//! Shown: a configuration as JSON, key by key, for who asks what is in effect, and to find what a reload changes.
//!
//! Invariants: every key of `hawkeye-agent.example.toml` is here; secrets are `***`, and so is the password of
//! `plugin.git`; of exporters, whose URLs may have one, there are the names.

use super::config::AgentConfig;
use super::plugin::masked;
use serde_json::{Map, Value, json};
use settings::Secret;
use std::path::Path;
use std::time::Duration;

/// A key with its value.
#[derive(Clone)]
pub struct Key {
    /// Dotted name, as `--set` takes it.
    pub name: &'static str,
    pub value: Value,
    /// Value for whoever may read the configuration, but no secret.
    shown: Value,
}

/// Every key of a configuration with its value.
pub fn keys(config: &AgentConfig) -> Vec<Key> {
    let open = |name, value: Value| Key { name, shown: value.clone(), value };
    let time = |name, value: Duration| open(name, json!(format!("{value:?}")));
    let path = |name, value: &Path| open(name, json!(value.display().to_string()));
    let secret = |name, value: &Secret| {
        let shown = if value.is_none() { "" } else { "***" };
        Key { name, value: json!(value.text()), shown: json!(shown) }
    };
    let (collect, plugin, listen) = (&config.collect, &config.plugin, &config.listen);
    let probes = &config.probes;
    vec![
        open("hostname", json!(config.hostname)),
        open("ip", json!(config.ip)),
        open("transfer_addrs", json!(config.transfer_addrs)),
        open("hbs_addr", json!(config.hbs_addr)),
        path("ca", &config.ca),
        secret("token", &config.token),
        time("interval", Duration::from_secs(config.interval as u64)),
        time("heartbeat_interval", Duration::from_secs(config.heartbeat_interval as u64)),
        time("connect_timeout", config.connect_timeout),
        open("compress", json!(config.compress)),
        path("buffer_dir", &config.buffer_dir),
        open("buffer_max", json!(config.buffer_max)),
        open("buffer_memory_max", json!(config.buffer_memory_max)),
        open("iface_prefixes", json!(config.iface_prefixes)),
        open("virtual_ifaces", json!(config.virtual_ifaces)),
        open("mount_points", json!(config.mount_points)),
        open("container_mounts", json!(config.container_mounts)),
        open("rates", json!(config.rates.as_str())),
        open("ignore", json!(config.ignore)),
        path("rootfs", &config.rootfs),
        open("log", json!(config.log)),
        open("default_tags", json!(config.default_tags)),
        open("collect.gpu", json!(collect.gpu)),
        open("collect.cores", json!(collect.cores)),
        open("collect.pressure", json!(collect.pressure)),
        open("collect.limits", json!(collect.limits)),
        open("collect.cgroups", json!(collect.cgroups)),
        open("collect.units", json!(collect.units)),
        open("collect.certificates", json!(collect.certificates)),
        open("collect.ntp", json!(collect.ntp)),
        open("collect.smart", json!(collect.smart)),
        open("collect.statsd", json!(collect.statsd)),
        open("collect.processes", json!(collect.processes)),
        open("collect.logs", json!(collect.logs)),
        Key {
            name: "collect.exporters",
            value: json!(collect.exporters),
            shown: json!(collect.exporters.keys().collect::<Vec<_>>()),
        },
        open("listen.agent_http", json!(listen.agent_http)),
        open("listen.hosts", json!(listen.hosts)),
        secret("listen.token", &listen.token),
        open("plugin.enabled", json!(plugin.enabled)),
        path("plugin.dir", &plugin.dir),
        Key { name: "plugin.git", value: json!(plugin.git), shown: json!(masked(&plugin.git)) },
        path("plugin.logs", &plugin.logs),
        open("plugin.user", json!(plugin.user)),
        open("probes.enabled", json!(probes.enabled)),
        open("probes.allow", json!(probes.allow)),
        open("probes.deny", json!(probes.deny)),
        open("probes.rest", json!(probes.rest.as_str())),
        open("probes.script_dirs", json!(probes.script_dirs)),
        open("probes.script_user", json!(probes.script_user)),
        open("probes.concurrent_max", json!(probes.concurrent_max)),
        open("upgrade.public_key", json!(config.upgrade.public_key)),
        path("upgrade.dir", &config.upgrade.dir),
    ]
}

/// Keys as an object, those with a dot in objects of their own; no secret's text.
pub fn object(keys: &[Key]) -> Value {
    let mut object = Map::new();
    for key in keys {
        let value = key.shown.clone();
        match key.name.split_once('.') {
            None => drop(object.insert(key.name.to_string(), value)),
            Some((section, name)) => {
                let section = object.entry(section).or_insert_with(|| json!({}));
                section[name] = value;
            }
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(table: &toml::Table, prefix: &str, into: &mut BTreeSet<String>) {
        for (key, value) in table {
            match value.as_table().filter(|table| !table.is_empty()) {
                Some(below) => names(below, &format!("{key}."), into),
                None => drop(into.insert(format!("{prefix}{key}"))),
            }
        }
    }

    #[test]
    fn every_key_is_shown() {
        let example = include_str!("../../../hawkeye-agent.example.toml").parse().expect("TOML");
        let mut expected = BTreeSet::new();
        names(&example, "", &mut expected);
        let shown: BTreeSet<String> = keys(&AgentConfig::default()).iter().map(|key| key.name.to_string()).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_secret_is_shown() {
        let text = "token = \"abcdefghijklmnopq\"\n[listen]\ntoken = \"qponmlkjihgfedcba\"\n\
                    [plugin]\ngit = \"https://user:pass@host/plugin.git\"";
        let config = AgentConfig::load(text, std::iter::empty(), &[], "host").expect("valid");
        let object = object(&keys(&config));
        assert_eq!((&object["token"], &object["listen"]["token"]), (&json!("***"), &json!("***")));
        assert_eq!(object["plugin"]["git"], "https://***@host/plugin.git");
        assert_eq!((&object["interval"], &object["hostname"]), (&json!("60s"), &json!("host")));
    }
}
