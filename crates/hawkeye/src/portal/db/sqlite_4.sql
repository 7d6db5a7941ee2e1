-- From version 3 to 4: tokens, the record of changes, exceptions of strategies.
CREATE TABLE hawkeye_token (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,                           -- what it is for
  uid INTEGER NOT NULL,                         -- the user as whom its bearer acts
  kept TEXT NOT NULL UNIQUE,                    -- SHA-256 of the secret, in hex
  scopes TEXT NOT NULL,                         -- of read, write, ingest, admin; joined by commas
  created_at INTEGER NOT NULL,                  -- Unix seconds, as the other times
  created_by TEXT NOT NULL,
  expires_at INTEGER NOT NULL DEFAULT 0,        -- 0 is never
  used_at INTEGER NOT NULL DEFAULT 0,           -- 0 is never
  used_from TEXT NOT NULL DEFAULT ''
);
CREATE INDEX idx_hawkeye_token_uid ON hawkeye_token (uid);
CREATE TABLE hawkeye_audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,                          -- Unix seconds
  who TEXT NOT NULL,
  token TEXT NOT NULL DEFAULT '',               -- the name of the token; "" is a session
  peer TEXT NOT NULL,                           -- the address
  action TEXT NOT NULL,                         -- method and route
  subject TEXT NOT NULL,                        -- what was changed, as template:5
  status INTEGER NOT NULL DEFAULT 0,            -- the answer's; 0 is under way, or was cut off by a crash
  was TEXT NOT NULL DEFAULT '',                 -- JSON of what differs, before
  became TEXT NOT NULL DEFAULT ''               -- and behind
);
CREATE INDEX idx_hawkeye_audit_subject ON hawkeye_audit (subject, id);
CREATE TABLE hawkeye_exception (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  strategy_id INTEGER NOT NULL,
  kind TEXT NOT NULL,                           -- host, group, tag
  target TEXT NOT NULL,                         -- the endpoint, the group's name, key=value
  right_value TEXT NOT NULL DEFAULT '',         -- "" is the strategy's
  max_step INTEGER NOT NULL DEFAULT 0,          -- 0 is the strategy's
  pause INTEGER NOT NULL DEFAULT 0,             -- 1: the strategy does not hold there
  note TEXT NOT NULL DEFAULT '',
  create_user TEXT NOT NULL DEFAULT '',
  create_at INTEGER NOT NULL DEFAULT 0          -- Unix seconds
);
CREATE UNIQUE INDEX idx_hawkeye_exception_target ON hawkeye_exception (strategy_id, kind, target);
