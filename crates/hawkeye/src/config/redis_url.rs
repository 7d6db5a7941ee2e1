//! Redis URL: where a Redis is and how to log in there, as a configuration key gives it.
//!
//! How: `redis://:password@host:6379/0`, or the original's `password@host:6379` as it stands in an old cfg.json. It is
//! checked when the configuration is read, so that a typing error ends the start and not the first attempt to connect.
//! Invariants: the password is in no error, no log line and no `{:?}`: errors repeat nothing of the text, for its parts
//! may be parts of a password; [`RedisUrl::place`] is what may be shown.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use reqwest::Url;
use serde::{Deserialize, Deserializer};

const PORT: u16 = 6379;
/// The largest number of a database: Redis has 16 by default, and no configuration is near this.
const DATABASE_MAX: i64 = 65_535;
const FORM: &str = "want redis://:password@host:6379/0, or password@host:6379";
const ENCODED: &str = "with / ? # @ % of the password written as %2F %3F %23 %40 %25";

/// A URL, or none.
#[derive(Clone, Default)]
pub struct RedisUrl(Option<ConnectionInfo>);

impl RedisUrl {
    /// Reads a URL; "" is none.
    pub fn parse(text: &str) -> Result<RedisUrl, String> {
        if text.is_empty() {
            return Ok(RedisUrl(None));
        }
        let info = if text.contains("://") { parse_url(text)? } else { parse_dsn(text)? };
        // Proxies know few commands; the library's name is of no use to them.
        let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        Ok(RedisUrl(Some(info.set_redis_settings(login))))
    }

    /// Whether no URL is configured.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Options to connect with. `None` without a URL.
    pub fn info(&self) -> Option<ConnectionInfo> {
        self.0.clone()
    }

    /// The place to show, `host:port/database`.
    pub fn place(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |info| format!("{}/{}", info.addr(), info.redis_settings().db()))
    }

    /// The text of a Redis or a proxy without the password, which some repeat.
    pub fn without_password(&self, said: &str) -> String {
        let password = self.0.as_ref().and_then(|info| info.redis_settings().password());
        match password {
            Some(password) if !password.is_empty() => said.replace(password, "…"),
            _ => said.to_string(),
        }
    }
}

fn parse_url(text: &str) -> Result<ConnectionInfo, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; {FORM}, {ENCODED}"))?;
    if url.scheme() == "rediss" {
        return Err(
            "TLS (rediss) is not there: want redis://, through a tunnel where the network needs one".to_string()
        );
    }
    if url.scheme() != "redis" {
        return Err(format!("it does not begin with redis://; {FORM}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("a ? or # is where none belongs; {FORM}, {ENCODED}"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("it names no host; {FORM}"));
    }
    if url.port() == Some(0) {
        return Err(format!("its port is 0; {FORM}"));
    }
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() && !database.parse().is_ok_and(|number| (0..=DATABASE_MAX).contains(&number)) {
        return Err(format!("what follows its host is no database number; {FORM}, {ENCODED}"));
    }
    // The only fault left is a user or a password that is not UTF-8.
    url.into_connection_info().map_err(|_| format!("its user or password is not UTF-8 once decoded; {FORM}"))
}

/// Reads the original's `[password@]host:port`; the last `@` separates.
fn parse_dsn(text: &str) -> Result<ConnectionInfo, String> {
    let (password, address) = text.rsplit_once('@').map_or((None, text), |(password, rest)| (Some(password), rest));
    // An address in brackets has colons of its own.
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (address, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(format!("it names no host; {FORM}"));
    }
    let of_a_host = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
    if !host.chars().all(of_a_host) || (host.contains(':') && !address.starts_with('[')) {
        return Err(format!("what should be its host has characters that no host has; {FORM}"));
    }
    let port = match port.map(str::parse) {
        None => PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(format!("its port is no number from 1 to 65535; {FORM}")),
    };
    let info = (host, port).into_connection_info().map_err(|_| FORM.to_string())?;
    let login = info.redis_settings().clone();
    Ok(match password {
        Some(password) if !password.is_empty() => info.set_redis_settings(login.set_password(password)),
        _ => info,
    })
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &RedisUrl) -> bool {
        let parts = |url: &RedisUrl| {
            url.0.as_ref().map(|info| {
                let login = info.redis_settings();
                let text = |text: Option<&str>| text.map(str::to_string);
                let ConnectionAddr::Tcp(host, port) = info.addr() else { return (String::new(), 0, 0, None, None) };
                (host.clone(), *port, login.db(), text(login.username()), text(login.password()))
            })
        };
        parts(self) == parts(other)
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.place())
    }
}

