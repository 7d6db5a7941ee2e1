//! Host groups, hosts, plugins and teams: what the recordings do not show.

use super::{Site, site};
use crate::portal::db::query;
use crate::portal::tests::{fill, run};
use crate::portal::{group, host, team, user};
use anyhow::Result;
use serde_json::{Value, json};

/// A site with a group of alice's; returns its id.
async fn with_group() -> Result<(Site, i64)> {
    let site = site(|_| {}).await?;
    let group = group::create(&site.context.portal, "web", "alice").await?;
    Ok((site, group.id))
}

async fn members(site: &Site, id: i64) -> Result<Vec<String>> {
    Ok(host::of_group(&site.context.portal, id).await?.into_iter().map(|host| host.hostname).collect())
}

#[tokio::test]
async fn replacing_the_hosts_is_all_or_nothing() -> Result<()> {
    let (site, id) = with_group().await?;
    let hosts = |hosts: Value| json!({ "hostgroup_id": id, "hosts": hosts });
    let line = "POST /hostgroup/host";
    assert_eq!(site.ask("alice", line, hosts(json!(["a", "b", "B"]))).await?.0, 200);
    assert_eq!(members(&site, id).await?, ["a", "b"], "a name counts once, whatever its case");
    for (wrong, text) in [
        (json!(["c", ""]), "hosts[1] is empty"),
        (json!(["c", "x".repeat(256)]), "hosts[1] is longer than 255 characters"),
        (json!("c"), "hosts must be a list of texts, got \"c\""),
        (Value::Null, "hosts is required: a list of host names"),
    ] {
        site.check("alice", line, hosts(wrong), 400, text).await?;
    }
    let insert = "INSERT INTO falcon_portal.host (hostname) SELECT 'h' || i";
    fill(&site.context.portal, insert, host::HOSTS_MAX - 2).await?;
    let full = "the table of hosts is full (100000 hosts): delete what no longer reports";
    site.check("alice", line, hosts(json!(["a", "new"])), 417, full).await?;
    assert_eq!(members(&site, id).await?, ["a", "b"], "nothing changed");
    let add = json!({ "action": "add", "hosts": ["h1", "new"] });
    site.check("alice", &format!("PATCH /hostgroup/{id}/host"), add, 417, full).await?;
    assert_eq!(members(&site, id).await?, ["a", "b"], "nothing changed");
    assert_eq!(site.ask("alice", line, hosts(json!([]))).await?.0, 200);
    assert!(members(&site, id).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn texts_are_data_and_never_sql() -> Result<()> {
    let (site, id) = with_group().await?;
    let text = "x')OR(1=1)--";
    let hosts = json!({ "hostgroup_id": id, "hosts": [text] });
    assert_eq!(site.ask("alice", "POST /hostgroup/host", hosts).await?.0, 200);
    assert_eq!(members(&site, id).await?, [text]);
    site.check("alice", "GET /user/name/'%20OR%20'1'='1", Value::Null, 417, "record not found").await?;
    assert_eq!(site.ask("alice", "GET /hostgroup?q='%20OR%20'1'='1", Value::Null).await?, (200, json!([])));
    Ok(())
}

#[tokio::test]
async fn what_the_original_takes_and_we_refuse() -> Result<()> {
    let (site, id) = with_group().await?;
    let plugin = |dir: &str| json!({ "hostgroup_id": id, "dir_path": dir });
    let outside = "dir_path must stay inside the plugin directory, got \"../etc\"";
    site.check("alice", "POST /plugin", plugin("../etc"), 400, outside).await?;
    let window = json!({ "hosts": ["a"], "maintain_begin": 20, "maintain_end": 10 });
    let text = "maintain_end is before maintain_begin: both are Unix seconds";
    site.check("alice", "POST /host/maintain", window, 400, text).await?;
    for (begin, end, text) in [
        (
            1,
            1_600_000_000_000_i64,
            "maintain_end is 1600000000000: give Unix seconds, not milliseconds, up to 4294967295",
        ),
        (-5, 7, "maintain_begin is -5: give Unix seconds, not milliseconds, up to 4294967295"),
    ] {
        let window = json!({ "hosts": ["a"], "maintain_begin": begin, "maintain_end": end });
        site.check("alice", "POST /host/maintain", window, 400, text).await?;
    }
    let comma = "team_name must not contain a comma: actions join team names by commas";
    site.check("alice", "POST /team", json!({ "team_name": "a,b" }), 400, comma).await?;
    let binding = json!({ "grp_id": id, "tpl_id": 99 });
    site.check("alice", "POST /hostgroup/template", binding, 400, "template: 99 ; record not found").await?;
    site.check("alice", "POST /hostgroup", json!({ "name": "<b>" }), 400, "name is invalid").await?;
    site.check("alice", "GET /hostgroup?q=(", Value::Null, 200, json!([])).await?;
    Ok(())
}

#[tokio::test]
async fn deleting_a_group_takes_its_bindings_along() -> Result<()> {
    let (site, id) = with_group().await?;
    let portal = &site.context.portal;
    group::bind_template(portal, id, 1, "alice").await?;
    assert_eq!(site.ask("alice", &format!("DELETE /hostgroup/{id}"), Value::Null).await?.0, 200);
    assert_eq!(group::bind_user(portal, id, 1).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_team_has_a_user_once_and_no_unknown_ones() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let alice = user::by_name(portal, "alice").await?.expect("made with the site").id;
    let new = json!({ "team_name": "ops", "users": [alice, alice, 999] });
    site.check("alice", "POST /team", new, 200, "team created! Afftect row: 1, Affect refer: 1").await?;
    let ops = team::by_name(portal, "OPS").await?.expect("created").id;
    let more = json!({ "team_id": ops, "users": ["alice", "bob", "ghost"] });
    site.check("alice", "POST /team/user", more, 200, "add successful").await?;
    let names: Vec<String> = team::members(portal, ops).await?.into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["alice", "bob"]);
    // A missing or empty list leaves the members; an empty name leaves the name.
    let keep = json!({ "team_id": ops, "name": "", "users": [] });
    site.check("bob", "PUT /team", keep, 200, "team updated!").await?;
    assert_eq!(team::members(portal, ops).await?.len(), 2);
    assert_eq!(team::by_id(portal, ops).await?.map(|team| team.name), Some("ops".to_string()));
    Ok(())
}

#[tokio::test]
async fn deleting_a_user_leaves_his_notes_and_takes_the_rest() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let bob = user::by_name(portal, "bob").await?.expect("made with the site").id;
    team::create(portal, "ops", "", bob, &[bob]).await?;
    let token = site.token("bob").await?;
    run(
        portal,
        "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp)
         VALUES ('s_1_a', 'e', 'm', 'c', 0, 'PROBLEM', '2020-01-01 00:00:00')",
    )
    .await?;
    query("INSERT INTO alarms.event_note (event_caseId, note, user_id) VALUES ('s_1_a', 'mine', ?)")
        .bind(bob)
        .execute(portal)
        .await?;
    let text = format!("user {bob} has been delete, affect row: 1");
    site.check("root", "DELETE /admin/delete_user", json!({ "user_id": bob }), 200, text).await?;
    let authors: Vec<Option<i64>> = query("SELECT user_id FROM alarms.event_note").all(portal).await?;
    assert_eq!(authors, [None]);
    let status = site.send("GET /user/current", &[("apitoken", token)], String::new()).await?.0;
    assert_eq!(status, 401);
    Ok(())
}

#[tokio::test]
async fn names_have_nothing_at_their_ends() -> Result<()> {
    let (site, id) = with_group().await?;
    let portal = &site.context.portal;
    let hosts = json!({ "hostgroup_id": id, "hosts": [" web-01\r", "web-02\n", "web-01"] });
    assert_eq!(site.ask("alice", "POST /hostgroup/host", hosts).await?.0, 200);
    assert_eq!(members(&site, id).await?, ["web-01", "web-02"]);
    let remove = json!({ "action": "remove", "hosts": ["web-02 "] });
    site.check("alice", &format!("PATCH /hostgroup/{id}/host"), remove, 200, "[web-02] unbind to hostgroup: web")
        .await?;
    let window = json!({ "hosts": ["web-01 "], "maintain_begin": 1, "maintain_end": 2 });
    site.check("alice", "POST /host/maintain", window, 200, "Through: hosts, Affect row: 1").await?;
    let (_, group) = site.ask("alice", "POST /hostgroup", json!({ "name": " db\t" })).await?;
    assert_eq!(group["grp_name"], "db");
    site.check("alice", "POST /hostgroup", json!({ "name": "\u{a0}db" }), 417, "grp_name \"db\" exists already")
        .await?;
    assert_eq!(site.ask("alice", "POST /team", json!({ "team_name": "ops " })).await?.0, 200);
    assert_eq!(team::by_name(portal, "ops").await?.map(|team| team.name).as_deref(), Some("ops"));
    let user = json!({ "name": " eve ", "password": " p ", "cnname": " Eve ", "email": " two@x , zwei@x ", "phone": "1, 2", "im": "a b,c" });
    assert_eq!(site.ask("root", "POST /user/create", user).await?.0, 200);
    let eve = user::by_name(portal, "eve").await?.expect("created");
    assert_eq!(
        [&eve.name, &eve.cnname, &eve.email, &eve.phone, &eve.im],
        ["eve", "Eve", "two@x,zwei@x", "1,2", "a b,c"]
    );
    let login = json!({ "name": "eve", "password": " p " });
    assert_eq!(site.ask("", "POST /user/login", login).await?.0, 200, "a password is taken as it is");
    let dir = json!({ "hostgroup_id": id, "dir_path": " sys/ntp\n" });
    assert_eq!(site.ask("alice", "POST /plugin", dir).await?.1["dir"], "sys/ntp");
    Ok(())
}

#[tokio::test]
async fn names_with_what_does_not_show_are_refused() -> Result<()> {
    let (site, id) = with_group().await?;
    let inside = |field: &str| format!("{field} has a line break as character 2 (U+000A): take it out");
    let hosts = json!({ "hostgroup_id": id, "hosts": ["ok", "a\nb"] });
    site.check("alice", "POST /hostgroup/host", hosts, 400, inside("hosts[1]")).await?;
    site.check("alice", "POST /hostgroup", json!({ "name": "a\nb" }), 400, inside("name")).await?;
    site.check("alice", "PUT /hostgroup", json!({ "id": id, "grp_name": "a\nb" }), 400, inside("grp_name")).await?;
    site.check("alice", "POST /team", json!({ "team_name": "a\nb" }), 400, inside("team_name")).await?;
    site.check("alice", "POST /team", json!({ "team_name": "a", "resume": "a\nb" }), 400, inside("resume")).await?;
    site.check("alice", "POST /team", json!({ "team_name": " " }), 400, "team_name is required").await?;
    site.check("alice", "POST /template", json!({ "name": "a\nb" }), 400, inside("name")).await?;
    let profile = |field: &str, text: &str| {
        let mut profile = json!({ "cnname": "C", "email": "e@x" });
        profile[field] = json!(text);
        profile
    };
    for field in ["cnname", "email", "phone", "im", "qq"] {
        site.check("alice", "PUT /user/update", profile(field, "a\nb"), 400, inside(field)).await?;
    }
    let zero = "cnname has a zero byte (U+0000): take it out";
    site.check("alice", "PUT /user/update", profile("cnname", "a\0"), 400, zero).await?;
    let address = "email: \"zwei\" is not like zhang@example.com; several are joined by commas";
    site.check("alice", "PUT /user/update", profile("email", "two@x,zwei"), 400, address).await?;
    let phone = "phone: \"138 0000\" is not like 13800000001; several are joined by commas";
    site.check("alice", "PUT /user/update", profile("phone", "138 0000"), 400, phone).await?;
    site.check("alice", "PUT /user/update", profile("email", " , "), 400, "email is required").await?;
    // A gateway of the site may take other receivers than addresses.
    let gateway = self::site(|config| config.alarm.mail = "http://gateway/".into()).await?;
    gateway.check("alice", "PUT /user/update", profile("email", "zhang,wang"), 200, "user info updated").await?;
    Ok(())
}

#[tokio::test]
async fn lists_and_patterns_are_no_hosts() -> Result<()> {
    let (site, id) = with_group().await?;
    for odd in ["a,b", "a;b", "web-*", "web 01", "a，b", &"机".repeat(86)] {
        let what = match odd.len() {
            258 => "is longer than 255 bytes",
            _ => "has a comma, a semicolon, a `*` or a blank in it",
        };
        let text = format!("hosts: {odd:?} {what}: list each host by itself, by its full name");
        let put = json!({ "hostgroup_id": id, "hosts": ["ok", odd] });
        site.check("alice", "POST /hostgroup/host", put, 400, text.as_str()).await?;
        let add = json!({ "action": "add", "hosts": ["ok", odd] });
        site.check("alice", &format!("PATCH /hostgroup/{id}/host"), add, 400, text.as_str()).await?;
    }
    assert!(members(&site, id).await?.is_empty());
    // One that has reported so is a host, and one that is in the group can leave.
    run(&site.context.portal, "INSERT INTO falcon_portal.host (hostname) VALUES ('web 01')").await?;
    let add = |action: &str| json!({ "action": action, "hosts": ["WEB 01"] });
    assert_eq!(site.ask("alice", &format!("PATCH /hostgroup/{id}/host"), add("add")).await?.0, 200);
    assert_eq!(members(&site, id).await?, ["web 01"]);
    assert_eq!(site.ask("alice", &format!("PATCH /hostgroup/{id}/host"), add("remove")).await?.0, 200);
    assert!(members(&site, id).await?.is_empty());
    Ok(())
}

/// What of a request did nothing is said, although the answer is that of the original.
#[tokio::test]
async fn what_does_nothing_is_named() -> Result<()> {
    let (site, id) = with_group().await?;
    let put = json!({ "hostgroup_id": id, "hosts": ["a"] });
    assert_eq!(site.ask("alice", "POST /hostgroup/host", put).await?.0, 200);
    let window = |hosts: Value, end: i64| json!({ "hosts": hosts, "maintain_begin": 5, "maintain_end": end });
    let (status, answer) = site.ask("alice", "POST /host/maintain", window(json!(["A", "web-1", "x"]), 5)).await?;
    let warning = "hosts: nothing was set for what is no host here: \"web-1\", \"x\"; maintain_begin and maintain_end \
                   are equal: the maintenance lasts one second";
    let expected = json!({ "message": "Through: hosts, Affect row: 1", "warning": warning });
    assert_eq!((status, answer), (200, expected));
    let (_, answer) = site.ask("alice", "DELETE /host/maintain", json!({ "ids": [1, 99] })).await?;
    assert_eq!(answer["warning"], "ids: nothing was set for what is no host here: \"99\"");
    site.check("alice", "POST /host/maintain", window(json!(["a"]), 6), 200, "Through: hosts, Affect row: 1").await?;

    let alice = user::by_name(&site.context.portal, "alice").await?.expect("made with the site").id;
    let new = json!({ "team_name": "ops", "users": [alice, 998, 999] });
    let (status, answer) = site.ask("alice", "POST /team", new).await?;
    let expected = json!({ "message": "team created! Afftect row: 1, Affect refer: 1",
                           "warning": "users: there is no user of the id \"998\", \"999\"" });
    assert_eq!((status, answer), (200, expected));
    let team = team::by_name(&site.context.portal, "ops").await?.expect("just made").id;
    let (_, answer) = site.ask("alice", "PUT /team", json!({ "team_id": team, "users": [alice, 998] })).await?;
    assert_eq!(answer, json!({ "message": "team updated!", "warning": "users: there is no user of the id \"998\"" }));
    let (_, answer) = site.ask("alice", "POST /team/user", json!({ "team_id": team, "users": ["Bob", "bbo"] })).await?;
    assert_eq!(answer, json!({ "message": "add successful", "warning": "users: there is no user named \"bbo\"" }));
    Ok(())
}

#[tokio::test]
async fn hosts_are_listed_sorted_and_deleted() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let group = group::create(portal, "web", "alice").await?.id;
    let other = group::create(portal, "db", "alice").await?.id;
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    group::replace_hosts(portal, group, &names(&["web-02", "web-01", "web-03"])).await?;
    group::replace_hosts(portal, other, &names(&["db-01"])).await?;
    let now = crate::clock::now();
    for (name, ip) in [("web-01", "10.0.0.1"), ("db-01", "10.1.0.1")] {
        let (ip, agent_version) = (ip.to_string(), "7.0".to_string());
        let facts = host::AgentFacts { ip, agent_version, plugin_version: String::new() };
        host::report(portal, name, &facts, now).await?;
        let key = model::SeriesKey { endpoint: name, metric: "m", tags: model::Tags::EMPTY };
        let series = site.context.engine.create(key, model::CounterType::Gauge, 60, now);
        let series = series.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let sample = model::Sample { series, point: model::Point { time: now, value: 1.0 } };
        let appended = site.context.engine.append(&[sample], now, std::time::Instant::now());
        appended.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    }
    host::maintain(portal, &host::Selection::Names(names(&["web-03"])), now - 60, now + 600).await?;
    let check = async |query: &str, expected: &[&str]| -> Result<()> {
        let (status, hosts) = site.ask("bob", &format!("GET /host{query}"), Value::Null).await?;
        let got: Vec<_> = hosts.as_array().into_iter().flatten().filter_map(|host| host["hostname"].as_str()).collect();
        assert_eq!((status, got.as_slice()), (200, expected), "{query}");
        Ok(())
    };
    check("", &["web-02", "web-01", "web-03", "db-01"]).await?;
    check("?sort=hostname", &["db-01", "web-01", "web-02", "web-03"]).await?;
    check("?sort=-hostname&page=2&limit=3", &["db-01"]).await?;
    check("?q=^web&sort=hostname", &["web-01", "web-02", "web-03"]).await?;
    check(&format!("?group={other}"), &["db-01"]).await?;
    check("?ip=10.0.", &["web-01"]).await?;
    check("?agent_version=7.0&sort=-ip", &["db-01", "web-01"]).await?;
    let clocks = &site.context.engine.intake().clocks;
    for (name, offset) in [("web-01", -90), ("db-01", 40)] {
        clocks.note_offset(site.context.engine.store().endpoint_place(name).expect("awake"), offset);
    }
    // All its points were refused, so it has no series.
    let mut odd = crate::engine::oddities::Met::default();
    odd.add_ahead("web-02", 3600);
    site.context.engine.oddities().note_all(odd, None, now);
    check("?clock_offset_min=30&sort=-clock_offset", &["web-02", "web-01", "db-01"]).await?;
    check("?clock_offset_min=41&sort=clock_offset", &["web-01", "web-02"]).await?;
    check("?sort=-clock_offset&page=2&limit=2", &["db-01", "web-03"]).await?;
    let (_, hosts) = site.ask("bob", "GET /host?q=web-01", Value::Null).await?;
    assert_eq!((&hosts[0]["clock_offset"], &hosts[0]["ahead"]), (&json!(-90), &Value::Null));
    let text = "clock_offset_min is -1: give seconds from 0 on, which stand for both signs";
    site.check("bob", "GET /host?clock_offset_min=-1", Value::Null, 400, text).await?;
    check("?state=reporting", &["web-01", "db-01"]).await?;
    check("?state=silent", &["web-02"]).await?;
    check("?state=maintenance", &["web-03"]).await?;
    site.check(
        "bob",
        "GET /host?state=up",
        Value::Null,
        400,
        "state is \"up\": give maintenance, silent, reporting or unknown",
    )
    .await?;
    let sort = "sort is \"size\": give agent_version, ahead, clock_offset, hostname, id, ip, last, maintain_begin, maintain_end, \
                plugin_version, state, with - in front for the reverse";
    site.check("bob", "GET /host?sort=size", Value::Null, 400, sort).await?;
    let id = host::of_group(portal, other).await?[0].id;
    assert_eq!(site.ask("bob", &format!("DELETE /host/{id}"), Value::Null).await?.0, 400);
    let line = format!("DELETE /host/{id}");
    site.check("alice", &line, Value::Null, 200, format!("host:{id} has been deleted").as_str()).await?;
    check(&format!("?group={other}"), &[]).await?;
    check("?q=db", &[]).await
}
