-- Open-Falcon's five databases (spec: uic, falcon_portal, dashboard, graph, alarms) as one SQLite file. Table and column names,
-- defaults and uniqueness are the original's; names compare without case, as its utf8_general_ci collation does.
-- Times are text in local time, `YYYY-MM-DD HH:MM:SS`, as the original writes them; columns that hold Unix seconds say so.
-- The graph database's index tables are not here: the store's own index answers for them.

-- uic
CREATE TABLE team (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name VARCHAR(64) NOT NULL UNIQUE COLLATE NOCASE,
  resume VARCHAR(255) NOT NULL DEFAULT '',
  creator INTEGER NOT NULL DEFAULT 0,
  created TEXT NOT NULL DEFAULT (datetime('now', 'localtime'))
);
CREATE TABLE user (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name VARCHAR(64) NOT NULL UNIQUE COLLATE NOCASE,
  passwd VARCHAR(64) NOT NULL DEFAULT '',
  cnname VARCHAR(128) NOT NULL DEFAULT '',
  email VARCHAR(255) NOT NULL DEFAULT '',
  phone VARCHAR(16) NOT NULL DEFAULT '',
  im VARCHAR(32) NOT NULL DEFAULT '',
  qq VARCHAR(16) NOT NULL DEFAULT '',
  role INTEGER NOT NULL DEFAULT 0,              -- -1 blocked, 0 normal, 1 admin, 2 root
  creator INTEGER NOT NULL DEFAULT 0,
  created TEXT NOT NULL DEFAULT (datetime('now', 'localtime'))
);
CREATE TABLE rel_team_user (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tid INTEGER NOT NULL,
  uid INTEGER NOT NULL
);
CREATE INDEX idx_rel_tid ON rel_team_user (tid);
CREATE INDEX idx_rel_uid ON rel_team_user (uid);
CREATE TABLE session (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  uid INTEGER NOT NULL,
  sig VARCHAR(64) NOT NULL,                     -- SHA-256 of the secret; the original has the secret
  expired INTEGER NOT NULL                      -- Unix seconds
);
CREATE INDEX idx_session_uid ON session (uid);
CREATE INDEX idx_session_sig ON session (sig);

