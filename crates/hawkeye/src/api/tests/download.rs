//! Agents' programs, as a new host asks for them.

use super::{Site, site};
use agent::signature::sha256_of;
use anyhow::Result;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tower::ServiceExt;

/// A program of several pieces.
fn program() -> Vec<u8> {
    (0..200_000_u32).map(|at| (at % 251) as u8).collect()
}

fn put(dir: &Path, name: &str) -> Result<()> {
    fs::create_dir_all(dir)?;
    Ok(fs::write(dir.join(name), program())?)
}

async fn ask(site: &Site, line: &str, headers: &[(&str, &str)]) -> Result<(u16, HeaderMap, Vec<u8>)> {
    let (method, path) = line.split_once(' ').unwrap_or(("GET", line));
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = site.router.clone().oneshot(request.body(Body::empty())?).await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok((status, headers, to_bytes(response.into_body(), 1 << 20).await?.to_vec()))
}

#[tokio::test]
async fn a_new_host_gets_its_program() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let agents = dir.path().join("agents");
    let site = site(|config| config.data_dir = dir.path().to_path_buf()).await?;
    let (status, _, text) = ask(&site, "/download/agent?arch=sparc64", &[]).await?;
    let text = String::from_utf8(text)?;
    assert_eq!(status, 404);
    assert!(text.contains("agents on the server as hawkeye-agent-<version>-sparc64"), "{text}");
    put(&agents, "hawkeye-agent-1.2.3-sparc64")?;
    let (status, headers, body) = ask(&site, "/download/agent?arch=sparc64", &[]).await?;
    let (sha256, _) = sha256_of(&body[..])?;
    assert_eq!((status, &body), (200, &program()));
    assert_eq!((headers["x-sha256"].to_str()?, headers["content-length"].to_str()?), (sha256.as_str(), "200000"));
    assert!(headers["content-disposition"].to_str()?.contains("hawkeye-agent-1.2.3-sparc64"), "{headers:?}");
    let tag = headers["etag"].to_str()?;
    let known = ask(&site, "/download/agent?arch=sparc64", &[("if-none-match", tag)]).await?;
    assert_eq!((known.0, known.2.len()), (304, 0));
    let head = ask(&site, "HEAD /download/agent?arch=sparc64&version=1.2.3", &[]).await?;
    assert_eq!((head.0, head.2.len(), head.1["content-length"].to_str()?), (200, 0, "200000"));
    let other = ask(&site, "/download/agent?arch=sparc64&version=1.2.4", &[]).await?;
    assert_eq!(other.0, 404);
    Ok(())
}

#[tokio::test]
async fn nothing_of_a_request_is_a_path() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let site = site(|config| config.api.agents_dir = dir.path().to_path_buf()).await?;
    put(dir.path(), "secret")?;
    put(dir.path(), "hawkeye-agent-1.2.3-sparc64")?;
    let check = async |path: &str, status: u16| -> Result<()> {
        let (got, _, body) = ask(&site, path, &[]).await?;
        assert_eq!(got, status, "{path}: {}", String::from_utf8_lossy(&body));
        Ok(())
    };
    check("/download/agent", 400).await?;
    check("/download/agent?arch=../secret", 400).await?;
    check("/download/agent?arch=%2e%2e%2fsecret", 400).await?;
    check("/download/agent?arch=sparc64&version=../../secret", 400).await?;
    check("/download/agent?arch=sparc64%00", 400).await?;
    check("/download/agent/secret", 404).await?;
    check("/download/agent/?arch=sparc64", 404).await?;
    check("/download/", 404).await?;
    check("/download/agent?arch=sparc64", 200).await
}

#[tokio::test]
async fn downloads_can_be_switched_off() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let site = site(|config| {
        config.api.agents_dir = dir.path().to_path_buf();
        config.api.agent_download = false;
    })
    .await?;
    put(dir.path(), "hawkeye-agent-1.2.3-sparc64")?;
    let (status, _, text) = ask(&site, "/download/agent?arch=sparc64", &[]).await?;
    assert_eq!(status, 404);
    assert!(String::from_utf8(text)?.contains("api.agent_download is false"));
    Ok(())
}

#[tokio::test]
async fn the_line_is_for_who_is_logged_in() -> Result<()> {
    let site = site(|_| {}).await?;
    assert_eq!(site.ask("", "GET /agent/install", Value::Null).await?.0, 401);
    let (status, answer) = site.ask("bob", "GET /agent/install", Value::Null).await?;
    assert_eq!(status, 200);
    assert!(answer["line"].as_str().is_some_and(|line| line.starts_with("curl -fsSo hawkeye-agent ")), "{answer}");
    Ok(())
}
