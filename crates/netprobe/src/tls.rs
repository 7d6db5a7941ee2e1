//! TLS of probes: the handshake, whom it believes, and what the certificates say.
//!
//! Why not a client of [`net::tls::client`]: a probe is to tell how many days a certificate has left also where it is
//! refused, and to speak TLS to whom it does not believe.
//! How: a [`Watch`] stands before the verifier and notes the chain; the configuration is made for each handshake (some
//! microseconds) and keeps no session, so each run is a whole handshake.
//! Invariants: `tls.ca` stands instead of the authorities of the system, not beside them.

use crate::dial::{closed, told_of_io};
use crate::fault::note;
use crate::outcome::{Code, Phase, Reason};
use crate::roots::Roots;
use crate::trace::Trace;
use net::tls::client::Trust;
use net::tls::validity::{self, Validity};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes of `tls.ca`: some tens of certificates.
const CA_BYTES_MAX: usize = 64 << 10;
/// Days of `tls.days_left_min`: longer than any certificate that browsers take, and than those of a company's own.
const DAYS_MAX: u32 = 10_000;
/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// How a probe speaks TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsOptions {
    /// Whether the certificate must be valid, for the name, and signed by who is believed.
    pub verify: bool,
    /// PEM text with the authorities or certificates to believe; empty: the authorities of the system.
    pub ca: String,
    /// Name to ask for and to check; empty: the host of the target.
    pub server_name: String,
    /// Days that the certificate must have left, 0 to 10000; a certificate with fewer is down.
    pub days_left_min: Option<u32>,
}

impl Default for TlsOptions {
    fn default() -> TlsOptions {
        TlsOptions { verify: true, ca: String::new(), server_name: String::new(), days_left_min: None }
    }
}

impl TlsOptions {
    /// Adds what is wrong with the keys.
    pub(crate) fn check(&self, faults: &mut Vec<String>) {
        if self.ca.len() > CA_BYTES_MAX {
            faults.push(format!("tls.ca has {} bytes: give at most {CA_BYTES_MAX}", self.ca.len()));
        } else if !self.ca.is_empty() {
            if let Err(error) = Trust::of_text("tls.ca", &self.ca) {
                faults.push(error.to_string());
            }
            if !self.verify {
                faults.push("tls.ca says whom to believe, and tls.verify is false: give one of the two".to_string());
            }
        }
        if !self.server_name.is_empty() {
            note(faults, "tls.server_name", crate::place::host_of(&self.server_name));
        }
        if let Some(days) = self.days_left_min.filter(|days| *days > DAYS_MAX) {
            faults.push(format!("tls.days_left_min is {days}: give 0 to {DAYS_MAX}"));
        }
    }
}

/// Has a handshake over a stream with `host`; notes the certificate's values in `trace`.
pub(crate) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    options: &TlsOptions,
    alpn: &[&[u8]],
    roots: &Roots,
    trace: &mut Trace,
) -> Result<TlsStream<S>, Reason> {
    // Reading the authorities, once an hour, is no part of the handshake.
    trace.end_phase();
    let inner = verifier(options, roots).await;
    trace.enter(Phase::Tls);
    let inner = inner?;
    let watch = Arc::new(Watch { inner, provider: roots.provider.clone(), seen: Mutex::default() });
    let host = if options.server_name.is_empty() { host } else { &options.server_name };
    let name = ServerName::try_from(host.to_string());
    let name =
        name.map_err(|_| Reason::new(Code::Definition, format!("tls.server_name: {host} is no name: give one")))?;
    let shaken = TlsConnector::from(configuration(&watch, alpn)?).connect(name, stream).await;
    let seen = watch.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let now = unix_now();
    if let Some(seen) = &seen {
        // A redirect to somebody with a fresh certificate hides no old one.
        trace.least("probe.tls.days_left", (seen.leaf.not_after - now).div_euclid(DAY_S) as f64);
        trace.least("probe.tls.chain_days_left", (seen.chain_until - now).div_euclid(DAY_S) as f64);
    }
    let shaken = shaken.map_err(|error| told(&error, host, seen.as_ref(), now, trace))?;
    if let (Some(seen), Some(least)) = (&seen, options.days_left_min) {
        let left = seen.leaf.not_after - now;
        if left < i64::from(least) * DAY_S {
            let text = format!("the certificate {}, want {least} days", end_of(seen.leaf, now));
            return Err(Reason::new(Code::CertificateSoon, text));
        }
    }
    Ok(shaken)
}

/// Who decides about certificates; nobody where all are believed.
async fn verifier(options: &TlsOptions, roots: &Roots) -> Result<Option<Arc<dyn ServerCertVerifier>>, Reason> {
    if !options.verify {
        return Ok(None);
    }
    if options.ca.is_empty() {
        return roots.verifier().await.map(Some);
    }
    let trust = Trust::of_text("tls.ca", &options.ca);
    trust.map(|trust| Some(trust.verifier())).map_err(|error| Reason::new(Code::Definition, error.to_string()))
}

