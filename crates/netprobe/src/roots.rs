//! Roots: the authorities that this host's system believes, read when the first probe needs them.
//!
//! Why: an agent without HTTPS probes loads no authority. A package of the system brings new ones now and then, so they
//! are read again once in [`AGE_MAX`].
//! Memory: names and keys of some 150 authorities, 100 KiB, while there are probes that need them.

use crate::aside::Aside;
use crate::outcome::{Code, Reason};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Age at which the authorities are read again. Reading takes milliseconds.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// Verifier by the authorities of this host's system; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    pub provider: Arc<CryptoProvider>,
    read: Arc<Mutex<Option<Read>>>,
    /// One reads, the others wait for what he has read.
    aside: Aside,
}

#[derive(Clone, Debug)]
struct Read {
    at: Instant,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl Default for Roots {
    fn default() -> Roots {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Roots { provider, read: Arc::default(), aside: Aside::new("read authorities", 1) }
    }
}

impl Roots {
    /// Who checks certificates by the authorities of the system.
    pub async fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, Reason> {
        if let Some(verifier) = self.known() {
            return Ok(verifier);
        }
        let roots = self.clone();
        let read = self.aside.call(move || roots.known().map_or_else(|| roots.read_again(), Ok)).await?;
        read.map_err(|text| Reason::new(Code::Local, text))
    }

    fn known(&self) -> Option<Arc<dyn ServerCertVerifier>> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.as_ref().filter(|read| read.at.elapsed() < AGE_MAX).map(|read| read.verifier.clone())
    }

    fn read_again(&self) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let verifier = read(self.provider.clone())?;
        let read = Read { at: Instant::now(), verifier: verifier.clone() };
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
        Ok(verifier)
    }
}

fn read(provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("this host has no authorities to believe: install ca-certificates, or give tls.ca".to_string());
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier
        .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
        .map_err(|error| format!("cannot set up TLS: {error}"))
}
