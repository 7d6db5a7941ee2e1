//! `[alarm]`: the gateways and the mail server that deliver, and how long deliveries are tried.

use super::callback::CallbackTargets;
use super::{Mode, RedisUrl};
use ipnet::IpNet;
use lettre::message::Mailbox;
use serde::Deserialize;
use settings::Faults;
use settings::units::{networks, seconds};
use std::net::IpAddr;

/// The longest time that messages wait to be merged (seconds).
const MERGE_MAX: i64 = 3600;

/// Section `alarm`: the ways to people, and bounds of what waits for them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlarmConfig {
    /// The site's HTTP gateways for sms, im and mail (form POST, Open-Falcon's sender contract); "" is none.
    pub sms: String,
    pub im: String,
    pub mail: String,
    pub smtp: SmtpConfig,
    /// The Redis whose queues /sms, /im and /mail are sent from here, for other tools; an alarm that runs alone takes
    /// the events of an old judge from there, too. "" is none.
    pub redis_url: RedisUrl,
    /// The old api that an alarm which runs alone asks whom to tell, and that api's server token.
    pub plus_api: String,
    pub plus_api_token: String,
    /// Networks that callbacks may go to. Empty is everything but loopback, link-local and metadata addresses;
    /// otherwise these and no others. Gateways and the mail server, which are named here, are not looked at.
    #[serde(deserialize_with = "networks")]
    pub callback_allow: Vec<IpNet>,
    /// The address that links in messages point to, e.g. `https://hawkeye.example.com`; "" is the API's own address.
    pub dashboard: String,
    /// Time for which rows of `events` are kept (seconds).
    #[serde(deserialize_with = "seconds")]
    pub event_retention: i64,
    /// Time for which cases are kept after their last event, alert links and temporary graphs after they were made
    /// (seconds). Open cases stay.
    #[serde(deserialize_with = "seconds")]
    pub case_retention: i64,
    /// A delivery that keeps failing is given up after this time (seconds).
    #[serde(deserialize_with = "seconds")]
    pub give_up_after: i64,
    /// Time for which messages of priority P3 and below wait for others, with which they are merged (seconds); 0 is not
    /// at all.
    #[serde(deserialize_with = "seconds")]
    pub merge: i64,
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
            redis_url: RedisUrl::default(),
            plus_api: String::new(),
            plus_api_token: String::new(),
            callback_allow: Vec::new(),
            dashboard: String::new(),
            event_retention: 7 * 86_400,
            case_retention: 90 * 86_400,
            give_up_after: 86_400,
            merge: 60,
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

impl AlarmConfig {
    /// Whether there is any way to tell people.
    pub fn has_channel(&self) -> bool {
        [&self.sms, &self.im, &self.mail, &self.smtp.host].iter().any(|place| !place.is_empty())
    }

    /// Where callbacks may go.
    pub fn callback_targets(&self) -> CallbackTargets {
        CallbackTargets::new(&self.callback_allow)
    }

    /// The ways to people that have no gateway, of "sms", "im" and "mail".
    pub fn missing_channels(&self) -> Vec<&'static str> {
        let no_mail = self.mail.is_empty() && self.smtp.host.is_empty();
        let channels = [("sms", self.sms.is_empty()), ("im", self.im.is_empty()), ("mail", no_mail)];
        channels.into_iter().filter(|(_, missing)| *missing).map(|(name, _)| name).collect()
    }

    /// Whether people can be told of alarms at all, and not only programs by callbacks.
    pub fn reaches_people(&self) -> bool {
        self.missing_channels().len() < 3
    }

    /// Checks what depends on what runs in this process; `delivers` is whether alarm does.
    fn check_mode(&self, mode: Option<Mode>, delivers: bool, faults: &mut Faults) {
        if mode == Some(Mode::Alarm) {
            if self.redis_url.is_none() {
                faults.add("alarm.redis_url is \"\": the alarm alone has its events from there; set it to the old judge's Redis");
            }
            if self.plus_api.is_empty() {
                faults.add("alarm.plus_api is \"\": the alarm alone asks there whom to tell; give the api's address, like \"http://api:8080\"");
            }
            if self.plus_api_token.is_empty() {
                faults.add("alarm.plus_api_token is \"\": the api tells nobody without; give its server token");
            }
            return;
        }
        if mode.is_some() && !delivers && !self.redis_url.is_none() {
            faults.add("alarm.redis_url is set, and alarm is not among roles: leave it \"\", or add alarm");
        }
        if mode.is_some() && !self.plus_api.is_empty() {
            faults.add("alarm.plus_api is for an alarm that runs alone (roles = [\"alarm\"]): leave it \"\"");
        }
        if mode.is_some() && !self.plus_api_token.is_empty() {
            faults.add("alarm.plus_api_token is for an alarm that runs alone (roles = [\"alarm\"]): leave it \"\"");
        }
    }

    pub(super) fn check(&self, mode: Option<Mode>, delivers: bool, faults: &mut Faults) {
        self.check_mode(mode, delivers, faults);
        // The texts themselves stay out of the errors: gateways may have a secret in their URL.
        let urls = [("sms", &self.sms), ("im", &self.im), ("mail", &self.mail), ("dashboard", &self.dashboard)];
        for (key, url) in urls.into_iter().chain([("plus_api", &self.plus_api)]) {
            let is_web = |url: reqwest::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
            if !url.is_empty() && !url.parse().is_ok_and(is_web) {
                faults.add(format!("alarm.{key} is no URL with http:// or https://: give one, or \"\" for none"));
            }
        }
        if !self.smtp.host.is_empty() {
            self.smtp.check(faults);
        }
        for (key, time) in [("event_retention", self.event_retention), ("give_up_after", self.give_up_after)] {
            if time <= 0 {
                faults.add(format!("alarm.{key} is 0 s: give a time, at least \"1s\""));
            }
        }
        if self.case_retention < self.event_retention {
            faults.add(
                "alarm.case_retention is shorter than alarm.event_retention: events go with their case; give it as long",
            );
        }
        if self.merge > MERGE_MAX {
            faults.add(format!(
                "alarm.merge is {} s: an alarm would be told too late; give at most \"1h\", or \"0s\" to merge none",
                self.merge
            ));
        }
        if self.deliveries_max == 0 {
            faults.add("alarm.deliveries_max is 0: nothing could be delivered; give at least 1");
        }
    }
}

impl SmtpConfig {
    /// Checks what is used once there is a host.
    fn check(&self, faults: &mut Faults) {
        let is_address = self.host.parse::<IpAddr>().is_ok();
        if !is_address && self.host.contains(|c: char| c.is_whitespace() || "/:@".contains(c)) {
            faults.add(format!(
                "alarm.smtp.host is {:?}: give a name or an address alone, like \"mail.example.com\"",
                self.host
            ));
        }
        if self.port == 0 {
            faults.add("alarm.smtp.port is 0: give the mail server's, like 25");
        }
        if self.from.parse::<Mailbox>().is_err() {
            faults
                .add(format!("alarm.smtp.from is {:?}: give a mail address, like \"hawkeye@example.com\"", self.from));
        }
        if self.user.is_empty() && !self.password.is_empty() {
            faults.add("alarm.smtp.password is set without alarm.smtp.user: give both, or neither");
        }
    }
}
