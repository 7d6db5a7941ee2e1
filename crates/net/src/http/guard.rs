//! Guard: which requests a door for HTTP does not take, whoever sends them, because a foreign page made a browser send
//! them.
//!
//! Why: a browser that may reach a door sends what any page tells it to. A page of another site can have points pushed
//! (cross-site requests), and a page whose name was made to resolve to this machine can read the answers (DNS
//! rebinding). Neither needs a login of the person in front of the browser.
//! How: a browser says where a request comes from, in `Origin` and `Sec-Fetch-Site`, and which name it was addressed
//! to, in `Host`; a page can change none of them. Scripts send neither of the first two, and are not asked.
//! Invariants: a door that refuses foreign pages takes an `Origin` only if it is the request's own `Host`, and that a
//! name of this server; `null` is foreign. `Sec-Fetch-Site: same-site` is foreign, for the ports of one machine are one
//! site. A door on a loopback address, and one that always asks, takes a `Host` that is an address, `localhost` or a
//! known name; other names are refused with a text that says where to add them. A request without `Host` comes from no
//! browser.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a door asks of the requests that come to it.
#[derive(Clone)]
pub struct Guard {
    /// Names of this server, besides addresses and `localhost`.
    names: Arc<[String]>,
    checks_host: bool,
    takes_foreign: bool,
}

/// A request that is not taken: what to answer, and the reason for the counter.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: &'static str,
    pub text: String,
}

impl Guard {
    /// A door whose handlers look after themselves: pages of other sites may ask.
    pub fn open(names: &[String]) -> Guard {
        Guard { names: names.iter().map(|name| normal(name)).collect(), checks_host: false, takes_foreign: true }
    }

    /// A door that pages of other sites may not ask.
    pub fn own_pages_only(names: &[String]) -> Guard {
        Guard { takes_foreign: false, ..Guard::open(names) }
    }

    /// The door asks for known names on any address.
    pub fn by_known_names(self) -> Guard {
        Guard { checks_host: true, ..self }
    }

    /// The door at `address`: on a loopback address it asks for known names.
    pub(super) fn at(self, address: Option<SocketAddr>) -> Guard {
        let is_loopback = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        Guard { checks_host: self.checks_host || is_loopback, ..self }
    }

    /// True for a request that the page of some site made a browser send, be it this server's own page on another port.
    pub fn is_foreign(headers: &HeaderMap) -> bool {
        Guard::own_pages_only(&[]).check_origin(headers).is_err()
    }

    /// Refuses a request that is not for this door.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.checks_host {
            self.check_host(uri, headers)?;
        }
        if self.takes_foreign { Ok(()) } else { self.check_origin(headers) }
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let in_uri = uri.authority().map(|authority| authority.as_str());
        let in_headers = headers.get_all(header::HOST).iter().map(text);
        match in_headers.chain(in_uri).find(|host| !self.knows(host)) {
            None => Ok(()),
            Some(host) => Err(Refusal {
                status: StatusCode::MISDIRECTED_REQUEST,
                reason: "host",
                text: format!(
                    "{host:?} is no known name of this server: use an address, or add the name to listen.hosts in the \
                     configuration"
                ),
            }),
        }
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        // None of several may be foreign: which one counts is not left to who sends them.
        if let Some(origin) = headers.get_all(header::ORIGIN).iter().map(text).find(|one| !self.is_own(one, headers)) {
            return Err(foreign("Origin", origin));
        }
        let mut sites = headers.get_all("sec-fetch-site").iter().map(text);
        match sites.find(|site| !matches!(*site, "same-origin" | "none")) {
            None => Ok(()),
            Some(site) => Err(foreign("Sec-Fetch-Site", site)),
        }
    }

    /// True when `origin` is the address that the request went to, and that a name of this server.
    fn is_own(&self, origin: &str, headers: &HeaderMap) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let port = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
        let host = headers.get(header::HOST).map(text);
        self.knows(authority) && host.is_some_and(|host| host_and_port(host, port) == host_and_port(authority, port))
    }

    /// True for an address, `localhost` and the names of this server, with or without a port.
    fn knows(&self, authority: &str) -> bool {
        let Some((host, _)) = host_and_port(authority, 0) else { return false };
        let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        is_address || host == "localhost" || self.names.contains(&host)
    }
}

fn foreign(header: &str, value: &str) -> Refusal {
    Refusal {
        status: StatusCode::FORBIDDEN,
        reason: "foreign",
        text: format!(
            "this request was made by another site's page ({header}: {value}), which this port does not take: open the \
             address by itself; scripts send neither Origin nor Sec-Fetch-Site"
        ),
    }
}

/// A value that is no text is no name either.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("(not text)")
}

/// Host, as [`normal`] gives it, and port; None for what is no such thing, or hides one in a user's name.
fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    if text.contains('@') {
        return None;
    }
    let authority: Authority = text.parse().ok()?;
    Some((normal(authority.host()), authority.port_u16().unwrap_or(default_port)))
}

/// A name in small letters, without the dot that makes it absolute.
fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The names by which this machine is known: its own, whole and up to the first dot, and those of the configuration.
pub fn own_names(system: &str, configured: &[String]) -> Vec<String> {
    let short = system.split('.').next().unwrap_or(system);
    let all = [system, short].into_iter().chain(configured.iter().map(String::as_str));
    all.filter(|name| !name.is_empty()).map(str::to_string).collect()
}

