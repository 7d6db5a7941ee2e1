//! Who may change what: each route that changes something, as each kind of caller, under both settings.

use super::{Site, site};
use crate::api::changes;
use crate::config::Rights;
use crate::portal::action::{self, Action};
use crate::portal::aggregator::{self, Aggregator};
use crate::portal::dashboard::{self, Graph};
use crate::portal::exception::{self, Exception};
use crate::portal::expression::{self, Expression};
use crate::portal::job::{self, Job};
use crate::portal::mock::{self, Mock};
use crate::portal::probe::{self, Probe};
use crate::portal::strategy::{self, Strategy};
use crate::portal::template::{self, Template};
use crate::portal::token::{self, NewToken, Scopes};
use crate::portal::user::{self, Profile};
use crate::portal::{Portal, db, group, host, plugin, team};
use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Callers by the letter that stands for them: nobody, a stranger, the owner, a member of a team of the owner's, and an
/// administrator.
const CALLERS: [(char, &str); 5] = [('n', ""), ('s', "bob"), ('o', "alice"), ('m', "carol"), ('a', "root")];

/// Rows of alice's, made anew for each question.
struct Things {
    /// Differs from question to question.
    number: usize,
    caller: &'static str,
    host: String,
    host_id: i64,
    group: i64,
    /// A group with nothing in it.
    empty_group: i64,
    /// A group of the caller's.
    own_group: i64,
    plugin: i64,
    template: Template,
    strategy: i64,
    exception: i64,
    expression: i64,
    aggregator: i64,
    probe: i64,
    nodata: i64,
    screen: i64,
    graph: i64,
    team: i64,
    alice: i64,
    /// A user who is nobody else.
    user: i64,
    /// A token of alice's.
    token: i64,
    job: i64,
    /// The token of that job.
    job_token: String,
    case: String,
}

/// A route: who may use it under "strict" and under "open-falcon", and a question that works for whoever may.
struct Route {
    line: &'static str,
    strict: &'static str,
    open_falcon: &'static str,
    body: fn(&Things) -> Value,
}

const fn route(
    line: &'static str,
    strict: &'static str,
    open_falcon: &'static str,
    body: fn(&Things) -> Value,
) -> Route {
    Route { line, strict, open_falcon, body }
}

