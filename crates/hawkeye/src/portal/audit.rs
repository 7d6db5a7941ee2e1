//! Audit (`uic.hawkeye_audit`): who changed what, when and from where, what was there before and what behind.
//!
//! Why: the original keeps no trace; who deleted a template is asked around.
//! How: a row is written before a change begins and completed behind it, so no change is without a row: where a crash
//! came between, its status stays 0. What is applied from files completes its row in the transaction of the change.
//! Invariants: no text holds a secret; whoever writes a row sees to that.
//! Memory: a text has at most `audit_text::TEXT_MAX` bytes; rows go by their age and by the bytes of all texts
//! ([`Keep`]), looked at each [`LOOK_EACH`] rows.

use super::Portal;
use super::db::{Target, query, record, select};

/// Rows between two looks at what is to go.
const LOOK_EACH: i64 = 64;
/// Bytes that a row takes beside its two texts; a guess.
const ROW_BYTES: i64 = 200;
/// Characters of the columns `action` and `subject`.
const COLUMN_MAX: usize = 128;

record! {
    /// A change.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Change {
        pub id: i64,
        /// Unix seconds.
        pub at: i64,
        pub who: String,
        /// Name of the token that was used; "" is a session.
        pub token: String,
        /// Address of who asked.
        pub peer: String,
        /// Method and route.
        pub action: String,
        /// The thing that was changed, as `template:5`.
        pub subject: String,
        /// Status of the answer; 0 is under way, or was cut off by a crash.
        pub status: i64,
        /// JSON of what differs, before; "" where nothing was.
        pub was: String,
        /// JSON of what differs, behind; "" where nothing is.
        pub became: String,
    }
}

/// How long, and how many bytes of rows are kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    pub seconds: i64,
    pub bytes: i64,
}

/// The changes that a list has.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub who: Option<String>,
    pub subject: Option<String>,
    pub action: Option<String>,
    /// Unix seconds.
    pub from: Option<i64>,
    /// Unix seconds.
    pub until: Option<i64>,
    pub oldest_first: bool,
}

/// Writes the row of a change that begins (its id is ignored); answers its id.
pub async fn begin(portal: &Portal, change: &Change, keep: Keep) -> sqlx::Result<i64> {
    let id = insert(portal, change).await?;
    if id % LOOK_EACH == 0 {
        drop_old(portal, keep, change.at).await?;
    }
    Ok(id)
}

/// Writes a row, whoever looks at what is old (its id is ignored); answers its id.
pub async fn insert<'d>(target: impl Into<Target<'d>>, change: &Change) -> sqlx::Result<i64> {
    let row = query(
        "INSERT INTO uic.hawkeye_audit (at, who, token, peer, action, subject, status, was, became)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let row = row.bind(change.at).bind(cut(&change.who)).bind(&change.token).bind(&change.peer);
    let row = row.bind(cut(&change.action)).bind(cut(&change.subject)).bind(change.status);
    Ok(row.bind(&change.was).bind(&change.became).execute(target).await?.id)
}

/// Completes a row.
pub async fn end<'d>(
    target: impl Into<Target<'d>>,
    id: i64,
    subject: &str,
    status: u16,
    was: &str,
    became: &str,
) -> sqlx::Result<()> {
    query("UPDATE uic.hawkeye_audit SET subject = ?, status = ?, was = ?, became = ? WHERE id = ?")
        .bind(cut(subject))
        .bind(i64::from(status))
        .bind(was)
        .bind(became)
        .bind(id)
        .execute(target)
        .await?;
    Ok(())
}

/// Takes back the row of a change that was refused.
pub async fn take_back(portal: &Portal, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM uic.hawkeye_audit WHERE id = ?").bind(id).execute(portal).await?;
    Ok(())
}

/// A part of the changes that `filter` takes.
pub async fn list(portal: &Portal, filter: &Filter, offset: usize, limit: usize) -> sqlx::Result<Vec<Change>> {
    let changes = select::<Change>("FROM uic.hawkeye_audit WHERE id > 0")
        .narrow(" AND who = ?", filter.who.clone())
        .narrow(" AND subject = ?", filter.subject.clone())
        .narrow(" AND action = ?", filter.action.clone())
        .narrow(" AND at >= ?", filter.from)
        .narrow(" AND at <= ?", filter.until);
    let order =
        if filter.oldest_first { " ORDER BY id LIMIT ? OFFSET ?" } else { " ORDER BY id DESC LIMIT ? OFFSET ?" };
    changes.push(order).bind(limit).bind(offset).all(portal).await
}

