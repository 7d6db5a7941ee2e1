//! Driven probes: what hbs asks this host to watch, read from the tags of strategies.
//!
//! Compat: docs/open-falcon/agent.md §4. A URL may contain `=` here (the original splits it apart and drops the probe);
//! a `,` still cannot be, because it ends a tag everywhere.
//! Memory: at most [`DRIVEN_MAX`] of each kind; the rest is refused by name.

use crate::process::ProcessMatch;

/// Probes of one kind. A guess: the busiest hosts of the field have some dozens. The bound limits what a wrong hbs can
/// make an agent do.
pub const DRIVEN_MAX: usize = 1024;

/// The probes in effect. Each list has no duplicates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Driven {
    pub ports: Vec<u16>,
    pub processes: Vec<ProcessMatch>,
    /// Directories of `du.bs`.
    pub paths: Vec<String>,
    pub urls: Vec<UrlCheck>,
}

/// A URL that is fetched, and the time that it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlCheck {
    pub url: String,
    pub timeout_s: u32,
}

impl Driven {
    /// Reads pairs of metric and tags. A pair that cannot be understood is returned with the reason, for the log.
    pub fn parse<'a>(metrics: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Driven, Vec<String>) {
        let (mut driven, mut refused) = (Driven::default(), Vec::new());
        for (metric, tags) in metrics {
            if let Err(reason) = driven.add(metric, tags)
                && refused.len() < DRIVEN_MAX
            {
                refused.push(format!("{metric}/{tags}: {reason}"));
            }
        }
        (driven, refused)
    }

    fn add(&mut self, metric: &str, tags: &str) -> Result<(), &'static str> {
        match metric {
            "net.port.listen" => {
                let port = only(tags, "port").and_then(|port| port.trim().parse().ok());
                push(&mut self.ports, port.ok_or("tags must be port=<1 to 65535>")?)
            }
            "proc.num" => push(&mut self.processes, ProcessMatch::parse(tags)),
            "du.bs" => {
                let path = only(tags, "path").filter(|path| !path.trim().is_empty());
                push(&mut self.paths, path.ok_or("tags must be path=<directory>")?.trim().to_string())
            }
            "url.check.health" => push(&mut self.urls, url(tags).ok_or("tags must be url=<url>,timeout=<seconds>")?),
            _ => Err("this agent has no such probe"),
        }
    }
}

fn push<T: PartialEq>(list: &mut Vec<T>, item: T) -> Result<(), &'static str> {
    if list.contains(&item) {
        return Ok(());
    }
    if list.len() == DRIVEN_MAX {
        return Err("too many probes of this kind");
    }
    list.push(item);
    Ok(())
}

/// The value of `key`, when `tags` is `key=value` and nothing else.
fn only<'a>(tags: &'a str, key: &str) -> Option<&'a str> {
    let value = tags.trim().strip_prefix(key)?.strip_prefix('=')?;
    (!value.contains(['=', ','])).then_some(value)
}

fn url(tags: &str) -> Option<UrlCheck> {
    let (url, timeout) = tags.split_once(',')?;
    let url = url.trim().strip_prefix("url=")?.trim();
    let timeout_s = timeout.trim().strip_prefix("timeout=")?.trim().parse().ok()?;
    (!url.is_empty()).then(|| UrlCheck { url: url.to_string(), timeout_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(metric: &str, tags: &str, accepted: bool) {
        let (_, refused) = Driven::parse([(metric, tags)]);
        assert_eq!(refused.is_empty(), accepted, "{metric} {tags}: {refused:?}");
    }

    #[test]
    fn formats() {
        check("net.port.listen", "port=22", true);
        check("net.port.listen", "port=", false);
        check("net.port.listen", "port=65536", false);
        check("net.port.listen", "port=22,a=b", false);
        check("du.bs", "path=/var/log", true);
        check("du.bs", "path=/a=b", false);
        check("du.bs", "path=", false);
        check("url.check.health", "url=http://h/x,timeout=2", true);
        check("url.check.health", "url=http://h/x?a=b,timeout=2", true);
        check("url.check.health", "url=http://h/x", false);
        check("url.check.health", "url=http://h/a,b,timeout=2", false);
        check("url.check.health", "timeout=2,url=http://h/x", false);
        check("proc.num", "anything", true);
        check("cpu.idle", "", false);
    }

    #[test]
    fn duplicates_once_and_not_without_end() {
        let ports: Vec<String> = (1..=DRIVEN_MAX + 1).map(|port| format!("port={port}")).collect();
        let metrics = ports.iter().map(|tags| ("net.port.listen", tags.as_str()));
        let (driven, refused) = Driven::parse(metrics.chain([("net.port.listen", "port=1")]));
        assert_eq!(driven.ports.len(), DRIVEN_MAX);
        assert_eq!(refused, ["net.port.listen/port=1025: too many probes of this kind"]);
    }
}
