//! Agents: which probes and plugins hbs has them run, and their reports that they are there.
//!
//! Compat: docs/open-falcon/wire.md §4. Run windows do not matter for probes; tags are the text of the row; a host that
//! hbs does not know has no probes and no plugins.

use crate::clock;
use crate::portal::agent::{self, Agent};
use crate::portal::host::{self, AgentFacts, ReportEffect};
use crate::portal::{Portal, template};
use crate::rules::snapshot::Snapshot;
use anyhow::{Result, bail};
use md5::{Digest, Md5};
use std::collections::BTreeSet;
use wire::hbs::{AgentReport, BuiltinMetric};

/// Metrics that an agent measures only when a strategy asks for them, with the strategy's tags as arguments.
const BUILTIN: [&str; 4] = ["net.port.listen", "proc.num", "du.bs", "url.check.health"];

/// The distinct (metric, tags) that the strategies of a host's templates want measured, sorted, and their checksum (""
/// for none).
pub fn builtin_metrics(snapshot: &Snapshot, templates: &[i64]) -> (Vec<BuiltinMetric>, String) {
    let chains = templates.iter().filter_map(|id| template::chain(&snapshot.parents, *id));
    let templates: BTreeSet<i64> = chains.flatten().collect();
    let rows = templates.iter().filter_map(|id| snapshot.by_template.get(id)).flatten();
    let rows = rows.map(|at| &snapshot.strategies[*at]).filter(|row| BUILTIN.contains(&row.metric.as_str()));
    let metrics: BTreeSet<(&str, &str)> = rows.map(|row| (row.metric.as_str(), row.tags.as_str())).collect();
    let checksum = checksum(metrics.iter().map(|(metric, tags)| format!("{metric}/{tags}")).collect());
    let told = |(metric, tags): (&str, &str)| BuiltinMetric { metric: metric.to_string(), tags: tags.to_string() };
    (metrics.into_iter().map(told).collect(), checksum)
}

