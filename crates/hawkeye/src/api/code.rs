//! Code: `GET /api/v1/export` writes the portal's things as TOML files, `POST /api/v1/apply` makes it what they say.
//!
//! The commands `hawkeye export` and `hawkeye apply` ask these routes, or call [`export`] and [`apply`] on the data
//! directory of a server that does not run.
//!
//! Why: a Git repository of rules has reviews, a history, and one place for all sites.
//! How: `code_model.rs` has things by their names, `code_file.rs` their files, `code_plan.rs` reads files and checks
//! them as the routes check requests, `code_diff.rs` says what becomes different, `code_write.rs` writes it.
//! Invariants: one transaction reads, checks, writes and keeps who did it, so nothing is written when one file is
//! wrong, and nothing changes in between; ids survive. A kind that is out of scope is not touched. Passwords, sessions
//! and tokens are neither read nor written.
//! Memory: the files, and twice the tables that they are about; bodies have at most `LARGE_BODY_MAX` bytes, of
//! administrators only.

use super::Context;
use super::audit::{Row, without_secrets};
use super::auth::Caller;
use super::body::{JsonBody, LargeBodies, flag};
use super::code_diff::{self as diff, Change};
use super::code_file::Fault;
use super::code_model::{Kind, Model};
use super::error::{Answer, ApiError, json};
use super::{code_plan as plan, code_write as write};
use crate::config::Config;
use crate::portal::Portal;
use crate::portal::db::Transaction;
use crate::portal::site::Site;
use crate::portal::{audit, audit_text, user};
use anyhow::{Context as _, Result};
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Routes of the portal as code.
pub fn routes() -> Router<Context> {
    Router::new().route("/export", get(show)).route("/apply", post(change).layer(Extension(LargeBodies)))
}

/// Name in the audit of what is applied.
pub const SUBJECT: &str = "portal:";

/// Files, and the kinds that they are all of.
#[derive(Debug, Default)]
pub struct Bundle {
    /// Texts by paths, `templates/linux.toml`.
    pub files: BTreeMap<String, String>,
    /// Kinds in scope: what has no file is deleted.
    pub kinds: Vec<Kind>,
    /// Whether what has no file stays all the same.
    pub keep: bool,
}

/// Who applies.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The name under which new things are made that name no owner; "" is nobody's.
    pub name: String,
    pub uid: i64,
    pub role: i64,
    pub trace: Trace,
}

/// Place where the audit has what is applied, in the same transaction.
#[derive(Clone, Debug, Default)]
pub enum Trace {
    #[default]
    Nowhere,
    /// The row with this id, which began before.
    Begun(i64),
    /// A row like this one, which is complete but for what became.
    Whole(audit::Change),
}

impl Trace {
    async fn keep(&self, transaction: &mut Transaction, changes: &[Change]) -> sqlx::Result<()> {
        let told = without_secrets(serde_json::json!({ "changes": changes }));
        let became = audit_text::difference(None, Some(told)).1;
        match self {
            Trace::Nowhere => Ok(()),
            Trace::Begun(id) => audit::end(transaction, *id, SUBJECT, StatusCode::OK.as_u16(), "", &became).await,
            Trace::Whole(row) => audit::insert(transaction, &audit::Change { became, ..row.clone() }).await.map(drop),
        }
    }
}

impl Actor {
    /// Whoever owns the machine, and so its server.
    pub fn machine() -> Actor {
        Actor { name: String::new(), uid: 0, role: user::ROOT, trace: Trace::Nowhere }
    }
}

/// A bundle as it is sent and answered. A field that is not known is refused, for a mistyped `dry_run` would apply.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    pub files: BTreeMap<String, String>,
    /// Folders in scope.
    pub kinds: Vec<String>,
    #[serde(default, deserialize_with = "flag")]
    pub keep: bool,
    #[serde(default, deserialize_with = "flag")]
    pub dry_run: bool,
}

/// What became of a bundle.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub changes: Vec<Change>,
    /// Whether the changes were made.
    pub applied: bool,
}

