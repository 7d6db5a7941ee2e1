//! Send: one attempt at one delivery, over HTTP or SMTP.
//!
//! How: a callback runs a script that is not made to run twice, so its failure says whether it may have been received:
//! before its first connection stands, it was not. Each callback has a connection of its own, as in the original, for
//! one that was kept may be closed by the other side while the next request is on its way. Its URL, each redirect and
//! each address that a name is resolved to are checked ([`CallbackTargets`]), and it is connected to what was checked.
//! Compat: docs/open-falcon/wire.md §10–11: a callback is a GET with query parameters, connect 3 s, total 20 s; a
//! gateway gets a form POST, connect 5 s, total 30 s. A status of 2xx is success (the original takes any answer for
//! one). A callback follows up to ten redirects, as the original's client does; a gateway follows none, because a
//! redirected POST loses its form.
//! Invariants: no proxy is taken from the environment; of an answer [`ANSWER_MAX`] bytes are kept; a failure says
//! whether the target as a whole is to blame, and whether another attempt may be made.
//! Memory: an answer per attempt; connections to gateways that are kept for the next delivery: one per host, at most
//! [`IDLE`] long.

use super::plan::{Callback, Mail, Text};
use crate::config::{AlarmConfig, CallbackTargets, SmtpConfig, SmtpSecurity, TargetFault};
use crate::portal::delivery::{Delivery, Kind};
use anyhow::{Context, Result};
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::time::Duration;
use supervisor::causes::line_of;
use tokio::time::Instant;

/// Bytes of an answer that are kept; scripts answer a line, and messages quote some hundred characters.
const ANSWER_MAX: usize = 4 << 10;
/// Bytes of an answer that are read: a script whose answer is not taken may end at the broken pipe, its work half done.
const ANSWER_READ_MAX: usize = 1 << 20;
/// Time that an idle connection is kept: long enough for a storm, short enough to hold nothing afterwards. A guess.
const IDLE: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 10;
/// Time for a callback's connection, with the look-up of its name and TLS. Until it is over, nothing was received.
pub const CALLBACK_CONNECT: Duration = Duration::from_secs(3);
/// Time for a whole callback.
const CALLBACK_TOTAL: Duration = Duration::from_secs(20);
const GATEWAY_TIMES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// Clients by which attempts are made, and the addresses of the gateways.
pub struct Sender {
    callbacks: Client,
    callback_total: Duration,
    targets: CallbackTargets,
    gateways: Client,
    sms: String,
    im: String,
    mail: String,
    smtp: Option<Smtp>,
}

struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// Failure of one attempt, by what it says about further ones. Each has a text for people.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The target cannot be reached or cannot work now: its other deliveries would fare no better. A callback was not
    /// received.
    Target(String),
    /// The target refused this delivery.
    Refused(String),
    /// No attempt will ever succeed.
    Never(String),
    /// The callback was received, or may have been: it is not made again.
    Received(String),
    /// The callback leads to where none may go.
    Denied(String),
    /// The process ended while the callback was under way: nobody knows whether it was received, and it is not made
    /// again.
    Unknown(String),
}

impl Failure {
    /// Text of the failure, for people.
    pub fn text(&self) -> &str {
        match self {
            Failure::Target(text) | Failure::Refused(text) | Failure::Never(text) => text,
            Failure::Received(text) | Failure::Denied(text) | Failure::Unknown(text) => text,
        }
    }

    /// Whether another attempt may be made.
    pub fn may_be_tried_again(&self) -> bool {
        matches!(self, Failure::Target(_) | Failure::Refused(_))
    }
}

impl Sender {
    /// Makes the clients of a configuration. Fails when one of them cannot be made.
    pub fn new(config: &AlarmConfig) -> Result<Sender> {
        // Fails only when another part of the process has installed it, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let smtp = &config.smtp;
        let targets = config.callback_targets();
        let (gateway_connect, gateway_total) = GATEWAY_TIMES;
        let gateways = client(gateway_connect).timeout(gateway_total).pool_max_idle_per_host(1).pool_idle_timeout(IDLE);
        Ok(Sender {
            callbacks: callback_client(CALLBACK_CONNECT, &targets)?,
            callback_total: CALLBACK_TOTAL,
            targets,
            gateways: gateways.build().context(NO_CLIENT)?,
            sms: config.sms.clone(),
            im: config.im.clone(),
            mail: config.mail.clone(),
            smtp: if smtp.host.is_empty() { None } else { Some(Smtp::new(smtp).context("alarm.smtp")?) },
        })
    }

