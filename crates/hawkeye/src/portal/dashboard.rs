//! Dashboard (database `dashboard`): screens, the charts on them, and charts that are kept for a link, as rows.
//!
//! How: a screen is in another one (`pid`) or at the top (0); charts are on screens. Lists of endpoints and counters
//! are one text each, joined by `|`, as the old dashboard reads them.
//! Compat: docs/open-falcon/control-plane.md §2. The table calls a chart a graph, and a kept chart a tmp graph; so do
//! the routes.

use super::Portal;
use super::db::{Query, Target, Transaction, query, record, select};
use super::password::md5_hex;
use serde::Serialize;

/// Length of the columns `dashboard_screen.name` and `dashboard_graph.title`, in characters.
pub const NAME_MAX: usize = 128;
/// Length of the columns of endpoints, and of the counters of a kept chart, in characters.
pub const LIST_MAX: usize = 10_240;
/// Length of the column `dashboard_graph.counters`, in characters.
pub const COUNTERS_MAX: usize = 1024;
/// Length of the column `dashboard_graph.falcon_tags`, in characters.
pub const TAGS_MAX: usize = 512;
/// What joins the elements of a list.
pub const SEPARATOR: char = '|';

record! {
    /// Row of a screen, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Screen {
        pub id: i64,
        /// The screen that it is in; 0 at the top.
        pub pid: i64,
        pub name: String,
    }
}

record! {
    /// Row of a chart; lists are joined.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Graph {
        pub id: i64,
        pub title: String,
        pub hosts: String,
        pub counters: String,
        pub screen_id: i64,
        /// Seconds that it shows.
        pub timespan: i64,
        /// `h`: a chart per counter; `k`: one per endpoint; `a`: one.
        pub graph_type: String,
        /// `SUM`, a consolidation function, or "".
        pub method: String,
        pub position: i64,
        pub falcon_tags: String,
    }
}

record! {
    /// Row of a kept chart; lists are joined.
    #[derive(Clone, Debug, PartialEq)]
    pub struct TmpGraph {
        pub id: i64,
        pub endpoints: String,
        pub counters: String,
    }
}

/// The first screens, oldest first; those in the screen `pid`, or all.
pub async fn screens(portal: &Portal, pid: Option<i64>, limit: usize) -> sqlx::Result<Vec<Screen>> {
    let all = select::<Screen>("FROM dashboard.dashboard_screen");
    all.narrow(" WHERE pid = ?", pid).push(" ORDER BY id LIMIT ?").bind(limit).all(portal).await
}

/// Ids of the screens that are in one of these.
pub async fn within(portal: &Portal, pids: Vec<i64>) -> sqlx::Result<Vec<i64>> {
    let screens: Vec<Screen> =
        select::<Screen>("FROM dashboard.dashboard_screen WHERE pid").in_list(pids).all(portal).await?;
    Ok(screens.into_iter().map(|screen| screen.id).collect())
}

/// Finds a screen by its id.
pub async fn screen(portal: &Portal, id: i64) -> sqlx::Result<Option<Screen>> {
    select::<Screen>("FROM dashboard.dashboard_screen WHERE id = ?").bind(id).optional(portal).await
}

/// The screen of this name in `pid`, and whether it was made, for there was none.
pub async fn ensure_screen(portal: &Portal, pid: i64, name: &str) -> sqlx::Result<(Screen, bool)> {
    let mut transaction = portal.write().await?;
    let known = select::<Screen>("FROM dashboard.dashboard_screen WHERE pid = ? AND name = ?").bind(pid).bind(name);
    if let Some(screen) = known.optional(&mut transaction).await? {
        return Ok((screen, false));
    }
    let id = insert_screen(&mut transaction, pid, name).await?;
    transaction.commit().await?;
    Ok((Screen { id, pid, name: name.to_string() }, true))
}

