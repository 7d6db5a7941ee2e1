//! Tests of the routes over a temporary portal: one request after another, and what each answers.

mod agents;
mod apply;
mod audit;
mod code;
mod dashboard;
mod docs;
mod download;
mod exceptions;
mod groups;
mod history;
mod jobs;
mod lists;
mod probes;
mod rehearsal;
mod rights;
mod rules;
mod stream;
mod tokens;

use super::*;
use crate::portal::user::{self, Profile};
use crate::portal::{password, session};
use anyhow::Result;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use events::EventQueue;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// A site with the administrator `root` and the users `alice` and `bob`, all logged in.
pub(super) struct Site {
    _dir: tempfile::TempDir,
    pub context: Context,
    router: Router,
}

pub(super) async fn site(change: impl FnOnce(&mut Config)) -> Result<Site> {
    site_in(crate::portal::tests::temporary().await?, change).await
}

async fn site_in((dir, portal): (TempDir, Portal), change: impl FnOnce(&mut Config)) -> Result<Site> {
    let mut config = Config::default();
    change(&mut config);
    let attempts = Attempts::with_known(&portal).await;
    let context = Context::new(portal, Arc::new(config), engine(dir.path())?, attempts);
    for (name, role) in [("root", user::ROOT), ("alice", user::NORMAL), ("bob", user::NORMAL)] {
        let hash = password::hash(&format!("{name}-pw")).await?;
        user::create(&context.portal, name, &hash, &Profile::default(), role, 0).await?;
    }
    Ok(Site { _dir: dir, router: router(context.clone()), context })
}

/// An engine with nothing in it, in a directory of its own under `dir`.
fn engine(dir: &std::path::Path) -> Result<Arc<Engine>> {
    const SHARDS: usize = 1;
    let options = store::Options { dir: dir.join("store"), shard_count: SHARDS, ..store::Options::default() };
    let (store, _) = store::Store::open(options, crate::clock::now())?;
    let (queue, _) = EventQueue::open(&dir.join("events"), events::Fsync::Never, crate::clock::now())?;
    Ok(Arc::new(Engine::new(store, SHARDS, judge::Options::default(), Some(Arc::new(queue)))))
}

impl Site {
    /// Sends a request with JSON (`Value::Null`: no body) as `user` ("" is nobody).
    pub async fn ask(&self, user: &str, line: &str, body: Value) -> Result<(u16, Value)> {
        let mut headers = vec![("content-type", "application/json".to_string())];
        if !user.is_empty() {
            headers.push(("apitoken", self.token(user).await?));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(line, &headers, body).await
    }

    pub async fn send(&self, line: &str, headers: &[(&str, String)], body: String) -> Result<(u16, Value)> {
        let (status, body) = self.send_for_text(line, headers, body).await?;
        Ok((status, serde_json::from_str(&body)?))
    }

    /// The answer's body as it is.
    pub async fn send_for_text(&self, line: &str, headers: &[(&str, String)], body: String) -> Result<(u16, String)> {
        let (method, path) = line.split_once(' ').unwrap_or(("GET", line));
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = self.router.clone().oneshot(request.body(Body::from(body))?).await?;
        let status = response.status().as_u16();
        Ok((status, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await?.to_vec())?))
    }

    pub async fn token(&self, name: &str) -> Result<String> {
        let user = user::by_name(&self.context.portal, name).await?;
        let sig = match user {
            Some(user) => session::create(&self.context.portal, user.id, crate::clock::now()).await?,
            None => "0".repeat(32),
        };
        Ok(json!({ "name": name, "sig": sig }).to_string())
    }

