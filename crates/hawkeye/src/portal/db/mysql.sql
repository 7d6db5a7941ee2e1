-- Open-Falcon's tables as its sites have them, and what Hawkeye's portal adds: a `func` of 512 characters, `events.explanation`,
-- `event_cases.told`, and the tables hawkeye_…. The databases are utf8 (three bytes a character) with names that ignore case. The graph
-- database is not here: the portal does not use it (tests/services/graph_index.sql has its tables).

-- uic
CREATE TABLE uic.team (
  id      INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name    VARCHAR(64) NOT NULL,
  resume  VARCHAR(255) NOT NULL DEFAULT '',
  creator INT UNSIGNED NOT NULL DEFAULT 0,
  created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  UNIQUE KEY idx_team_name (name)
) ENGINE = InnoDB;
CREATE TABLE uic.user (
  id      INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name    VARCHAR(64) NOT NULL,
  passwd  VARCHAR(64) NOT NULL DEFAULT '',
  cnname  VARCHAR(128) NOT NULL DEFAULT '',
  email   VARCHAR(255) NOT NULL DEFAULT '',
  phone   VARCHAR(16) NOT NULL DEFAULT '',
  im      VARCHAR(32) NOT NULL DEFAULT '',
  qq      VARCHAR(16) NOT NULL DEFAULT '',
  role    TINYINT NOT NULL DEFAULT 0,
  creator INT UNSIGNED NOT NULL DEFAULT 0,
  created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  UNIQUE KEY idx_user_name (name)
) ENGINE = InnoDB;
CREATE TABLE uic.rel_team_user (
  id  INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  tid INT UNSIGNED NOT NULL,
  uid INT UNSIGNED NOT NULL,
  KEY idx_rel_tid (tid),
  KEY idx_rel_uid (uid)
) ENGINE = InnoDB;
CREATE TABLE uic.session (
  id      INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  uid     INT UNSIGNED NOT NULL,
  sig     VARCHAR(32) NOT NULL,
  expired INT UNSIGNED NOT NULL,
  KEY idx_session_uid (uid),
  KEY idx_session_sig (sig)
) ENGINE = InnoDB;