/// All routes with another method than GET. docs/compat.md has the same for people.
const ROUTES: &[Route] = &[
    route("POST /user/login", "nsoma", "nsoma", |_| json!({ "name": "alice", "password": "alice-pw" })),
    route("POST /user/create", "a", "a", new_user),
    route("PUT /user/update", "soma", "soma", |_| profile()),
    route("PUT /user/u/{uid}", "oa", "oa", |_| profile()),
    route("PUT /user/cgpasswd", "soma", "soma", |t| {
        let password = format!("{}-pw", t.caller);
        json!({ "old_password": password, "new_password": password })
    }),
    route("POST /admin/login", "a", "a", |_| json!({ "name": "alice" })),
    route("PUT /admin/change_user_role", "a", "a", |t| json!({ "user_id": t.user, "admin": "yes" })),
    route("PUT /admin/change_user_passwd", "a", "a", |t| json!({ "user_id": t.user, "password": "p" })),
    route("PUT /admin/change_user_profile", "a", "a", |t| json!({ "user_id": t.user, "cnname": "C", "email": "e@x" })),
    route("DELETE /admin/delete_user", "a", "a", |t| json!({ "user_id": t.user })),
    route("POST /token", "soma", "soma", |t| json!({ "name": format!("new {}", t.number), "scopes": ["read"] })),
    route("DELETE /token/{id}", "oa", "oa", |_| Value::Null),
    route("POST /team", "soma", "soma", |t| json!({ "team_name": format!("new {}", t.number) })),
    route("PUT /team", "oma", "oma", |t| json!({ "team_id": t.team, "resume": "r" })),
    route("POST /team/user", "oma", "oma", |t| json!({ "team_id": t.team, "users": ["root"] })),
    route("DELETE /team/{team_id}", "oa", "oa", |_| Value::Null),
    route(
        "POST /host/maintain",
        "oma",
        "soma",
        |t| json!({ "hosts": [t.host], "maintain_begin": 1, "maintain_end": 2 }),
    ),
    route("DELETE /host/maintain", "oma", "soma", |t| json!({ "ids": [t.host_id] })),
    route("DELETE /host/{id}", "oma", "soma", |_| Value::Null),
    route("POST /hostgroup", "soma", "soma", |t| json!({ "name": format!("new {}", t.number) })),
    route("PUT /hostgroup", "oma", "soma", |t| json!({ "id": t.group, "grp_name": format!("renamed {}", t.number) })),
    route("DELETE /hostgroup/{id}", "oma", "oa", |_| Value::Null),
    route("POST /hostgroup/host", "oma", "oa", |t| json!({ "hostgroup_id": t.group, "hosts": [t.host, "new"] })),
    route("PUT /hostgroup/host", "oma", "oa", |t| json!({ "hostgroup_id": t.group, "host_id": t.host_id })),
    route("PATCH /hostgroup/{id}/host", "oma", "oa", |t| json!({ "action": "remove", "hosts": [t.host] })),
    route("POST /hostgroup/template", "oma", "soma", |t| json!({ "grp_id": t.empty_group, "tpl_id": t.template.id })),
    route("PUT /hostgroup/template", "oma", "oa", |t| json!({ "grp_id": t.group, "tpl_id": t.template.id })),
    route("POST /plugin", "oma", "oa", |t| json!({ "hostgroup_id": t.group, "dir_path": "sys" })),
    route("DELETE /plugin/{id}", "oma", "oa", |_| Value::Null),
    route("POST /template", "soma", "soma", |t| json!({ "name": format!("new {}", t.number) })),
    route(
        "PUT /template",
        "oma",
        "oa",
        |t| json!({ "tpl_id": t.template.id, "name": format!("renamed {}", t.number) }),
    ),
    route("DELETE /template/{tpl_id}", "oma", "soma", |_| Value::Null),
    route("POST /template/action", "oma", "soma", |t| json!({ "tpl_id": t.template.id })),
    route("PUT /template/action", "oma", "soma", |t| json!({ "id": t.template.action_id })),
    route("POST /strategy", "oma", "soma", |t| with(rule(), json!({ "tpl_id": t.template.id }))),
    route("PUT /strategy", "oma", "soma", |t| with(rule(), json!({ "id": t.strategy }))),
    route("DELETE /strategy/{sid}", "oma", "soma", |_| Value::Null),
    route(
        "POST /exception",
        "oma",
        "soma",
        |t| json!({ "strategy_id": t.strategy, "kind": "host", "target": format!("h {}", t.number).replace(' ', "-"), "pause": 1 }),
    ),
    route("PUT /exception/{id}", "oma", "soma", |_| json!({ "pause": 1 })),
    route("DELETE /exception/{id}", "oma", "soma", |_| Value::Null),
    route("POST /strategy/replay", "soma", "soma", |_| with(rule(), json!({ "hosts": ["*"] }))),
    route("POST /expression", "soma", "soma", |_| of_expression(json!({}))),
    route("PUT /expression", "oma", "oa", |t| of_expression(json!({ "id": t.expression }))),
    route("DELETE /expression/{eid}", "oma", "oa", |_| Value::Null),
    route("POST /aggregator", "oma", "oa", |t| with(new_aggregator(), json!({ "hostgroup_id": t.group }))),
    route("PUT /aggregator", "oma", "oa", |t| with(new_aggregator(), json!({ "id": t.aggregator }))),
    route("DELETE /aggregator/{id}", "oma", "oa", |_| Value::Null),
    // Redirects.
    route("POST /nodata", "nsoma", "nsoma", |_| Value::Null),
    route("PUT /nodata", "nsoma", "nsoma", |_| Value::Null),
    route("POST /nodata/", "soma", "soma", |t| with(new_nodata(), json!({ "name": format!("new {}", t.number) }))),
    route("PUT /nodata/", "oma", "soma", |t| with(new_nodata(), json!({ "id": t.nodata }))),
    route("DELETE /nodata/{nid}", "oma", "soma", |_| Value::Null),
    route("POST /probe", "soma", "soma", |t| with(new_probe(), json!({ "name": format!("new {}", t.number) }))),
    route("PUT /probe/{id}", "oma", "oa", |_| json!({ "pause": 1 })),
    route("DELETE /probe/{id}", "oma", "oa", |_| Value::Null),
    route("POST /probe/test", "soma", "soma", |_| new_probe()),
    route("POST /job", "soma", "soma", |t| job_named(&format!("new-{}", t.number))),
    route("PUT /job/{id}", "oa", "oa", |t| job_named(&format!("changed-{}", t.number))),
    route("PUT /job/{id}/token", "oa", "oa", |_| Value::Null),
    route("DELETE /job/{id}", "oa", "oa", |_| Value::Null),
    route("POST /heartbeat/{token}", "nsoma", "nsoma", |_| Value::Null),
    route("POST /heartbeat/{token}/{event}", "nsoma", "nsoma", |_| Value::Null),
    route("POST /dashboard/screen", "soma", "soma", |t| json!({ "name": format!("new {}", t.number) })),
    route("PUT /dashboard/screen/{screen_id}", "soma", "soma", |_| json!({ "pid": 0 })),
    route("DELETE /dashboard/screen/{screen_id}", "soma", "soma", |_| Value::Null),
    route(
        "POST /dashboard/graph",
        "soma",
        "soma",
        |t| json!({ "screen_id": t.screen, "title": "t", "endpoints": ["h"], "counters": ["c"] }),
    ),
    route("PUT /dashboard/graph/{id}", "soma", "soma", |_| json!({ "title": "t" })),
    route("DELETE /dashboard/graph/{id}", "soma", "soma", |_| Value::Null),
    route("POST /dashboard/tmpgraph", "soma", "soma", |_| json!({ "endpoints": ["h"], "counters": ["c"] })),
    route("POST /grafana/render", "nsoma", "nsoma", |_| json!({ "target": ["h#c"], "from": 1, "until": 2 })),
    route("DELETE /graph/endpoint", "a", "soma", |_| json!(["none"])),
    route("DELETE /graph/counter", "a", "soma", |_| json!({ "endpoints": ["none"], "counters": ["none"] })),
    route(
        "POST /graph/history",
        "soma",
        "soma",
        |_| json!({ "hostnames": ["none"], "counters": ["none"], "consol_fun": "AVERAGE", "start_time": 1, "end_time": 2 }),
    ),
    route("POST /graph/lastpoint", "soma", "soma", |_| json!([])),
    route("POST /apply", "a", "a", |_| json!({ "files": {}, "kinds": [] })),
    route("POST /alarm/eventcases", "soma", "soma", |t| json!({ "event_id": t.case })),
    route("POST /alarm/events", "soma", "soma", |t| json!({ "event_id": t.case })),
    route(
        "POST /alarm/event_note",
        "soma",
        "soma",
        |t| json!({ "event_id": t.case, "note": "n", "status": "comment" }),
    ),
    // Rows of others that a stranger must not get at by a way around.
    route("POST /probe group", "oma", "oa", |t| {
        with(
            new_probe(),
            json!({ "name": format!("new {}", t.number), "from": { "group": format!("group {}", t.number) } }),
        )
    }),
    route("POST /probe/test id", "oma", "oa", |t| with(new_probe(), json!({ "id": t.probe }))),
    route("POST /probe host", "oma", "soma", |t| with(new_probe(), json!({ "name": t.host }))),
    route(
        "POST /template action_id",
        "oma",
        "soma",
        |t| json!({ "name": format!("copy {}", t.number), "action_id": t.template.action_id }),
    ),
    route("POST /hostgroup/host his own", "oma", "soma", |t| json!({ "hostgroup_id": t.own_group, "hosts": [t.host] })),
    route("PATCH /hostgroup/{id}/host his own", "oma", "soma", |t| json!({ "action": "add", "hosts": [t.host] })),
    route("DELETE /strategy/{sid} unknown", "soma", "soma", |_| Value::Null),
    route(
        "POST /host/maintain free",
        "a",
        "soma",
        |_| json!({ "hosts": ["free"], "maintain_begin": 1, "maintain_end": 2 }),
    ),
];

