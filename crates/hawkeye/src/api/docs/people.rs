//! Users, sessions, tokens, teams, and the record of changes.

use super::Kind::{Flag, Int, Ints, Object, Text, Texts};
use super::{Doc, doc, may, need};

/// Fields of a profile, behind those that say whose it is.
macro_rules! profile {
    ($($first:expr),*) => {
        &[
            $($first,)*
            need("cnname", Text, "name that is shown"),
            need("email", Text, "addresses, joined by commas"),
            may("phone", Text, "numbers, joined by commas"),
            may("im", Text, "accounts, joined by commas"),
            may("qq", Text, ""),
        ]
    };
}

/// Fields of a team, behind those that name it.
macro_rules! team {
    ($($first:expr),*) => {
        &[$($first,)* may("resume", Text, "what it is for"), may("users", Ints, "ids of its members")]
    };
}

pub const USERS: &[Doc] = &[
    doc("POST /user/login", "Logs in. The whole answer goes into the header `Apitoken`.")
        .open()
        .fields(&[need("name", Text, ""), need("password", Text, "ten wrong ones: 429 for a while")])
        .body(r#"{"name":"bob","password":"bob-secret"}"#)
        .answer(r#"{"sig":"…","name":"bob","admin":false}"#),
    doc("GET /user/auth_session", "Says whether the session or token is valid.")
        .answer(r#"{"message":"session is valid!"}"#),
    doc("POST /user/create", "Makes a user; by anybody where `api.signup` is set.")
        .admin()
        .fields(profile!(need("name", Text, ""), need("password", Text, "at most 71 bytes")))
        .body(r#"{"name":"carol","password":"carol-secret","cnname":"Carol","email":"carol@example.com"}"#)
        .answer(r#"{"sig":"…","name":"carol"}"#),
    doc("GET /user/current", "The caller.")
        .answer(r#"{"id":1,"name":"root","cnname":"","email":"","phone":"","im":"","qq":"","role":2}"#),
    doc("GET /user/users", "Users.")
        .list()
        .fields(&[may("q", Text, "regular expression on the name")])
        .at("/user/users?q=bo&sort=-name"),
    doc("GET /user/u/{uid}", "A user.").at("/user/u/2"),
    doc("GET /user/name/{name}", "A user, by name.").at("/user/name/bob"),
    doc("PUT /user/u/{uid}", "Changes a profile: the own one, or an administrator any.")
        .fields(profile!())
        .at("/user/u/2")
        .body(r#"{"cnname":"Bob","email":"bob@example.com"}"#)
        .answer(r#"{"message":"user info updated"}"#),
    doc("PUT /user/update", "Changes the caller's profile.")
        .fields(profile!())
        .body(r#"{"cnname":"Root","email":"root@example.com"}"#),
    doc("PUT /user/cgpasswd", "Changes the caller's password, which ends his other sessions.")
        .fields(&[need("old_password", Text, ""), need("new_password", Text, "at most 71 bytes")])
        .body(r#"{"old_password":"root-secret","new_password":"root-secret"}"#)
        .answer(r#"{"message":"password updated!"}"#),
    doc("PUT /admin/change_user_role", "Makes a user an administrator, or no more.")
        .admin()
        .fields(&[need("user_id", Int, ""), need("admin", Text, "`yes` or `no`")])
        .body(r#"{"user_id":2,"admin":"no"}"#),
    doc("PUT /admin/change_user_passwd", "Sets a user's password, which ends his sessions.")
        .admin()
        .fields(&[need("user_id", Int, ""), need("password", Text, "at most 71 bytes")])
        .body(r#"{"user_id":2,"password":"bob-secret"}"#),
    doc("PUT /admin/change_user_profile", "Changes a user's profile.")
        .admin()
        .fields(profile!(need("user_id", Int, "")))
        .body(r#"{"user_id":2,"cnname":"Bob","email":"bob@example.com"}"#),
    doc(
        "POST /admin/login",
        "Gives an administrator a session of a lesser user; LDAP front ends log their users in with this.",
    )
    .admin()
    .fields(&[need("name", Text, "")])
    .body(r#"{"name":"bob"}"#),
    doc("DELETE /admin/delete_user", "Deletes a user with his sessions, tokens and memberships.")
        .admin()
        .fields(&[need("user_id", Int, "")])
        .body(r#"{"user_id":2}"#),
];

pub const TOKENS: &[Doc] = &[
    doc("POST /token", "Makes a token, for a script or a service. The secret is in this answer only. A token makes no tokens.")
        .fields(&[
            need("name", Text, "what it is for"),
            need("scopes", Texts, "of `read`, `write` (and reading), `ingest` (sending points where `ingest.token` is set), `admin`"),
            may("expires_at", Int, "Unix seconds; 0 is never"),
            may("user", Text, "whom it is for; by default the caller, others by administrators"),
        ])
        .body(r#"{"name":"ci","scopes":["read","write"]}"#)
        .answer(r#"{"id":2,"token":"hk_…","name":"ci","user":"root","scopes":"read,write","expires_at":0}"#),
    doc("GET /token", "Tokens of the caller, or of all for administrators, without their secrets.")
        .list()
        .fields(&[may("q", Text, "regular expression on the name")])
        .answer(r#"[{"id":2,"name":"ci","uid":1,"scopes":"read,write","created_at":1790000000,"created_by":"root","expires_at":0,"used_at":0,"used_from":"","user":"root","expired":false}]"#),
    doc("DELETE /token/{id}", "Deletes a token, which opens nothing from then on.").at("/token/1"),
    doc("GET /audit", "Who changed what, when and from where, newest first.")
        .admin()
        .fields(&[
            may("who", Text, "name of a user"),
            may("subject", Text, "as `template:5`"),
            may("action", Text, "as `PUT /template`"),
            may("from", Int, "Unix seconds"),
            may("until", Int, "Unix seconds"),
            may("page", Int, "page from 1 on (default); needs `limit`"),
            may("limit", Int, "rows of a page, 100 by default, at most 1000"),
            may("sort", Text, "`at`, or `-at` (default)"),
        ])
        .at("/audit?subject=token:1")
        .answer(r#"[{"id":3,"at":1790000000,"who":"root","token":"","peer":"127.0.0.1","action":"DELETE /token/{id}","subject":"token:1","status":200,"was":{"name":"old"},"became":null}]"#),
    doc("GET /export", "The portal as TOML files (docs/as-code.md), without secrets.")
        .admin()
        .answer(r#"{"files":{"teams/old.toml":"…"},"kinds":["teams"],"keep":false,"dry_run":false}"#),
    doc("POST /apply", "Makes the portal what files say, in one transaction, or says what would become different.")
        .admin()
        .fields(&[
            need("files", Object, "texts by their paths"),
            need("kinds", Texts, "folders in scope: what has no file there is deleted"),
            may("keep", Flag, "true: what has no file stays"),
            may("dry_run", Flag, "true: nothing is written"),
        ])
        .body(r#"{"files":{},"kinds":["teams"],"keep":true,"dry_run":true}"#)
        .answer(r#"{"changes":[],"applied":false}"#),
];

pub const TEAMS: &[Doc] = &[
    doc("POST /team", "Makes a team.")
        .fields(team!(need("team_name", Text, "has no comma")))
        .body(r#"{"team_name":"ops","users":[1,3]}"#),
    doc("GET /team", "Teams of the caller and those that he made; all of them for administrators.")
        .list()
        .fields(&[may("q", Text, "regular expression on the name")])
        .answer(r#"[{"team":{"id":2,"name":"ops","resume":"","creator":1},"creator_name":"root","users":[{"id":1,"name":"root"}]}]"#),
    doc("GET /team/t/{team_id}", "A team with its members.").at("/team/t/2"),
    doc("GET /team/name/{team_name}", "A team, by name.").at("/team/name/ops"),
    doc("PUT /team", "Changes a team; a list of users replaces its members.")
        .fields(team!(need("team_id", Int, ""), may("name", Text, "has no comma")))
        .body(r#"{"team_id":2,"name":"ops","resume":"who is called"}"#),
    doc("POST /team/user", "Adds members.")
        .fields(&[need("team_id", Int, ""), need("users", Texts, "names")])
        .body(r#"{"team_id":2,"users":["carol"]}"#),
    doc("GET /user/u/{uid}/teams", "Teams of a user.").list().at("/user/u/3/teams"),
    doc("GET /user/u/{uid}/in_teams", "Whether a user is in all of some teams: `true` or `false`.")
        .fields(&[need("team_names", Text, "joined by commas")])
        .at("/user/u/3/in_teams?team_names=ops"),
    doc("DELETE /team/{team_id}", "Deletes a team. The answer warns where actions tell it.").at("/team/1"),
];

pub const LOGOUT: &[Doc] = &[doc("GET /user/logout", "Ends the session of the header `Apitoken`; not of a token.")
    .answer(r#"{"message":"logout successful"}"#)];