-- falcon_portal
CREATE TABLE falcon_portal.host (
  id             INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  hostname       VARCHAR(255) NOT NULL DEFAULT '',
  ip             VARCHAR(16) NOT NULL DEFAULT '',
  agent_version  VARCHAR(16) NOT NULL DEFAULT '',
  plugin_version VARCHAR(128) NOT NULL DEFAULT '',
  maintain_begin INT UNSIGNED NOT NULL DEFAULT 0,
  maintain_end   INT UNSIGNED NOT NULL DEFAULT 0,
  update_at      TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  UNIQUE KEY idx_host_hostname (hostname)
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.grp (
  id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  grp_name    VARCHAR(255) NOT NULL DEFAULT '',
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  create_at   TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  come_from   TINYINT NOT NULL DEFAULT 0,
  UNIQUE KEY idx_host_grp_grp_name (grp_name)
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.grp_host (
  grp_id  INT UNSIGNED NOT NULL,
  host_id INT UNSIGNED NOT NULL,
  KEY idx_grp_host_grp_id (grp_id),
  KEY idx_grp_host_host_id (host_id)
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.tpl (
  id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  tpl_name    VARCHAR(255) NOT NULL DEFAULT '',
  parent_id   INT UNSIGNED NOT NULL DEFAULT 0,
  action_id   INT UNSIGNED NOT NULL DEFAULT 0,
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  create_at   TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  UNIQUE KEY idx_tpl_name (tpl_name),
  KEY idx_tpl_create_user (create_user)
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.strategy (
  id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  metric      VARCHAR(128) NOT NULL DEFAULT '',
  tags        VARCHAR(256) NOT NULL DEFAULT '',
  max_step    INT NOT NULL DEFAULT 1,
  priority    TINYINT NOT NULL DEFAULT 0,
  func        VARCHAR(512) NOT NULL DEFAULT 'all(#1)',
  op          VARCHAR(8) NOT NULL DEFAULT '',
  right_value VARCHAR(64) NOT NULL,
  note        VARCHAR(128) NOT NULL DEFAULT '',
  run_begin   VARCHAR(16) NOT NULL DEFAULT '',
  run_end     VARCHAR(16) NOT NULL DEFAULT '',
  tpl_id      INT UNSIGNED NOT NULL DEFAULT 0,
  KEY idx_strategy_tpl_id (tpl_id)
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.expression (
  id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  expression  VARCHAR(1024) NOT NULL,
  func        VARCHAR(512) NOT NULL DEFAULT 'all(#1)',
  op          VARCHAR(8) NOT NULL DEFAULT '',
  right_value VARCHAR(16) NOT NULL DEFAULT '',
  max_step    INT NOT NULL DEFAULT 1,
  priority    TINYINT NOT NULL DEFAULT 0,
  note        VARCHAR(1024) NOT NULL DEFAULT '',
  action_id   INT UNSIGNED NOT NULL DEFAULT 0,
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  pause       TINYINT(1) NOT NULL DEFAULT 0
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.grp_tpl (
  grp_id    INT UNSIGNED NOT NULL,
  tpl_id    INT UNSIGNED NOT NULL,
  bind_user VARCHAR(64) NOT NULL DEFAULT '',
  KEY idx_grp_tpl_grp_id (grp_id),
  KEY idx_grp_tpl_tpl_id (tpl_id)
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.plugin_dir (
  id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  grp_id      INT UNSIGNED NOT NULL,
  dir         VARCHAR(255) NOT NULL,
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  create_at   TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  KEY idx_plugin_dir_grp_id (grp_id)
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.action (
  id                   INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  uic                  VARCHAR(255) NOT NULL DEFAULT '',
  url                  VARCHAR(255) NOT NULL DEFAULT '',
  callback             TINYINT NOT NULL DEFAULT 0,
  before_callback_sms  TINYINT NOT NULL DEFAULT 0,
  before_callback_mail TINYINT NOT NULL DEFAULT 0,
  after_callback_sms   TINYINT NOT NULL DEFAULT 0,
  after_callback_mail  TINYINT NOT NULL DEFAULT 0
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.mockcfg (
  id       BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name     VARCHAR(255) NOT NULL DEFAULT '',
  obj      VARCHAR(10240) NOT NULL DEFAULT '',
  obj_type VARCHAR(255) NOT NULL DEFAULT '',
  metric   VARCHAR(128) NOT NULL DEFAULT '',
  tags     VARCHAR(1024) NOT NULL DEFAULT '',
  dstype   VARCHAR(32) NOT NULL DEFAULT 'GAUGE',
  step     INT UNSIGNED NOT NULL DEFAULT 60,
  mock     DOUBLE NOT NULL DEFAULT 0,
  creator  VARCHAR(64) NOT NULL DEFAULT '',
  t_create DATETIME NOT NULL,
  t_modify TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  UNIQUE KEY uniq_name (name)
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.cluster (
  id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  grp_id      INT NOT NULL,
  numerator   VARCHAR(10240) NOT NULL,
  denominator VARCHAR(10240) NOT NULL,
  endpoint    VARCHAR(255) NOT NULL,
  metric      VARCHAR(255) NOT NULL,
  tags        VARCHAR(255) NOT NULL,
  ds_type     VARCHAR(255) NOT NULL,
  step        INT NOT NULL,
  last_update TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  creator     VARCHAR(255) NOT NULL
) ENGINE = InnoDB;
CREATE TABLE falcon_portal.alert_link (
  id        INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  path      VARCHAR(16) NOT NULL DEFAULT '',
  content   MEDIUMTEXT NOT NULL,
  create_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  UNIQUE KEY alert_path (path)
) ENGINE = InnoDB;

-- dashboard
CREATE TABLE dashboard.dashboard_screen (
  id   INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  pid  INT UNSIGNED NOT NULL DEFAULT 0,
  name CHAR(128) NOT NULL,
  time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  KEY idx_pid (pid),
  UNIQUE KEY idx_pid_n (pid, name)
) ENGINE = InnoDB;
CREATE TABLE dashboard.dashboard_graph (
  id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  title       CHAR(128) NOT NULL,
  hosts       VARCHAR(10240) NOT NULL DEFAULT '',
  counters    VARCHAR(1024) NOT NULL DEFAULT '',
  screen_id   INT UNSIGNED NOT NULL,
  timespan    INT UNSIGNED NOT NULL DEFAULT 3600,
  graph_type  CHAR(2) NOT NULL DEFAULT 'h',
  method      CHAR(8) DEFAULT '',
  position    INT UNSIGNED NOT NULL DEFAULT 0,
  falcon_tags VARCHAR(512) NOT NULL DEFAULT '',
  KEY idx_sid (screen_id)
) ENGINE = InnoDB;
CREATE TABLE dashboard.tmp_graph (
  id        INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  endpoints VARCHAR(10240) NOT NULL DEFAULT '',
  counters  VARCHAR(10240) NOT NULL DEFAULT '',
  ck        VARCHAR(32) NOT NULL,
  time_     TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  UNIQUE KEY idx_ck (ck)
) ENGINE = InnoDB;

-- alarms
CREATE TABLE alarms.event_cases (
  id             VARCHAR(50) NOT NULL PRIMARY KEY,
  endpoint       VARCHAR(100) NOT NULL,
  metric         VARCHAR(200) NOT NULL,
  func           VARCHAR(512),
  cond           VARCHAR(200) NOT NULL,
  note           VARCHAR(500),
  max_step       INT UNSIGNED,
  current_step   INT UNSIGNED,
  priority       INT NOT NULL,
  status         VARCHAR(20) NOT NULL,
  timestamp      TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  update_at      TIMESTAMP NULL DEFAULT NULL,
  closed_at      TIMESTAMP NULL DEFAULT NULL,
  closed_note    VARCHAR(250),
  user_modified  INT UNSIGNED,
  tpl_creator    VARCHAR(64),
  expression_id  INT UNSIGNED,
  strategy_id    INT UNSIGNED,
  template_id    INT UNSIGNED,
  process_note   MEDIUMINT,
  process_status VARCHAR(20) DEFAULT 'unresolved',
  told           VARCHAR(500) CHARACTER SET utf8mb4,
  KEY idx_event_cases_endpoint (endpoint, strategy_id, template_id),
  KEY idx_event_cases_status (status, timestamp),
  KEY idx_event_cases_update (status, update_at)
) ENGINE = InnoDB;
CREATE TABLE alarms.events (
  id           INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  event_caseId VARCHAR(50),
  step         INT UNSIGNED,
  cond         VARCHAR(200) NOT NULL,
  status       INT UNSIGNED DEFAULT 0,
  timestamp    TIMESTAMP NULL DEFAULT NULL,
  explanation  TEXT CHARACTER SET utf8mb4,
  KEY idx_events_timestamp (timestamp),
  FOREIGN KEY (event_caseId) REFERENCES alarms.event_cases (id) ON DELETE CASCADE ON UPDATE CASCADE
) ENGINE = InnoDB;
CREATE TABLE alarms.event_note (
  id           MEDIUMINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  event_caseId VARCHAR(50),
  note         VARCHAR(300),
  case_id      VARCHAR(20),
  status       VARCHAR(15),
  timestamp    TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  user_id      INT UNSIGNED,
  FOREIGN KEY (event_caseId) REFERENCES alarms.event_cases (id) ON DELETE CASCADE ON UPDATE CASCADE,
  FOREIGN KEY (user_id) REFERENCES uic.user (id)
) ENGINE = InnoDB;

-- Hawkeye's own: names compare exactly.
CREATE TABLE alarms.hawkeye_state (
  name  VARCHAR(64) NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE alarms.hawkeye_delivery (
  id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  target     VARCHAR(255) NOT NULL,
  kind       VARCHAR(16) NOT NULL,
  lane       VARCHAR(64) NOT NULL,
  body       MEDIUMTEXT NOT NULL,
  attempts   INT NOT NULL DEFAULT 0,
  due_at     BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  last_error TEXT,
  begun_at   BIGINT NOT NULL DEFAULT 0,
  priority   INT NOT NULL DEFAULT 0,
  KEY idx_hawkeye_delivery_priority (target, priority, due_at, id),
  KEY idx_hawkeye_delivery_due (target, due_at, id),
  KEY idx_hawkeye_delivery_lane (target, lane, id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE uic.hawkeye_token (
  id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name       VARCHAR(64) NOT NULL,
  uid        INT UNSIGNED NOT NULL,
  kept       CHAR(64) NOT NULL UNIQUE,
  scopes     VARCHAR(64) NOT NULL,
  created_at BIGINT NOT NULL,
  created_by VARCHAR(64) NOT NULL,
  expires_at BIGINT NOT NULL DEFAULT 0,
  used_at    BIGINT NOT NULL DEFAULT 0,
  used_from  VARCHAR(64) NOT NULL DEFAULT '',
  KEY idx_hawkeye_token_uid (uid)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE uic.hawkeye_audit (
  id      BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  at      BIGINT NOT NULL,
  who     VARCHAR(64) NOT NULL,
  token   VARCHAR(64) NOT NULL DEFAULT '',
  peer    VARCHAR(64) NOT NULL,
  action  VARCHAR(128) NOT NULL,
  subject VARCHAR(128) NOT NULL,
  status  INT NOT NULL DEFAULT 0,
  was     MEDIUMTEXT NOT NULL,
  became  MEDIUMTEXT NOT NULL,
  KEY idx_hawkeye_audit_subject (subject, id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE falcon_portal.hawkeye_exception (
  id          BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  strategy_id INT UNSIGNED NOT NULL,
  kind        VARCHAR(8) NOT NULL,
  target      VARCHAR(255) NOT NULL,
  right_value VARCHAR(64) NOT NULL DEFAULT '',
  max_step    INT NOT NULL DEFAULT 0,
  pause       INT NOT NULL DEFAULT 0,
  note        VARCHAR(128) NOT NULL DEFAULT '',
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  create_at   BIGINT NOT NULL DEFAULT 0,
  UNIQUE KEY idx_hawkeye_exception_target (strategy_id, kind, target)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE falcon_portal.hawkeye_probe (
  id          BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name        VARCHAR(255) NOT NULL UNIQUE,
  definition  MEDIUMTEXT NOT NULL,
  grp_id      INT UNSIGNED NOT NULL DEFAULT 0,
  places      INT NOT NULL DEFAULT 0,
  pause       INT NOT NULL DEFAULT 0,
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  create_at   BIGINT NOT NULL DEFAULT 0,
  KEY idx_hawkeye_probe_grp_id (grp_id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE falcon_portal.hawkeye_probe_state (
  probe_id   BIGINT NOT NULL,
  place      VARCHAR(255) NOT NULL,
  up         INT NOT NULL,
  code       VARCHAR(32) NOT NULL DEFAULT '',
  reason     TEXT NOT NULL,
  changed_at BIGINT NOT NULL,
  PRIMARY KEY (probe_id, place)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE falcon_portal.hawkeye_job (
  id          BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name        VARCHAR(255) NOT NULL UNIQUE,
  kept        CHAR(64) NOT NULL UNIQUE,
  period      INT NOT NULL,
  grace       INT NOT NULL,
  runtime_max INT NOT NULL DEFAULT 0,
  tags        VARCHAR(1024) NOT NULL DEFAULT '',
  pause       INT NOT NULL DEFAULT 0,
  create_user VARCHAR(64) NOT NULL DEFAULT '',
  create_at   BIGINT NOT NULL DEFAULT 0,
  resumed_at  BIGINT NOT NULL DEFAULT 0,
  started_at  BIGINT NOT NULL DEFAULT 0,
  ended_at    BIGINT NOT NULL DEFAULT 0,
  ok_at       BIGINT NOT NULL DEFAULT 0,
  duration    BIGINT NOT NULL DEFAULT -1,
  exit_code   INT NOT NULL DEFAULT 0,
  note        VARCHAR(1024) NOT NULL DEFAULT ''
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE falcon_portal.hawkeye_agent (
  hostname        VARCHAR(255) NOT NULL PRIMARY KEY,
  version         VARCHAR(64) NOT NULL DEFAULT '',
  config_digest   VARCHAR(64) NOT NULL DEFAULT '',
  clock_offset_ms BIGINT,
  told_at         BIGINT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
