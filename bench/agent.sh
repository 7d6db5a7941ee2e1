#!/bin/sh
# The agent beside what else collects a host's figures: prometheus-node-exporter, scraped once a minute, and collectd,
# both as Debian has them; all on one host at one time: 500 processes, 8 disks, 8 interfaces, 30 mounts. Prints what
# each is in memory, on disk, and takes of a core. Needs root, the agent's release build (make agent) and python3.
# AGENT_SECONDS (180) is how long they are watched, AGENT another binary.
set -eu
cd "$(dirname "$0")/.."
. tests/services/needs.sh
[ "$(id -u)" = 0 ] || give_up "a host is made up by root alone"
need python3 python3
need ip iproute2
need mkfs.ext2 e2fsprogs
need prometheus-node-exporter prometheus-node-exporter
need collectd collectd-core
exec unshare --mount --net --pid --fork --mount-proc python3 bench/agent.py "${AGENT:-target/agent/hawkeye-agent}" "${AGENT_SECONDS:-180}"
