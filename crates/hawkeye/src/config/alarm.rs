//! `[alarm]`: the gateways and the mail server that deliver, and how long deliveries are tried.

use serde::Deserialize;
use settings::units::seconds;

/// Section `alarm`: the ways to people, and bounds of what waits for them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlarmConfig {
    /// The site's HTTP gateways for sms, im and mail (form POST, Open-Falcon's sender contract); "" is none.
    pub sms: String,
    pub im: String,
    pub mail: String,
    pub smtp: SmtpConfig,
    /// The address that links in messages point to, e.g. `https://hawkeye.example.com`; "" is the API's own address.
    pub dashboard: String,
    /// Time for which rows of `events` are kept (seconds).
    #[serde(deserialize_with = "seconds")]
    pub event_retention: i64,
    /// A delivery that keeps failing is given up after this time (seconds).
    #[serde(deserialize_with = "seconds")]
    pub give_up_after: i64,
    /// The most deliveries that may wait; past it the oldest are given up, and counted.
    pub deliveries_max: usize,
}

/// Mail by SMTP, used when `alarm.mail` has no gateway. Off while `host` is "".
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpConfig {
    pub host: String,
    pub port: u16,
    /// Security of the connection: "none", "starttls" or "tls".
    pub security: SmtpSecurity,
    pub user: String,
    pub password: String,
    pub from: String,
}

/// Encryption towards the mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    None,
    Starttls,
    Tls,
}

impl Default for AlarmConfig {
    fn default() -> Self {
        AlarmConfig {
            sms: String::new(),
            im: String::new(),
            mail: String::new(),
            smtp: SmtpConfig::default(),
            dashboard: String::new(),
            event_retention: 7 * 86_400,
            give_up_after: 86_400,
            deliveries_max: 100_000,
        }
    }
}

impl Default for SmtpConfig {
    fn default() -> Self {
        SmtpConfig {
            host: String::new(),
            port: 25,
            security: SmtpSecurity::Starttls,
            user: String::new(),
            password: String::new(),
            from: "hawkeye@localhost".into(),
        }
    }
}
