//! Plus api: what an old Open-Falcon api is asked over REST by parts that run alone beside it.
//!
//! How: the header `Apitoken` names the module and has the api's server token, as the original's modules send it.
//! Invariants: no proxy of the environment is used, no redirect followed; an answer has at most [`ANSWER_MAX`] bytes;
//! the token is in no error. An api that knows no such row answers nothing, which is no fault.
//! Memory: an answer while it is read.

use anyhow::{Context, Result, bail};
use net::tls::client::Trust;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// Hosts of a group of ten thousand have some 2 MB.
const ANSWER_MAX: usize = 16 << 20;
const CONNECT: Duration = Duration::from_secs(2);
const TOTAL: Duration = Duration::from_secs(10);

/// An api, and who asks there.
#[derive(Clone)]
pub struct PlusApi {
    client: Client,
    url: String,
    token: String,
}

impl PlusApi {
    /// An api at `url`, which is asked by the module `name`; over TLS it is believed by `trust`, or as the system says.
    /// Fails where the client cannot be made.
    pub fn new(url: &str, name: &str, sig: &str, trust: Option<&Trust>) -> Result<PlusApi> {
        // An error says that another part of the process has set one, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().connect_timeout(CONNECT).timeout(TOTAL).no_proxy().redirect(Policy::none());
        let client = match trust {
            Some(trust) => client.tls_backend_preconfigured(trust.config()),
            None => client,
        };
        Ok(PlusApi {
            client: client.build().context("cannot prepare the HTTP client")?,
            url: url.trim_end_matches('/').to_string(),
            token: json!({ "name": name, "sig": sig }).to_string(),
        })
    }

    /// The answer to `GET /api/v1/<path>`; none where the api knows no such row.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        self.ask(self.client.get(format!("{}/api/v1/{path}", self.url)), path).await
    }

    /// The answer to `POST /api/v1/<path>` with `body` as JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<Option<T>> {
        self.ask(with_json(self.client.post(format!("{}/api/v1/{path}", self.url)), body)?, path).await
    }

    /// Sends `body` as JSON to another address than the api's, such as a transfer's; its answer is not looked at.
    pub async fn push(&self, url: &str, body: &impl Serialize) -> Result<()> {
        let sent = with_json(self.client.post(url), body)?.send().await.map_err(reqwest::Error::without_url);
        let response = sent.context("it does not answer")?;
        let status = response.status();
        if !status.is_success() {
            let text =
                String::from_utf8_lossy(&read(response, ANSWER_MAX).await?).chars().take(200).collect::<String>();
            bail!("it answers {status}: {}", text.trim());
        }
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder, path: &str) -> Result<Option<T>> {
        let sent = request.header("Apitoken", &self.token).send().await.map_err(reqwest::Error::without_url);
        let response = sent.context("it does not answer")?;
        let (status, text) = (response.status(), read(response, ANSWER_MAX).await?);
        let answer: Value = serde_json::from_slice(&text)
            .with_context(|| format!("{path}: it answers {status}, and no JSON (is it an Open-Falcon api?)"))?;
        if !status.is_success() {
            let error = answer["error"].as_str().unwrap_or("no reason");
            if error.contains("record not found") {
                return Ok(None);
            }
            bail!("{path}: it answers {status}: {error}");
        }
        serde_json::from_value(answer).map(Some).with_context(|| format!("{path}: its answer is not understood"))
    }
}

fn with_json(request: RequestBuilder, body: &impl Serialize) -> Result<RequestBuilder> {
    let body = serde_json::to_vec(body).context("cannot write a request")?;
    Ok(request.header("Content-Type", "application/json").body(body))
}

/// The body of an answer, which has at most so many bytes.
pub async fn read(mut response: Response, most: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.context("the answer breaks off")? {
        if body.len() + chunk.len() > most {
            bail!("the answer has more than {most} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A name as a segment of a path.
pub fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths() {
        assert_eq!(encoded("ops-1"), "ops-1");
        assert_eq!(encoded("a/b c?中"), "a%2Fb%20c%3F%E4%B8%AD");
    }
}
