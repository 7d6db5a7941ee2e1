//! Mocks (`falcon_portal.mockcfg`): values that stand for series which are silent, as rows.
//!
//! Open-Falcon calls the module and its routes *nodata*; the table and the row are its *mock configuration*.

use super::Portal;
use super::db::{Query, Record, Salvaged, Target, Transaction, query, record, salvage, select};
use crate::clock;
use serde::{Deserialize, Serialize};

/// Length of the column `name`, in characters.
pub const NAME_MAX: usize = 255;
/// Length of the column `obj`, in characters.
pub const OBJ_MAX: usize = 10_240;
/// Length of the column `metric`, in characters.
pub const METRIC_MAX: usize = 128;
/// Length of the column `tags`, in characters.
pub const TAGS_MAX: usize = 1024;

record! {
    /// Row of a mock, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct Mock {
        pub id: i64,
        pub name: String,
        /// Endpoints or names of groups, a line each.
        pub obj: String,
        /// What `obj` has: `group`, `host` or `other` (endpoints that are no hosts).
        pub obj_type: String,
        pub metric: String,
        pub tags: String,
        pub dstype: String,
        /// Seconds between two points.
        pub step: i64,
        /// The value that stands for the missing ones.
        pub mock: f64,
        pub creator: String,
    }
}

impl Mock {
    /// The names of `obj`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.obj.split('\n').map(str::trim).filter(|name| !name.is_empty())
    }

    /// The bytes of its texts, for the memory ledger.
    pub fn text_bytes(&self) -> usize {
        let names = [&self.name, &self.obj, &self.obj_type];
        let texts = [&self.metric, &self.tags, &self.dstype, &self.creator];
        names.into_iter().chain(texts).map(String::capacity).sum()
    }
}

/// All mocks, oldest first.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Mock>> {
    select::<Mock>("FROM falcon_portal.mockcfg ORDER BY id").all(portal).await
}

/// All mocks that can be read, oldest first.
pub async fn that_read(transaction: &mut Transaction) -> sqlx::Result<Salvaged<Mock>> {
    salvage(transaction, Mock::COLUMNS, "falcon_portal.mockcfg").await
}

/// Finds a mock by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Mock>> {
    select::<Mock>("FROM falcon_portal.mockcfg WHERE id = ?").bind(id).optional(portal).await
}

/// Saves a new mock, whose id is ignored; answers it with its id. A name that exists is a unique violation.
pub async fn create(portal: &Portal, new: Mock) -> sqlx::Result<Mock> {
    let id = insert(portal, &new).await?;
    portal.announce();
    Ok(Mock { id, ..new })
}

/// As [`create`], inside a transaction; the caller announces it.
pub async fn insert(on: impl Into<Target<'_>>, new: &Mock) -> sqlx::Result<i64> {
    let now = clock::local_text(clock::now());
    let insert = query(
        "INSERT INTO falcon_portal.mockcfg (obj, obj_type, metric, tags, dstype, step, mock, t_modify, t_create, name,
         creator) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    Ok(bind(insert, new, &now).bind(&now).bind(&new.name).bind(&new.creator).execute(on).await?.id)
}

/// Saves the whole row inside a transaction; the caller announces it.
pub async fn change(on: impl Into<Target<'_>>, row: &Mock) -> sqlx::Result<()> {
    let update = query(
        "UPDATE falcon_portal.mockcfg SET obj = ?, obj_type = ?, metric = ?, tags = ?, dstype = ?, step = ?, mock = ?,
         t_modify = ?, name = ?, creator = ? WHERE id = ?",
    );
    let now = clock::local_text(clock::now());
    bind(update, row, &now).bind(&row.name).bind(&row.creator).bind(row.id).execute(on).await?;
    Ok(())
}

/// Saves everything but name and creator.
pub async fn update(portal: &Portal, changed: &Mock) -> sqlx::Result<()> {
    let update = query(
        "UPDATE falcon_portal.mockcfg SET obj = ?, obj_type = ?, metric = ?, tags = ?, dstype = ?, step = ?, mock = ?,
         t_modify = ? WHERE id = ?",
    );
    bind(update, changed, &clock::local_text(clock::now())).bind(changed.id).execute(portal).await?;
    portal.announce();
    Ok(())
}

/// Binds what may change.
fn bind(query: Query, row: &Mock, now: &str) -> Query {
    let what = query.bind(&row.obj).bind(&row.obj_type).bind(&row.metric).bind(&row.tags);
    what.bind(&row.dstype).bind(row.step).bind(row.mock).bind(now)
}

/// Deletes a mock, if it is there.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    remove(portal, id).await?;
    portal.announce();
    Ok(())
}

/// As [`delete`], inside a transaction; the caller announces it.
pub async fn remove(on: impl Into<Target<'_>>, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM falcon_portal.mockcfg WHERE id = ?").bind(id).execute(on).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;

    #[tokio::test]
    async fn a_mock_keeps_its_number_and_its_name() -> anyhow::Result<()> {
        let (_dir, portal) = temporary().await?;
        let text = str::to_string;
        let new = Mock {
            id: 0,
            name: text("agent.alive"),
            obj: text("web-01\nweb-02"),
            obj_type: text("host"),
            metric: text("agent.alive"),
            tags: text("a=b"),
            dstype: text("GAUGE"),
            step: 60,
            mock: -1.0,
            creator: text("alice"),
        };
        let first = create(&portal, new.clone()).await?;
        assert_eq!(by_id(&portal, first.id).await?, Some(first.clone()));
        let taken = create(&portal, Mock { name: text("Agent.alive"), ..new }).await.expect_err("a name is there once");
        assert!(taken.as_database_error().is_some_and(|error| error.is_unique_violation()), "{taken}");
        for mock in [2.5, 0.0, 1e-9, -1e300] {
            let changed = Mock { mock, name: text("ignored"), creator: text("ignored"), ..first.clone() };
            update(&portal, &changed).await?;
            assert_eq!(all(&portal).await?, [Mock { mock, ..first.clone() }]);
        }
        delete(&portal, first.id).await?;
        assert_eq!(all(&portal).await?, []);
        Ok(())
    }
}
