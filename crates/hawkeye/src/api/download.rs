//! `GET /download/agent`: an agent's program for a new host; `GET /agent/install`: the line that its owner copies.
//!
//! Why: a host gets its agent from the server that it will report to, without a repository between.
//! How: what `releases` finds is sent in pieces as they are read. The program is no secret, so nobody logs in for it;
//! `api.agent_download` turns the route off.
//! Invariants: at most [`DOWNLOADS_MAX`] at once; nothing of a request is part of a path; a reader who takes nothing
//! for [`WRITE_TIMEOUT`] is given up; a file that changes on its way ends the answer short of its length.
//! Memory: [`AHEAD`] pieces of [`PIECE_BYTES`] per download.
//! Compat: Hawkeye's own.

use super::Context;
use super::auth::Caller;
use super::body::Fields;
use super::error::{Answer, ApiError, json};
use crate::config::Config;
use crate::releases::Program;
use agent::release::{Release, Version};
use anyhow::Error;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::body::{Frame, SizeHint};
use serde_json::json as object;
use settings::units::is_host_and_port;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{self, Poll};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

/// Downloads at once: a program of 5 MB each. Who comes later asks again.
const DOWNLOADS_MAX: usize = 64;
/// Bytes that are read at once, and pieces that wait for their reader.
const PIECE_BYTES: usize = 64 << 10;
const AHEAD: usize = 2;
/// The time after which a reader who takes nothing is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The digest, for whoever compares it with what the operator has.
const DIGEST: HeaderName = HeaderName::from_static("x-sha256");
/// Ports that an install takes for a server's.
const PORTS: [(&str, &str); 2] = [("--transfer", "8433"), ("--hbs", "6030")];

static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(DOWNLOADS_MAX)));

/// The route of the line, below the API.
pub fn routes() -> Router<Context> {
    Router::new().route("/agent/install", get(install_line))
}

/// The route of the program, beside the API.
pub fn program_routes() -> Router<Context> {
    Router::new().route("/download/agent", get(download))
}

async fn download(State(context): State<Context>, method: Method, headers: HeaderMap, fields: Fields) -> Answer {
    if !context.config.api.agent_download {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "downloads of agents are off: api.agent_download is false"));
    }
    let arch = fields.required_text("arch", 64)?;
    let version = fields.text("version", 64)?;
    let version = (!version.is_empty()).then(|| version.parse::<Version>()).transpose().map_err(ApiError::bad)?;
    // A name of a machine that could not be one of a file is told as such.
    Release::new(Version::own(), &arch).map_err(ApiError::bad)?;
    let Some(program) = context.releases.for_download(&arch, version).await else {
        let version = version.map_or("<version>".to_string(), |version| version.to_string());
        let dir = context.releases.dir().display();
        let text = format!("there is no such agent: put it into {dir} on the server as hawkeye-agent-{version}-{arch}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, text));
    };
    let tag = format!("\"{}\"", program.sha256);
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let about = [(header::ETAG, tag), (DIGEST, program.sha256.clone())];
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    let name = program.release.as_ref().map_or("hawkeye-agent".to_string(), Release::file_name);
    let kind = [
        (header::CONTENT_TYPE, "application/octet-stream".to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CONTENT_LENGTH, program.size.to_string()),
    ];
    if method == Method::HEAD {
        return Ok((about, kind).into_response());
    }
    Ok((about, kind, sent(program)?).into_response())
}

