//! MySQL URL: where a MySQL or MariaDB database is and who logs in there, as a configuration key gives it.
//!
//! How: `mysql://user:password@host:3306/database?ssl-mode=…` is checked when the configuration is read, so that a
//! typing error ends the start and not the first attempt to connect.
//! Invariants: the password is in no error, no log line and no `{:?}`; [`MysqlUrl::place`] is what may be shown.

use reqwest::Url;
use serde::{Deserialize, Deserializer};
use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;

/// Parameters that may follow `?`; sqlx would silently pass over unknown ones, and a few others would change its
/// queries.
const PARAMETERS: [&str; 2] = ["ssl-mode", "ssl-ca"];

/// A URL, or none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MysqlUrl(Option<Url>);

impl MysqlUrl {
    /// Reads a URL; "" is none. An error says what to write instead, and holds nothing of `text` that could be a
    /// password.
    pub fn parse(text: &str) -> Result<MysqlUrl, String> {
        if text.is_empty() {
            return Ok(MysqlUrl(None));
        }
        let form = "want mysql://user:password@host:3306/database";
        let url = Url::parse(text)
            .map_err(|error| format!("{error}; {form}, with / ? # % of the password written as %2F %3F %23 %25"))?;
        if url.scheme() != "mysql" {
            return Err(format!("its scheme is {:?}; {form}", url.scheme()));
        }
        if url.fragment().is_some() || url.path().trim_start_matches('/').contains('/') {
            return Err(format!("a / or # is where none belongs; {form}, with those of the password as %2F %23"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("it names no host; {form}"));
        }
        if url.port() == Some(0) {
            return Err(format!("its port is 0; {form}"));
        }
        if url.username().is_empty() {
            return Err(format!("it names no user; {form}"));
        }
        if let Some((name, _)) = url.query_pairs().find(|(name, _)| !PARAMETERS.contains(&&**name)) {
            return Err(format!("it has a parameter {name:?}; only {} are known", PARAMETERS.join(" and ")));
        }
        // sqlx refuses names that are not UTF-8 once decoded and an unknown ssl-mode; its texts do not repeat the URL.
        MySqlConnectOptions::from_url(&url).map_err(|error| format!("{error}; {form}"))?;
        Ok(MysqlUrl(Some(url)))
    }

    /// Whether no URL is configured.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Options to connect with; `database` is used when the URL names none. `None` without a URL.
    pub fn options(&self, database: &str) -> Option<MySqlConnectOptions> {
        let options = MySqlConnectOptions::from_url(self.0.as_ref()?).ok()?;
        let options = if options.get_database().is_some() { options } else { options.database(database) };
        // sqlx would log whole statements that take a second.
        Some(options.disable_statement_logging())
    }

    /// The place to show, `host:port/database`.
    pub fn place(&self, database: &str) -> String {
        let Some(options) = self.options(database) else { return String::new() };
        format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or_default())
    }
}

impl std::fmt::Debug for MysqlUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.place(""))
    }
}

impl<'de> Deserialize<'de> for MysqlUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        MysqlUrl::parse(&text).map_err(|error| serde::de::Error::custom(format!("it is no MySQL URL: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_never_the_password() {
        let check = |text: &str, place: &str| {
            let url = MysqlUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.place("graph"), place, "{text}");
            assert!(!format!("{url:?}").contains("secret"), "{url:?}");
        };
        check("", "");
        check("mysql://falcon:secret@db", "db:3306/graph");
        check("mysql://falcon:secret@db/", "db:3306/graph");
        check("mysql://falcon@db:3307/index", "db:3307/index");
        check("mysql://falcon:secret@10.0.0.1:3306/graph?ssl-mode=REQUIRED", "10.0.0.1:3306/graph");
        check("mysql://falcon:secret@[::1]:3306/graph", "[::1]:3306/graph");
        check("mysql://falcon:secret%2F%40@db", "db:3306/graph");
        check("mysql://falcon:secret@more@db", "db:3306/graph");
    }

    #[test]
    fn errors_say_what_to_write_and_never_the_password() {
        let check = |text: &str, part: &str| {
            let error = MysqlUrl::parse(text).expect_err(text);
            assert!(error.contains(part) && !error.contains("secret"), "{text:?} gave {error:?}");
        };
        check("falcon:secret@tcp(db:3306)/graph", "mysql://");
        check("secret", "mysql://user:password@host:3306/database");
        check("postgres://falcon:secret@db", "postgres");
        check("mysql://", "host");
        check("mysql:///graph", "host");
        check("mysql://falcon:secret@", "host");
        check("mysql://db", "user");
        check("mysql://falcon:secret/word@db", "%2F");
        check("mysql://falcon:secret@db:0", "port");
        check("mysql://falcon:secret@db:99999", "port");
        check("mysql://falcon:12#secret@db", "%23");
        check("mysql://falcon:secret@db/graph/tables", "%2F");
        check("mysql://falcon:secret@db/graph?charset=utf8", "charset");
        check("mysql://falcon:secret@db/graph?ssl-mode=perhaps", "perhaps");
        check("mysql://falcon:%FFsecret@db", "utf-8");
    }

    #[test]
    fn texts_are_decoded() {
        let url = MysqlUrl::parse("mysql://fal%40con:p%2Fw@db/gr%20aph").expect("valid");
        let options = url.options("graph").expect("a URL");
        assert_eq!((options.get_username(), options.get_database()), ("fal@con", Some("gr aph")));
    }
}
