-- From version 2 to 3: a callback under way is marked, and a case says what of its telling failed.
ALTER TABLE hawkeye_delivery ADD COLUMN begun_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event_cases ADD COLUMN told VARCHAR(500);
