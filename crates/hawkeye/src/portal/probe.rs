//! Probes (`falcon_portal.hawkeye_probe`): what is asked over the network, from where, as rows.
//!
//! How: the definition is kept as the JSON that agents get; what decides where it runs are columns.
//! Invariants: names are unique, for each is an endpoint; a definition that is saved has no fault
//! (`netprobe::Definition::check`), and its name is the row's.
//! Compat: the table is Hawkeye's own.

use super::db::{Record, Salvaged, Target, Transaction, fault, record, salvage, select};
use serde::Serialize;

/// Probes of a site at most: what a server's memory and the list of a page bear.
pub const PROBES_MAX: i64 = 10_000;
/// The group of probes that the server runs.
pub const SERVER: i64 = 0;

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