fn configuration(watch: &Arc<Watch>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Reason> {
    let builder = ClientConfig::builder_with_provider(watch.provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Reason::new(Code::Local, format!("cannot set up TLS: {error}")))?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(watch.clone()).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// What the certificates of a handshake say.
#[derive(Clone, Copy, Debug)]
struct Seen {
    leaf: Validity,
    /// Unix seconds at which the first of the chain ends.
    chain_until: i64,
    is_self_issued: bool,
}

impl Seen {
    fn of(leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Option<Seen> {
        let first = validity::of(leaf).ok()?;
        let ends = others.iter().filter_map(|der| validity::of(der).ok()).map(|validity| validity.not_after);
        let chain_until = ends.fold(first.not_after, i64::min);
        Some(Seen { leaf: first, chain_until, is_self_issued: validity::is_self_issued(leaf).unwrap_or(false) })
    }
}

/// Notes the chain, and lets another decide; believes all where there is no other.
#[derive(Debug)]
struct Watch {
    inner: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<Seen>>,
}

impl ServerCertVerifier for Watch {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::of(end_entity, intermediates);
        match &self.inner {
            Some(inner) => inner.verify_server_cert(end_entity, intermediates, name, ocsp, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.inner.is_none() {
            // Keys that are too short to be believed, and certificates of version 1, are asked about here, too.
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.inner.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a handshake has failed.
fn told(error: &io::Error, host: &str, seen: Option<&Seen>, now: i64, trace: &Trace) -> Reason {
    let peer = trace.who();
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => closed(trace, "in phase tls"),
            _ => told_of_io(error, trace, "in phase tls"),
        };
    };
    match inner {
        rustls::Error::InvalidCertificate(fault) => of_certificate(fault, host, seen, now),
        rustls::Error::InvalidMessage(_) => Reason::new(Code::NoTls, format!("{peer} speaks no TLS")),
        rustls::Error::AlertReceived(alert) => {
            Reason::new(Code::Tls, format!("{peer} has refused the handshake: {alert:?}"))
        }
        rustls::Error::PeerIncompatible(why) => {
            Reason::new(Code::Tls, format!("{peer} speaks no version or cipher of TLS that is believed: {why:?}"))
        }
        other => Reason::new(Code::Tls, format!("no TLS with {peer}: {other}")),
    }
}

fn of_certificate(fault: &CertificateError, host: &str, seen: Option<&Seen>, now: i64) -> Reason {
    let is_self_issued = seen.is_some_and(|seen| seen.is_self_issued);
    match fault {
        CertificateError::Expired => {
            let text = seen.map_or("has expired".to_string(), |seen| end_of(seen.leaf, now));
            Reason::new(Code::CertificateExpired, format!("the certificate {text}"))
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            let until = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
            let is_leaf = seen.is_none_or(|seen| seen.leaf.not_after == until);
            let what = if is_leaf { "the certificate" } else { "a certificate of who signed it" };
            Reason::new(Code::CertificateExpired, format!("{what} expired {} ago", span(now - until)))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let from = seen.map_or(now, |seen| seen.leaf.not_before);
            let text = format!("the certificate is not valid yet, but in {}", span(from - now));
            Reason::new(Code::CertificateNotYet, text)
        }
        CertificateError::NotValidForName => {
            Reason::new(Code::CertificateName, format!("the certificate is not for the name {host}"))
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().take(5).map(|name| bare(name)).collect();
            let names = if names.is_empty() { "no name".to_string() } else { names.join(", ") };
            Reason::new(Code::CertificateName, format!("the certificate is for {names}, not for {host}"))
        }
        // An authority that shows its own certificate is refused by the library in other words.
        _ if is_self_issued => {
            Reason::new(Code::CertificateUntrusted, "the certificate is signed by itself, and it is not known here")
        }
        CertificateError::UnknownIssuer => {
            Reason::new(Code::CertificateUntrusted, "the certificate is signed by nobody who is believed here")
        }
        other => Reason::new(Code::Certificate, format!("the certificate is of no use: {other}")),
    }
}

/// The name out of the library's `DnsName("a.example")`.
fn bare(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// When a certificate ends, seen from now.
fn end_of(validity: Validity, now: i64) -> String {
    match validity.not_after - now {
        left if left < 0 => format!("expired {} ago", span(-left)),
        left => format!("expires in {}", span(left)),
    }
}

/// Seconds as people say them.
fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..3600 => (seconds.max(0) / 60, "minute"),
        3600..DAY_S => (seconds / 3600, "hour"),
        _ => (seconds / DAY_S, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let check = |seconds: i64, expected: &str| assert_eq!(span(seconds), expected);
        check(-5, "0 minutes");
        check(60, "1 minute");
        check(3599, "59 minutes");
        check(7200, "2 hours");
        check(86_400, "1 day");
        check(3 * 86_400 + 5, "3 days");
    }

    #[test]
    fn keys_are_checked() {
        let check = |options: TlsOptions, part: &str| {
            let mut faults = Vec::new();
            options.check(&mut faults);
            assert!(faults.iter().any(|fault| fault.contains(part) && fault.contains("give")), "{faults:?}");
        };
        check(TlsOptions { ca: "no PEM".into(), ..TlsOptions::default() }, "tls.ca");
        check(TlsOptions { ca: "x".repeat(100_000), ..TlsOptions::default() }, "tls.ca has 100000 bytes");
        check(TlsOptions { ca: "x".into(), verify: false, ..TlsOptions::default() }, "tls.verify");
        check(TlsOptions { server_name: "a b".into(), ..TlsOptions::default() }, "tls.server_name");
        check(TlsOptions { days_left_min: Some(10_001), ..TlsOptions::default() }, "tls.days_left_min");
    }
}
