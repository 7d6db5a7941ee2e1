//! `hawkeye status`: what a running server is, and what of it does not work, in one screen.
//!
//! Why: it takes `open-falcon check`'s place, which says whether a process is there; a process that is there may do
//! nothing.
//! How: the configuration says where the server listens, as for a start; its door `admin` answers `/status`. Where that
//! is off, the door `api` says whether all works, and no more.
//! Invariants: the exit code is 0 where all works, 1 where something does not, 2 where nobody answers or nobody can be
//! asked. Nothing is opened but a file of the configuration and one connection.

use super::server::ServerArgs;
use crate::watch::log::{give_up, say};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;
use supervisor::causes::line_of;

/// The time that a server has for its answer: one that takes longer does not work.
const PATIENCE: Duration = Duration::from_secs(5);
/// Exit code where nobody answers.
const NOBODY: u8 = 2;

#[derive(clap::Args)]
pub struct StatusArgs {
    /// The server's admin address, in place of the configuration's listen.admin.
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<String>,
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
    if let Some(address) = &args.addr {
        return runtime.block_on(get(&own(address), "/status"));
    }
    let listen = args.server.load()?.listen;
    if !listen.admin.is_empty() {
        return runtime.block_on(get(&own(&listen.admin), "/status"));
    }
    if listen.api.is_empty() {
        bail!("listen.admin and listen.api are \"\": there is nobody to ask; give --addr");
    }
    let health = runtime.block_on(get(&own(&listen.api), "/health?json"))?;
    Ok(json!({ "address": listen.api, "health": health }))
}

/// The address by which this machine reaches what listens on `address`.
fn own(address: &str) -> String {
    let Some((host, port)) = address.rsplit_once(':') else { return address.to_string() };
    match host {
        "" | "0.0.0.0" | "[::]" => format!("127.0.0.1:{port}"),
        _ => address.to_string(),
    }
}

async fn get(address: &str, path: &str) -> Result<Value> {
    // The client wants a provider although no TLS is spoken here. An error says that one was set before, which is as
    // good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let url = format!("http://{address}{path}");
    let response =
        client.get(&url).send().await.with_context(|| format!("nobody answers at {address} (does the server run?)"))?;
    let status = response.status();
    // With reasons the answer is a 503.
    let text = response.text().await.with_context(|| format!("the answer of {url} breaks off"))?;
    let mut answer: Value = serde_json::from_str(&text)
        .with_context(|| format!("{url} answers {status}, and no JSON (is it a Hawkeye server's listen.admin?)"))?;
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("address".to_string(), json!(address));
    }
    Ok(answer)
}

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

    #[test]
    fn times_and_addresses() {
        let times = [0, 59, 61, 3_600, 90_061].map(duration);
        assert_eq!(times, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
        for (address, expected) in [(":1", "127.0.0.1:1"), ("0.0.0.0:2", "127.0.0.1:2"), ("10.0.0.1:3", "10.0.0.1:3")] {
            assert_eq!(own(address), expected);
        }
    }
}
