//! `hawkeye status`: what a running server is, and what of it does not work, in one screen.
//!
//! Why: it takes `open-falcon check`'s place, which says whether a process is there; a process that is there may do
//! nothing.
//! How: the configuration says where the server listens, as for a start; its door `admin` answers `/status`. Where that
//! is off, or `--addr` names another, the door `api` says whether all works, and no more, which is said. A door that
//! speaks TLS is believed by the certificate of the configuration, by `--ca`, or by what the system trusts.
//! Invariants: the exit code is 0 where all works, 1 where something does not, 2 where nobody answers or nobody can be
//! asked. Nothing is opened but a file of the configuration and one connection.

use super::server::ServerArgs;
use crate::plus_api;
use crate::watch::log::{give_up, say};
use anyhow::{Context, Result, bail};
use net::tls::client::Trust;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use supervisor::causes::line_of;

/// The time that a server has for its answer: one that takes longer does not work.
const PATIENCE: Duration = Duration::from_secs(5);
/// Reasons of each kind of work have some ten thousand bytes; who answers more is no server of ours.
const ANSWER_MAX: usize = 1 << 20;
/// Exit code where nobody answers.
const NOBODY: u8 = 2;

#[derive(clap::Args)]
pub struct StatusArgs {
    /// The server's admin address, in place of the configuration's listen.admin; with https:// before it over TLS.
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<String>,
    /// A PEM file with the server's certificate, or with that of who signed it.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print the answer as one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub fn run(args: &StatusArgs) -> ExitCode {
    match ask(args) {
        Ok(status) => {
            let text = if args.json { status.to_string() } else { text(&status) };
            say(format_args!("{}", text.trim_end()));
            ExitCode::from(u8::from(status["health"]["status"] != "ok"))
        }
        Err(error) => {
            if args.json {
                say(format_args!("{}", json!({ "health": { "status": "away", "error": line_of(&*error) } })));
            } else {
                give_up(format_args!("hawkeye: {}", line_of(&*error)));
            }
            ExitCode::from(NOBODY)
        }
    }
}

fn ask(args: &StatusArgs) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ca = args.ca.as_deref().map(|file| Trust::of_file("--ca", file)).transpose()?;
    if let Some(address) = &args.addr {
        let (is_tls, address) = match (address.strip_prefix("https://"), address.strip_prefix("http://")) {
            (Some(address), _) => (true, address),
            (None, Some(address)) => (false, address),
            (None, None) => (ca.is_some(), address.as_str()),
        };
        let door = Door { address: own(address.trim_end_matches('/')), is_tls, trust: ca };
        return runtime.block_on(door.any());
    }
    let config = args.server.load()?;
    let listen = &config.listen;
    let door = |name: &str, address: &str| -> Result<Door> {
        let is_tls = config.tls.is_on(name);
        // The server here is this configuration's, so its own certificate is believed from any address.
        let own_certificate = || if is_tls { Trust::own("tls.cert", &config.tls.cert).map(Some) } else { Ok(None) };
        let trust = ca.clone().map_or_else(own_certificate, |ca| Ok(Some(ca)))?;
        Ok(Door { address: own(address), is_tls, trust })
    };
    match (listen.admin.as_str(), listen.api.as_str()) {
        ("", "") => bail!("listen.admin and listen.api are \"\": there is nobody to ask; give --addr"),
        ("", api) => runtime.block_on(door("api", api)?.health()),
        (admin, _) => runtime.block_on(door("admin", admin)?.any()),
    }
}

/// A door that is asked.
struct Door {
    address: String,
    is_tls: bool,
    trust: Option<Trust>,
}

impl Door {
    /// What the door `admin` says, or else the door `api`.
    async fn any(mut self) -> Result<Value> {
        let (status, mut text) = self.get("/status").await?;
        if !self.is_tls && status == 400 && text.contains("speaks TLS") {
            self.is_tls = true;
            (_, text) = self.get("/status").await?;
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(mut answer) if answer["health"].is_object() => {
                answer["address"] = json!(self.address);
                Ok(answer)
            }
            _ => self.health().await,
        }
    }

    /// What a door says that has no more than `/health`.
    async fn health(self) -> Result<Value> {
        let (status, text) = self.get("/health?json").await?;
        let health = serde_json::from_str::<Value>(&text).ok().filter(|health| health["status"].is_string());
        let health = health.with_context(|| {
            format!("{} answers {status}, and not as a Hawkeye server's listen.admin or listen.api does", self.address)
        })?;
        Ok(json!({ "address": self.address, "health": health, "note": NO_MORE }))
    }

