-- From version 4 to 5: probes and what their places say of them, jobs that report, what agents say of themselves.
CREATE TABLE hawkeye_probe (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,                    -- the endpoint of its series
  definition TEXT NOT NULL,                     -- JSON, as netprobe::Definition
  grp_id INTEGER NOT NULL DEFAULT 0,            -- the host group whose agents run it; 0 is the server
  places INTEGER NOT NULL DEFAULT 0,            -- how many agents of the group; 0 is all
  pause INTEGER NOT NULL DEFAULT 0,             -- 1: nobody runs it
  create_user TEXT NOT NULL DEFAULT '',
  create_at INTEGER NOT NULL DEFAULT 0          -- Unix seconds
);
CREATE INDEX idx_hawkeye_probe_grp_id ON hawkeye_probe (grp_id);
CREATE TABLE hawkeye_probe_state (
  probe_id INTEGER NOT NULL,
  place TEXT NOT NULL,                          -- the agent's hostname; "server"
  up INTEGER NOT NULL,                          -- 1: the last run was as expected
  code TEXT NOT NULL DEFAULT '',                -- netprobe::Code, of the last failure
  reason TEXT NOT NULL DEFAULT '',              -- one line
  changed_at INTEGER NOT NULL,                  -- Unix seconds of the run that has said so first
  PRIMARY KEY (probe_id, place)
);
CREATE TABLE hawkeye_job (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,                    -- the endpoint of its series
  kept TEXT NOT NULL UNIQUE,                    -- SHA-256 of the token, in hex
  period INTEGER NOT NULL,                      -- seconds in which it must end well once
  grace INTEGER NOT NULL,                       -- seconds that it may be late
  runtime_max INTEGER NOT NULL DEFAULT 0,       -- seconds from start to end; 0 is any
  tags TEXT NOT NULL DEFAULT '',                -- canonical
  pause INTEGER NOT NULL DEFAULT 0,             -- 1: nobody waits for it
  create_user TEXT NOT NULL DEFAULT '',
  create_at INTEGER NOT NULL DEFAULT 0,         -- Unix seconds, as the other times; 0 is never
  resumed_at INTEGER NOT NULL DEFAULT 0,
  started_at INTEGER NOT NULL DEFAULT 0,
  ended_at INTEGER NOT NULL DEFAULT 0,
  ok_at INTEGER NOT NULL DEFAULT 0,
  duration INTEGER NOT NULL DEFAULT -1,         -- seconds of the last run; -1 is unknown
  exit_code INTEGER NOT NULL DEFAULT 0,         -- of the last end
  note TEXT NOT NULL DEFAULT ''                 -- what the job has said at its last end, one line
);
CREATE TABLE hawkeye_agent (
  hostname TEXT PRIMARY KEY NOT NULL,
  version TEXT NOT NULL DEFAULT '',
  config_digest TEXT NOT NULL DEFAULT '',       -- equal digests, equal settings
  clock_offset_ms INTEGER,                      -- the agent's clock less the server's; NULL is unknown
  told_at INTEGER NOT NULL                      -- Unix seconds when it has said something else than before
);