/// Deletes rows that are too old, and the oldest where all of them have too many bytes.
async fn drop_old(portal: &Portal, keep: Keep, now: i64) -> sqlx::Result<()> {
    query("DELETE FROM uic.hawkeye_audit WHERE at < ?").bind(now - keep.seconds).execute(portal).await?;
    let sql = "SELECT count(*), coalesce(sum(length(was) + length(became)), 0) FROM uic.hawkeye_audit";
    let (rows, texts): (i64, i64) = query(sql).one(portal).await?;
    let bytes = texts + rows * ROW_BYTES;
    if bytes <= keep.bytes {
        return Ok(());
    }
    // As many as would bring it to the bound, were all rows alike; the next looks take the rest.
    let excess = (rows as f64 * (bytes - keep.bytes) as f64 / bytes as f64).ceil() as i64;
    let oldest = query("SELECT id FROM uic.hawkeye_audit ORDER BY id LIMIT 1 OFFSET ?").bind(excess);
    if let Some(id) = oldest.optional::<i64>(portal).await? {
        query("DELETE FROM uic.hawkeye_audit WHERE id < ?").bind(id).execute(portal).await?;
    }
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(COLUMN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;
    use anyhow::Result;

    const KEEP: Keep = Keep { seconds: 1_000, bytes: 100_000 };

    fn change(at: i64, who: &str) -> Change {
        let (token, peer, action) = (String::new(), "10.0.0.1".into(), "PUT /strategy".into());
        let (subject, was, became) = ("strategy:1".into(), String::new(), String::new());
        Change { id: 0, at, who: who.into(), token, peer, action, subject, status: 0, was, became }
    }

    #[tokio::test]
    async fn a_row_is_there_before_the_change_and_whole_behind() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let id = begin(&portal, &change(5, "alice"), KEEP).await?;
        let refused = begin(&portal, &change(6, "bob"), KEEP).await?;
        let of = async |who: &str| list(&portal, &Filter { who: Some(who.into()), ..Filter::default() }, 0, 9).await;
        assert_eq!(of("alice").await?, [Change { id, ..change(5, "alice") }]);
        end(&portal, id, "strategy:7", 200, "{}", "{\"a\":1}").await?;
        take_back(&portal, refused).await?;
        let whole = Change {
            id,
            status: 200,
            subject: "strategy:7".into(),
            was: "{}".into(),
            became: "{\"a\":1}".into(),
            ..change(5, "alice")
        };
        assert_eq!((of("alice").await?, of("bob").await?), (vec![whole], vec![]));
        let between = async |from: i64, until: i64| -> Result<usize> {
            let filter = Filter { from: Some(from), until: Some(until), ..Filter::default() };
            Ok(list(&portal, &filter, 0, 9).await?.len())
        };
        assert_eq!((between(5, 5).await?, between(6, 9).await?), (1, 0));
        Ok(())
    }

    #[tokio::test]
    async fn what_is_old_or_too_much_goes_and_the_newest_stays() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let rows = async || -> Result<Vec<i64>> {
            Ok(list(&portal, &Filter::default(), 0, 10_000).await?.into_iter().map(|change| change.at).collect())
        };
        for at in 0..LOOK_EACH * 2 {
            begin(&portal, &change(at * 20, "a"), KEEP).await?;
        }
        let left = rows().await?;
        assert!(left.iter().all(|at| *at >= 127 * 20 - KEEP.seconds), "{left:?}");
        for _ in 0..LOOK_EACH * 4 {
            let became = "x".repeat(5_000);
            begin(&portal, &Change { became, ..change(3_000, "a") }, KEEP).await?;
        }
        let bound = KEEP.bytes / 5_000 + LOOK_EACH;
        let left = rows().await?;
        assert!((1..=bound).contains(&(left.len() as i64)), "{}", left.len());
        Ok(())
    }
}