/// Saves a new screen; answers its id. A name that `pid` has already is a unique violation.
pub async fn insert_screen(on: impl Into<Target<'_>>, pid: i64, name: &str) -> sqlx::Result<i64> {
    let insert = query("INSERT INTO dashboard.dashboard_screen (pid, name) VALUES (?, ?)").bind(pid).bind(name);
    Ok(insert.execute(on).await?.id)
}

/// Renames and moves a screen. A name that `pid` has already is a unique violation.
pub async fn update_screen(on: impl Into<Target<'_>>, screen: &Screen) -> sqlx::Result<()> {
    let update = query("UPDATE dashboard.dashboard_screen SET pid = ?, name = ? WHERE id = ?");
    update.bind(screen.pid).bind(&screen.name).bind(screen.id).execute(on).await?;
    Ok(())
}

/// Deletes a screen with its charts, if it is there.
pub async fn delete_screen(portal: &Portal, id: i64) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    remove_screen(&mut transaction, id).await?;
    transaction.commit().await
}

/// As [`delete_screen`], inside a transaction.
pub async fn remove_screen(transaction: &mut Transaction, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM dashboard.dashboard_screen WHERE id = ?").bind(id).execute(&mut *transaction).await?;
    query("DELETE FROM dashboard.dashboard_graph WHERE screen_id = ?").bind(id).execute(transaction).await?;
    Ok(())
}

/// The first charts of a screen, by their position.
pub async fn graphs(portal: &Portal, screen_id: i64, limit: usize) -> sqlx::Result<Vec<Graph>> {
    let of_screen = "FROM dashboard.dashboard_graph WHERE screen_id = ? ORDER BY position, id LIMIT ?";
    select::<Graph>(of_screen).bind(screen_id).bind(limit).all(portal).await
}

/// Finds a chart by its id.
pub async fn graph(portal: &Portal, id: i64) -> sqlx::Result<Option<Graph>> {
    select::<Graph>("FROM dashboard.dashboard_graph WHERE id = ?").bind(id).optional(portal).await
}