    /// Tries once; returns what the target answered.
    pub async fn send(&self, delivery: &Delivery) -> Result<String, Failure> {
        match delivery.kind {
            Some(Kind::Callback) => self.callback(&parse(delivery)?).await,
            Some(Kind::Sms) => self.post("alarm.sms", &self.sms, &parse::<Text>(delivery)?).await,
            Some(Kind::Im) => self.post("alarm.im", &self.im, &parse::<Text>(delivery)?).await,
            Some(Kind::Mail) => self.post("alarm.mail", &self.mail, &parse::<Mail>(delivery)?).await,
            Some(Kind::Smtp) => match &self.smtp {
                Some(smtp) => smtp.send(delivery, &parse(delivery)?).await,
                None => Err(no_gateway("alarm.smtp.host")),
            },
            None => Err(Failure::Never("a kind of delivery that this version does not know".to_string())),
        }
    }

    /// Makes the call, and follows where it is sent.
    async fn callback(&self, callback: &Callback) -> Result<String, Failure> {
        let until = Instant::now() + self.callback_total;
        let url = self.targets.check_url(&callback.url)?;
        let first = self.callbacks.get(url.clone()).query(&callback.query);
        let mut response = first.timeout(self.callback_total).send().await.map_err(first_failure)?;
        let mut at = url;
        for _ in 0..REDIRECTS_MAX {
            let Some(location) = redirect(&response) else { return callback_end(response).await };
            // The first of them has received the call: whatever happens now is its end.
            let told = |why: String| format!("redirected to {location}: {why}");
            let target = at.join(&location).map_err(|error| Failure::Received(told(error.to_string())))?;
            at = self.targets.check_url(target.as_str()).map_err(|fault| match fault {
                TargetFault::NoUrl(text) => Failure::Received(told(text)),
                TargetFault::Denied(text) => Failure::Denied(told(text)),
            })?;
            let request = self.callbacks.get(at.clone()).timeout(until - Instant::now());
            response = request.send().await.map_err(|error| match denial(&error) {
                Some(fault) => Failure::Denied(told(fault.to_string())),
                None => Failure::Received(told(http_text(error))),
            })?;
        }
        match redirect(&response) {
            None => callback_end(response).await,
            Some(_) => Err(Failure::Received(format!("stopped after {REDIRECTS_MAX} redirects"))),
        }
    }

    async fn post(&self, key: &str, url: &str, form: &impl Serialize) -> Result<String, Failure> {
        if url.is_empty() {
            return Err(no_gateway(key));
        }
        gateway_end(self.gateways.post(url).form(form)).await
    }
}

impl Smtp {
    fn new(config: &SmtpConfig) -> Result<Smtp> {
        let from = config.from.parse().with_context(|| format!("from is {:?}: give a mail address", config.from))?;
        let host = config.host.as_str();
        let builder = match config.security {
            SmtpSecurity::None => Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)),
            SmtpSecurity::Starttls => AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(host),
            SmtpSecurity::Tls => AsyncSmtpTransport::<Tokio1Executor>::relay(host),
        };
        let mut builder = builder.with_context(|| format!("host is {host:?}"))?;
        if !config.user.is_empty() {
            builder = builder.credentials(Credentials::new(config.user.clone(), config.password.clone()));
        }
        Ok(Smtp { transport: builder.port(config.port).timeout(Some(GATEWAY_TIMES.0)).build(), from })
    }

    async fn send(&self, delivery: &Delivery, mail: &Mail) -> Result<String, Failure> {
        let to: Mailbox =
            mail.tos.parse().map_err(|error| Failure::Never(format!("mail address {:?}: {error}", mail.tos)))?;
        // The same over all attempts, so that a mail sent twice around a crash can be told.
        let id = format!("<hawkeye.{}.{}@{}>", delivery.created_at, delivery.id, self.from.email.domain());
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(mail.subject.clone())
            .message_id(Some(id))
            .date_now()
            .header(ContentType::TEXT_PLAIN)
            .body(mail.content.clone())
            .map_err(|error| Failure::Never(format!("cannot write the mail: {error}")))?;
        match tokio::time::timeout(GATEWAY_TIMES.1, self.transport.send(message)).await {
            Ok(Ok(response)) => Ok(response.message().collect::<Vec<_>>().join(" ")),
            Ok(Err(error)) => Err(smtp_failure(&error)),
            Err(_) => Err(Failure::Target(format!("no end of the dialogue within {} s", GATEWAY_TIMES.1.as_secs()))),
        }
    }
}

const NO_CLIENT: &str = "cannot prepare the HTTP client";

fn client(connect: Duration) -> ClientBuilder {
    Client::builder()
        .connect_timeout(connect)
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("hawkeye/", env!("CARGO_PKG_VERSION")))
}

