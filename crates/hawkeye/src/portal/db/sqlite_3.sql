-- From version 2 to 3: a callback under way is marked, a delivery has the priority of its event, a case says what of its telling failed, and what goes by its age is
-- found by its age.
ALTER TABLE hawkeye_delivery ADD COLUMN begun_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hawkeye_delivery ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
CREATE INDEX idx_hawkeye_delivery_priority ON hawkeye_delivery (target, priority, due_at, id);
ALTER TABLE event_cases ADD COLUMN told VARCHAR(500);
CREATE INDEX IF NOT EXISTS idx_event_cases_update ON event_cases (status, update_at);
CREATE INDEX IF NOT EXISTS idx_alert_link_create ON alert_link (create_at);
CREATE INDEX IF NOT EXISTS idx_tmp_graph_time ON tmp_graph (time_);
-- `session.sig` is the SHA-256 of the secret from here on. SQLite has no such function: sqlite.rs does that.