fn with(mut value: Value, change: Value) -> Value {
    for (key, changed) in change.as_object().into_iter().flatten() {
        value[key] = changed.clone();
    }
    value
}

fn profile() -> Value {
    json!({ "cnname": "C", "email": "e@x" })
}

fn new_user(things: &Things) -> Value {
    with(profile(), json!({ "name": format!("new {}", things.number), "password": "p" }))
}

fn rule() -> Value {
    json!({ "metric": "m", "func": "all(#1)", "op": ">", "right_value": "1", "max_step": 1, "priority": 1 })
}

fn new_aggregator() -> Value {
    json!({ "numerator": "$(a)", "denominator": "$#", "endpoint": "e", "metric": "m", "step": 60 })
}

/// A probe that the server's policy denies at once.
fn new_probe() -> Value {
    json!({ "name": "p", "kind": "icmp", "target": "127.0.0.1" })
}

fn new_nodata() -> Value {
    json!({ "obj": "h", "obj_type": "host", "metric": "m", "dstype": "GAUGE", "step": 60, "mock": -1 })
}

fn job_named(name: &str) -> Value {
    json!({ "name": name, "period": 60 })
}

fn of_expression(change: Value) -> Value {
    with(with(rule(), json!({ "expression": "each(metric=m a=b)", "action": { "uic": [] } })), change)
}

