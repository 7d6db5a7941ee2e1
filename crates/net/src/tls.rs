//! TLS: a certificate with its key, and the handshake that comes before a connection is served.
//!
//! How: a listener that has a [`Tls`] looks at the first byte of each connection. What begins a handshake has
//! [`HANDSHAKE_TIMEOUT`] for it, within the connection's place; what does not is told so in the words of what it seems
//! to speak, and closed. [`Tls::look`] reads the files again; a pair that is of no use leaves the one in use.
//! Invariants: a pair is in use only if the key is the certificate's; connections keep the pair they began with;
//! neither file's content comes into a message.
//! Memory: one configuration, the library's 256 sessions for resumption, and per connection what [`crate::stream`]
//! says.

pub mod client;
pub mod validity;

use crate::seldom::Seldom;
use crate::stream::{Stream, peek};
use anyhow::{Context, Result, bail};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stdx::small_file;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use validity::Validity;

/// Time from the connection to the end of the handshake: two round trips, and many lost packets.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a file at most; a chain has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The first byte of a handshake (RFC 8446 §5.1), with which no text that our doors speak begins.
pub const HANDSHAKE: u8 = 0x16;

const TO_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 40\r\n\r\n\
                       this port speaks TLS: ask with https://\n";
const TO_RPC: &str = "{\"id\":null,\"result\":null,\"error\":\"this port speaks TLS\"}\n";

/// True for the first bytes of a client that speaks TLS; with the major version no message of gob begins so, either.
pub fn is_tls(input: &[u8]) -> bool {
    input.starts_with(&[HANDSHAKE, 3])
}

/// A certificate and its key, as they were read.
pub struct Pair {
    config: Arc<ServerConfig>,
    /// When the certificate is valid.
    validity: Validity,
    print: u64,
}

impl Pair {
    /// Reads the chain of certificates in `cert` and the key in `key`, both PEM.
    pub fn read(cert: &Path, key: &Path) -> Result<Pair> {
        let (chain, secret) = (bytes_of("tls.cert", cert)?, bytes_of("tls.key", key)?);
        let print = fingerprint(&[&chain, &secret]);
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|_| {
                anyhow::anyhow!("tls.cert: {} is no PEM: give a file with CERTIFICATE blocks", cert.display())
            })?;
        let Some(first) = chain.first() else {
            bail!("tls.cert: {} has no certificate: give a PEM file with CERTIFICATE blocks", cert.display());
        };
        let validity = validity::of(first)
            .with_context(|| format!("tls.cert: {} has a certificate without a time: give another", cert.display()))?;
        let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|_| {
            anyhow::anyhow!("tls.key: {} has no private key: give a PEM file with a PRIVATE KEY block", key.display())
        })?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("cannot set up TLS")?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|error| {
                let (cert, key) = (cert.display(), key.display());
                anyhow::anyhow!("tls.key: {key} does not go with the certificate in {cert} ({error}): give the key that it was made for")
            })?;
        Ok(Pair { config: Arc::new(config), validity, print })
    }

    /// Reads a pair that somebody else is to use, and refuses one that nobody would believe at `time`.
    pub fn check(cert: &Path, key: &Path, time: i64) -> Result<()> {
        match Pair::read(cert, key)?.validity.fault_at(time) {
            Some(fault) => bail!("{}", told(cert, fault)),
            None => Ok(()),
        }
    }
}

fn told(cert: &Path, fault: &str) -> String {
    format!("tls.cert: the certificate in {} {fault}: give one that is valid now", cert.display())
}

fn bytes_of(key: &str, path: &Path) -> Result<Vec<u8>> {
    small_file::read(path, FILE_BYTES_MAX)
        .with_context(|| format!("{key}: cannot read {}: give a PEM file that this user may read", path.display()))
}

/// Number by which two contents are told apart; no secret is kept beside the library's.
fn fingerprint(parts: &[&[u8]]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// The pair that listeners use now; clones share it.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    cert: PathBuf,
    key: PathBuf,
    now: Mutex<Now>,
    told: Seldom,
}

