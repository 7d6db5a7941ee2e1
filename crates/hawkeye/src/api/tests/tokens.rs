//! Tokens and the audit: what a token opens, and what a change leaves.

use super::{Site, site};
use crate::portal::user;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Makes a token as `user` and answers its secret.
pub(super) async fn make(site: &Site, user: &str, fields: Value) -> Result<String> {
    let (status, answer) = site.ask(user, "POST /token", fields).await?;
    assert_eq!(status, 200, "{answer}");
    Ok(answer["token"].as_str().context("a secret")?.to_string())
}

/// Asks with a header `Authorization`.
async fn with(site: &Site, authorization: &str, line: &str, body: Value) -> Result<(u16, Value)> {
    let headers = [("content-type", "application/json".to_string()), ("authorization", authorization.to_string())];
    site.send(line, &headers, if body.is_null() { String::new() } else { body.to_string() }).await
}

pub(super) async fn changes(site: &Site, query: &str) -> Result<Vec<Value>> {
    let (status, answer) = site.ask("root", &format!("GET /audit?{query}"), Value::Null).await?;
    assert_eq!(status, 200, "{answer}");
    Ok(answer.as_array().context("a list")?.clone())
}

/// An administrator whose token has not the scope for it is told so, and nobody else is.
#[tokio::test]
async fn what_a_token_lacks_is_told() -> Result<()> {
    let site = site(|_| {}).await?;
    for line in ["GET /audit", "GET /export", "POST /user/create", "PUT /admin/change_user_role"] {
        for (user, is_admin) in [("root", true), ("alice", false)] {
            let fields = json!({ "name": line, "scopes": ["read", "write"] });
            let secret = make(&site, user, fields).await?;
            let (status, answer) = with(&site, &format!("Bearer {secret}"), line, json!({})).await?;
            let error = answer["error"].as_str().unwrap_or_default();
            assert_eq!((status == 403, error.ends_with("this needs admin")), (is_admin, is_admin), "{line}: {answer}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_token_opens_what_its_scopes_are_for_in_each_of_three_ways() -> Result<()> {
    let site = site(|_| {}).await?;
    let reads = make(&site, "alice", json!({ "name": "grafana", "scopes": ["read"] })).await?;
    let group = json!({ "name": "g" });
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("alice:{reads}"));
    for authorization in [format!("Bearer {reads}"), format!("Basic {basic}")] {
        let (status, answer) = with(&site, &authorization, "GET /user/current", Value::Null).await?;
        assert_eq!((status, &answer["name"]), (200, &json!("alice")), "{authorization}");
        let (status, answer) = with(&site, &authorization, "POST /hostgroup", group.clone()).await?;
        let text = "the token \"grafana\" has the scopes \"read\": this needs write";
        assert_eq!((status, &answer["error"]), (403, &json!(text)));
        // A question with a body is a question.
        assert_eq!(with(&site, &authorization, "POST /graph/lastpoint", json!([])).await?.0, 200);
    }
    let apitoken = json!({ "name": "alice", "sig": reads }).to_string();
    assert_eq!(site.send("GET /user/current", &[("apitoken", apitoken)], String::new()).await?.0, 200);
    let other = json!({ "name": "root", "sig": reads }).to_string();
    assert_eq!(site.send("GET /user/current", &[("apitoken", other)], String::new()).await?.0, 401);
    let writes = make(&site, "alice", json!({ "name": "ci", "scopes": "write" })).await?;
    assert_eq!(with(&site, &format!("Bearer {writes}"), "POST /hostgroup", group).await?.0, 200);
    let sends = make(&site, "alice", json!({ "name": "push", "scopes": ["ingest"] })).await?;
    assert_eq!(with(&site, &format!("Bearer {sends}"), "GET /user/current", Value::Null).await?.0, 403);
    Ok(())
}

#[tokio::test]
async fn an_administrators_token_has_his_rights_only_with_that_scope() -> Result<()> {
    let site = site(|_| {}).await?;
    let uid = user::by_name(&site.context.portal, "bob").await?.context("made with the site")?.id;
    let role = json!({ "user_id": uid, "admin": "no" });
    let writes = make(&site, "root", json!({ "name": "w", "scopes": ["write"] })).await?;
    let (status, _) = with(&site, &format!("Bearer {writes}"), "PUT /admin/change_user_role", role.clone()).await?;
    assert_eq!(status, 403);
    let admin = make(&site, "root", json!({ "name": "a", "scopes": ["admin"] })).await?;
    let (status, _) = with(&site, &format!("Bearer {admin}"), "PUT /admin/change_user_role", role).await?;
    assert_eq!(status, 200);
    let (status, answer) = with(&site, &format!("Bearer {admin}"), "POST /token", json!({ "name": "b" })).await?;
    assert_eq!((status, &answer["error"]), (403, &json!("a token makes no tokens: log in")));
    let (status, answer) =
        with(&site, &format!("Bearer {admin}"), "POST /admin/login", json!({ "name": "bob" })).await?;
    assert_eq!((status, &answer["error"]), (403, &json!("a token gives no sessions: log in")));
    let new = json!({ "name": "dave", "password": "p", "cnname": "D", "email": "d@x" });
    assert_eq!(with(&site, &format!("Bearer {admin}"), "POST /user/create", new).await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn who_makes_sees_and_deletes_tokens() -> Result<()> {
    let site = site(|_| {}).await?;
    let check = async |user: &str, fields: Value, part: &str| -> Result<()> {
        let (status, answer) = site.ask(user, "POST /token", fields).await?;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(part), "{user}: {status} {answer}");
        Ok(())
    };
    let read = |user: &str| json!({ "name": "t", "scopes": ["read"], "user": user });
    check("alice", json!({ "scopes": ["read"] }), "name is required").await?;
    check("alice", json!({ "name": "t" }), "scopes is required").await?;
    check("alice", json!({ "name": "t", "scopes": ["read", "all"] }), "scopes has \"all\"").await?;
    check("alice", json!({ "name": "t", "scopes": ["admin"] }), "alice is no administrator").await?;
    check("alice", json!({ "name": "t", "scopes": ["read"], "expires_at": 5 }), "expires_at is 5").await?;
    check("alice", read("bob"), "only an administrator makes tokens for others").await?;
    check("root", read("nobody"), "there is no user").await?;
    make(&site, "root", read("bob")).await?;
    make(&site, "alice", read("")).await?;
    let names = async |user: &str| -> Result<Vec<String>> {
        let (_, answer) = site.ask(user, "GET /token", Value::Null).await?;
        assert!(!answer.to_string().contains("hk_"), "no list has a secret");
        Ok(answer.as_array().context("a list")?.iter().map(|token| token["user"].to_string()).collect())
    };
    assert_eq!(names("bob").await?, ["\"bob\""]);
    assert_eq!(names("root").await?, ["\"bob\"", "\"alice\""]);
    site.check("alice", "DELETE /token/1", Value::Null, 417, "record not found").await?;
    site.check("bob", "DELETE /token/1", Value::Null, 200, "token:1 has been deleted").await?;
    Ok(())
}

#[tokio::test]
async fn a_change_leaves_who_when_from_where_old_and_new() -> Result<()> {
    let site = site(|_| {}).await?;
    site.ask("alice", "POST /hostgroup", json!({ "name": "web" })).await?;
    let hosts = |list: &[&str]| json!({ "hostgroup_id": 1, "hosts": list });
    site.ask("alice", "POST /hostgroup/host", hosts(&["a", "b"])).await?;
    site.ask("alice", "POST /hostgroup/host", hosts(&["b", "c"])).await?;
    site.ask("alice", "PUT /hostgroup", json!({ "id": 1, "grp_name": "www" })).await?;
    assert_eq!(site.ask("bob", "DELETE /hostgroup/1", Value::Null).await?.0, 400, "not his");
    let ci = make(&site, "alice", json!({ "name": "ci", "scopes": ["write"] })).await?;
    let (status, _) = with(&site, &format!("Bearer {ci}"), "DELETE /hostgroup/1", Value::Null).await?;
    assert_eq!(status, 200);
    let rows = changes(&site, "subject=hostgroup:1").await?;
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_string();
            format!("{} {:?} {} {} → {}", text("who"), text("token"), text("action"), row["was"], row["became"])
        })
        .collect();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert!(lines[0].starts_with("alice \"ci\" DELETE /hostgroup/{id} {") && lines[0].ends_with("} → null"));
    assert!(lines[0].contains("\"grp_name\":\"www\"") && lines[0].contains("\"hosts\":[\"b\",\"c\"]"), "{lines:#?}");
    assert_eq!(lines[1], r#"alice "" PUT /hostgroup {"grp_name":"web"} → {"grp_name":"www"}"#);
    assert_eq!(lines[2], r#"alice "" POST /hostgroup/host {"hosts":["a"]} → {"hosts":["c"]}"#);
    assert!(rows.iter().all(|row| row["status"] == 200 && row["at"].as_i64() > Some(0)));
    let made = changes(&site, "action=POST%20/hostgroup").await?;
    assert_eq!((&made[0]["subject"], &made[0]["became"]["grp_name"]), (&json!("hostgroup:1"), &json!("web")));
    Ok(())
}

#[tokio::test]
async fn the_audit_has_no_secret_and_is_for_administrators() -> Result<()> {
    let site = site(|config| config.api.signup = true).await?;
    let profile = json!({ "name": "carol", "cnname": "C", "email": "e@x", "password": "geheim" });
    assert_eq!(site.ask("", "POST /user/create", profile).await?.0, 200);
    let change = json!({ "old_password": "alice-pw", "new_password": "geheim" });
    assert_eq!(site.ask("alice", "PUT /user/cgpasswd", change).await?.0, 200);
    let action = json!({ "tpl_id": 1, "url": "http://u:geheim@h/x", "callback": 1 });
    site.ask("alice", "POST /template", json!({ "name": "t" })).await?;
    assert_eq!(site.ask("alice", "POST /template/action", action).await?.0, 200);
    let secret = make(&site, "alice", json!({ "name": "ci", "scopes": ["read"] })).await?;
    let all = Value::from(changes(&site, "").await?).to_string();
    assert!(!all.contains("geheim") && !all.contains(&secret), "{all}");
    assert!(all.contains("(registration)") && all.contains("http://u:***@h/x"), "{all}");
    let denied = "You don't have permission! Only an administrator sees who changed what.";
    site.check("alice", "GET /audit", Value::Null, 400, denied).await?;
    // What the route does not read is not kept.
    let junk = json!({ "name": "s", "junk": "geheim".repeat(1000) });
    assert_eq!(site.ask("alice", "POST /dashboard/screen", junk).await?.0, 200);
    let screen = json!({ "id": 1, "pid": 0, "name": "s", "graphs": [] });
    assert_eq!(changes(&site, "subject=screen:1").await?[0]["became"], screen);
    let maintain = json!({ "hosts": ["a"], "maintain_begin": 1, "maintain_end": 2 });
    site.ask("root", "POST /hostgroup", json!({ "name": "g" })).await?;
    site.ask("root", "POST /hostgroup/host", json!({ "hostgroup_id": 1, "hosts": ["a"] })).await?;
    assert_eq!(site.ask("root", "POST /host/maintain", maintain).await?.0, 200);
    let row = &changes(&site, "subject=host:a").await?[0];
    assert_eq!((&row["was"], &row["became"]), (&json!({ "a": [0, 0] }), &json!({ "a": [1, 2] })));
    Ok(())
}