/// Saves a new chart, whose own id is ignored; answers its id.
pub async fn create_graph(on: impl Into<Target<'_>>, graph: &Graph) -> sqlx::Result<i64> {
    let insert = query(
        "INSERT INTO dashboard.dashboard_graph (title, hosts, counters, screen_id, timespan, graph_type, method,
         position, falcon_tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    Ok(bind_graph(insert, graph).execute(on).await?.id)
}

/// Saves a chart.
pub async fn update_graph(on: impl Into<Target<'_>>, graph: &Graph) -> sqlx::Result<()> {
    let update = query(
        "UPDATE dashboard.dashboard_graph SET title = ?, hosts = ?, counters = ?, screen_id = ?, timespan = ?,
         graph_type = ?, method = ?, position = ?, falcon_tags = ? WHERE id = ?",
    );
    bind_graph(update, graph).bind(graph.id).execute(on).await?;
    Ok(())
}

fn bind_graph(query: Query, graph: &Graph) -> Query {
    query
        .bind(&graph.title)
        .bind(&graph.hosts)
        .bind(&graph.counters)
        .bind(graph.screen_id)
        .bind(graph.timespan)
        .bind(&graph.graph_type)
        .bind(&graph.method)
        .bind(graph.position)
        .bind(&graph.falcon_tags)
}

/// Deletes a chart, if it is there.
pub async fn delete_graph(on: impl Into<Target<'_>>, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM dashboard.dashboard_graph WHERE id = ?").bind(id).execute(on).await?;
    Ok(())
}

/// The kept chart of these lists, each joined; answers its id. One that is kept already is as old as `now`
/// (local, as `YYYY-MM-DD HH:MM:SS`).
pub async fn keep_graph(portal: &Portal, endpoints: &str, counters: &str, now: &str) -> sqlx::Result<i64> {
    let key = md5_hex(&[endpoints, ":", counters]);
    let mut transaction = portal.write().await?;
    let known = query("SELECT id FROM dashboard.tmp_graph WHERE ck = ?").bind(&key);
    let id = match known.optional::<i64>(&mut transaction).await? {
        Some(id) => {
            let renew = query("UPDATE dashboard.tmp_graph SET time_ = ? WHERE id = ?").bind(now).bind(id);
            renew.execute(&mut transaction).await?;
            id
        }
        None => {
            let insert = query("INSERT INTO dashboard.tmp_graph (endpoints, counters, ck, time_) VALUES (?, ?, ?, ?)");
            insert.bind(endpoints).bind(counters).bind(&key).bind(now).execute(&mut transaction).await?.id
        }
    };
    transaction.commit().await?;
    Ok(id)
}

/// Finds a kept chart by its id.
pub async fn kept_graph(portal: &Portal, id: i64) -> sqlx::Result<Option<TmpGraph>> {
    select::<TmpGraph>("FROM dashboard.tmp_graph WHERE id = ?").bind(id).optional(portal).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;

    #[tokio::test]
    async fn screens_are_there_once_and_take_their_charts_with_them() -> anyhow::Result<()> {
        let (_dir, portal) = temporary().await?;
        let top = ensure_screen(&portal, 0, "top").await?.0;
        let (child, is_new) = ensure_screen(&portal, top.id, "child").await?;
        assert!(is_new);
        let again = ensure_screen(&portal, top.id, "Child").await?;
        assert_eq!(again, (child.clone(), false), "names compare without case");
        assert_eq!(screens(&portal, None, 9).await?, [top.clone(), child.clone()]);
        assert_eq!(screens(&portal, None, 1).await?, std::slice::from_ref(&top));
        assert_eq!(screens(&portal, Some(top.id), 9).await?, std::slice::from_ref(&child));
        let renamed = Screen { name: "c".to_string(), ..child.clone() };
        update_screen(&portal, &renamed).await?;
        assert_eq!(screen(&portal, child.id).await?, Some(renamed));

        let text = str::to_string;
        let new = Graph {
            id: 0,
            title: text("cpu"),
            hosts: text("a|b"),
            counters: text("cpu.idle|cpu.busy"),
            screen_id: child.id,
            timespan: 3600,
            graph_type: text("h"),
            method: String::new(),
            position: 2,
            falcon_tags: String::new(),
        };
        let id = create_graph(&portal, &new).await?;
        let first = create_graph(&portal, &Graph { position: 1, ..new.clone() }).await?;
        let ids = |graphs: Vec<Graph>| graphs.into_iter().map(|graph| graph.id).collect::<Vec<_>>();
        assert_eq!(ids(graphs(&portal, child.id, 9).await?), [first, id]);
        let changed = Graph { id, method: text("SUM"), falcon_tags: text("k=v"), ..new };
        update_graph(&portal, &changed).await?;
        assert_eq!(graph(&portal, id).await?, Some(changed));
        delete_graph(&portal, first).await?;
        assert_eq!(ids(graphs(&portal, child.id, 9).await?), [id]);
        delete_screen(&portal, child.id).await?;
        assert_eq!((graph(&portal, id).await?, screen(&portal, child.id).await?), (None, None));
        Ok(())
    }

    #[tokio::test]
    async fn a_kept_chart_is_found_again_and_grows_young() -> anyhow::Result<()> {
        let (_dir, portal) = temporary().await?;
        let id = keep_graph(&portal, "a|b", "c", "2020-01-01 00:00:00").await?;
        assert_ne!(keep_graph(&portal, "a", "b|c", "2020-01-01 00:00:00").await?, id);
        assert_eq!(keep_graph(&portal, "a|b", "c", "2026-01-02 03:04:05").await?, id);
        let kept = kept_graph(&portal, id).await?;
        assert_eq!(kept, Some(TmpGraph { id, endpoints: "a|b".to_string(), counters: "c".to_string() }));
        let time: String = query("SELECT time_ FROM dashboard.tmp_graph WHERE id = ?").bind(id).one(&portal).await?;
        assert_eq!(time, "2026-01-02 03:04:05");
        Ok(())
    }
}
