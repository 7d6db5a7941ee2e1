//! Enter: the link that a start prints, which logs one browser in as root without a password.
//!
//! Why: whoever has just started the server wants to see the page, and whoever can read what a start prints may; but
//! nobody else on the machine or behind a proxy.
//! How: a random secret stands behind the `#` of the link, where no proxy, log or preview sees it. The page posts it
//! here and gets a session, as a login does. Who changes root's password ends all sessions of root, and means this link
//! as well: what the portal had as the password when the link was made must still be there.
//! Invariants: a secret works once, for [`LIFE`] by a clock that nobody sets, and no longer than root's password of
//! then; only memory has it, so no restart knows an older one.

use super::Sources;
use super::error::{PageError, broken, unauthorized};
use crate::clock;
use crate::portal::{Portal, admin, password, session, user};
use anyhow::Result;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use net::http::{Peer, read_body};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// The life of a link: time to find the line and click, too short to be found in a log later.
const LIFE: Duration = Duration::from_secs(600);
/// Bytes of a body that may hold a secret.
const BODY_MAX: usize = 256;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const SPENT: &str = "this link has been used, is older than ten minutes, or root has another password since: the next \
                     start of the server prints a new one; or log in with name and password";

/// The link of this start; clones share it.
#[derive(Clone, Default)]
pub struct EntryLink {
    secret: Arc<Mutex<Option<Secret>>>,
}

struct Secret {
    text: String,
    made: Instant,
    /// Hash of root's password when it was made; none where that could not be read.
    of_password: Option<String>,
}

#[derive(Serialize)]
pub struct Session {
    name: String,
    sig: String,
}

impl EntryLink {
    /// Makes a secret, which replaces the one before.
    pub async fn renew(&self, portal: &Portal) -> Result<String> {
        // A damaged portal ends no start; nobody logs in by it either.
        let root = user::with_password(portal, admin::NAME).await.ok().flatten();
        self.replace(root.map(|(_, hash)| hash))
    }

    fn replace(&self, of_password: Option<String>) -> Result<String> {
        let text = password::random_sig()?;
        *self.lock() = Some(Secret { text: text.clone(), made: Instant::now(), of_password });
        Ok(text)
    }

    /// Takes the secret when `text` is it: it is used up then.
    fn open(&self, text: &[u8]) -> Option<Secret> {
        let opens =
            |secret: &mut Secret| secret.made.elapsed() < LIFE && bool::from(secret.text.as_bytes().ct_eq(text));
        self.lock().take_if(opens)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Secret>> {
        self.secret.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `POST /ui/enter`, with the secret as the body.
pub async fn enter(State(sources): State<Sources>, peer: Peer, body: Body) -> Result<Json<Session>, PageError> {
    let secret = read_body(&peer, body, BODY_MAX, BODY_TIMEOUT).await;
    let secret = secret.map_err(|error| PageError::new(error.status(), error.text()))?;
    let secret = sources.link.open(secret.trim_ascii()).ok_or_else(|| unauthorized(SPENT))?;
    let root = user::with_password(&sources.portal, admin::NAME).await.map_err(broken)?;
    let root = root.filter(|(root, _)| root.role != user::BLOCKED);
    let (root, hash) = root.ok_or_else(|| unauthorized("there is no user root"))?;
    if secret.of_password != Some(hash) {
        return Err(unauthorized(SPENT));
    }
    let sig = session::create(&sources.portal, root.id, clock::now()).await.map_err(broken)?;
    tracing::info!("the link of this start has logged a browser in as root");
    Ok(Json(Session { name: root.name, sig }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_once_and_in_its_time() -> Result<()> {
        let link = EntryLink::default();
        assert!(link.open(b"").is_none(), "there is none yet");
        let (first, second) = (link.replace(None)?, link.replace(None)?);
        assert!(first.len() >= 32 && first != second);
        assert!(link.open(first.as_bytes()).is_none(), "another has replaced it");
        assert!(link.open(&second.as_bytes()[1..]).is_none());
        assert!(link.open(second.as_bytes()).is_some(), "wrong guesses take nothing away");
        assert!(link.open(second.as_bytes()).is_none());
        let late = link.replace(None)?;
        if let Some(secret) = link.lock().as_mut() {
            secret.made = Instant::now().checked_sub(LIFE).expect("a clock that ran");
        }
        assert!(link.open(late.as_bytes()).is_none());
        Ok(())
    }
}