-- falcon_portal
CREATE TABLE host (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  hostname VARCHAR(255) NOT NULL DEFAULT '' UNIQUE COLLATE NOCASE,
  ip VARCHAR(16) NOT NULL DEFAULT '',
  agent_version VARCHAR(16) NOT NULL DEFAULT '',
  plugin_version VARCHAR(128) NOT NULL DEFAULT '',
  maintain_begin INTEGER NOT NULL DEFAULT 0,    -- Unix seconds
  maintain_end INTEGER NOT NULL DEFAULT 0,      -- Unix seconds
  update_at TEXT NOT NULL DEFAULT (datetime('now', 'localtime'))
);
CREATE TABLE grp (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  grp_name VARCHAR(255) NOT NULL DEFAULT '' UNIQUE COLLATE NOCASE,
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  create_at TEXT NOT NULL DEFAULT (datetime('now', 'localtime')),
  come_from INTEGER NOT NULL DEFAULT 0          -- 0 synchronised from elsewhere, 1 made by hand
);
CREATE TABLE grp_host (
  grp_id INTEGER NOT NULL,
  host_id INTEGER NOT NULL
);
CREATE INDEX idx_grp_host_grp_id ON grp_host (grp_id);
CREATE INDEX idx_grp_host_host_id ON grp_host (host_id);
CREATE TABLE tpl (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tpl_name VARCHAR(255) NOT NULL DEFAULT '' UNIQUE COLLATE NOCASE,
  parent_id INTEGER NOT NULL DEFAULT 0,
  action_id INTEGER NOT NULL DEFAULT 0,
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  create_at TEXT NOT NULL DEFAULT (datetime('now', 'localtime'))
);
CREATE TABLE strategy (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  metric VARCHAR(128) NOT NULL DEFAULT '',
  tags VARCHAR(256) NOT NULL DEFAULT '',
  max_step INTEGER NOT NULL DEFAULT 1,
  priority INTEGER NOT NULL DEFAULT 0,
  func VARCHAR(512) NOT NULL DEFAULT 'all(#1)', -- the original has 16
  op VARCHAR(8) NOT NULL DEFAULT '',
  right_value VARCHAR(64) NOT NULL,
  note VARCHAR(128) NOT NULL DEFAULT '',
  run_begin VARCHAR(16) NOT NULL DEFAULT '',
  run_end VARCHAR(16) NOT NULL DEFAULT '',
  tpl_id INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX idx_strategy_tpl_id ON strategy (tpl_id);
CREATE TABLE expression (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  expression VARCHAR(1024) NOT NULL,
  func VARCHAR(512) NOT NULL DEFAULT 'all(#1)', -- the original has 16
  op VARCHAR(8) NOT NULL DEFAULT '',
  right_value VARCHAR(16) NOT NULL DEFAULT '',
  max_step INTEGER NOT NULL DEFAULT 1,
  priority INTEGER NOT NULL DEFAULT 0,
  note VARCHAR(1024) NOT NULL DEFAULT '',
  action_id INTEGER NOT NULL DEFAULT 0,
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  pause INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE grp_tpl (
  grp_id INTEGER NOT NULL,
  tpl_id INTEGER NOT NULL,
  bind_user VARCHAR(64) NOT NULL DEFAULT ''
);
CREATE INDEX idx_grp_tpl_grp_id ON grp_tpl (grp_id);
CREATE INDEX idx_grp_tpl_tpl_id ON grp_tpl (tpl_id);
CREATE TABLE plugin_dir (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  grp_id INTEGER NOT NULL,
  dir VARCHAR(255) NOT NULL,
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  create_at TEXT NOT NULL DEFAULT (datetime('now', 'localtime'))
);
CREATE INDEX idx_plugin_dir_grp_id ON plugin_dir (grp_id);
CREATE TABLE action (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  uic VARCHAR(255) NOT NULL DEFAULT '',         -- team names, joined by commas
  url VARCHAR(255) NOT NULL DEFAULT '',
  callback INTEGER NOT NULL DEFAULT 0,
  before_callback_sms INTEGER NOT NULL DEFAULT 0,
  before_callback_mail INTEGER NOT NULL DEFAULT 0,
  after_callback_sms INTEGER NOT NULL DEFAULT 0,
  after_callback_mail INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE mockcfg (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name VARCHAR(255) NOT NULL DEFAULT '' UNIQUE COLLATE NOCASE,
  obj VARCHAR(10240) NOT NULL DEFAULT '',
  obj_type VARCHAR(255) NOT NULL DEFAULT '',    -- group, host or other
  metric VARCHAR(128) NOT NULL DEFAULT '',
  tags VARCHAR(1024) NOT NULL DEFAULT '',
  dstype VARCHAR(32) NOT NULL DEFAULT 'GAUGE',
  step INTEGER NOT NULL DEFAULT 60,
  mock DOUBLE NOT NULL DEFAULT 0,
  creator VARCHAR(64) NOT NULL DEFAULT '',
  t_create TEXT NOT NULL DEFAULT (datetime('now', 'localtime')),
  t_modify TEXT NOT NULL DEFAULT (datetime('now', 'localtime'))
);
CREATE TABLE cluster (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  grp_id INTEGER NOT NULL,
  numerator VARCHAR(10240) NOT NULL,
  denominator VARCHAR(10240) NOT NULL,
  endpoint VARCHAR(255) NOT NULL,
  metric VARCHAR(255) NOT NULL,
  tags VARCHAR(255) NOT NULL,
  ds_type VARCHAR(255) NOT NULL,
  step INTEGER NOT NULL,
  last_update TEXT NOT NULL DEFAULT (datetime('now', 'localtime')),
  creator VARCHAR(255) NOT NULL
);
CREATE TABLE alert_link (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  path VARCHAR(16) NOT NULL DEFAULT '' UNIQUE,
  content TEXT NOT NULL,
  create_at TEXT NOT NULL DEFAULT (datetime('now', 'localtime'))
);
CREATE INDEX idx_alert_link_create ON alert_link (create_at);

-- dashboard
CREATE TABLE dashboard_screen (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  pid INTEGER NOT NULL DEFAULT 0,
  name CHAR(128) NOT NULL COLLATE NOCASE,
  time TEXT NOT NULL DEFAULT (datetime('now', 'localtime')),
  UNIQUE (pid, name)
);
CREATE TABLE dashboard_graph (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  title CHAR(128) NOT NULL,
  hosts VARCHAR(10240) NOT NULL DEFAULT '',     -- joined by |
  counters VARCHAR(1024) NOT NULL DEFAULT '',   -- joined by |
  screen_id INTEGER NOT NULL,
  timespan INTEGER NOT NULL DEFAULT 3600,       -- seconds
  graph_type CHAR(2) NOT NULL DEFAULT 'h',      -- h, k or a
  method CHAR(8) DEFAULT '',
  position INTEGER NOT NULL DEFAULT 0,
  falcon_tags VARCHAR(512) NOT NULL DEFAULT ''
);
CREATE INDEX idx_dashboard_graph_sid ON dashboard_graph (screen_id);
CREATE TABLE tmp_graph (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  endpoints VARCHAR(10240) NOT NULL DEFAULT '',
  counters VARCHAR(10240) NOT NULL DEFAULT '',
  ck VARCHAR(32) NOT NULL UNIQUE,
  time_ TEXT NOT NULL DEFAULT (datetime('now', 'localtime'))
);
CREATE INDEX idx_tmp_graph_time ON tmp_graph (time_);

-- alarms
CREATE TABLE event_cases (
  id VARCHAR(50) PRIMARY KEY NOT NULL,
  endpoint VARCHAR(100) NOT NULL,
  metric VARCHAR(200) NOT NULL,                 -- the counter text
  func VARCHAR(512),                            -- the original has 50
  cond VARCHAR(200) NOT NULL,
  note VARCHAR(500),
  max_step INTEGER,
  current_step INTEGER,
  priority INTEGER NOT NULL,
  status VARCHAR(20) NOT NULL,                  -- PROBLEM or OK
  timestamp TEXT NOT NULL,
  update_at TEXT,
  closed_at TEXT,
  closed_note VARCHAR(250),
  user_modified INTEGER,
  tpl_creator VARCHAR(64),
  expression_id INTEGER,
  strategy_id INTEGER,
  template_id INTEGER,
  process_note INTEGER,
  process_status VARCHAR(20) DEFAULT 'unresolved',
  told VARCHAR(500)                             -- Hawkeye's own: what of the telling failed, see portal/alarm.rs
);
CREATE INDEX idx_event_cases_endpoint ON event_cases (endpoint, strategy_id, template_id);
CREATE INDEX idx_event_cases_status ON event_cases (status, timestamp);
CREATE INDEX idx_event_cases_update ON event_cases (status, update_at);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  event_caseId VARCHAR(50) REFERENCES event_cases (id) ON DELETE CASCADE ON UPDATE CASCADE,
  step INTEGER,
  cond VARCHAR(200) NOT NULL,
  status INTEGER DEFAULT 0,                     -- 0 PROBLEM, 1 OK
  timestamp TEXT,
  explanation TEXT                              -- Hawkeye's own: JSON, see docs/rules.md
);
CREATE INDEX idx_events_case ON events (event_caseId);
CREATE INDEX idx_events_timestamp ON events (timestamp);
CREATE TABLE event_note (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  event_caseId VARCHAR(50) REFERENCES event_cases (id) ON DELETE CASCADE ON UPDATE CASCADE,
  note VARCHAR(300),
  case_id VARCHAR(20),
  status VARCHAR(15),
  timestamp TEXT,
  user_id INTEGER REFERENCES user (id)
);
CREATE INDEX idx_event_note_case ON event_note (event_caseId);

-- Hawkeye's own: where alarm stands in the durable event queue, and what it still has to deliver.
CREATE TABLE hawkeye_state (
  name TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL
);
CREATE TABLE hawkeye_delivery (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  target TEXT NOT NULL,                         -- what a failure delays: callback origin, sms, im, mail gateway, smtp
  kind TEXT NOT NULL,                           -- callback, sms, im, mail, smtp
  lane TEXT NOT NULL,                           -- the event id; deliveries of one lane to one target keep their order
  body TEXT NOT NULL,                           -- JSON, by kind
  attempts INTEGER NOT NULL DEFAULT 0,
  due_at INTEGER NOT NULL,                      -- Unix milliseconds of the next attempt
  created_at INTEGER NOT NULL,                  -- Unix seconds
  last_error TEXT NOT NULL DEFAULT '',
  begun_at INTEGER NOT NULL DEFAULT 0,          -- Unix seconds when a callback under way began; 0 is none under way
  priority INTEGER NOT NULL DEFAULT 0           -- the event's, 0 the highest: those of one target go by it
);
CREATE INDEX idx_hawkeye_delivery_priority ON hawkeye_delivery (target, priority, due_at, id);
CREATE INDEX idx_hawkeye_delivery_due ON hawkeye_delivery (target, due_at, id);
CREATE INDEX idx_hawkeye_delivery_lane ON hawkeye_delivery (target, lane, id);
