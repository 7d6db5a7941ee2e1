//! Aggregators (`falcon_portal.cluster`): series computed over the hosts of a group, as rows.
//!
//! What the texts of a row mean is read by `rules::aggregate`; here they are texts.

use super::Portal;
use super::db::{Query, Record, Salvaged, Target, Transaction, query, record, salvage, select};
use serde::{Deserialize, Serialize};

/// Length of the columns `numerator` and `denominator`, in characters.
pub const EXPRESSION_MAX: usize = 10_240;
/// Length of the columns `endpoint`, `metric` and `tags`, in characters.
pub const TEXT_MAX: usize = 255;

record! {
    /// Row of an aggregator, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct Aggregator {
        pub id: i64,
        pub grp_id: i64,
        pub numerator: String,
        pub denominator: String,
        pub endpoint: String,
        pub metric: String,
        pub tags: String,
        /// `GAUGE`, whatever its counters are: a value per host is a value or a rate.
        pub ds_type: String,
        /// Seconds between two points.
        pub step: i64,
        pub creator: String,
    }
}

impl Aggregator {
    /// The bytes of its texts, for the memory ledger.
    pub fn text_bytes(&self) -> usize {
        let sides = [&self.numerator, &self.denominator];
        let texts = [&self.endpoint, &self.metric, &self.tags, &self.ds_type, &self.creator];
        sides.into_iter().chain(texts).map(String::capacity).sum()
    }
}

/// All aggregators that can be read, oldest first.
pub async fn that_read(transaction: &mut Transaction) -> sqlx::Result<Salvaged<Aggregator>> {
    salvage(transaction, Aggregator::COLUMNS, "falcon_portal.cluster").await
}

/// Aggregators of a group, oldest first.
pub async fn of_group(portal: &Portal, grp_id: i64) -> sqlx::Result<Vec<Aggregator>> {
    select::<Aggregator>("FROM falcon_portal.cluster WHERE grp_id = ? ORDER BY id").bind(grp_id).all(portal).await
}

/// Finds an aggregator by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Aggregator>> {
    select::<Aggregator>("FROM falcon_portal.cluster WHERE id = ?").bind(id).optional(portal).await
}

/// Saves a new aggregator, whose id is ignored; answers it with its id.
pub async fn create(portal: &Portal, new: Aggregator) -> sqlx::Result<Aggregator> {
    let id = insert(portal, &new).await?;
    portal.announce();
    Ok(Aggregator { id, ..new })
}

/// As [`create`], inside a transaction; the caller announces it.
pub async fn insert(on: impl Into<Target<'_>>, new: &Aggregator) -> sqlx::Result<i64> {
    let insert = query(
        "INSERT INTO falcon_portal.cluster (numerator, denominator, endpoint, metric, tags, ds_type, step, grp_id,
         creator) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    Ok(bind(insert, new).bind(new.grp_id).bind(&new.creator).execute(on).await?.id)
}

/// Saves the whole row inside a transaction; the caller announces it.
pub async fn change(on: impl Into<Target<'_>>, row: &Aggregator) -> sqlx::Result<()> {
    let update = query(
        "UPDATE falcon_portal.cluster SET numerator = ?, denominator = ?, endpoint = ?, metric = ?, tags = ?,
         ds_type = ?, step = ?, grp_id = ?, creator = ? WHERE id = ?",
    );
    bind(update, row).bind(row.grp_id).bind(&row.creator).bind(row.id).execute(on).await?;
    Ok(())
}

/// Saves everything but group and creator.
pub async fn update(portal: &Portal, changed: &Aggregator) -> sqlx::Result<()> {
    let update = query(
        "UPDATE falcon_portal.cluster SET numerator = ?, denominator = ?, endpoint = ?, metric = ?, tags = ?,
         ds_type = ?, step = ? WHERE id = ?",
    );
    bind(update, changed).bind(changed.id).execute(portal).await?;
    portal.announce();
    Ok(())
}

/// Binds what may change.
fn bind(query: Query, row: &Aggregator) -> Query {
    let sides = query.bind(&row.numerator).bind(&row.denominator);
    sides.bind(&row.endpoint).bind(&row.metric).bind(&row.tags).bind(&row.ds_type).bind(row.step)
}

/// Deletes an aggregator, if it is there.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    remove(portal, id).await?;
    portal.announce();
    Ok(())
}

/// As [`delete`], inside a transaction; the caller announces it.
pub async fn remove(on: impl Into<Target<'_>>, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM falcon_portal.cluster WHERE id = ?").bind(id).execute(on).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;

    #[tokio::test]
    async fn an_aggregator_keeps_its_group_and_creator() -> anyhow::Result<()> {
        let (_dir, portal) = temporary().await?;
        let text = str::to_string;
        let new = Aggregator {
            id: 0,
            grp_id: 7,
            numerator: text("$(a)+$(b)"),
            denominator: text("$#"),
            endpoint: text("web"),
            metric: text("a.mean"),
            tags: text("dc=bj"),
            ds_type: text("GAUGE"),
            step: 60,
            creator: text("alice"),
        };
        let first = create(&portal, new.clone()).await?;
        let second = create(&portal, Aggregator { grp_id: 8, ..new }).await?;
        assert_eq!(of_group(&portal, 7).await?, std::slice::from_ref(&first));
        update(&portal, &Aggregator { grp_id: 8, creator: text("bob"), step: 30, ..first.clone() }).await?;
        assert_eq!(by_id(&portal, first.id).await?, Some(Aggregator { step: 30, ..first.clone() }));
        delete(&portal, first.id).await?;
        assert_eq!((by_id(&portal, first.id).await?, of_group(&portal, 8).await?), (None, vec![second]));
        Ok(())
    }
}
