//! `[tls]`: the certificate, the listeners that speak TLS with it, and whom this process trusts where it asks over TLS.

use super::{Listen, Mode};
use crate::clock;
use anyhow::Result;
use net::tls::client::{SCHEME, Trust};
use net::tls::{Pair, Tls};
use serde::Deserialize;
use settings::Faults;
use std::path::PathBuf;

/// Section `tls`: one pair of files for all listeners that are named.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The chain of certificates, the server's own first (PEM); "" is none.
    pub cert: PathBuf,
    /// The private key of the first certificate (PEM).
    pub key: PathBuf,
    /// Names of keys of `[listen]`.
    pub listeners: Vec<String>,
    /// Certificates that are trusted where this process asks others over TLS, or those of who signed them (PEM); "" is
    /// what the system trusts for https://, and nobody for tls://.
    pub ca: PathBuf,
}

impl TlsConfig {
    pub(super) fn check(&self, mode: Option<Mode>, listen: &Listen, faults: &mut Faults) {
        let [no_cert, no_key] = [&self.cert, &self.key].map(|path| path.as_os_str().is_empty());
        if self.listeners.is_empty() {
            for (key, path, is_empty) in [("cert", &self.cert, no_cert), ("key", &self.key, no_key)] {
                if !is_empty {
                    faults.add(format!(
                        "tls.{key} is {path:?}, and no listener uses it: set tls.listeners, like [\"api\"], or leave it \"\""
                    ));
                }
            }
            return;
        }
        for (key, is_empty) in [("cert", no_cert), ("key", no_key)] {
            if is_empty {
                faults.add(format!(
                    "tls.{key} is \"\": give a PEM file, like \"/etc/hawkeye/{key}.pem\", or set tls.listeners to []"
                ));
            }
        }
        let (known, open) = (listen.addresses(), mode.map(|mode| listen.open_in(mode)));
        for name in &self.listeners {
            if !known.iter().any(|(key, _)| key == name) {
                let names: Vec<&str> = known.iter().map(|(key, _)| *key).collect();
                faults.add(format!("tls.listeners has {name:?}: give names of keys of [listen], which are {names:?}"));
            } else if open.as_ref().is_some_and(|open| !open.contains(&name.as_str())) {
                faults.add(format!(
                    "tls.listeners has {name:?}, and that listener is off: set listen.{name}, or take it away"
                ));
            }
        }
    }

    /// Reads the pair, if listeners use one, and looks whether who is trusted can be read, so that no start goes
    /// without, whoever asks over TLS in it. The error names the key and the fix.
    pub fn open(&self) -> Result<Option<Tls>> {
        self.trust()?;
        if self.listeners.is_empty() { Ok(None) } else { Tls::open(&self.cert, &self.key).map(Some) }
    }

    /// Checks that addresses of others, each with its key, can be asked.
    pub(super) fn check_places<'a>(
        &self,
        places: impl Iterator<Item = (&'static str, &'a String)>,
        faults: &mut Faults,
    ) {
        if !self.ca.as_os_str().is_empty() {
            return;
        }
        for (key, place) in places.filter(|(_, place)| place.contains(SCHEME)) {
            faults.add(format!(
                "tls.ca is \"\", and {key} has {place:?}: set it to a PEM file with that server's certificate, or with that of who signed it"
            ));
        }
    }

    /// Reads whom this process trusts, if that is said. The error names the key and the fix.
    pub fn trust(&self) -> Result<Option<Trust>> {
        if self.ca.as_os_str().is_empty() { Ok(None) } else { Trust::of_file("tls.ca", &self.ca).map(Some) }
    }

    /// Looks whether the files can be used now, if something uses them.
    pub fn check_files(&self) -> Result<()> {
        self.trust()?;
        if self.listeners.is_empty() { Ok(()) } else { Pair::check(&self.cert, &self.key, clock::now()) }
    }

    /// Whether this listener speaks TLS.
    pub fn is_on(&self, listener: &str) -> bool {
        self.listeners.iter().any(|name| name == listener)
    }
}
