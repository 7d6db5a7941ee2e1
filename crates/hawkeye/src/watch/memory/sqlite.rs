//! SQLite: what the library of the portal's database says of its own memory.

use stdx::Ledger;

/// Names what SQLite holds in the ledger: a part of the C library's heap, for all connections of the process together.
pub fn register_sqlite(ledger: &Ledger) {
    ledger.source(|report| {
        // SAFETY: the function only reads a counter, under a lock of SQLite's own.
        let bytes = unsafe { libsqlite3_sys::sqlite3_memory_used() };
        report.elsewhere("portal database", bytes.max(0) as u64, None);
    });
}
