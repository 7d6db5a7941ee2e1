//! Salvage: the rows of a table that can be read, where others cannot.
//!
//! Why: a page that is damaged holds some rows of one table. Whoever is to alarm goes on with all the others.
//! How: SQLite meets the damage when it comes to the page. So rows are read from the first one up to the damage, then
//! from the last one down to it, in steps that become smaller close by. A row whose text is none is left out.
//! Invariants: whoever met damage drops the transaction, since SQLite refuses to commit it. Each row comes once, in the
//! order of the file. Whoever gets rows without [`Salvaged::lost`] has all of them.
//! Memory: the rows.

use super::fault::{self, Fault};
use super::row::{FromRow, Row};
use super::{Transaction, query};

/// Rows of one step, and of the smaller ones where it met damage.
const STEPS: [i64; 4] = [512, 64, 8, 1];

/// The rows of a table that can be read.
#[derive(Debug)]
pub struct Salvaged<T> {
    pub rows: Vec<T>,
    /// Why there are more that cannot be read.
    pub lost: Option<sqlx::Error>,
}

/// Reads `columns` of all rows of `table` that can be read. Fails where the database has another trouble than damage.
pub async fn salvage<T: FromRow>(
    transaction: &mut Transaction,
    columns: &'static [&'static str],
    table: &'static str,
) -> sqlx::Result<Salvaged<T>> {
    let mut lost = None;
    let rows = match query("SELECT ").columns(columns).push(" FROM ").push(table).rows(&mut *transaction).await {
        Err(error) if is_damage(&error) => {
            let rows = past_damage(transaction, columns, table, error).await?;
            lost = rows.1;
            rows.0
        }
        rows => rows?,
    };
    let mut read = Vec::with_capacity(rows.len());
    for row in &rows {
        match T::read(row) {
            Err(error) if is_damage(&error) => lost = Some(error),
            row => read.push(row?),
        }
    }
    Ok(Salvaged { rows: read, lost })
}

fn is_damage(error: &sqlx::Error) -> bool {
    fault::of(error) == Some(Fault::Damage)
}

/// The rows before the first damage and behind the last one, each with its place as an extra last column.
async fn past_damage(
    transaction: &mut Transaction,
    columns: &'static [&'static str],
    table: &'static str,
    error: sqlx::Error,
) -> sqlx::Result<(Vec<Row>, Option<sqlx::Error>)> {
    let Some(place) = transaction.db.dialect().place_of_rows() else { return Err(error) };
    let walk = Walk { columns, table, place };
    let (mut rows, last) = walk.from(transaction, Direction { order: " > ?", tail: "", from: i64::MIN }).await?;
    let down = Direction { order: " < ?", tail: " DESC", from: i64::MAX };
    let (mut behind, _) = walk.from(transaction, down).await?;
    // A page that could be read at the second time: its rows are there already.
    let place_of = |row: &Row| row.int(columns.len()).ok().flatten().unwrap_or_default();
    behind.retain(|row| place_of(row) > last);
    rows.extend(behind.into_iter().rev());
    Ok((rows, Some(error)))
}

struct Walk {
    columns: &'static [&'static str],
    table: &'static str,
    place: &'static str,
}

struct Direction {
    order: &'static str,
    tail: &'static str,
    from: i64,
}

impl Walk {
    /// The rows up to the first damage, and the place of the last of them.
    async fn from(&self, transaction: &mut Transaction, towards: Direction) -> sqlx::Result<(Vec<Row>, i64)> {
        let (mut rows, mut at, mut steps) = (Vec::new(), towards.from, STEPS.iter());
        let mut step = steps.next();
        while let Some(count) = step {
            match self.step(transaction, &towards, at, *count).await {
                Ok(some) => {
                    let Some(last) = some.last() else { break };
                    at = last.int(self.columns.len())?.unwrap_or_default();
                    rows.extend(some);
                }
                Err(error) if is_damage(&error) => step = steps.next(),
                Err(error) => return Err(error),
            }
        }
        Ok((rows, at))
    }

    async fn step(
        &self,
        transaction: &mut Transaction,
        towards: &Direction,
        at: i64,
        count: i64,
    ) -> sqlx::Result<Vec<Row>> {
        query("SELECT ")
            .columns(self.columns)
            .push(", ")
            .push(self.place)
            .push(" FROM ")
            .push(self.table)
            .push(" WHERE ")
            .push(self.place)
            .push(towards.order)
            .bind(at)
            .push(" ORDER BY ")
            .push(self.place)
            .push(towards.tail)
            .push(" LIMIT ?")
            .bind(count)
            .rows(transaction)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::Portal;
    use crate::portal::tests::fill;
    use anyhow::Result;
    use std::collections::BTreeSet;
    use std::path::Path;

    const PAGE_BYTES: usize = 4096;
    const COUNT: i64 = 3000;

    async fn teams(dir: &Path) -> Result<Salvaged<(i64, String)>> {
        let portal = Portal::open(&dir.join("portal.db")).await?;
        let mut transaction = portal.read().await?;
        // With `resume` no index holds all columns.
        let teams = salvage(&mut transaction, &["id", "name", "resume"], "uic.team").await?;
        drop(transaction);
        portal.close().await;
        Ok(teams)
    }

    /// Whichever page of a table is damaged, all rows but those of the page are read, each once.
    #[tokio::test]
    async fn all_rows_but_those_of_a_damaged_page_are_read() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("portal.db");
        let portal = Portal::open(&path).await?;
        fill(&portal, "INSERT INTO uic.team (name, resume) SELECT 'team ' || i, printf('%0100d', i)", COUNT).await?;
        portal.close().await;
        let whole = std::fs::read(&path)?;
        let all = teams(dir.path()).await?;
        assert!(all.lost.is_none());
        assert_eq!(all.rows.len(), COUNT as usize);
        // A leaf of the table has some thirty of these rows.
        let is_leaf = |page: &[u8]| page[0] == 13 && page.windows(8).any(|text| text == b"00000000");
        let leaves: Vec<usize> =
            (1..whole.len() / PAGE_BYTES).filter(|page| is_leaf(&whole[page * PAGE_BYTES..][..PAGE_BYTES])).collect();
        assert!(leaves.len() > 50, "{}", leaves.len());
        for leaf in leaves.iter().step_by(7) {
            let mut bytes = whole.clone();
            bytes[leaf * PAGE_BYTES..][..PAGE_BYTES].fill(0xa5);
            std::fs::write(&path, bytes)?;
            let some = teams(dir.path()).await?;
            assert!(some.lost.is_some_and(|error| is_damage(&error)), "page {leaf}");
            let lost = COUNT as usize - some.rows.len();
            assert!((1..60).contains(&lost), "page {leaf}: {lost} rows are lost");
            let names: BTreeSet<&str> = some.rows.iter().map(|(_, name)| name.as_str()).collect();
            assert_eq!(names.len(), some.rows.len(), "page {leaf}");
            assert!(some.rows.is_sorted_by_key(|(id, _)| *id), "page {leaf}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_row_whose_text_is_none_is_left_out() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let portal = Portal::open(&dir.path().join("portal.db")).await?;
        query("INSERT INTO uic.team (name) VALUES ('a'), (CAST(x'ff' AS TEXT)), ('b')").execute(&portal).await?;
        portal.close().await;
        let teams = teams(dir.path()).await?;
        assert_eq!(teams.rows, [(1, "a".to_string()), (3, "b".to_string())]);
        assert!(teams.lost.is_some());
        Ok(())
    }
}
