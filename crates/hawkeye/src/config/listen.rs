//! `[listen]`: where the process can be reached.

use super::Mode;
use serde::Deserialize;
use settings::Faults;
use settings::units::is_host_and_port;

/// Addresses to listen on; an empty text turns a listener off.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    pub transfer_rpc: String,
    pub transfer_http: String,
    pub transfer_telnet: String,
    pub hbs_rpc: String,
    /// The old hbs' HTTP routes; "" by default.
    pub hbs_http: String,
    /// Graph's calls by Go gob, for an old transfer and an old api; "" by default.
    pub graph_rpc: String,
    /// Judge's calls by Go gob, for an old transfer; "" by default.
    pub judge_rpc: String,
    /// The old judge's HTTP routes, for the judge alone; "" by default.
    pub judge_http: String,
    /// The HTTP routes of the old alarm, aggregator and nodata; "" by default.
    pub alarm_http: String,
    pub aggregator_http: String,
    pub nodata_http: String,
    /// `P8sRelay` by Go gob, for an old transfer; "" by default.
    pub p8s_rpc: String,
    /// A page for a Prometheus; "" by default.
    pub p8s_http: String,
    pub api: String,
    pub admin: String,
    /// Names of this server, besides addresses, `localhost` and the machine's own: `admin`, and what listens on
    /// loopback over HTTP, answers to no others, so that no foreign name can be made to lead here.
    pub hosts: Vec<String>,
}

impl Default for Listen {
    fn default() -> Self {
        // Open-Falcon's ports, on loopback, because its protocols carry no identity.
        Listen {
            transfer_rpc: "127.0.0.1:8433".into(),
            transfer_http: "127.0.0.1:6060".into(),
            transfer_telnet: "127.0.0.1:4444".into(),
            hbs_rpc: "127.0.0.1:6030".into(),
            hbs_http: String::new(),
            graph_rpc: String::new(),
            judge_rpc: String::new(),
            judge_http: String::new(),
            alarm_http: String::new(),
            aggregator_http: String::new(),
            nodata_http: String::new(),
            p8s_rpc: String::new(),
            p8s_http: String::new(),
            api: "127.0.0.1:8080".into(),
            admin: "127.0.0.1:6071".into(),
            hosts: Vec::new(),
        }
    }
}

impl Listen {
    /// Each key that holds an address, and the address.
    pub(super) fn addresses(&self) -> [(&'static str, &str); 15] {
        [
            ("transfer_rpc", &self.transfer_rpc),
            ("transfer_http", &self.transfer_http),
            ("transfer_telnet", &self.transfer_telnet),
            ("hbs_rpc", &self.hbs_rpc),
            ("hbs_http", &self.hbs_http),
            ("graph_rpc", &self.graph_rpc),
            ("judge_rpc", &self.judge_rpc),
            ("judge_http", &self.judge_http),
            ("alarm_http", &self.alarm_http),
            ("aggregator_http", &self.aggregator_http),
            ("nodata_http", &self.nodata_http),
            ("p8s_rpc", &self.p8s_rpc),
            ("p8s_http", &self.p8s_http),
            ("api", &self.api),
            ("admin", &self.admin),
        ]
    }

    /// Keys of the listeners that are open in this mode.
    pub(super) fn open_in(&self, mode: Mode) -> Vec<&'static str> {
        let is_of = |key: &str| match mode {
            Mode::Whole => key != "judge_http",
            Mode::Graph => matches!(key, "graph_rpc" | "admin"),
            Mode::Judge => matches!(key, "judge_rpc" | "judge_http" | "admin"),
            Mode::Alarm => matches!(key, "alarm_http" | "admin"),
            Mode::Hbs => matches!(key, "hbs_rpc" | "hbs_http" | "admin"),
            Mode::Api => matches!(key, "api" | "admin"),
            Mode::Modules => matches!(key, "aggregator_http" | "nodata_http" | "admin"),
            Mode::Transfer | Mode::Gateway => {
                matches!(key, "transfer_rpc" | "transfer_http" | "transfer_telnet" | "admin")
            }
        };
        let on = self.addresses().into_iter().filter(|(key, address)| !address.is_empty() && is_of(key));
        on.map(|(key, _)| key).collect()
    }

