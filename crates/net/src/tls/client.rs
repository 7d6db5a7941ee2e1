//! Client: TLS of connections that this process makes, to listeners like its own.
//!
//! How: an address is `HOST:PORT`, or `tls://HOST:PORT`. A [`Trust`] is made of a PEM file: who shows a certificate
//! that is in it, or that an authority in it has signed, is believed. That a certificate may stand there itself makes
//! one signed by itself usable, of whatever kind; the library takes such a one only if it is no authority.
//! Invariants: the server's name is checked, but for a server's own certificate ([`Trust::own`]), which is believed
//! from whatever address; an error names what is wrong with the certificate.
//! Memory: one configuration with its roots; per connection the state of the session, some 20 KiB.

use super::{bytes_of, validity};
use anyhow::{Context, Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Beginning of an address that is spoken TLS to.
pub const SCHEME: &str = "tls://";

/// Whom this process believes; clones share it.
#[derive(Clone, Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
    known: Arc<dyn ServerCertVerifier>,
}

impl Trust {
    /// Trust in the certificates and authorities of a PEM file, which the configuration's `key` names.
    pub fn of_file(key: &str, path: &Path) -> Result<Trust> {
        Trust::read(key, path, true)
    }

    /// Trust in a server's own certificate, the first of the file, from whatever address.
    pub fn own(key: &str, path: &Path) -> Result<Trust> {
        Trust::read(key, path, false)
    }

    /// Trust in the certificates and authorities of a PEM text, which stands in the configuration's `key`.
    pub fn of_text(key: &str, text: &str) -> Result<Trust> {
        Trust::of_bytes(key, "it", text.as_bytes(), true)
    }

    fn read(key: &str, path: &Path, checks_name: bool) -> Result<Trust> {
        let bytes = bytes_of(key, path)?;
        Trust::of_bytes(key, &path.display().to_string(), &bytes, checks_name)
    }

    /// Reads PEM; `whose` is who has it, in an error.
    fn of_bytes(key: &str, whose: &str, bytes: &[u8], checks_name: bool) -> Result<Trust> {
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(bytes)
            .collect::<Result<_, _>>()
            .ok()
            .with_context(|| format!("{key}: {whose} is no PEM: give a file with CERTIFICATE blocks"))?;
        if certificates.is_empty() {
            bail!("{key}: {whose} has no certificate: give a PEM file with CERTIFICATE blocks");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let known = match checks_name {
            true => Known { authorities: authorities(&certificates, &provider), certificates, checks_name, provider },
            false => {
                let certificates = certificates.into_iter().take(1).collect();
                Known { authorities: None, certificates, checks_name, provider }
            }
        };
        let provider = known.provider.clone();
        let known: Arc<dyn ServerCertVerifier> = Arc::new(known);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("cannot set up TLS")?
            .dangerous()
            .with_custom_certificate_verifier(known.clone())
            .with_no_client_auth();
        Ok(Trust { config: Arc::new(config), known })
    }

    /// Who decides whether a certificate is believed, for a configuration of another kind.
    pub fn verifier(&self) -> Arc<dyn ServerCertVerifier> {
        self.known.clone()
    }

    /// The configuration for another library's client.
    pub fn config(&self) -> ClientConfig {
        (*self.config).clone()
    }

    async fn shake(&self, address: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_string()).map_err(|_| format!("{host:?} is no name of a server"))?;
        let shaken = TlsConnector::from(self.config.clone()).connect(name, stream).await;
        shaken.map_err(|error| told(&error, address, host))
    }
}

/// Who checks what the authorities among these certificates have signed; nobody where there is none.
fn authorities(
    certificates: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Option<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()
}

/// What failed in a handshake, for people.
fn told(error: &io::Error, address: &str, host: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(fault)) => {
            format!("the certificate of {address} is refused: {}", of_certificate(fault, host))
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            format!(
                "{address} speaks no TLS: give the address without {SCHEME}, or name its listener in its tls.listeners"
            )
        }
        _ => format!("no TLS with {address}: {error}"),
    }
}

fn of_certificate(fault: &CertificateError, host: &str) -> String {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_string(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_string()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("it is not for the name {host}")
        }
        CertificateError::UnknownIssuer => {
            "neither it nor who signed it is in the file of certificates that are trusted".to_string()
        }
        other => other.to_string(),
    }
}

/// Believes certificates that are known, and those that known authorities have signed.
#[derive(Debug)]
struct Known {
    certificates: Vec<CertificateDer<'static>>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.certificates.iter().any(|known| known.as_ref() == end_entity.as_ref()) {
            return match &self.authorities {
                Some(known) => known.verify_server_cert(end_entity, intermediates, name, ocsp, now),
                None => Err(CertificateError::UnknownIssuer.into()),
            };
        }
        if self.checks_name {
            let validity = validity::of(end_entity).map_err(|_| CertificateError::BadEncoding)?;
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            if now > validity.not_after {
                return Err(CertificateError::Expired.into());
            }
            if now < validity.not_before {
                return Err(CertificateError::NotValidYet.into());
            }
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection that this process has made.
pub enum Outgoing {
    Plain(TcpStream),
    /// Boxed: it has more than a kilobyte, which a plain connection must not hold.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Outgoing {
    /// Connects to `HOST:PORT`, or to `tls://HOST:PORT` by `trust`. An error says what is wrong there. Whoever calls
    /// says how long it may take.
    pub async fn connect(address: &str, trust: Option<&Trust>) -> Result<Outgoing, String> {
        let (place, trust) = match (address.strip_prefix(SCHEME), trust) {
            (None, _) => (address, None),
            (Some(place), Some(trust)) => (place, Some(trust)),
            (Some(_), None) => return Err(format!("{address}: no file of certificates to trust is configured")),
        };
        let stream = TcpStream::connect(place).await.map_err(|error| format!("cannot connect to {place}: {error}"))?;
        // A call is one write; waiting to merge it with the next would only delay it.
        let _ = stream.set_nodelay(true);
        Ok(match trust {
            None => Outgoing::Plain(stream),
            Some(trust) => Outgoing::Tls(Box::new(trust.shake(place, stream).await?)),
        })
    }

    /// The own end of the connection.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Outgoing::Plain(stream) => stream.local_addr(),
            Outgoing::Tls(stream) => stream.get_ref().0.local_addr(),
        }
    }

    /// Appends what has come to `buffer`, where that can be told without waiting: over TLS nothing has.
    pub fn try_read_buf(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Outgoing::Plain(stream) => stream.try_read_buf(buffer),
            Outgoing::Tls(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl AsyncRead for Outgoing {
    fn poll_read(self: Pin<&mut Self>, context: &mut TaskContext<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Outgoing::Plain(stream) => Pin::new(stream).poll_read(context, buf),
            Outgoing::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buf),
        }
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(self: Pin<&mut Self>, context: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Outgoing::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Outgoing::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Outgoing::Plain(stream) => Pin::new(stream).poll_flush(context),
            Outgoing::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Outgoing::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Outgoing::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
        }
    }
}
