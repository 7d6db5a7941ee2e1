//! Links (`falcon_portal.alert_link`): texts of merged messages, each kept under a path that nobody guesses.
//!
//! Why: an SMS has no room for what it merges; it carries the path, and whoever has that reads the rest without a
//! login.
//! Invariants: a path is found by its exact letters, also where the table compares without case.
//! Memory: at most [`LINKS_MAX`] rows of at most [`CONTENT_MAX`] bytes; the oldest go for new ones, and what is older
//! than `alarm.case_retention` goes anyway (`purge.rs`).

use super::db::{Target, Transaction, query, record, select};
use crate::clock;

/// The longest text of a link: some three hundred messages.
pub const CONTENT_MAX: usize = 64 << 10;
/// Links that are kept: a storm over a hundred people and twenty metrics makes two thousand a minute.
const LINKS_MAX: i64 = 50_000;
/// Rows that go in one transaction, should an old table hold many more.
const BATCH: i64 = 1_000;
/// Letters of a path, as in the original.
pub const PATH_LEN: usize = 8;
const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

record! {
    /// Row of a link.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Link {
        pub path: String,
        pub content: String,
    }
}

/// A path that nobody guesses.
pub fn new_path() -> String {
    (0..PATH_LEN).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}

/// Keeps a text under a path, which must be new; the oldest link goes where there are too many.
pub async fn store(transaction: &mut Transaction, path: &str, content: &str) -> sqlx::Result<()> {
    let done = query("INSERT INTO falcon_portal.alert_link (path, content, create_at) VALUES (?, ?, ?)")
        .bind(path)
        .bind(content)
        .bind(clock::local_text(clock::now()))
        .execute(&mut *transaction)
        .await?;
    let last = done.id - LINKS_MAX;
    query("DELETE FROM falcon_portal.alert_link WHERE id <= ? AND id > ?")
        .bind(last)
        .bind(last - BATCH)
        .execute(transaction)
        .await?;
    Ok(())
}

/// The text under a path, if there is one.
pub async fn find(on: impl Into<Target<'_>>, path: &str) -> sqlx::Result<Option<String>> {
    let sql = "FROM falcon_portal.alert_link WHERE path = ?";
    let found: Option<Link> = select::<Link>(sql).bind(path).optional(on).await?;
    Ok(found.filter(|link| link.path == path).map(|link| link.content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::{run, temporary};

    #[tokio::test]
    async fn links_are_found_by_their_letters_and_the_oldest_go() -> anyhow::Result<()> {
        let (_dir, portal) = temporary().await?;
        let path = new_path();
        assert!(path.len() == PATH_LEN && path != new_path());
        let mut transaction = portal.write().await?;
        store(&mut transaction, "aBcDeFgH", "one,,two 中").await?;
        transaction.commit().await?;
        assert_eq!(find(&portal, "aBcDeFgH").await?.as_deref(), Some("one,,two 中"));
        assert_eq!((find(&portal, "abcdefgh").await?, find(&portal, "' OR 1 --").await?), (None, None));
        let sql = "INSERT INTO falcon_portal.alert_link (id, path, content) VALUES (50001, 'later', '')";
        run(&portal, sql).await?;
        let mut transaction = portal.write().await?;
        store(&mut transaction, &path, "three").await?;
        transaction.commit().await?;
        assert_eq!(find(&portal, "aBcDeFgH").await?, None);
        assert_eq!(find(&portal, &path).await?.as_deref(), Some("three"));
        Ok(())
    }
}