/// The plugin directories of a host's groups, each once, sorted.
pub fn plugins(snapshot: &Snapshot, groups: &[i64]) -> Vec<String> {
    let dirs = groups.iter().filter_map(|group| snapshot.plugin_dirs.get(group)).flatten();
    dirs.cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Writes a host's report if it says something new; a text that is longer than its column is cut.
pub async fn report_status(portal: &Portal, report: &AgentReport) -> Result<ReportEffect> {
    let name = report.hostname.as_str();
    if name.is_empty() || name.chars().count() > host::HOSTNAME_MAX || name.contains(char::is_control) {
        bail!("Hostname must have 1 to {} characters, none of them a control character", host::HOSTNAME_MAX);
    }
    let told = AgentFacts {
        ip: cut(&report.ip, host::IP_MAX).to_string(),
        agent_version: cut(&report.agent_version, host::AGENT_VERSION_MAX).to_string(),
        plugin_version: cut(&report.plugin_version, host::PLUGIN_VERSION_MAX).to_string(),
    };
    match host::report(portal, name, &told, clock::now()).await? {
        ReportEffect::Full => {
            bail!("the table of hosts is full ({} hosts): delete what no longer reports", host::HOSTS_MAX)
        }
        reported => Ok(reported),
    }
}

/// Writes what a Hawkeye agent has said of itself beyond that, if it matters, for a host that is there. Answers the
/// offset of its clock that is kept.
pub async fn tell_details(portal: &Portal, report: &AgentReport) -> Result<Option<i64>> {
    let details = &report.details;
    if details.is_none() {
        return Ok(None);
    }
    let is_digest = details.config_digest.chars().all(|c| c.is_ascii_alphanumeric());
    let far = agent::CLOCK_OFFSET_MS_MAX;
    let told = Agent {
        hostname: report.hostname.clone(),
        version: cut(&details.version, agent::VERSION_MAX).replace(char::is_control, " "),
        config_digest: if is_digest { cut(&details.config_digest, agent::CONFIG_DIGEST_MAX) } else { "" }.to_string(),
        clock_offset_ms: details.clock_offset_ms.map(|offset| offset.clamp(-far, far)),
        told_at: clock::now(),
    };
    let kept = agent::tell(portal, &told).await?;
    // Without a table for it what was said is the last that is known.
    Ok(kept.map_or(told.clock_offset_ms, |kept| kept.clock_offset_ms))
}

/// md5 over the sorted texts, one after another without separators.
fn checksum(mut texts: Vec<String>) -> String {
    if texts.is_empty() {
        return String::new();
    }
    texts.sort_unstable();
    let mut md5 = Md5::new();
    for text in &texts {
        md5.update(text);
    }
    hex::encode(md5.finalize())
}

/// The first `max` characters.
fn cut(text: &str, max: usize) -> &str {
    text.char_indices().nth(max).map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::db::query;
    use crate::portal::tests::{fill, temporary};
    use crate::portal::{group, host, plugin, strategy, template};
    use wire::hbs::AgentDetails;

    fn report(hostname: &str, ip: &str, version: &str) -> AgentReport {
        let (hostname, ip) = (hostname.to_string(), ip.to_string());
        AgentReport {
            hostname,
            ip,
            agent_version: version.to_string(),
            plugin_version: "none".to_string(),
            ..AgentReport::default()
        }
    }

    async fn hosts(portal: &Portal) -> Result<Vec<(String, String, String)>> {
        Ok(query("SELECT hostname, ip, agent_version FROM falcon_portal.host ORDER BY id").all(portal).await?)
    }

    fn row(hostname: &str, ip: &str, version: &str) -> (String, String, String) {
        (hostname.to_string(), ip.to_string(), version.to_string())
    }

    #[tokio::test]
    async fn reports_are_written_when_they_differ() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let before = portal.version();
        assert_eq!(report_status(&portal, &report("web-01", "10.0.0.1", "5.1")).await?, ReportEffect::New);
        assert_eq!(portal.version(), before + 1, "a new host is announced");
        assert_eq!(report_status(&portal, &report("web-01", "10.0.0.1", "5.1")).await?, ReportEffect::Unchanged);
        assert_eq!(report_status(&portal, &report("WEB-01", "10.0.0.2", "5.1")).await?, ReportEffect::Changed);
        assert_eq!(portal.version(), before + 1);
        assert_eq!(hosts(&portal).await?, [row("web-01", "10.0.0.2", "5.1")]);
        Ok(())
    }

    #[tokio::test]
    async fn hostile_reports_are_data() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let quote = "x'; DROP TABLE host; --";
        report_status(&portal, &report(quote, quote, "äöüäöüäöüäöüäöüäöü")).await?;
        assert_eq!(hosts(&portal).await?, [row(quote, "x'; DROP TABLE h", "äöüäöüäöüäöüäöüä")]);
        assert_eq!(report_status(&portal, &report(quote, quote, "äöüäöüäöüäöüäöüäöü")).await?, ReportEffect::Unchanged);
        for wrong in ["", "a\nb", &"x".repeat(256)] {
            assert!(report_status(&portal, &report(wrong, "", "")).await.is_err(), "{wrong:?}");
        }
        assert_eq!(hosts(&portal).await?.len(), 1);
        Ok(())
    }

    #[tokio::test]
    async fn details_are_kept_as_their_columns_have_room() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let check = async |details: AgentDetails, kept: Option<(&str, &str, Option<i64>)>| -> Result<()> {
            let report = AgentReport { details, ..report("web-01", "10.0.0.1", "5.1") };
            report_status(&portal, &report).await?;
            tell_details(&portal, &report).await?;
            let rows = agent::all(&portal).await?;
            let row = rows.first();
            let row = row.map(|row| (row.version.as_str(), row.config_digest.as_str(), row.clock_offset_ms));
            assert_eq!(row, kept);
            Ok(())
        };
        let details = |version: &str, digest: &str, clock_offset_ms| AgentDetails {
            version: version.to_string(),
            config_digest: digest.to_string(),
            clock_offset_ms,
        };
        check(AgentDetails::default(), None).await?;
        check(
            details("0.1.0 x86_64", "0123456789abcdef", Some(4)),
            Some(("0.1.0 x86_64", "0123456789abcdef", Some(4))),
        )
        .await?;
        let far = agent::CLOCK_OFFSET_MS_MAX;
        let long = "ä".repeat(70);
        check(details(&long, "'; --", Some(i64::MIN)), Some((&long[..2 * agent::VERSION_MAX], "", Some(-far)))).await?;
        check(details("a\nb", &"f".repeat(70), Some(i64::MAX)), Some(("a b", &"f".repeat(64), Some(far)))).await
    }

    #[tokio::test]
    async fn the_table_of_hosts_is_bounded() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        fill(&portal, "INSERT INTO falcon_portal.host (hostname) SELECT 'h' || i", host::HOSTS_MAX).await?;
        let error = report_status(&portal, &report("one-more", "", "")).await.expect_err("must be refused");
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(report_status(&portal, &report("h1", "", "")).await?, ReportEffect::New, "known hosts go on");
        Ok(())
    }

    #[tokio::test]
    async fn probes_and_plugins_follow_the_groups() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let grp = group::create(&portal, "g", "root").await?.id;
        let other = group::create(&portal, "other", "root").await?.id;
        group::replace_hosts(&portal, grp, &["web-01".to_string()]).await?;
        let base = template::create(&portal, "base", 0, 0, "root").await?.id;
        let leaf = template::create(&portal, "leaf", base, 0, "root").await?.id;
        group::bind_template(&portal, grp, leaf, "root").await?;
        let add = async |tpl_id, metric: &str, tags: &str| {
            let (metric, tags) = (metric.to_string(), tags.to_string());
            // A window that is never open: it does not matter here.
            let run_begin = "23:59".to_string();
            let run_end = "23:59".to_string();
            let row = strategy::Strategy { metric, tags, run_begin, run_end, tpl_id, ..Default::default() };
            strategy::create(&portal, &row).await
        };
        add(leaf, "net.port.listen", "port=22").await?;
        add(leaf, "proc.num", "name=crond").await?;
        add(base, "proc.num", "name=crond").await?;
        add(base, "du.bs", "path=/home").await?;
        add(base, "cpu.idle", "").await?;
        for (group, dir) in [(grp, "sys/ntp"), (grp, "a"), (grp, "a"), (other, "no")] {
            plugin::create(&portal, group, dir, "root").await?;
        }
        let snapshot = Snapshot::load(&portal).await?;
        let host = snapshot.host("web-01").expect("a host");
        let (metrics, checksum) = builtin_metrics(&snapshot, &host.templates);
        let pair = |metric: &str, tags: &str| BuiltinMetric { metric: metric.to_string(), tags: tags.to_string() };
        assert_eq!(
            metrics,
            [pair("du.bs", "path=/home"), pair("net.port.listen", "port=22"), pair("proc.num", "name=crond")]
        );
        // The vector of docs/open-falcon/transfer.md §9.
        assert_eq!(checksum, "010cd840a105a536aadbca6cc271e3c2");
        assert_eq!(plugins(&snapshot, &host.groups), ["a", "sys/ntp"]);
        assert_eq!(builtin_metrics(&snapshot, &[]), (Vec::new(), String::new()));
        assert!(plugins(&snapshot, &[]).is_empty());
        Ok(())
    }
}