    async fn get(&self, path: &str) -> Result<(u16, String)> {
        // The client wants a provider although no TLS may be spoken. An error says that one was set before, which is
        // as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(PATIENCE);
        let client = match &self.trust {
            Some(trust) => client.tls_backend_preconfigured(trust.config()),
            None => client,
        };
        let address = &self.address;
        let url = format!("{}://{address}{path}", if self.is_tls { "https" } else { "http" });
        let fix =
            if self.is_tls { "does the server run, and is --ca its certificate's?" } else { "does the server run?" };
        let response = client.build()?.get(&url).send().await;
        let response = response.with_context(|| format!("nobody answers at {address} ({fix})"))?;
        // With reasons the answer is a 503.
        let status = response.status().as_u16();
        let body = plus_api::read(response, ANSWER_MAX).await.with_context(|| format!("{url} is not understood"))?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// The address by which this machine reaches what listens on `address`.
fn own(address: &str) -> String {
    let Some((host, port)) = address.rsplit_once(':') else { return address.to_string() };
    match host {
        "" | "0.0.0.0" | "[::]" => format!("127.0.0.1:{port}"),
        _ => address.to_string(),
    }
}

/// What the door `api` does not say.
const NO_MORE: &str = "version, roles and listeners are told by listen.admin only, and this is another door";

/// The answer for people.
fn text(status: &Value) -> String {
    let said = |value: &Value| value.as_str().unwrap_or("?").to_string();
    let mut out = format!("hawkeye at {}: {}\n", said(&status["address"]), said(&status["health"]["status"]));
    if let Some(version) = status["version"].as_str() {
        let up = duration(status["uptime_s"].as_u64().unwrap_or(0));
        let _ = writeln!(out, "version    {version}, up {up}, process {}", status["pid"]);
        let roles: Vec<&str> = status["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let _ = writeln!(out, "roles      {}", roles.join(" "));
        let mut title = "listeners";
        for (name, address) in status["listeners"].as_object().into_iter().flatten() {
            let _ = writeln!(out, "{title:<10} {name:<16} {}", said(address));
            title = "";
        }
    }
    if let Some(note) = status["note"].as_str() {
        let _ = writeln!(out, "note       {note}");
    }
    let mut title = "failing";
    for reason in status["health"]["reasons"].as_array().into_iter().flatten() {
        let (what, why) = (said(&reason["what"]), reason["why"].as_str().unwrap_or_default());
        let since = crate::clock::local_text(reason["since"].as_i64().unwrap_or(0));
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let _ = writeln!(out, "{title:<10} {what}{why} (since {since})");
        title = "";
    }
    out
}

/// Seconds as people say them, by their two largest units.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn one_screen() {
        let status = json!({
            "address": "127.0.0.1:6071", "version": "1.2.3", "pid": 7, "uptime_s": 93_784, "roles": ["graph", "api"],
            "listeners": { "api": "127.0.0.1:8080", "admin": "127.0.0.1:6071" },
            "health": { "status": "failing", "reasons": [{ "what": "the log", "why": "full", "since": 0 }] },
        });
        let text = text(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "hawkeye at 127.0.0.1:6071: failing");
        assert_eq!(lines[1], "version    1.2.3, up 1 d 2 h, process 7");
        assert_eq!(lines[2], "roles      graph api");
        assert!(lines[3].starts_with("listeners  a") && lines[4].starts_with("           a"), "{text}");
        assert!(lines[5].starts_with("failing    the log: full (since "), "{text}");
    }

    /// Who answers without an end is no server, and takes no memory.
    #[tokio::test]
    async fn an_endless_answer_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let lies = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            assert!(stream.read(&mut [0; 512]).await.expect("a request") > 0);
            let mut wrote = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while wrote.is_ok() {
                wrote = stream.write_all(&[b' '; 8192]).await;
            }
        });
        let door = Door { address, is_tls: false, trust: None };
        let error = line_of(&*door.any().await.expect_err("no end"));
        assert!(error.contains("more than 1048576 bytes"), "{error}");
        net::patience::in_time("the end of the connection", lies).await.expect("no panic");
    }

    #[test]
    fn times_and_addresses() {
        let times = [0, 59, 61, 3_600, 90_061].map(duration);
        assert_eq!(times, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
        for (address, expected) in [(":1", "127.0.0.1:1"), ("0.0.0.0:2", "127.0.0.1:2"), ("10.0.0.1:3", "10.0.0.1:3")] {
            assert_eq!(own(address), expected);
        }
    }
}