/// The site of [`site`] with carol, who is in the team crew with alice; root made the team.
async fn with_crew(rights: Rights) -> Result<Site> {
    let site = site(|config| config.api.rights = rights).await?;
    let portal = &site.context.portal;
    let hash = crate::portal::password::hash("carol-pw").await?;
    let carol = user::create(portal, "carol", &hash, &Profile::default(), user::NORMAL, 0).await?;
    team::create(portal, "crew", "", id_of(portal, "root").await?, &[id_of(portal, "alice").await?, carol]).await?;
    let free = group::create(portal, "to make a host", "root").await?;
    group::add_hosts(portal, free.id, vec!["free".to_string()]).await?;
    group::delete(portal, free.id).await?;
    Ok(site)
}

async fn id_of(portal: &Portal, name: &str) -> Result<i64> {
    Ok(user::by_name(portal, name).await?.context("made with the site")?.id)
}

async fn things(portal: &Portal, number: usize, caller: &'static str) -> Result<Things> {
    let name = |kind: &str| format!("{kind} {number}");
    let (alice, carol) = (id_of(portal, "alice").await?, id_of(portal, "carol").await?);
    let group = group::create(portal, &name("group"), "alice").await?.id;
    let empty_group = group::create(portal, &name("empty"), "alice").await?.id;
    let own_group = group::create(portal, &name("own"), caller).await?.id;
    let host = name("host");
    let hosts = group::replace_hosts(portal, group, std::slice::from_ref(&host)).await?.context("room")?;
    let template = template::create(portal, &name("template"), 0, 0, "alice").await?;
    group::bind_template(portal, group, template.id, "alice").await?;
    action::save_for_template(portal, &Action::default(), template.id).await?;
    let template = template::by_id(portal, template.id).await?.context("just made")?;
    let strategy = strategy::create(portal, &Strategy { tpl_id: template.id, ..Strategy::default() }).await?;
    let of_a_host =
        Exception { strategy_id: strategy, kind: "host".into(), target: "h".into(), ..Exception::default() };
    let exception = exception::create(portal, of_a_host).await?.id;
    let expression = Expression { create_user: "alice".to_string(), ..Expression::default() };
    expression::create(portal, &expression, &Action::default()).await?;
    let expression = expression::all(portal).await?.last().context("just made")?.id;
    team::create(portal, &name("team"), "", alice, &[carol]).await?;
    let team = team::by_name(portal, &name("team")).await?.context("just made")?.id;
    let of_alice = Aggregator { grp_id: group, creator: "alice".to_string(), ..Aggregator::default() };
    let of_a_group = Probe {
        name: name("probe"),
        definition: with(new_probe(), json!({ "name": name("probe") })).to_string(),
        grp_id: group,
        create_user: "alice".to_string(),
        ..Probe::default()
    };
    let mock = Mock { name: name("nodata"), creator: "alice".to_string(), ..Mock::default() };
    let screen = dashboard::ensure_screen(portal, 0, &name("screen")).await?.0.id;
    let case = name("case");
    let (scopes, created_by) = (Scopes::NONE, String::new());
    for old in token::list(portal, Some(alice)).await? {
        token::delete(portal, old.id).await?;
    }
    let of_alice_too = Job { name: name("job"), period: 60, create_user: "alice".to_string(), ..Job::default() };
    let (job, job_token) = job::create(portal, &of_alice_too).await?.context("room")?;
    let token = NewToken { name: name("token"), uid: alice, scopes, created_by, expires_at: 0 };
    db::query(
        "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp)
         VALUES (?, 'e', 'm', 'c', 0, 'PROBLEM', '2020-01-01 00:00:00')",
    )
    .bind(&case)
    .execute(portal)
    .await?;
    Ok(Things {
        number,
        caller,
        host,
        host_id: hosts[0],
        group,
        empty_group,
        own_group,
        plugin: plugin::create(portal, group, "sys/ntp", "alice").await?.id,
        template,
        strategy,
        exception,
        expression,
        aggregator: aggregator::create(portal, of_alice).await?.id,
        probe: probe::create(portal, of_a_group).await?.map_err(|refusal| anyhow!("{refusal:?}"))?.id,
        nodata: mock::create(portal, mock).await?.id,
        screen,
        graph: dashboard::create_graph(portal, &Graph { screen_id: screen, ..Graph::default() }).await?,
        team,
        alice,
        user: user::create(portal, &name("user"), "", &Profile::default(), user::NORMAL, 0).await?,
        case,
        job,
        job_token,
        token: token::create(portal, &token, 0).await?.context("room")?.0,
    })
}