impl<'de> Deserialize<'de> for RedisUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        RedisUrl::parse(&text).map_err(|error| serde::de::Error::custom(format!("it is no Redis URL: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_never_the_password() {
        let check = |text: &str, place: &str, user: Option<&str>, password: Option<&str>| {
            let url = RedisUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.place(), place, "{text}");
            assert!(!format!("{url:?}").contains("secret"), "{url:?}");
            let info = url.info().expect("a URL");
            let login = info.redis_settings();
            assert_eq!((login.username(), login.password()), (user, password), "{text}");
            assert_eq!(url, RedisUrl::parse(text).expect("the same"));
        };
        check("redis://db", "db:6379/0", None, None);
        check("redis://db/", "db:6379/0", None, None);
        check("redis://db:6380/3", "db:6380/3", None, None);
        check("redis://:secret@db", "db:6379/0", None, Some("secret"));
        check("redis://:secret%2F%40%3F@db:1/2", "db:1/2", None, Some("secret/@?"));
        check("redis://falcon:secret@10.0.0.1", "10.0.0.1:6379/0", Some("falcon"), Some("secret"));
        check("redis://[::1]:7000", "::1:7000/0", None, None);
        check("db:6379", "db:6379/0", None, None);
        check("db", "db:6379/0", None, None);
        check("[::1]:6380", "::1:6380/0", None, None);
        check("[::1]", "::1:6379/0", None, None);
        check("secret@db:6379", "db:6379/0", None, Some("secret"));
        check("@db:6379", "db:6379/0", None, None);
        check("se/cret@more#@db:6379", "db:6379/0", None, Some("se/cret@more#"));
        assert!(RedisUrl::parse("").expect("none").is_none());
        assert_ne!(RedisUrl::parse("a@db").expect("valid"), RedisUrl::parse("b@db").expect("valid"));
    }

    #[test]
    fn errors_say_what_to_write_and_never_the_password() {
        let check = |text: &str, part: &str| {
            let error = RedisUrl::parse(text).expect_err(text);
            assert!(error.contains(part) && !error.contains("secret"), "{text:?} gave {error:?}");
        };
        check("rediss://:secret@db", "TLS");
        check("mysql://falcon:secret@db", "redis://");
        check("secret://word@db:6379", "redis://");
        check("redis://", "host");
        check("redis://:secret@", "host");
        check("redis://:secret@db:0", "port");
        check("redis://:secret@db:99999", "port");
        check("redis://:12/secret@db", "%2F");
        check("redis://:12?secret@db", "%3F");
        check("redis://:12#secret@db", "%23");
        check("redis://:word@db/secret", "database number");
        check("redis://:word@db/70000", "database number");
        check("redis://:word@db/-1", "database number");
        check("redis://:%FFsecret@db", "UTF-8");
        check("redis://:word@db?password=secret", "?");
        check("secret@", "host");
        check("secret@:6379", "host");
        check("word@db:secret", "port");
        check("word@db:0", "port");
        check("db:", "port");
        check("::1", "host");
        check("sec ret", "host");
        check("db/3", "host");
    }

    #[test]
    fn what_is_said_is_cleaned() {
        let url = RedisUrl::parse("secret@db:6379").expect("valid");
        let said = "ERR unknown command `AUTH`, with args beginning with: `secret`";
        assert_eq!(url.without_password(said), "ERR unknown command `AUTH`, with args beginning with: `…`");
        assert_eq!(RedisUrl::parse("db").expect("valid").without_password(said), said);
    }
}