    /// Keys of listeners that are set, off by default, and not opened in this mode.
    pub fn unopened(&self, mode: Mode) -> Vec<&'static str> {
        let (open, by_default) = (self.open_in(mode), Listen::default());
        let off = by_default.addresses().into_iter().filter(|(_, address)| address.is_empty()).map(|(key, _)| key);
        let set = self.addresses();
        let is_set = |key: &&str| set.iter().any(|(other, address)| other == key && !address.is_empty());
        off.filter(is_set).filter(|key| !open.contains(key)).collect()
    }

    pub(super) fn check(&self, mode: Option<Mode>, faults: &mut Faults) {
        for name in &self.hosts {
            if let Err(error) = net::http::check_name(name) {
                faults.add(format!("listen.hosts has {error}"));
            }
        }
        let addresses = self.addresses();
        for (i, (key, address)) in addresses.iter().enumerate().filter(|(_, (_, address))| !address.is_empty()) {
            if !is_host_and_port(address) {
                faults.add(format!(
                    "listen.{key} is {address:?}: give a host and a port up to 65535, like \"127.0.0.1:8080\", or \"\" to turn \
                     the listener off"
                ));
            }
            let first = addresses[..i].iter().find(|(_, other)| is_same_place(other, address));
            if let Some((other, _)) = first {
                faults.add(format!("listen.{key} is {address:?}, as listen.{other} is: give each a port of its own"));
            }
        }
        if mode == Some(Mode::Graph) && self.graph_rpc.is_empty() {
            faults.add("listen.graph_rpc is \"\": the graph alone takes points by no other door; give an address like \"0.0.0.0:6070\"");
        }
        if mode == Some(Mode::Hbs) && self.hbs_rpc.is_empty() {
            faults.add(
                "listen.hbs_rpc is \"\": hbs alone is asked by no other door; give an address like \"0.0.0.0:6030\"",
            );
        }
        if mode == Some(Mode::Api) && self.api.is_empty() {
            faults.add(
                "listen.api is \"\": the api alone is asked by no other door; give an address like \"0.0.0.0:8080\"",
            );
        }
        if mode == Some(Mode::Judge) && self.judge_rpc.is_empty() {
            faults.add("listen.judge_rpc is \"\": the judge alone takes points by no other door; give an address like \"0.0.0.0:6080\"");
        }
        if matches!(mode, Some(Mode::Transfer | Mode::Gateway)) && self.transfer_rpc.is_empty() {
            faults.add("listen.transfer_rpc is \"\": agents reach a transfer by no other door; give an address like \"0.0.0.0:8433\"");
        }
        if !self.p8s_rpc.is_empty() && self.p8s_http.is_empty() {
            faults.add(
                "listen.p8s_rpc takes what nobody can read: set listen.p8s_http, like \"127.0.0.1:9090\", or leave it \"\"",
            );
        }
        if mode == Some(Mode::Whole) && !self.judge_http.is_empty() {
            faults.add(
                "listen.judge_http has the routes of a judge that runs alone (roles = [\"judge\"]): leave it \"\"",
            );
        }
    }
}

/// Whether two addresses cannot be listened on both: their port is one, and one host is the other or all. Port 0 is
/// another one each time.
fn is_same_place(one: &str, other: &str) -> bool {
    let (Some((host, port)), Some((other_host, other_port))) = (one.rsplit_once(':'), other.rsplit_once(':')) else {
        return false;
    };
    let is_all = |host: &str| matches!(host, "" | "0.0.0.0" | "[::]");
    let by_number = |host: &str| if host == "localhost" { "127.0.0.1".to_string() } else { host.to_string() };
    port == other_port
        && port != "0"
        && (is_all(host) || is_all(other_host) || by_number(host) == by_number(other_host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_are_one() {
        for (one, other) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("10.0.0.1:80", ":80"),
            ("[::]:80", "[::1]:80"),
            ("localhost:80", "127.0.0.1:80"),
        ] {
            assert!(is_same_place(one, other) && is_same_place(other, one), "{one} {other}");
        }
        for (one, other) in
            [("127.0.0.1:80", "127.0.0.1:81"), ("127.0.0.1:80", "127.0.0.2:80"), (":0", ":0"), ("", ":80")]
        {
            assert!(!is_same_place(one, other), "{one} {other}");
        }
    }
}
