//! Probes (`falcon_portal.hawkeye_probe`): what is asked over the network, from where, as rows; and what its places say
//! (`hawkeye_probe_state`).
//!
//! How: the definition is kept as the JSON that agents get; what decides where it runs are columns.
//! Invariants: names are unique without regard to case, for each is an endpoint and a file; a definition that is saved
//! has no fault (`netprobe::Definition::check`), and its name is the row's. States go with their probe, and probes with
//! their group.
//! Memory: all definitions of a site together have at most [`DEFINITIONS_BYTES_MAX`].
//! Compat: the tables are Hawkeye's own.

use super::Portal;
use super::db::{Query, Record, Salvaged, Target, Transaction, fault, query, record, salvage, select};
use serde::Serialize;

/// Probes of a site at most: what a server's memory and the list of a page bear.
pub const PROBES_MAX: usize = 10_000;
/// Bytes of all definitions together: each of [`PROBES_MAX`] may have 1.6 kB, several times what most have.
pub const DEFINITIONS_BYTES_MAX: i64 = 16 << 20;
/// Agents of a group that run a probe at most, unless all do; no judgement by "k of n places" needs more.
pub const PLACES_MAX: i64 = 100;
/// States of an answer: a page of a hundred probes, each from five hundred hosts.
pub const STATES_MAX: i64 = 50_000;
/// The group of probes that the server runs.
pub const SERVER: i64 = 0;
/// Values of one ` IN (…)`: far below what SQLite and MySQL take.
const LIST_ROWS: usize = 512;

record! {
    /// Row of a probe.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Probe {
        pub id: i64,
        /// Endpoint of its series.
        pub name: String,
        /// JSON of a `netprobe::Definition`.
        pub definition: String,
        /// Host group whose agents run it; [`SERVER`] is the server.
        pub grp_id: i64,
        /// How many agents of the group run it; 0 is all.
        pub places: i64,
        /// 1 where nobody runs it.
        pub pause: i64,
        pub create_user: String,
        /// Unix seconds.
        pub create_at: i64,
    }
}

record! {
    /// What a place says of a probe.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct State {
        pub probe_id: i64,
        /// Hostname of the agent, or `server`.
        pub place: String,
        /// 1 where the last run was as expected.
        pub up: i64,
        /// Code of the last failure (`netprobe::Code`).
        pub code: String,
        /// One line.
        pub reason: String,
        /// Unix seconds of the run that has said so first.
        pub changed_at: i64,
    }
}

/// Why a probe is not saved.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another probe has the name: its id, and how the name is spelled there.
    Taken(i64, String),
    /// There are [`PROBES_MAX`].
    TooMany,
    /// All definitions would have more than [`DEFINITIONS_BYTES_MAX`].
    TooLong,
}

/// All probes that can be read, in no order. An Open-Falcon's MySQL, over which hbs runs alone, has no such table, and
/// no probe.
pub async fn that_read(transaction: &mut Transaction) -> sqlx::Result<Salvaged<Probe>> {
    match salvage(transaction, Probe::COLUMNS, "falcon_portal.hawkeye_probe").await {
        Err(error) if fault::is_missing_table(&error) => Ok(Salvaged { rows: Vec::new(), lost: None }),
        read => read,
    }
}

/// All probes, oldest first.
pub async fn all(on: impl Into<Target<'_>>) -> sqlx::Result<Vec<Probe>> {
    select::<Probe>("FROM falcon_portal.hawkeye_probe ORDER BY id").all(on).await
}

/// Probes of a group, oldest first.
pub async fn of_group(portal: &Portal, grp_id: i64) -> sqlx::Result<Vec<Probe>> {
    select::<Probe>("FROM falcon_portal.hawkeye_probe WHERE grp_id = ? ORDER BY id").bind(grp_id).all(portal).await
}

/// Finds a probe by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Probe>> {
    select::<Probe>("FROM falcon_portal.hawkeye_probe WHERE id = ?").bind(id).optional(portal).await
}

/// What places say of these probes, at most [`STATES_MAX`] of them; of more, those that are down come first.
pub async fn states(portal: &Portal, ids: &[i64]) -> sqlx::Result<Vec<State>> {
    let mut found = Vec::new();
    for ids in ids.chunks(LIST_ROWS) {
        let left = STATES_MAX - found.len() as i64;
        let states = select::<State>("FROM falcon_portal.hawkeye_probe_state WHERE probe_id");
        let states = states.in_list(ids.iter().copied()).push(" ORDER BY up, probe_id, place LIMIT ?").bind(left);
        found.extend(states.all::<State>(portal).await?);
    }
    Ok(found)
}