/// The method and path of a route, with the ids of its things.
fn line_of(route: &Route, things: &Things) -> String {
    let mut parts = route.line.splitn(3, ' ');
    let (method, path, note) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    let group = if note == Some("his own") { things.own_group } else { things.group };
    let strategy = if note == Some("unknown") { 999_999 } else { things.strategy };
    let of_kinds = [
        ("/hostgroup/", group),
        ("/exception/", things.exception),
        ("/aggregator/", things.aggregator),
        ("/probe/", things.probe),
        ("/dashboard/graph/", things.graph),
        ("/token/", things.token),
        ("/job/", things.job),
    ];
    let path = of_kinds
        .into_iter()
        .fold(path.to_string(), |path, (kind, id)| path.replace(&format!("{kind}{{id}}"), &format!("{kind}{id}")));
    let ids = [
        ("{uid}", things.alice),
        ("{team_id}", things.team),
        ("{id}", things.plugin),
        ("{tpl_id}", things.template.id),
        ("{sid}", strategy),
        ("{eid}", things.expression),
        ("{nid}", things.nodata),
        ("{screen_id}", things.screen),
    ];
    let path = path.replace("{token}", &things.job_token).replace("{event}", "start");
    let path = ids.into_iter().fold(path, |path, (name, id)| path.replace(name, &id.to_string()));
    format!("{method} {path}")
}

