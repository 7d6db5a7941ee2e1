//! Changes: what each route that changes something changes, in one list, for the scopes of tokens and for the audit.
//!
//! Why: a route that is in no list would let a token pass that may only read, and leave no trace; `tests/rights.rs`
//! fails for it.
//! How: a row names the thing that a route changes, and where a request has its id ([`Key`]).

use axum::http::Method;

/// The path that all routes have in front.
pub const PREFIX: &str = "/api/v1";

/// A kind of thing that is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Action,
    Aggregator,
    Case,
    Exception,
    Expression,
    Graph,
    Group,
    Host,
    /// Hosts of a request, by their names or ids.
    Hosts,
    Job,
    Nodata,
    Plugin,
    Portal,
    Probe,
    Screen,
    Series,
    Strategy,
    Team,
    Template,
    Token,
    User,
}

/// The place where a request says which thing it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Id in the path.
    Path(&'static str),
    /// Id in the body.
    Field(&'static str),
    /// A thing that is made, or that has no row: the name is in the body, and the body is what it became.
    Named(&'static str),
    /// The caller himself.
    Caller,
    /// Names or ids in lists of the body.
    Lists,
    /// The answer says what was changed, if anything was; the body is not read twice.
    Answer,
}

/// A route that changes something.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Method and path.
    pub line: &'static str,
    pub kind: Kind,
    pub key: Key,
}

const fn of(line: &'static str, kind: Kind, key: Key) -> Change {
    Change { line, kind, key }
}

/// All routes that change something.
pub const CHANGES: &[Change] = &[
    of("POST /user/create", Kind::User, Key::Named("name")),
    of("POST /admin/login", Kind::User, Key::Named("name")),
    of("PUT /user/update", Kind::User, Key::Caller),
    of("PUT /user/u/{uid}", Kind::User, Key::Path("uid")),
    of("PUT /user/cgpasswd", Kind::User, Key::Caller),
    of("PUT /admin/change_user_role", Kind::User, Key::Field("user_id")),
    of("PUT /admin/change_user_passwd", Kind::User, Key::Field("user_id")),
    of("PUT /admin/change_user_profile", Kind::User, Key::Field("user_id")),
    of("DELETE /admin/delete_user", Kind::User, Key::Field("user_id")),
    of("POST /token", Kind::Token, Key::Named("name")),
    of("DELETE /token/{id}", Kind::Token, Key::Path("id")),
    of("POST /team", Kind::Team, Key::Named("team_name")),
    of("PUT /team", Kind::Team, Key::Field("team_id")),
    of("POST /team/user", Kind::Team, Key::Field("team_id")),
    of("DELETE /team/{team_id}", Kind::Team, Key::Path("team_id")),
    of("POST /host/maintain", Kind::Hosts, Key::Lists),
    of("DELETE /host/maintain", Kind::Hosts, Key::Lists),
    of("DELETE /host/{id}", Kind::Host, Key::Path("id")),
    of("POST /hostgroup", Kind::Group, Key::Named("name")),
    of("PUT /hostgroup", Kind::Group, Key::Field("id")),
    of("DELETE /hostgroup/{id}", Kind::Group, Key::Path("id")),
    of("POST /hostgroup/host", Kind::Group, Key::Field("hostgroup_id")),
    of("PUT /hostgroup/host", Kind::Group, Key::Field("hostgroup_id")),
    of("PATCH /hostgroup/{id}/host", Kind::Group, Key::Path("id")),
    of("POST /hostgroup/template", Kind::Group, Key::Field("grp_id")),
    of("PUT /hostgroup/template", Kind::Group, Key::Field("grp_id")),
    of("POST /plugin", Kind::Group, Key::Field("hostgroup_id")),
    of("DELETE /plugin/{id}", Kind::Plugin, Key::Path("id")),
    of("POST /template", Kind::Template, Key::Named("name")),
    of("PUT /template", Kind::Template, Key::Field("tpl_id")),
    of("DELETE /template/{tpl_id}", Kind::Template, Key::Path("tpl_id")),
    of("POST /template/action", Kind::Template, Key::Field("tpl_id")),
    of("PUT /template/action", Kind::Action, Key::Field("id")),
    of("POST /strategy", Kind::Template, Key::Field("tpl_id")),
    of("PUT /strategy", Kind::Strategy, Key::Field("id")),
    of("DELETE /strategy/{sid}", Kind::Strategy, Key::Path("sid")),
    of("POST /exception", Kind::Exception, Key::Named("target")),
    of("PUT /exception/{id}", Kind::Exception, Key::Path("id")),
    of("DELETE /exception/{id}", Kind::Exception, Key::Path("id")),
    of("POST /expression", Kind::Expression, Key::Named("expression")),
    of("PUT /expression", Kind::Expression, Key::Field("id")),
    of("DELETE /expression/{eid}", Kind::Expression, Key::Path("eid")),
    of("POST /aggregator", Kind::Aggregator, Key::Named("metric")),
    of("PUT /aggregator", Kind::Aggregator, Key::Field("id")),
    of("DELETE /aggregator/{id}", Kind::Aggregator, Key::Path("id")),
    of("POST /nodata/", Kind::Nodata, Key::Named("name")),
    of("PUT /nodata/", Kind::Nodata, Key::Field("id")),
    of("DELETE /nodata/{nid}", Kind::Nodata, Key::Path("nid")),
    of("POST /probe", Kind::Probe, Key::Named("name")),
    of("PUT /probe/{id}", Kind::Probe, Key::Path("id")),
    of("DELETE /probe/{id}", Kind::Probe, Key::Path("id")),
    // Nothing is kept, but others are asked in the server's name.
    of("POST /probe/test", Kind::Probe, Key::Named("name")),
    of("POST /job", Kind::Job, Key::Named("name")),
    of("PUT /job/{id}", Kind::Job, Key::Path("id")),
    of("DELETE /job/{id}", Kind::Job, Key::Path("id")),
    of("PUT /job/{id}/token", Kind::Job, Key::Path("id")),
    of("POST /dashboard/screen", Kind::Screen, Key::Named("name")),
    of("PUT /dashboard/screen/{screen_id}", Kind::Screen, Key::Path("screen_id")),
    of("DELETE /dashboard/screen/{screen_id}", Kind::Screen, Key::Path("screen_id")),
    of("POST /dashboard/graph", Kind::Graph, Key::Named("title")),
    of("PUT /dashboard/graph/{id}", Kind::Graph, Key::Path("id")),
    of("DELETE /dashboard/graph/{id}", Kind::Graph, Key::Path("id")),
    of("POST /apply", Kind::Portal, Key::Answer),
    of("DELETE /graph/endpoint", Kind::Series, Key::Named("list")),
    of("DELETE /graph/counter", Kind::Series, Key::Named("endpoints")),
    of("POST /alarm/event_note", Kind::Case, Key::Named("event_id")),
];

/// Routes with another method than GET that change nothing that people enter: they ask with a body, log in, redirect,
/// keep what a link needs, or report the run of a job.
pub const READS: &[&str] = &[
    "POST /user/login",
    "POST /strategy/replay",
    "POST /nodata",
    "PUT /nodata",
    "POST /heartbeat/{token}",
    "POST /heartbeat/{token}/{event}",
    "POST /dashboard/tmpgraph",
    "POST /grafana/render",
    "POST /graph/history",
    "POST /graph/lastpoint",
    "POST /alarm/eventcases",
    "POST /alarm/events",
];

/// What a request to the route `path` changes; `path` begins with [`PREFIX`].
pub fn find(method: &Method, path: &str) -> Option<&'static Change> {
    if reads_by_method(method) {
        return None;
    }
    let path = path.strip_prefix(PREFIX)?;
    CHANGES.iter().find(|change| change.line.split_once(' ') == Some((method.as_str(), path)))
}

/// Whether a token that may only read may ask this. A route that is in no list counts as one that changes something.
pub fn is_read(method: &Method, path: &str) -> bool {
    let asked = (method.as_str(), path.strip_prefix(PREFIX).unwrap_or(path));
    reads_by_method(method) || READS.iter().any(|line| line.split_once(' ') == Some(asked))
}

fn reads_by_method(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

impl Kind {
    /// The word for it in a subject, as in `template:5`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Action => "action",
            Kind::Aggregator => "aggregator",
            Kind::Case => "alarm",
            Kind::Exception => "exception",
            Kind::Expression => "expression",
            Kind::Graph => "graph",
            Kind::Group => "hostgroup",
            Kind::Host | Kind::Hosts => "host",
            Kind::Job => "job",
            Kind::Nodata => "nodata",
            Kind::Plugin => "plugin",
            Kind::Portal => "portal",
            Kind::Probe => "probe",
            Kind::Screen => "screen",
            Kind::Series => "series",
            Kind::Strategy => "strategy",
            Kind::Team => "team",
            Kind::Template => "template",
            Kind::Token => "token",
            Kind::User => "user",
        }
    }
}
