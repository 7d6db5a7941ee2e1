//! Reach: waits for the MySQL of `portal.url` at a start, and asks it from then on whether it is there.
//!
//! Why: hbs or an api may begin with the machine that MySQL is on, or before it; an end would leave it to others to
//! begin them again. How: the door `admin` is open meanwhile, and `/health` says what is waited for; the doors of the
//! role are bound when the portal is there, so that nobody is accepted who then waits for an answer.
//! Invariants: a server that answers, and lets this user not in or has other tables, ends the start.

use crate::config::MysqlUrl;
use crate::portal::{Portal, db::fault};
use crate::watch::health::{Health, Outage};
use anyhow::Result;
use std::time::Duration;
use supervisor::Supervisor;
use supervisor::causes::line_of;

/// Pauses between two attempts at a start: the first, and the longest; each is twice the one before.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// What is told while the portal's MySQL is away.
pub fn outage(health: &Health) -> Outage {
    health.outage("the MySQL of the portal (portal.url) does not answer")
}

/// Tries to `open` what is in MySQL at `place`, until it is there or MySQL says no.
pub async fn wait<T>(outage: &Outage, place: &str, mut open: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut pause = PAUSE;
    loop {
        outage.begin();
        let error = match open().await {
            Ok(opened) => {
                outage.works();
                return Ok(opened);
            }
            Err(error) => error,
        };
        if fault::is_refusal(&error) {
            return Err(error);
        }
        outage.fails(format!("at {place}: {}; nobody is answered before", line_of(&*error)));
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// Asks every few seconds whether MySQL is there, if there is a URL: statements find out only when somebody needs them.
pub fn watch(parts: &mut Supervisor, url: &MysqlUrl, outage: Outage) {
    if url.is_none() {
        return;
    }
    let url = url.clone();
    parts.start("asking for the portal's MySQL", |stop| async move {
        Portal::watch_mysql(&url, outage, stop.signal).await;
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use std::io;

    #[tokio::test]
    async fn who_is_away_is_waited_for_and_who_refuses_is_not() {
        let health = Health::default();
        let told = outage(&health);
        let mut attempts = 0;
        let opened = wait(&told, "db:3306/falcon_portal", async || {
            attempts += 1;
            match attempts {
                1 => Err(sqlx::Error::Io(io::Error::from(io::ErrorKind::ConnectionRefused)).into()),
                _ => {
                    let line = health.reasons()[0].line();
                    assert!(line.contains("portal.url") && line.contains("at db:3306") && line.contains("refused"));
                    Ok(attempts)
                }
            }
        });
        assert_eq!(opened.await.expect("it is there now"), 2);
        assert_eq!(health.reasons(), []);
        let refused = wait::<()>(&told, "db", async || Err(anyhow!("portal.url is empty"))).await;
        assert_eq!(refused.expect_err("nothing to wait for").to_string(), "portal.url is empty");
    }
}