/// Asks; a redirect counts as a success.
async fn ask(site: &Site, caller: &str, line: &str, body: Value) -> Result<(u16, Value)> {
    let token = if caller.is_empty() { Value::Null } else { site.token(caller).await?.into() };
    let token = token.as_str().map(|token| ("apitoken", token.to_string()));
    let headers: Vec<_> = [("content-type", "application/json".to_string())].into_iter().chain(token).collect();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, text) = site.send_for_text(line, &headers, body).await?;
    match status {
        307 => Ok((200, Value::Null)),
        _ => Ok((status, serde_json::from_str(&text)?)),
    }
}

async fn check(rights: Rights, who: fn(&Route) -> &'static str) -> Result<()> {
    let site = with_crew(rights).await?;
    let portal = &site.context.portal;
    let mut number = 1_000;
    for route in ROUTES {
        for (letter, caller) in CALLERS {
            number += 1;
            let things = things(portal, number, caller).await?;
            let line = line_of(route, &things);
            let before = portal.version();
            let (status, answer) = ask(&site, caller, &line, (route.body)(&things)).await?;
            let error = answer["error"].as_str().unwrap_or_default();
            if who(route).contains(letter) {
                assert_eq!(status, 200, "{line} as {caller:?} must be allowed: {answer}");
                continue;
            }
            let is_told = ["permission", "token", "sign up is disabled", "record not found", "no permissions"];
            let is_told = is_told.iter().any(|part| error.contains(part)) || error.contains("no such permission");
            assert!(matches!(status, 400 | 401 | 417) && is_told, "{line} as {caller:?}: {status} {answer}");
            assert_eq!(portal.version(), before, "{line} as {caller:?} was refused, and changed something");
        }
    }
    Ok(())
}

#[tokio::test]
async fn strict() -> Result<()> {
    check(Rights::Strict, |route| route.strict).await
}

#[tokio::test]
async fn open_falcon() -> Result<()> {
    check(Rights::OpenFalcon, |route| route.open_falcon).await
}

#[test]
fn sqlite_is_strict_unless_said_otherwise() {
    let mut config = crate::config::Config::default();
    assert!(config.is_strict());
    config.api.rights = Rights::OpenFalcon;
    assert!(!config.is_strict());
}

