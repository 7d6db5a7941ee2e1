//! What agents say of themselves, as it is listed.

use super::site;
use crate::portal::agent::{self, Agent};
use crate::portal::{group, host};
use anyhow::Result;
use serde_json::Value;

#[tokio::test]
async fn agents_are_found_by_version_settings_and_clock() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let told = [
        ("web-01", "0.1.0 x86_64", "aaaa", Some(-90_000)),
        ("web-02", "0.2.0 x86_64", "aaaa", Some(40)),
        ("db-01", "0.2.0 aarch64", "bbbb", None),
    ];
    let names: Vec<String> = told.iter().map(|(hostname, ..)| hostname.to_string()).collect();
    let group = group::create(portal, "all", "alice").await?.id;
    group::replace_hosts(portal, group, &names).await?;
    for (hostname, version, digest, clock_offset_ms) in told {
        let (hostname, version, config_digest) = (hostname.to_string(), version.to_string(), digest.to_string());
        agent::tell(portal, &Agent { hostname, version, config_digest, clock_offset_ms, told_at: 1 }).await?;
    }
    let check = async |query: &str, expected: &[&str]| -> Result<()> {
        let (status, agents) = site.ask("bob", &format!("GET /agent{query}"), Value::Null).await?;
        let rows = agents.as_array().into_iter().flatten();
        let got: Vec<_> = rows.filter_map(|agent| agent["hostname"].as_str()).collect();
        assert_eq!((status, got.as_slice()), (200, expected), "{query}");
        Ok(())
    };
    check("", &["db-01", "web-01", "web-02"]).await?;
    check("?q=^web", &["web-01", "web-02"]).await?;
    check("?version=0.2.", &["db-01", "web-02"]).await?;
    check("?config_digest=aaaa&sort=-hostname", &["web-02", "web-01"]).await?;
    check("?clock_offset_ms_min=0", &["web-01", "web-02"]).await?;
    check("?clock_offset_ms_min=60000", &["web-01"]).await?;
    let (status, answer) = site.ask("bob", "GET /agent?clock_offset_ms_min=-1", Value::Null).await?;
    assert!(
        status == 400 && answer["error"].as_str().is_some_and(|text| text.contains("clock_offset_ms_min")),
        "{answer}"
    );
    let (_, agents) = site.ask("bob", "GET /agent?q=db", Value::Null).await?;
    assert_eq!(agents[0]["clock_offset_ms"], Value::Null, "unknown is not 0");
    let id = host::by_name(portal, "web-01").await?.expect("there").id;
    host::delete(portal, id).await?;
    check("?q=^web", &["web-02"]).await
}