/// Saves a new probe, whose id is ignored; answers it with its id.
pub async fn create(portal: &Portal, new: Probe) -> sqlx::Result<Result<Probe, Refusal>> {
    let mut transaction = portal.write().await?;
    if let Some(refusal) = refusal(&mut transaction, &new).await? {
        return Ok(Err(refusal));
    }
    let id = insert(&mut transaction, &new).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(Ok(Probe { id, ..new }))
}

/// Saves everything but who made the probe, and when.
pub async fn update(portal: &Portal, changed: &Probe) -> sqlx::Result<Result<(), Refusal>> {
    let mut transaction = portal.write().await?;
    if let Some(refusal) = refusal(&mut transaction, changed).await? {
        return Ok(Err(refusal));
    }
    change(&mut transaction, changed).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(Ok(()))
}

/// Why `new` cannot be beside the probes that there are; one with its id is not beside it.
async fn refusal(transaction: &mut Transaction, new: &Probe) -> sqlx::Result<Option<Refusal>> {
    let sql = "SELECT id, name, LENGTH(definition) FROM falcon_portal.hawkeye_probe";
    let mut others: Vec<(i64, String, i64)> = query(sql).all(transaction).await?;
    others.retain(|(id, ..)| *id != new.id);
    if let Some((id, name, _)) = others.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(&new.name)) {
        return Ok(Some(Refusal::Taken(*id, name.clone())));
    }
    if others.len() >= PROBES_MAX {
        return Ok(Some(Refusal::TooMany));
    }
    let bytes: i64 = others.iter().map(|(.., bytes)| bytes).sum();
    let is_too_long = bytes + new.definition.len() as i64 > DEFINITIONS_BYTES_MAX;
    Ok(is_too_long.then_some(Refusal::TooLong))
}

/// Saves a new probe inside a transaction; the caller announces it.
pub async fn insert(on: impl Into<Target<'_>>, new: &Probe) -> sqlx::Result<i64> {
    let insert = query(
        "INSERT INTO falcon_portal.hawkeye_probe (name, definition, grp_id, places, pause, create_user, create_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    Ok(bind(insert, new).bind(&new.create_user).bind(new.create_at).execute(on).await?.id)
}

/// As [`update`], inside a transaction; the caller announces it. What hosts of another group have said goes.
pub async fn change(transaction: &mut Transaction, changed: &Probe) -> sqlx::Result<()> {
    query(
        "DELETE FROM falcon_portal.hawkeye_probe_state WHERE probe_id = ? AND probe_id IN
         (SELECT id FROM falcon_portal.hawkeye_probe WHERE grp_id <> ?)",
    )
    .bind(changed.id)
    .bind(changed.grp_id)
    .execute(&mut *transaction)
    .await?;
    let sql = "UPDATE falcon_portal.hawkeye_probe SET name = ?, definition = ?, grp_id = ?, places = ?, pause = ?
               WHERE id = ?";
    bind(query(sql), changed).bind(changed.id).execute(transaction).await?;
    Ok(())
}

/// Binds what may change.
fn bind(query: Query, row: &Probe) -> Query {
    query.bind(&row.name).bind(&row.definition).bind(row.grp_id).bind(row.places).bind(row.pause)
}

/// Sets who made a probe, inside a transaction.
pub async fn set_owner(transaction: &mut Transaction, id: i64, create_user: &str) -> sqlx::Result<()> {
    let sql = "UPDATE falcon_portal.hawkeye_probe SET create_user = ? WHERE id = ?";
    query(sql).bind(create_user).bind(id).execute(transaction).await?;
    Ok(())
}

/// Deletes a probe with its states, if it is there.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    remove(&mut transaction, id).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(())
}