/// The routes of the router, read from how it shows itself, since it has no list.
#[tokio::test]
async fn each_route_that_changes_something_is_here() -> Result<()> {
    let site = site(|_| {}).await?;
    let shown = format!("{:?}", site.router);
    let shown = shown.split("fallback_router").next().unwrap_or_default();
    let paths = regex::Regex::new(r#"RouteId\((\d+)\): "/api/v1([^"]*)""#)?;
    let methods = regex::Regex::new(
        r#"RouteId\((\d+)\): MethodRouter\(MethodRouter \{.*?allow_header: (\w+)(?:\(b"([A-Z,]*)"\))?"#,
    )?;
    let methods: std::collections::HashMap<&str, String> = methods
        .captures_iter(shown)
        .map(|found| {
            let list = found.get(3).map_or(&found[2], |list| list.as_str());
            (found.get(1).map_or("", |id| id.as_str()), list.to_string())
        })
        .collect();
    let mut routes = BTreeSet::new();
    for found in paths.captures_iter(shown) {
        let list = methods.get(&found[1]).with_context(|| format!("no methods of {}", &found[2]))?;
        let changing = list.split(',').filter(|method| !matches!(*method, "GET" | "HEAD"));
        routes.extend(changing.map(|method| format!("{method} {}", &found[2])));
    }
    assert!(routes.len() > 40, "how the router shows itself has changed: {shown}");
    let known: BTreeSet<String> = ROUTES.iter().map(|route| route.line.to_string()).collect();
    let unknown: Vec<&String> = routes.difference(&known).collect();
    assert!(unknown.is_empty(), "who may use these? say so in ROUTES, and in docs/compat.md: {unknown:?}");
    let listed = changes::CHANGES.iter().map(|change| change.line).chain(changes::READS.iter().copied());
    let listed: BTreeSet<String> = listed.map(str::to_string).collect();
    assert_eq!(routes, listed, "api/changes.rs says of each what it changes, or that it changes nothing");
    let gone: Vec<&String> = known.difference(&routes).filter(|line| line.matches(' ').count() == 1).collect();
    assert!(gone.is_empty(), "these are no routes: {gone:?}");
    Ok(())
}

/// Which teams make their members owners, and which do not.
#[tokio::test]
async fn teams_that_own() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let (root, alice, bob) = (id_of(portal, "root").await?, id_of(portal, "alice").await?, id_of(portal, "bob").await?);
    let of_alice = template::create(portal, "alice's", 0, 0, "alice").await?.id;
    let of_root = template::create(portal, "root's", 0, 0, "root").await?.id;
    let may = async |tpl_id: i64, number: usize| -> Result<bool> {
        let rename = json!({ "tpl_id": tpl_id, "name": format!("renamed {tpl_id} {number}") });
        Ok(site.ask("bob", "PUT /template", rename).await?.0 == 200)
    };
    let check = async |creator: i64, members: &[i64], alices: bool, roots: bool| -> Result<()> {
        team::create(portal, "t", "", creator, members).await?;
        let got = (may(of_alice, 1).await?, may(of_root, 1).await?);
        assert_eq!(got, (alices, roots), "a team of {creator} with {members:?}");
        let id = team::by_name(portal, "t").await?.context("just made")?.id;
        team::delete(portal, id).await?;
        Ok(())
    };
    check(alice, &[bob], true, false).await?;
    check(root, &[alice, bob], true, false).await?;
    check(root, &[bob], false, false).await?;
    check(root, &[root, bob], false, false).await?;
    check(bob, &[alice, bob], false, false).await?;
    check(bob, &[root, bob], false, false).await?;
    check(alice, &[], false, false).await?;
    // The team that an action tells.
    team::create(portal, "told", "", root, &[bob]).await?;
    action::save_for_template(portal, &Action { uic: "x, Told".into(), ..Action::default() }, of_root).await?;
    assert!(may(of_root, 2).await?);
    // When it is gone, nobody else takes its name, its alarms and its rights.
    let told = team::by_name(portal, "told").await?.context("just made")?.id;
    let (_, answer) = site.ask("root", &format!("DELETE /team/{told}"), Value::Null).await?;
    let warning = "actions still tell the team \"told\", so these alarms reach nobody: name another in them";
    assert_eq!(answer["warning"], warning);
    assert!(!may(of_root, 3).await?);
    let taken = "team_name: actions tell a team \"TOLD\" that is gone: ask an administrator to make it";
    site.check("bob", "POST /team", json!({ "team_name": "TOLD", "users": [bob] }), 400, taken).await?;
    let new = json!({ "team_name": "other", "users": [bob] });
    assert_eq!(site.ask("bob", "POST /team", new).await?.0, 200);
    let other = team::by_name(portal, "other").await?.context("just made")?.id;
    let taken = "name: actions tell a team \"told\" that is gone: ask an administrator to make it";
    site.check("bob", "PUT /team", json!({ "team_id": other, "name": "told" }), 400, taken).await?;
    assert_eq!(site.ask("root", "POST /team", json!({ "team_name": "told" })).await?.0, 200);
    Ok(())
}