/// Refuses a text that is no host name: what a browser sends as `Host` has neither scheme nor path, and here the port
/// does not count. The error says what to write.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_host = host_and_port(name, 0).is_some_and(|(host, port)| port == 0 && host == normal(name));
    if name.is_empty() || !is_host || name.contains(['/', ':', '*']) {
        return Err(format!(
            "{name:?} is no host name: give one like \"hawkeye.example.com\", without scheme and port"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn check(guard: &Guard, uri: &str, headers: &[(&str, &str)], expected: Option<(u16, &str)>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header's value"));
        }
        let refusal = guard.check(&uri.parse().expect("a URI"), &map).err();
        let got = refusal.as_ref().map(|refusal| (refusal.status.as_u16(), refusal.reason));
        assert_eq!(got, expected, "{uri} {headers:?}: {refusal:?}");
    }

    fn names() -> Vec<String> {
        own_names("web1.corp.example", &["Hawkeye.example.com".to_string()])
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let guard = Guard::own_pages_only(&names());
        let own = ("host", "10.0.0.5:6060");
        let refused = Some((403, "foreign"));
        let taken = |headers: &[(&str, &str)]| check(&guard, "/", headers, None);
        let foreign = |headers: &[(&str, &str)]| check(&guard, "/", headers, refused);
        taken(&[own]);
        taken(&[]);
        taken(&[("host", "any.name.example:6060")]);
        taken(&[own, ("origin", "http://10.0.0.5:6060"), ("sec-fetch-site", "same-origin")]);
        taken(&[("host", "hawkeye.example.com"), ("origin", "https://Hawkeye.example.com:443")]);
        taken(&[("host", "localhost"), ("origin", "http://localhost")]);
        taken(&[own, ("sec-fetch-site", "none")]);
        foreign(&[own, ("origin", "http://evil.example")]);
        foreign(&[own, ("origin", "null")]);
        foreign(&[own, ("origin", "")]);
        foreign(&[own, ("origin", "http://10.0.0.5:3000")]);
        foreign(&[own, ("origin", "http://10.0.0.5:6060@evil.example")]);
        foreign(&[own, ("origin", "http://10.0.0.5:6060"), ("sec-fetch-site", "cross-site")]);
        foreign(&[own, ("sec-fetch-site", "cross-site")]);
        foreign(&[own, ("sec-fetch-site", "same-site")]);
        foreign(&[own, ("sec-fetch-site", "something new")]);
        foreign(&[("origin", "http://10.0.0.5:6060")]);
        // The foreign one of two counts, wherever it stands.
        let (own_origin, evil) = (("origin", "http://10.0.0.5:6060"), ("origin", "http://evil.example"));
        taken(&[own, own_origin, own_origin]);
        foreign(&[own, own_origin, evil]);
        foreign(&[own, evil, own_origin]);
        let (own_site, cross) = (("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"));
        taken(&[own, own_site, own_site]);
        foreign(&[own, own_site, cross]);
        foreign(&[own, cross, own_site]);
        // A name that was made to resolve to this machine is its page's own origin.
        foreign(&[("host", "evil.example:6060"), ("origin", "http://evil.example:6060")]);
    }

    #[test]
    fn only_known_names_where_names_count() {
        let loopback = Some("127.0.0.1:8080".parse().expect("an address"));
        let everywhere = Some("0.0.0.0:8080".parse().expect("an address"));
        let guard = Guard::open(&names()).at(loopback);
        let taken = |host: &str| check(&guard, "/", &[("host", host)], None);
        let refused = |host: &str| check(&guard, "/", &[("host", host)], Some((421, "host")));
        for host in ["127.0.0.1:8080", "10.1.2.3", "[::1]:8080", "[::1]", "localhost", "LocalHost:1", "localhost."] {
            taken(host);
        }
        for host in ["web1.corp.example:8080", "WEB1", "hawkeye.example.com", "hawkeye.example.com.:8080"] {
            taken(host);
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "web1.evil.example"] {
            refused(host);
        }
        for host in ["localhost:80@evil.example", "", "no name", "\u{fc}.example"] {
            refused(host);
        }
        check(&guard, "/", &[], None);
        check(&guard, "/", &[("host", "localhost"), ("host", "evil.example")], Some((421, "host")));
        check(&guard, "http://evil.example/", &[("host", "localhost")], Some((421, "host")));
        check(&guard, "/", &[("host", "localhost"), ("origin", "http://evil.example")], None);
        let foreign = [("host", "evil.example")];
        check(&Guard::open(&names()).at(everywhere), "/", &foreign, None);
        check(&Guard::open(&names()).at(None), "/", &foreign, None);
        check(&Guard::own_pages_only(&names()).by_known_names().at(everywhere), "/", &foreign, Some((421, "host")));
        let Err(refusal) = guard.check(
            &Uri::from_static("/"),
            &HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("evil.example"))]),
        ) else {
            panic!("refused above")
        };
        assert!(refusal.text.contains("listen.hosts") && refusal.text.contains("evil.example"), "{}", refusal.text);
    }

    #[test]
    fn names_of_the_configuration() {
        for name in ["hawkeye", "hawkeye.example.com", "Hawkeye.Example.", "h-1"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "http://hawkeye", "hawkeye:8080", "a/b", "*", "*.example.com", "a b", "x@y", "h\u{e4}wk"] {
            assert!(check_name(name).is_err_and(|text| text.contains("host name")), "{name}");
        }
    }
}