struct Now {
    pair: Arc<Pair>,
    /// What the last look met that was of no use.
    refused: Option<String>,
}

/// What a look at the files has found.
#[derive(Debug, PartialEq)]
pub enum Look {
    /// The pair in use is that of the files.
    Same,
    /// Another pair is in use from now on.
    Changed,
    /// The files are of no use for the first time: they may be in the middle of a change.
    Unsettled,
    /// The files are of no use, and were so at the last look.
    Refused(String),
}

impl Tls {
    /// Reads the pair in these files.
    pub fn open(cert: &Path, key: &Path) -> Result<Tls> {
        let pair = Arc::new(Pair::read(cert, key)?);
        let now = Mutex::new(Now { pair, refused: None });
        Ok(Tls { shared: Arc::new(Shared { cert: cert.into(), key: key.into(), now, told: Seldom::default() }) })
    }

    /// Unix seconds after which the certificate in use is no longer valid.
    pub fn not_after(&self) -> i64 {
        self.lock().pair.validity.not_after
    }

    /// Unix seconds before which the certificate in use is not valid.
    pub fn not_before(&self) -> i64 {
        self.lock().pair.validity.not_before
    }

    /// Reads the files, and uses what is new and of use. `time` is now, in unix seconds.
    pub fn look(&self, time: i64) -> Look {
        let read = Pair::read(&self.shared.cert, &self.shared.key);
        let mut now = self.lock();
        let refusal = match read {
            Ok(pair) if pair.print == now.pair.print => {
                now.refused = None;
                return Look::Same;
            }
            Ok(pair) => match pair.validity.fault_at(time) {
                // A pair that nobody would trust is no better than the one in use, unless nobody trusts that as well.
                Some(fault) if now.pair.validity.fault_at(time).is_none() => told(&self.shared.cert, fault),
                _ => {
                    *now = Now { pair: Arc::new(pair), refused: None };
                    return Look::Changed;
                }
            },
            Err(error) => format!("{error:#}"),
        };
        let is_known = now.refused.replace(refusal.clone()).is_some_and(|before| before == refusal);
        if is_known { Look::Refused(refusal) } else { Look::Unsettled }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.shared.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the handshake with a new connection; on failure the reason, for the counter.
    pub async fn accept(
        &self,
        name: &'static str,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Stream, &'static str> {
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(stream)).await;
        let (reason, text) = match shaken {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(failure)) => failure,
            Err(_) => ("tls_timeout", format!("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())),
        };
        if !text.is_empty() && self.shared.told.may_say() {
            tracing::warn!(listener = name, %peer, reason, "TLS with a client failed: {text}");
        }
        Err(reason)
    }

    async fn handshake(&self, mut stream: TcpStream) -> Result<Stream, (&'static str, String)> {
        let first = match peek(&stream).await {
            Ok(Some(first)) => first,
            // Whoever only looks whether the port is open is no fault.
            Ok(None) | Err(_) => return Err(("tls_nothing_said", String::new())),
        };
        if first != HANDSHAKE {
            say_that_it_is_tls(&mut stream, first).await;
            return Err(("plain_text", "it speaks plain text, and the listener is one of tls.listeners".to_string()));
        }
        let config = self.lock().pair.config.clone();
        match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => Err(("tls_handshake", error.to_string())),
        }
    }
}

/// Tells a client that speaks plain text what the port speaks, in HTTP or JSON-RPC.
async fn say_that_it_is_tls(stream: &mut TcpStream, first: u8) {
    let answer = match first {
        b'{' => TO_RPC,
        b'A'..=b'Z' => TO_HTTP,
        _ => return,
    };
    // What nobody reads would turn the close into a reset that destroys the answer on its way.
    let mut sink = [0; 4096];
    let _ = stream.try_read(&mut sink);
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests;