/// A member of a group's team may do what its owner may; what lies in a group of others stays theirs.
#[tokio::test]
async fn hosts_are_of_those_whose_groups_they_are_in() -> Result<()> {
    let site = with_crew(Rights::Strict).await?;
    let portal = &site.context.portal;
    let things = things(portal, 1, "bob").await?;
    let own = group::create(portal, "bob's", "bob").await?.id;
    let put = |hosts: Value| json!({ "hostgroup_id": own, "hosts": hosts });
    let (status, _) = site.ask("bob", "POST /hostgroup/host", put(json!(["new", things.host.to_uppercase()]))).await?;
    assert_eq!(status, 400);
    assert_eq!(host::of_group(portal, own).await?.len(), 0, "all or nothing");
    assert_eq!(site.ask("bob", "POST /hostgroup/host", put(json!(["new", "free"]))).await?.0, 200);
    let window = |hosts: Value| json!({ "hosts": hosts, "maintain_begin": 1, "maintain_end": 2 });
    let sites = group::create(portal, "the site's", "root").await?.id;
    group::add_hosts(portal, sites, vec!["db-01".to_string()]).await?;
    let may_maintain = async |host: &str| -> Result<bool> {
        Ok(site.ask("bob", "POST /host/maintain", window(json!([host]))).await?.0 == 200)
    };
    // Who is told of a host's alarms may set its maintenance.
    team::create(portal, "told", "", id_of(portal, "bob").await?, &[id_of(portal, "bob").await?]).await?;
    let told = Action { uic: "told".into(), ..Action::default() };
    let of_root = template::create(portal, "root's", 0, 0, "root").await?.id;
    action::save_for_template(portal, &told, of_root).await?;
    assert!(!may_maintain("db-01").await?);
    group::bind_template(portal, sites, of_root, "root").await?;
    assert!(may_maintain("db-01").await?);
    // The owner of a template that somebody else uses gets no right to that host.
    let of_bob = template::create(portal, "bob's", 0, 0, "bob").await?.id;
    action::save_for_template(portal, &told, of_bob).await?;
    group::bind_template(portal, things.group, of_bob, "alice").await?;
    assert!(!may_maintain(&things.host).await?);
    // What an administrator puts there stays when the list is sent again, and is still maintained by the other's owner.
    group::add_hosts(portal, own, vec![things.host.clone()]).await?;
    assert!(may_maintain("free").await? && !may_maintain(&things.host).await?);
    assert_eq!(site.ask("bob", "POST /host/maintain", window(json!([things.host, "free"]))).await?.0, 400);
    assert_eq!(site.ask("bob", "POST /hostgroup/host", put(json!([things.host, "free", "newer"]))).await?.0, 200);
    Ok(())
}

/// A host that a stranger claimed while it was in no group is not his once somebody else has it in a group too.
#[tokio::test]
async fn who_claims_a_host_before_others_cannot_silence_it() -> Result<()> {
    let site = with_crew(Rights::Strict).await?;
    let portal = &site.context.portal;
    let claimed = group::create(portal, "bob's", "bob").await?.id;
    let put = json!({ "hostgroup_id": claimed, "hosts": ["db-master"] });
    assert_eq!(site.ask("bob", "POST /hostgroup/host", put).await?.0, 200);
    let window = json!({ "hosts": ["db-master"], "maintain_begin": 1, "maintain_end": 4_000_000_000_u32 });
    assert_eq!(site.ask("bob", "POST /host/maintain", window.clone()).await?.0, 200, "nobody else has it");
    let prod = group::create(portal, "prod", "root").await?.id;
    let put = json!({ "hostgroup_id": prod, "hosts": ["db-master"] });
    assert_eq!(site.ask("root", "POST /hostgroup/host", put).await?.0, 200);
    let host_id = host::of_group(portal, prod).await?[0].id;
    let by_id = json!({ "ids": [host_id], "maintain_begin": 1, "maintain_end": 4_000_000_000_u32 });
    let denied = "You don't have permission! Who may change all groups that a host is in, or an administrator, may do \
                  this (api.rights = \"strict\").";
    for body in [window.clone(), by_id] {
        site.check("bob", "POST /host/maintain", body, 400, denied).await?;
    }
    site.check("bob", "DELETE /host/maintain", json!({ "hosts": ["DB-master"] }), 400, denied).await?;
    assert_eq!(site.ask("root", "POST /host/maintain", window).await?.0, 200);
    // He may still put it where he likes: a group of his own has it.
    let other = group::create(portal, "bob's other", "bob").await?.id;
    let put = json!({ "hostgroup_id": other, "hosts": ["db-master"] });
    assert_eq!(site.ask("bob", "POST /hostgroup/host", put).await?.0, 200);
    Ok(())
}
