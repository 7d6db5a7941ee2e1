//! Send: one attempt at one delivery, over HTTP or SMTP.
//!
//! Compat: docs/open-falcon/wire.md §10–11: a callback is a GET with query parameters, connect 3 s, total 20 s; a
//! gateway gets a form POST, connect 5 s, total 30 s. A status of 2xx is success (the original takes any answer for
//! one). A callback follows up to ten redirects, as the original's client does; a gateway follows none, because a
//! redirected POST loses its form.
//! Invariants: no proxy is taken from the environment; an answer is read up to [`ANSWER_MAX`]; a failure says whether
//! the target as a whole is to blame.
//! Memory: connections that are kept for the next delivery: one per host, at most [`IDLE`] long.

use super::plan::{Callback, Mail, Text};
use crate::config::{AlarmConfig, SmtpConfig, SmtpSecurity};
use crate::portal::delivery::{Delivery, Kind};
use anyhow::{Context, Result};
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::time::Duration;

/// Bytes of an answer that are read and quoted; scripts answer a line.
const ANSWER_MAX: usize = 64 << 10;
/// Time that an idle connection is kept: long enough for a storm, short enough to hold nothing afterwards. A guess.
const IDLE: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 10;
const CALLBACK_TIMES: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(20));
const GATEWAY_TIMES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// Clients by which attempts are made, and the addresses of the gateways.
pub struct Sender {
    callbacks: Client,
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
    /// The target cannot be reached or cannot work now: its other deliveries would fare no better.
    Target(String),
    /// The target refused this delivery.
    Refused(String),
    /// No attempt will ever succeed.
    Never(String),
}

impl Failure {
    /// Text of the failure, for people.
    pub fn text(&self) -> &str {
        match self {
            Failure::Target(text) | Failure::Refused(text) | Failure::Never(text) => text,
        }
    }
}

impl Sender {
    /// Makes the clients of a configuration. Fails when one of them cannot be made.
    pub fn new(config: &AlarmConfig) -> Result<Sender> {
        // Fails only when another part of the process has installed it, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let smtp = &config.smtp;
        Ok(Sender {
            callbacks: client(CALLBACK_TIMES, Policy::limited(REDIRECTS_MAX))?,
            gateways: client(GATEWAY_TIMES, Policy::none())?,
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

    async fn callback(&self, callback: &Callback) -> Result<String, Failure> {
        let url = Url::parse(&callback.url).map_err(|error| Failure::Never(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::Never(format!("unsupported protocol scheme {:?}", url.scheme())));
        }
        exchange(self.callbacks.get(url).query(&callback.query)).await
    }

    async fn post(&self, key: &str, url: &str, form: &impl Serialize) -> Result<String, Failure> {
        if url.is_empty() {
            return Err(no_gateway(key));
        }
        exchange(self.gateways.post(url).form(form)).await
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

fn client((connect, total): (Duration, Duration), redirects: Policy) -> Result<Client> {
    Client::builder()
        .connect_timeout(connect)
        .timeout(total)
        .redirect(redirects)
        .no_proxy()
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("hawkeye/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("cannot prepare the HTTP client")
}

fn parse<T: DeserializeOwned>(delivery: &Delivery) -> Result<T, Failure> {
    serde_json::from_str(&delivery.body).map_err(|error| Failure::Never(format!("the stored delivery: {error}")))
}

fn no_gateway(key: &str) -> Failure {
    Failure::Target(format!("{key} is empty: set it, or let the delivery be given up"))
}

async fn exchange(request: RequestBuilder) -> Result<String, Failure> {
    let mut response = request.send().await.map_err(http_failure)?;
    let status = response.status();
    let mut answer = Vec::new();
    // After a status the target has what it needs; an answer that breaks off is quoted as far as it came.
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_MAX - answer.len();
        answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if answer.len() == ANSWER_MAX {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match status {
        status if status.is_success() => Ok(answer),
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Failure::Target(refusal(status, &answer))),
        status => Err(Failure::Refused(refusal(status, &answer))),
    }
}

fn refusal(status: StatusCode, answer: &str) -> String {
    const SHOWN: usize = 200; // enough to recognise an error page
    let shown: String = answer.chars().take(SHOWN).collect();
    format!("status {}: {shown}", status.as_u16())
}

fn http_failure(error: reqwest::Error) -> Failure {
    let never = error.is_builder();
    let redirects = error.is_redirect();
    let text = chain(&error.without_url());
    match (never, redirects) {
        (true, _) => Failure::Never(text),
        (_, true) => Failure::Refused(text),
        _ => Failure::Target(text),
    }
}

fn smtp_failure(error: &lettre::transport::smtp::Error) -> Failure {
    let text = chain(error);
    let code = error.status().map(|code| code.to_string());
    match code.as_deref() {
        // The mailbox of this receiver, now or for ever (RFC 5321 §4.2.3).
        Some("450" | "451" | "452") => Failure::Refused(text),
        Some("550" | "551" | "552" | "553") => Failure::Never(text),
        _ => Failure::Target(text),
    }
}

/// An error with its causes; reqwest's and lettre's own texts leave the reason to the cause.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
