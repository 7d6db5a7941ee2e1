-- Open-Falcon's index database as its sites have it: three tables, utf8 (three bytes a character), names that ignore case.
CREATE DATABASE graph DEFAULT CHARACTER SET utf8 DEFAULT COLLATE utf8_general_ci;
USE graph;

CREATE TABLE endpoint (
  id       INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  endpoint VARCHAR(255) NOT NULL DEFAULT '',
  ts       INT DEFAULT NULL,
  t_create DATETIME NOT NULL,
  t_modify TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  UNIQUE KEY idx_endpoint (endpoint)
) ENGINE = InnoDB;

CREATE TABLE endpoint_counter (
  id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  endpoint_id INT UNSIGNED NOT NULL,
  counter     VARCHAR(255) NOT NULL DEFAULT '',
  step        INT NOT NULL DEFAULT 60,
  type        VARCHAR(16) NOT NULL,
  ts          INT DEFAULT NULL,
  t_create    DATETIME NOT NULL,
  t_modify    TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  UNIQUE KEY idx_endpoint_id_counter (endpoint_id, counter)
) ENGINE = InnoDB;

CREATE TABLE tag_endpoint (
  id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  tag         VARCHAR(255) NOT NULL DEFAULT '',
  endpoint_id INT UNSIGNED NOT NULL,
  ts          INT DEFAULT NULL,
  t_create    DATETIME NOT NULL,
  t_modify    TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  UNIQUE KEY idx_tag_endpoint_id (tag, endpoint_id)
) ENGINE = InnoDB;
