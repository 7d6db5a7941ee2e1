//! `[api]`: who may look, register, and call as somebody else.

use serde::Deserialize;
use settings::Faults;
use settings::units::{seconds, size};
use std::path::PathBuf;

/// Seconds of ten years.
const AUDIT_KEEP_MAX_S: i64 = 3650 * 86_400;
/// Bytes of a record of changes: with less a day of a busy site has no room; with more its sum takes seconds.
const AUDIT_MIN: u64 = 1 << 20;
const AUDIT_MAX: u64 = 1 << 30;

/// Section `api`: who may do what over REST.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// True lets anybody register (`POST /user/create`), as Open-Falcon does by default.
    pub signup: bool,
    /// A second secret that passes as any user's `sig`, for server-to-server calls; "" (the default) is none.
    pub server_token: String,
    /// The `salt` of an old Open-Falcon api whose user table is taken over: its md5 passwords let their users in once.
    pub salt: String,
    /// Who may change what others made: "strict", "open-falcon", or "" for what suits the portal.
    pub rights: Rights,
    /// Viewers of the first page who need no login: "none", "all", or "loopback" peers. Whoever comes through a proxy
    /// on this machine is such a peer.
    pub viewer: Viewer,
    /// Who may read series by the routes of Grafana's Falcon plugin, which sends no token: "open" (anybody, as in the
    /// original) or "login".
    pub grafana: Grafana,
    /// Time for which the record of changes is kept (`GET /api/v1/audit`), in seconds.
    #[serde(deserialize_with = "seconds")]
    pub audit_keep: i64,
    /// Bytes of the record of changes; of more the oldest go.
    #[serde(deserialize_with = "size")]
    pub audit_max: u64,
    /// Programs of agents, for new hosts and for those that are upgraded; "" is `agents` in the data directory.
    pub agents_dir: PathBuf,
    /// Whether anybody who reaches the api may download them (`GET /download/agent`).
    pub agent_download: bool,
}

/// Callers of the routes under `/grafana`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grafana {
    Open,
    Login,
}

/// Peers that see the first page without a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Viewer {
    None,
    Loopback,
    All,
}

/// Rules by which the things of others may be changed (`api/rights.rs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rights {
    /// Strict on SQLite; the original's on a MySQL that Open-Falcon made, whose users are used to them.
    #[default]
    #[serde(rename = "")]
    ByPortal,
    /// The owner, a member of the owning team, and administrators.
    Strict,
    /// Anybody who is logged in, where the original asks for no more.
    OpenFalcon,
}

impl Default for ApiConfig {
    fn default() -> Self {
        let (server_token, salt) = (String::new(), String::new());
        let (rights, viewer, grafana) = (Rights::ByPortal, Viewer::None, Grafana::Open);
        let (audit_keep, audit_max) = (365 * 86_400, 64 << 20);
        let (agents_dir, agent_download) = (PathBuf::new(), true);
        ApiConfig {
            signup: false,
            server_token,
            salt,
            rights,
            viewer,
            grafana,
            audit_keep,
            audit_max,
            agents_dir,
            agent_download,
        }
    }
}

/// Characters of a server token that nobody guesses, as of `ingest.token`.
const SERVER_TOKEN_SAFE: usize = 16;

impl ApiConfig {
    /// What people should know of the settings.
    pub(super) fn remark(&self) -> Option<String> {
        let is_short = (1..SERVER_TOKEN_SAFE).contains(&self.server_token.chars().count());
        is_short.then(|| {
            format!(
                "api.server_token opens everything, and is easily guessed: give {SERVER_TOKEN_SAFE} characters or more"
            )
        })
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        // Secrets stay out of the errors. A token with blanks around is a mistake of copying that nobody would see.
        if self.server_token.trim() != self.server_token {
            faults.add("api.server_token begins or ends with a blank: take it away");
        }
        if !(86_400..=AUDIT_KEEP_MAX_S).contains(&self.audit_keep) {
            faults
                .add(format!("api.audit_keep is {} s: give a day up to ten years, like \"365days\"", self.audit_keep));
        }
        if !(AUDIT_MIN..=AUDIT_MAX).contains(&self.audit_max) {
            faults.add(format!("api.audit_max is {} bytes: give \"1MiB\" to \"1GiB\"", self.audit_max));
        }
    }
}
