//! Client: asks a running server's API as a user, for commands that do not work on its files.
//!
//! Invariants: an answer that is no success is an error with the text that the server gave.

use crate::plus_api;
use crate::portal::token;
use anyhow::{Context, Result, bail};
use clap::Args;
use net::tls::client::Trust;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Who asks: by a password, or by the sig of a login.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The user who asks.
    #[arg(long, default_value = "root", value_name = "NAME")]
    user: String,
    /// The password of that user.
    #[arg(long, value_name = "TEXT", env = "HAWKEYE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// A token (hk_…), the sig that a login answered, or NAME:SIG, in place of a password.
    #[arg(long, value_name = "SIG", env = "HAWKEYE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds what --token takes.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// A PEM file with the server's certificate, or with that of who signed it, for an https:// address.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Bytes of an answer: a site of a thousand templates has some megabytes, and an answer of history more.
const ANSWER_MAX: usize = 256 << 20;

/// A server's API, asked as one user.
pub struct Client {
    client: reqwest::Client,
    api: String,
    /// The header that says who asks.
    authority: (&'static str, String),
}

impl LoginArgs {
    /// A client of the server at `api`; `flag` is the flag that names it, and `patience` how long an answer may take.
    pub async fn client(&self, api: &str, flag: &str, patience: Duration) -> Result<Client> {
        // The client wants a provider although no TLS may be spoken. An error says that one was set before, which is as
        // good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder().timeout(patience);
        if let Some(file) = &self.ca {
            client = client.tls_backend_preconfigured(Trust::of_file("--ca", file)?.config());
        }
        let client = client.build()?;
        let nobody = ("Apitoken", String::new());
        let mut client = Client { client, api: base_of(api, flag)?, authority: nobody };
        let (name, sig) = self.token(&client, flag).await?;
        client.authority = if sig.starts_with(token::PREFIX) {
            // A token is its user's, whoever that is.
            ("Authorization", format!("Bearer {sig}"))
        } else {
            ("Apitoken", json!({ "name": name, "sig": sig }).to_string())
        };
        Ok(client)
    }

    /// Name and sig of who asks: from a token, or from a login with the password.
    async fn token(&self, client: &Client, flag: &str) -> Result<(String, String)> {
        let from_file = self.token_file.as_deref().map(|path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read --token-file {}", path.display()))
        });
        if let Some(token) = from_file.transpose()?.or_else(|| self.token.clone()) {
            let token = token.trim();
            let (name, sig) = token.split_once(':').unwrap_or((&self.user, token));
            return Ok((name.to_string(), sig.to_string()));
        }
        let Some(password) = &self.password else {
            bail!("give --password, or --token or --token-file (also as HAWKEYE_PASSWORD or HAWKEYE_TOKEN)");
        };
        let login = json!({ "name": self.user, "password": password }).to_string();
        let answer: Value = serde_json::from_str(&client.post("/user/login", login).await?)
            .with_context(|| format!("the answer to the login is no JSON (is {flag} the API of a Hawkeye server?)"))?;
        let sig = answer["sig"]
            .as_str()
            .with_context(|| format!("the answer to the login has no sig (is {flag} the API of a Hawkeye server?)"))?;
        Ok((self.user.clone(), sig.to_string()))
    }
}

/// The address of a server, of what may name its API as well.
fn base_of(url: &str, flag: &str) -> Result<String> {
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix("/api/v1").unwrap_or(base);
    if !["http://", "https://"].iter().any(|scheme| base.starts_with(scheme)) {
        bail!("{flag} is {url:?}: give an address like http://127.0.0.1:8080");
    }
    Ok(base.to_string())
}

impl Client {
    /// The answer to a question.
    pub async fn get(&self, path: &str) -> Result<String> {
        let (_, text) = self.success(self.client.get(self.url(path))).await?;
        Ok(text)
    }

    /// The answer to a JSON body.
    pub async fn post(&self, path: &str, body: String) -> Result<String> {
        let (_, text) = self.success(self.json(path, body)).await?;
        Ok(text)
    }

    /// Status and text of the answer to a JSON body, whatever they are.
    pub async fn post_for_any(&self, path: &str, body: String) -> Result<(reqwest::StatusCode, String)> {
        self.send(self.json(path, body)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.api)
    }

    fn json(&self, path: &str, body: String) -> reqwest::RequestBuilder {
        self.client.post(self.url(path)).header("Content-Type", "application/json").body(body)
    }

    async fn success(&self, request: reqwest::RequestBuilder) -> Result<(reqwest::StatusCode, String)> {
        let (status, text) = self.send(request).await?;
        if !status.is_success() {
            bail!("{}", self.error_of(status, &text));
        }
        Ok((status, text))
    }

    /// The text of an error that the server answered.
    pub fn error_of(&self, status: reqwest::StatusCode, text: &str) -> String {
        let answer = serde_json::from_str::<Value>(text).ok();
        let error = answer.and_then(|answer| Some(answer["error"].as_str()?.to_string()));
        error.unwrap_or_else(|| format!("{} answers {status}: {}", self.api, text.trim()))
    }

    /// What may be wrong besides where TLS is spoken.
    fn hint(&self) -> &'static str {
        if self.api.starts_with("https://") { " A certificate of your own wants --ca." } else { "" }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<(reqwest::StatusCode, String)> {
        let (name, value) = &self.authority;
        let request = if value.is_empty() { request } else { request.header(*name, value) };
        let response = request.send().await.with_context(|| {
            format!("cannot ask {} (does the server run, and is this its API?{})", self.api, self.hint())
        })?;
        let (status, body) = (response.status(), plus_api::read(response, ANSWER_MAX).await?);
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_servers_or_its_apis() {
        let check = |url: &str, base: &str| assert_eq!(base_of(url, "--url").expect(url), base);
        check("http://127.0.0.1:8080", "http://127.0.0.1:8080");
        check("https://falcon.example.com/api/v1/", "https://falcon.example.com");
        for url in ["127.0.0.1:8080", "", "ftp://h"] {
            let error = base_of(url, "--url").expect_err(url).to_string();
            assert!(error.contains("--url") && error.contains("http://"), "{error}");
        }
    }
}