/// Reasons why a bundle was not applied.
#[derive(Debug)]
pub enum ApplyError {
    /// Mistakes in the files.
    Faults(Vec<Fault>),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for ApplyError {
    fn from(error: anyhow::Error) -> ApplyError {
        ApplyError::Other(error)
    }
}

impl Sent {
    /// The bundle, if its folders are known.
    pub fn bundle(self) -> Result<Bundle, String> {
        let kind = |name: &String| {
            let kind = Kind::ALL.into_iter().find(|kind| kind.folder() == name);
            kind.ok_or_else(|| format!("kinds: {name:?} is none of {}", folders().join(", ")))
        };
        let kinds = self.kinds.iter().map(kind).collect::<Result<Vec<Kind>, String>>()?;
        let is_in_scope = |path: &String| kinds.iter().any(|kind| path.split('/').next() == Some(kind.folder()));
        if let Some(path) = self.files.keys().find(|path| !is_in_scope(path)) {
            return Err(format!("files: {path:?} is in no folder of kinds: name its folder there"));
        }
        Ok(Bundle { files: self.files, kinds, keep: self.keep })
    }
}

/// The folders of all kinds.
pub fn folders() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.folder()).collect()
}

/// The files of the whole portal.
pub async fn export(portal: &Portal) -> Result<Sent> {
    let mut transaction = portal.read().await.context("cannot read the portal")?;
    let site = Site::read(&mut transaction).await.context("cannot read the portal")?;
    transaction.commit().await.context("cannot read the portal")?;
    let kinds = folders().into_iter().map(str::to_string).collect();
    Ok(Sent { files: Model::of(&site).files(&Kind::ALL), kinds, ..Sent::default() })
}

/// Makes the portal what the files say, or says what would become different; all in one transaction.
pub async fn apply(
    portal: &Portal,
    config: &Config,
    actor: &Actor,
    bundle: &Bundle,
    dry_run: bool,
) -> Result<Outcome, ApplyError> {
    let begun = if dry_run { portal.read().await } else { portal.write().await };
    let mut transaction = begun.context("cannot begin to change the portal")?;
    let site = Site::read(&mut transaction).await.context("cannot read the portal")?;
    let planned = plan::plan(&site, bundle, config, actor);
    if !planned.faults.is_empty() {
        return Err(ApplyError::Faults(planned.faults));
    }
    let old = Model::of(&site);
    let changes = diff::changes(&old, &planned.wanted);
    if dry_run || changes.is_empty() {
        return Ok(Outcome { changes, applied: false });
    }
    write::write(&mut transaction, &site, &old, &planned.wanted, actor).await.context("nothing was changed")?;
    actor.trace.keep(&mut transaction, &changes).await.context("nothing was changed")?;
    transaction.commit().await.context("cannot change the portal")?;
    portal.announce();
    Ok(Outcome { changes, applied: true })
}

/// Lets administrators pass, under whichever `api.rights`.
fn check_admin(caller: &Caller) -> Result<(), ApiError> {
    if caller.is_admin() {
        return Ok(());
    }
    Err(caller.denied(ApiError::bad("You don't have permission! Only an administrator may do this.")))
}

async fn show(State(context): State<Context>, caller: Caller) -> Answer {
    check_admin(&caller)?;
    json(export(&context.portal).await?)
}

async fn change(State(context): State<Context>, caller: Caller, request: Request) -> Answer {
    // Nobody else has a body of this size read.
    check_admin(&caller)?;
    let trace = request.extensions().get::<Row>().map_or(Trace::Nowhere, |row| Trace::Begun(row.0));
    let JsonBody(sent) = JsonBody::<Sent>::from_request(request, &()).await?;
    let dry_run = sent.dry_run;
    let bundle = sent.bundle().map_err(ApiError::bad)?;
    let user = caller.user()?;
    let actor = Actor { name: user.name.clone(), uid: user.id, role: user.role, trace };
    match apply(&context.portal, &context.config, &actor, &bundle, dry_run).await {
        Ok(outcome) => json(outcome),
        Err(ApplyError::Faults(faults)) => {
            let error = format!("nothing was changed: {} mistakes, the first is {}", faults.len(), faults[0]);
            let body = json(serde_json::json!({ "error": error, "faults": faults }))?;
            Ok((StatusCode::BAD_REQUEST, body).into_response())
        }
        Err(ApplyError::Other(error)) => Err(error.into()),
    }
}