/// As [`delete`], inside a transaction; the caller announces it.
pub async fn remove(transaction: &mut Transaction, id: i64) -> sqlx::Result<()> {
    for sql in [
        "DELETE FROM falcon_portal.hawkeye_probe_state WHERE probe_id = ?",
        "DELETE FROM falcon_portal.hawkeye_probe WHERE id = ?",
    ] {
        query(sql).bind(id).execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Deletes the probes of a group with their states.
pub(super) async fn remove_of_group(transaction: &mut Transaction, grp_id: i64) -> sqlx::Result<()> {
    for sql in [
        "DELETE FROM falcon_portal.hawkeye_probe_state
         WHERE probe_id IN (SELECT id FROM falcon_portal.hawkeye_probe WHERE grp_id = ?)",
        "DELETE FROM falcon_portal.hawkeye_probe WHERE grp_id = ?",
    ] {
        query(sql).bind(grp_id).execute(&mut *transaction).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::group;
    use crate::portal::tests::{fill, run, temporary};
    use anyhow::Result;

    fn row(name: &str, grp_id: i64) -> Probe {
        Probe { name: name.into(), definition: "{}".into(), grp_id, create_user: "alice".into(), ..Probe::default() }
    }

    #[tokio::test]
    async fn a_probe_is_there_once_and_goes_with_its_group() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let group = group::create(&portal, "web", "root").await?.id;
        let first = create(&portal, row("Shop", SERVER)).await?.expect("room");
        let second = create(&portal, row("mail", group)).await?.expect("room");
        assert_eq!(create(&portal, row("sHOP", group)).await?, Err(Refusal::Taken(first.id, "Shop".into())));
        let renamed = Probe { name: "shop".into(), ..second.clone() };
        assert_eq!(update(&portal, &renamed).await?, Err(Refusal::Taken(first.id, "Shop".into())));
        let changed = Probe { name: "shop".into(), places: 3, pause: 1, definition: "[]".into(), ..first.clone() };
        assert_eq!(update(&portal, &Probe { create_user: "bob".into(), ..changed.clone() }).await?, Ok(()));
        assert_eq!(by_id(&portal, first.id).await?, Some(changed.clone()), "who made it stays");
        let said = async |id: i64, place: &'static str, up: i64| -> Result<()> {
            let sql = "INSERT INTO falcon_portal.hawkeye_probe_state (probe_id, place, up, changed_at, reason)
                       VALUES (?, ?, ?, 5, '')";
            query(sql).bind(id).bind(place).bind(up).execute(&portal).await?;
            Ok(())
        };
        said(first.id, "server", 1).await?;
        said(second.id, "web-01", 1).await?;
        said(second.id, "web-02", 0).await?;
        let places = async || -> Result<Vec<String>> {
            let states = states(&portal, &[first.id, second.id]).await?;
            Ok(states.into_iter().map(|state| state.place).collect())
        };
        assert_eq!(places().await?, ["web-02", "server", "web-01"]);
        assert_eq!(of_group(&portal, group).await?, std::slice::from_ref(&second));
        let version = portal.version();
        let moved = Probe { grp_id: group, ..changed.clone() };
        assert_eq!((update(&portal, &moved).await?, places().await?), (Ok(()), vec!["web-02".into(), "web-01".into()]));
        assert_eq!(update(&portal, &changed).await?, Ok(()));
        said(first.id, "server", 1).await?;
        group::delete(&portal, group).await?;
        assert_eq!((places().await?, all(&portal).await?), (vec!["server".to_string()], vec![changed]));
        delete(&portal, first.id).await?;
        assert_eq!((places().await?.len(), all(&portal).await?.len()), (0, 0));
        assert!(portal.version() > version, "hbs is told");
        Ok(())
    }

    #[tokio::test]
    async fn their_number_and_bytes_are_bounded() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let first = create(&portal, row("first", SERVER)).await?.expect("room");
        let long = "x".repeat(DEFINITIONS_BYTES_MAX as usize);
        let new = Probe { definition: long.clone(), ..row("second", SERVER) };
        assert_eq!(create(&portal, new).await?, Err(Refusal::TooLong));
        assert_eq!(update(&portal, &Probe { definition: long, ..first.clone() }).await?, Ok(()), "it alone has room");
        update(&portal, &first).await?.expect("its own name is not taken");
        let insert = "INSERT INTO falcon_portal.hawkeye_probe (name, definition) SELECT i, '{}'";
        fill(&portal, insert, PROBES_MAX as i64 - 1).await?;
        assert_eq!(create(&portal, row("more", SERVER)).await?, Err(Refusal::TooMany));
        assert_eq!(update(&portal, &first).await?, Ok(()));
        run(&portal, "DELETE FROM falcon_portal.hawkeye_probe WHERE name = '1'").await?;
        assert!(create(&portal, row("more", SERVER)).await?.is_ok());
        Ok(())
    }
}