/// The client of callbacks: each gets a connection of its own, to an address that was checked.
fn callback_client(connect: Duration, targets: &CallbackTargets) -> Result<Client> {
    let client = client(connect).dns_resolver(Resolver(targets.clone())).pool_max_idle_per_host(0);
    client.build().context(NO_CLIENT)
}

/// The resolver of callbacks: of the addresses that a name has, those where callbacks may go. The connection is made to
/// one of them, so that a name cannot lead elsewhere between the check and the call.
struct Resolver(CallbackTargets);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = self.0.clone();
        Box::pin(async move {
            let mut allowed = Vec::new();
            let mut denied = None;
            for address in tokio::net::lookup_host((name.as_str(), 0)).await? {
                match targets.check(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(fault) => denied = Some(fault),
                }
            }
            match denied {
                Some(fault) if allowed.is_empty() => Err(fault.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

impl From<TargetFault> for Failure {
    fn from(fault: TargetFault) -> Failure {
        match fault {
            TargetFault::NoUrl(text) => Failure::Never(text),
            TargetFault::Denied(text) => Failure::Denied(text),
        }
    }
}

fn parse<T: DeserializeOwned>(delivery: &Delivery) -> Result<T, Failure> {
    serde_json::from_str(&delivery.body).map_err(|error| Failure::Never(format!("the stored delivery: {error}")))
}

fn no_gateway(key: &str) -> Failure {
    Failure::Target(format!("{key} is empty: set it, or let the delivery be given up"))
}

/// Where an answer sends its asker, if it does.
fn redirect(response: &Response) -> Option<String> {
    let status = response.status().as_u16();
    let location =
        response.headers().get(header::LOCATION).filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308))?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// What the answer to a callback means. It was received, so it is not made again.
async fn callback_end(response: Response) -> Result<String, Failure> {
    match read(response).await {
        (status, answer) if status.is_success() => Ok(answer),
        (status, answer) => Err(Failure::Received(refusal(status, &answer))),
    }
}

/// What a gateway says to a message.
async fn gateway_end(request: RequestBuilder) -> Result<String, Failure> {
    let response = request.send().await.map_err(|error| match error.is_builder() {
        true => Failure::Never(http_text(error)),
        false => Failure::Target(http_text(error)),
    })?;
    match read(response).await {
        (status, answer) if status.is_success() => Ok(answer),
        (
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT),
            answer,
        ) => Err(Failure::Target(refusal(status, &answer))),
        (status, answer) => Err(Failure::Refused(refusal(status, &answer))),
    }
}

/// The status and the begin of an answer. After a status the target has what it needs; an answer that breaks off is
/// quoted as far as it came.
async fn read(mut response: Response) -> (StatusCode, String) {
    let mut answer = Vec::new();
    let mut count = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_MAX - answer.len();
        answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
        count += chunk.len();
        if count > ANSWER_READ_MAX {
            break;
        }
    }
    (response.status(), String::from_utf8_lossy(&answer).into_owned())
}

fn refusal(status: StatusCode, answer: &str) -> String {
    const SHOWN: usize = 200; // enough to recognise an error page
    let shown: String = answer.chars().take(SHOWN).collect();
    format!("status {}: {shown}", status.as_u16())
}

/// What the error of a callback's first request means. While there is no connection nothing was received, and the
/// request can be made again; an error behind that leaves open what the other side has read.
fn first_failure(error: reqwest::Error) -> Failure {
    if let Some(fault) = denial(&error) {
        return fault.clone().into();
    }
    let (never, connecting) = (error.is_builder(), error.is_connect());
    let text = http_text(error);
    match (never, connecting) {
        (true, _) => Failure::Never(text),
        (_, true) => Failure::Target(text),
        _ => Failure::Received(text),
    }
}

/// The reason of an error that the [`Resolver`] made.
fn denial(error: &reqwest::Error) -> Option<&TargetFault> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(fault) = error.downcast_ref() {
            return Some(fault);
        }
        cause = error.source();
    }
    None
}

fn http_text(error: reqwest::Error) -> String {
    if error.is_timeout() && !error.is_connect() {
        return "no answer in time".to_string();
    }
    line_of(&error.without_url())
}

fn smtp_failure(error: &lettre::transport::smtp::Error) -> Failure {
    let text = line_of(error);
    let code = error.status().map(|code| code.to_string());
    match code.as_deref() {
        // The mailbox of this receiver, now or for ever (RFC 5321 §4.2.3).
        Some("450" | "451" | "452") => Failure::Refused(text),
        Some("550" | "551" | "552" | "553") => Failure::Never(text),
        _ => Failure::Target(text),
    }
}

#[cfg(test)]
mod tests;