    /// Sends and compares; an expected text is compared with `message` or `error`.
    pub async fn check(
        &self,
        user: &str,
        line: &str,
        body: Value,
        status: u16,
        expected: impl Into<Value>,
    ) -> Result<()> {
        let (got_status, got) = self.ask(user, line, body).await?;
        let expected = expected.into();
        let shown = match &expected {
            Value::String(_) => {
                if status == 200 {
                    got["message"].clone()
                } else {
                    got["error"].clone()
                }
            }
            _ => got.clone(),
        };
        assert_eq!((got_status, &shown), (status, &expected), "{user}: {line}");
        Ok(())
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_as_all_else() -> Result<()> {
    let site = site(|_| {}).await?;
    let error = "the path has escapes that are no UTF-8, like %ff: encode the name as UTF-8";
    for line in ["GET /user/u/%ff", "PUT /user/u/%E7%8E", "DELETE /hostgroup/%C3/x", "GET /user/name/a%Ff"] {
        site.check("root", line, Value::Null, 400, error).await?;
    }
    for line in ["GET /user/name/%E7%8E%8B", "GET /user/name/100%", "GET /user/name/%zz"] {
        let (status, answer) = site.ask("root", line, Value::Null).await?;
        assert!(status != 500 && answer["error"] != *error, "{line}: {status} {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn login_and_logout() -> Result<()> {
    let site = site(|_| {}).await?;
    let login = json!({ "name": "alice", "password": "alice-pw" });
    let (status, answer) = site.ask("", "POST /user/login", login.clone()).await?;
    assert_eq!((status, &answer["name"], &answer["admin"]), (200, &json!("alice"), &json!(false)));
    let sig = answer["sig"].as_str().unwrap_or_default().to_string();
    assert_eq!(sig.len(), 32);
    let (_, other) = site.ask("", "POST /user/login", login).await?;
    assert_ne!(other["sig"].as_str(), Some(sig.as_str()), "each login has its own session");
    let token = |sig: &str| vec![("apitoken", json!({ "name": "alice", "sig": sig }).to_string())];
    let check = async |line: &str, sig: &str, status: u16, text: &str| -> Result<()> {
        let (got, answer) = site.send(line, &token(sig), String::new()).await?;
        let shown = answer.get("message").or(answer.get("error"));
        assert_eq!((got, shown), (status, Some(&json!(text))), "{line}");
        Ok(())
    };
    check("GET /user/auth_session", &sig, 200, "session is valid!").await?;
    check("GET /user/logout", &sig, 200, "logout successful").await?;
    check("GET /user/auth_session", &sig, 401, "session not found").await?;
    check("GET /user/logout", &sig, 400, "not found this kind of session in database.").await?;
    check("GET /user/auth_session", other["sig"].as_str().unwrap_or_default(), 200, "session is valid!").await?;
    Ok(())
}

#[tokio::test]
async fn wrong_logins() -> Result<()> {
    let site = site(|_| {}).await?;
    let login = |name: &str, password: &str| json!({ "name": name, "password": password });
    site.check("", "POST /user/login", login("nobody", "x"), 400, "no such user").await?;
    site.check("", "POST /user/login", login("alice", ""), 400, "name or password is blank").await?;
    for _ in 0..10 {
        site.check("", "POST /user/login", login("Alice", "guess"), 400, "password error").await?;
    }
    let (status, answer) = site.ask("", "POST /user/login", login("alice", "alice-pw")).await?;
    assert_eq!(status, 429, "the eleventh attempt is not even looked at: {answer}");
    assert_eq!(site.ask("", "POST /user/login", login("bob", "bob-pw")).await?.0, 200, "other names are not affected");
    Ok(())
}

/// Only wrong passwords count, also while others are being checked.
#[tokio::test]
async fn parallel_logins_with_the_right_password_all_pass() -> Result<()> {
    let site = Arc::new(site(|_| {}).await?);
    let ask = async |site: &Site, password: &str| -> Result<u16> {
        let login = json!({ "name": "alice", "password": password });
        Ok(site.ask("", "POST /user/login", login).await?.0)
    };
    let at_once = async |password: &'static str| {
        let asked = (0..30).map(|_| {
            let site = site.clone();
            async move { ask(&site, password).await.expect("an answer") }
        });
        asked.collect::<tokio::task::JoinSet<u16>>().join_all().await
    };
    for _ in 0..9 {
        assert_eq!(ask(&site, "guess").await?, 400);
    }
    assert_eq!(at_once("alice-pw").await, [200; 30]);
    let statuses = at_once("guess").await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(400), count(429)), (10, 20), "parallel guesses are as many as others");
    Ok(())
}

#[tokio::test]
async fn passwords_of_an_old_installation_are_renewed_by_login() -> Result<()> {
    let site = site(|config| config.api.salt = "salt".into()).await?;
    let portal = &site.context.portal;
    // md5hex("salt" + "secret")
    let old = "d42a0f742ffc1be4e1cc0845c2429c97";
    let id = user::create(portal, "old", old, &Profile::default(), user::NORMAL, 0).await?;
    let login = json!({ "name": "old", "password": "secret" });
    assert_eq!(site.ask("", "POST /user/login", login.clone()).await?.0, 200);
    let (_, stored) = user::with_password(portal, "old").await?.expect("created above");
    assert!(stored.starts_with("$2"), "{stored}");
    assert_eq!(site.ask("", "POST /user/login", login.clone()).await?.0, 200);
    user::set_role(portal, id, user::BLOCKED).await?;
    site.check("", "POST /user/login", login, 400, "this user is blocked: ask an administrator").await?;
    Ok(())
}

#[tokio::test]
async fn tokens_and_the_server_token() -> Result<()> {
    let with = async |server_token: &str, name: &str, sig: &str| -> Result<u16> {
        let site = site(|config| config.api.server_token = server_token.into()).await?;
        let token = json!({ "name": name, "sig": sig }).to_string();
        Ok(site.send("GET /user/users", &[("apitoken", token)], String::new()).await?.0)
    };
    assert_eq!(with("secret", "anybody", "secret").await?, 200);
    assert_eq!(with("secret", "root", "other").await?, 401);
    assert_eq!(with("", "root", "").await?, 401, "no server token is not an empty one");
    assert_eq!(
        with("", "root", "default-token-used-in-server-side").await?,
        401,
        "the original's default is nothing here"
    );
    Ok(())
}

#[tokio::test]
async fn registration_is_off_unless_allowed_and_root_is_no_magic_name() -> Result<()> {
    let site = site(|_| {}).await?;
    let new = |name: &str| json!({ "name": name, "password": "p", "cnname": "C", "email": "e@x" });
    let disabled = "sign up is disabled: ask an administrator to create the user";
    site.check("", "POST /user/create", new("eve"), 400, disabled).await?;
    site.check("alice", "POST /user/create", new("eve"), 400, disabled).await?;
    assert_eq!(site.ask("root", "POST /user/create", new("eve")).await?.0, 200);
    let site = self::site(|config| config.api.signup = true).await?;
    site.check("", "POST /user/create", new("root"), 400, "name is already existing").await?;
    let root = user::by_name(&site.context.portal, "root").await?.expect("made with the site");
    user::delete(&site.context.portal, root.id).await?;
    assert_eq!(site.ask("", "POST /user/create", new("root")).await?.0, 200);
    let grabbed = user::by_name(&site.context.portal, "root").await?.expect("created");
    assert_eq!(grabbed.role, user::NORMAL);
    Ok(())
}

/// Rights go by names, so a stranger must not take that of somebody who is gone.
#[tokio::test]
async fn the_name_of_somebody_who_is_gone_is_not_free_while_things_are_his() -> Result<()> {
    let site = site(|config| config.api.signup = true).await?;
    let portal = &site.context.portal;
    let new = |name: &str| json!({ "name": name, "password": "p", "cnname": "C", "email": "e@x" });
    for (number, sql) in [
        "INSERT INTO falcon_portal.grp (grp_name, create_user) VALUES ('g', 'Gone0')",
        "INSERT INTO falcon_portal.tpl (tpl_name, create_user) VALUES ('t', 'Gone1')",
        "INSERT INTO falcon_portal.expression (expression, create_user) VALUES ('e', 'Gone2')",
        "INSERT INTO falcon_portal.grp_tpl (grp_id, tpl_id, bind_user) VALUES (1, 1, 'Gone3')",
        "INSERT INTO falcon_portal.plugin_dir (grp_id, dir, create_user) VALUES (1, 'd', 'Gone4')",
        "INSERT INTO falcon_portal.mockcfg (name, creator, t_create) VALUES ('m', 'Gone5', '2020-01-01 00:00:00')",
        "INSERT INTO falcon_portal.cluster (grp_id, numerator, denominator, endpoint, metric, tags, ds_type, step, creator)
         VALUES (1, '', '', '', '', '', '', 60, 'Gone6')",
    ]
    .into_iter()
    .enumerate()
    {
        crate::portal::tests::run(portal, sql).await?;
        let name = format!("gone{number}");
        let text = format!(
            "name: groups, templates or rules belong to a user {name:?} who is gone: take another name, or ask an \
             administrator to create it"
        );
        for who in ["", "alice"] {
            site.check(who, "POST /user/create", new(&name), 400, text.as_str()).await?;
        }
        assert_eq!(site.ask("root", "POST /user/create", new(&name)).await?.0, 200);
        site.check("", "POST /user/create", new(&name), 400, "name is already existing").await?;
    }
    assert_eq!(site.ask("", "POST /user/create", new("nobody")).await?.0, 200);
    let stale = [("content-type", "application/json".to_string()), ("apitoken", "{}".to_string())];
    assert_eq!(site.send("POST /user/create", &stale, new("other").to_string()).await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn who_may_change_whom() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let id = async |name: &str| anyhow::Ok(user::by_name(portal, name).await?.expect("made with the site").id);
    let (root, alice, bob) = (id("root").await?, id("alice").await?, id("bob").await?);
    let profile = json!({ "cnname": "New", "email": "new@x" });
    let with_id =
        |id: i64| json!({ "user_id": id, "cnname": "New", "email": "new@x", "password": "p", "admin": "yes" });
    let denied = "you don't have permission!";
    site.check("bob", &format!("PUT /user/u/{alice}"), profile.clone(), 400, denied).await?;
    site.check("alice", &format!("PUT /user/u/{alice}"), profile.clone(), 200, "user info updated").await?;
    site.check("root", "PUT /admin/change_user_role", with_id(bob), 200, "user role update sccuessful, affect row: 1")
        .await?;
    for route in ["change_user_role", "change_user_passwd", "change_user_profile"] {
        site.check("alice", &format!("PUT /admin/{route}"), with_id(bob), 400, denied).await?;
        site.check("bob", &format!("PUT /admin/{route}"), with_id(root), 400, denied).await?;
        site.check("root", &format!("PUT /admin/{route}"), with_id(999), 417, "record not found").await?;
    }
    site.check("root", "PUT /admin/change_user_role", with_id(root), 400, denied).await?;
    let refused = "you have no such permission or sth goes wrong";
    site.check("root", "DELETE /admin/delete_user", with_id(root), 417, refused).await?;
    site.check(
        "bob",
        "DELETE /admin/delete_user",
        with_id(alice),
        200,
        &*format!("user {alice} has been delete, affect row: 1"),
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn changing_the_password_ends_the_other_sessions() -> Result<()> {
    let site = site(|_| {}).await?;
    let (mine, other) = (site.token("alice").await?, site.token("alice").await?);
    let change = json!({ "old_password": "alice-pw", "new_password": "new" }).to_string();
    let headers = |token: &str| [("content-type", "application/json".to_string()), ("apitoken", token.to_string())];
    assert_eq!(site.send("PUT /user/cgpasswd", &headers(&mine), change.clone()).await?.0, 200);
    assert_eq!(site.send("GET /user/current", &headers(&mine), String::new()).await?.0, 200);
    assert_eq!(site.send("GET /user/current", &headers(&other), String::new()).await?.0, 401);
    let (status, answer) = site.send("PUT /user/cgpasswd", &headers(&mine), change).await?;
    assert_eq!((status, &answer["error"]), (400, &json!("oldPassword is not match current one")));
    let none = json!({ "old_password": "new" }).to_string();
    assert_eq!(site.send("PUT /user/cgpasswd", &headers(&mine), none).await?.0, 400, "an empty password is not set");
    Ok(())
}

/// A password that an administrator sets ends all sessions of the user, and none of his own.
#[tokio::test]
async fn a_reset_password_ends_the_sessions() -> Result<()> {
    let site = site(|_| {}).await?;
    let (root, alice) = (site.token("root").await?, site.token("alice").await?);
    let headers = |token: &str| [("content-type", "application/json".to_string()), ("apitoken", token.to_string())];
    let set = |id: i64| json!({ "user_id": id, "password": "new" }).to_string();
    for (name, is_logged_in) in [("alice", 401), ("root", 200)] {
        let id = user::by_name(&site.context.portal, name).await?.expect("a user").id;
        assert_eq!(site.send("PUT /admin/change_user_passwd", &headers(&root), set(id)).await?.0, 200);
        let token = if name == "root" { &root } else { &alice };
        assert_eq!(site.send("GET /user/current", &headers(token), String::new()).await?.0, is_logged_in, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_route_is_a_json_404() -> Result<()> {
    let site = site(|_| {}).await?;
    assert_eq!(site.ask("root", "GET /no/such", Value::Null).await?.0, 404);
    assert_eq!(site.ask("root", "DELETE /user/users", Value::Null).await?.0, 404);
    Ok(())
}

#[tokio::test]
async fn a_panic_is_a_500_and_nothing_else() -> Result<()> {
    let broken = Router::new()
        .route("/", axum::routing::get(async || -> &'static str { panic!("on purpose") }))
        .layer(CatchPanicLayer::custom(answer_panic));
    let response = broken.oneshot(Request::builder().uri("/").body(Body::empty())?).await?;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    Ok(())
}

#[tokio::test]
async fn cors_echoes_the_origin() -> Result<()> {
    let site = site(|_| {}).await?;
    let request = Request::builder()
        .method("OPTIONS")
        .uri("/api/v1/user/login")
        .header("origin", "http://dash.example.com")
        .header("access-control-request-method", "POST");
    let response = site.router.clone().oneshot(request.body(Body::empty())?).await?;
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("access-control-allow-origin"), Some("http://dash.example.com"));
    assert_eq!(header("access-control-allow-credentials"), Some("true"));
    assert_eq!(header("access-control-max-age"), Some("86400"));
    assert_eq!(header("access-control-expose-headers"), Some("Content-Length"));
    Ok(())
}

/// Applies the recording's seed rows, which are MySQL's, to our file.
const SEED: &str = r#"
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
local = "SELECT datetime(?, \"unixepoch\", \"localtime\")"
database.create_function("from_unixtime", 1, lambda t: sqlite3.connect(":memory:").execute(local, (t,)).fetchone()[0])
database.executescript(sys.stdin.read().replace("alarms.", ""))
"#;

/// Recorded steps that fail on purpose. Two use a session of `carol` from before an administrator set her password
/// (step 54), and here that session has ended. 336 asks for the action of a template that was deleted just before: it
/// is still there for the recoveries of the template's alarms, also for an old alarm behind Redis, which asks so.
const DIFFERENT: [i64; 3] = [82, 336, 341];

/// Replays what the original answered over this API; the checker comes with the recordings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_answers_of_the_original() -> Result<()> {
    let (dir, portal) = crate::portal::tests::in_file().await?;
    let mut config = Config::default();
    // What the recording was made with; none is a default here.
    config.api.signup = true;
    config.api.rights = crate::config::Rights::OpenFalcon;
    config.api.server_token = "default-token-used-in-server-side".into();
    let text = str::to_string;
    let (cnname, email, phone, im, qq) =
        (text("Root"), text("root@example.com"), text("100"), text("im0"), text("1000"));
    let profile = Profile { cnname, email, phone, im, qq };
    user::create(&portal, "root", &password::hash("rootpass").await?, &profile, user::ROOT, 0).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}/api/v1", listener.local_addr()?);
    let router = router(Context::new(portal, Arc::new(config), engine(dir.path())?, Arc::default()));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let results = dir.path().join("results.json");
    let mut checker = std::process::Command::new("python3");
    checker.arg(testdata::path("rest/check_rest.py")).arg(testdata::path("rest/rest.jsonl")).args(["--base", &base]);
    checker.args(["--admin-setup", "login", "--admin-password", "rootpass", "--strict"]);
    checker.args([
        "--only",
        "auth,user,admin,team,hostgroup,host,maintain,plugin,template,action,strategy,tplbind,expression,alarm,\
         aggregator,nodata,screen,dgraph,tmpgraph",
    ]);
    checker.arg("--sql").arg(format!("python3 -c '{SEED}' {}", dir.path().join("portal.db").display()));
    checker.arg("--json").arg(&results);
    let output = tokio::task::spawn_blocking(move || checker.output()).await?;
    let output =
        output.map_err(|error| anyhow::anyhow!("cannot run python3, which the checker is written in: {error}"))?;
    server.abort();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let steps: Vec<Value> = serde_json::from_slice(&std::fs::read(&results)?)?;
    let failed: Vec<_> = steps.iter().filter(|step| step["result"] == "fail").map(|step| step["n"].as_i64()).collect();
    let passed = steps.iter().filter(|step| step["result"] == "pass").count();
    assert_eq!(failed, DIFFERENT.map(Some), "{output}");
    assert!(passed >= 260, "only {passed} steps ran:\n{output}");
    Ok(())
}