/// The program as a body, whose reading goes on as it is taken.
fn sent(program: Arc<Program>) -> Result<Body, ApiError> {
    let place = PLACES.clone().try_acquire_owned().map_err(|_| {
        let text = format!("{DOWNLOADS_MAX} downloads are under way, which is all there may be: ask again later");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let (sender, pieces) = channel(AHEAD);
    let left = program.size;
    tokio::spawn(async move {
        let _place = place;
        let mut offset = 0;
        while offset < program.size {
            let from = program.clone();
            let read = tokio::task::spawn_blocking(move || from.read_at(offset, PIECE_BYTES)).await;
            let piece = read.unwrap_or_else(|error| Err(error.into()));
            let (ends, bytes) = (piece.is_err(), piece.as_ref().map_or(0, Vec::len));
            if !matches!(timeout(WRITE_TIMEOUT, sender.send(piece)).await, Ok(Ok(()))) || ends {
                return;
            }
            offset += bytes as u64;
        }
    });
    Ok(Body::new(Pieces { pieces, left }))
}

/// The reader's side, as hyper polls it.
struct Pieces {
    pieces: Receiver<Result<Vec<u8>, Error>>,
    /// Bytes that are still to come.
    left: u64,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let piece = task::ready!(self.pieces.poll_recv(context));
        if let Some(Ok(bytes)) = &piece {
            self.left -= bytes.len() as u64;
        }
        Poll::Ready(piece.map(|piece| piece.map(|bytes| Frame::data(bytes.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The line for a new host, with the address by which the caller has come.
async fn install_line(State(context): State<Context>, _caller: Caller, headers: HeaderMap) -> Answer {
    let told = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    json(object!({ "line": line(&context.config, told) }))
}

/// The line that installs an agent, by which `host` is the name of this server, perhaps with a port.
fn line(config: &Config, host: &str) -> String {
    // A name becomes a part of a command that root runs.
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let own = || format!("{}:{}", agent::system_hostname(), port_of(&config.listen.api));
    let place = match host {
        host if host.is_empty() || !is_plain(host) => own(),
        host if is_host_and_port(host) => host.to_string(),
        host if is_host_and_port(&format!("{host}:80")) => host.to_string(),
        _ => own(),
    };
    let name =
        if is_host_and_port(&place) { place.rsplit_once(':').map_or(place.as_str(), |(name, _)| name) } else { &place };
    let (scheme, ca) = if config.tls.is_on("api") { ("https", "--cacert ca.pem ") } else { ("http", "") };
    let mut flags = format!("--server {}", name.trim_matches(['[', ']']));
    let listen = &config.listen;
    for ((flag, usual), address) in PORTS.into_iter().zip([&listen.transfer_rpc, &listen.hbs_rpc]) {
        let port = port_of(address);
        if port != usual && !port.is_empty() {
            // Brackets are more than brackets to a shell.
            let quote = if name.starts_with('[') { "'" } else { "" };
            flags += &format!(" {flag} {quote}{name}:{port}{quote}");
        }
    }
    if config.tls.is_on("transfer_rpc") || config.tls.is_on("hbs_rpc") {
        flags += " --tls --ca ca.pem";
    }
    if !config.ingest.token.is_none() || !config.ingest.token_file.as_os_str().is_empty() {
        flags += " --token-file token";
    }
    format!(
        "curl -fsSo hawkeye-agent {ca}\"{scheme}://{place}/download/agent?arch=$(uname -m)\" && chmod +x hawkeye-agent && \
         sudo ./hawkeye-agent install {flags}"
    )
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(_, port)| port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_where_this_server_is() {
        let check = |change: fn(&mut Config), host: &str, parts: &[&str]| {
            let mut config = Config::default();
            change(&mut config);
            let line = line(&config, host);
            assert!(parts.iter().all(|part| line.contains(part)), "{host} gave {line}");
            assert!(!line.contains(';') && !line.contains('`'), "{line}");
        };
        let usual = "curl -fsSo hawkeye-agent \"http://hawkeye:8080/download/agent?arch=$(uname -m)\"";
        check(|_| {}, "hawkeye:8080", &[usual, "&& sudo ./hawkeye-agent install --server hawkeye"]);
        check(|_| {}, "hawkeye.example.com", &["http://hawkeye.example.com/download", "--server hawkeye.example.com"]);
        check(|_| {}, "[fd00::1]:8080", &["http://[fd00::1]:8080/download", "--server fd00::1"]);
        check(|config| config.listen.transfer_rpc = "0.0.0.0:9".into(), "h:1", &["--server h --transfer h:9"]);
        let own = agent::system_hostname();
        for hostile in ["", "a;b", "a`b`", "$(x)", "a b", "a:b:c"] {
            check(|_| {}, hostile, &[&format!("http://{own}:8080/download"), &format!("--server {own}")]);
        }
    }
}
