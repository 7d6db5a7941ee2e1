#!/bin/sh
# What a fleet costs hbs and the aggregator:
#   hbs          10,000 agents, of which each calls Agent.ReportStatus, MinePlugins, BuiltinMetrics and TrustableIps
#                once a minute over a connection that it keeps; minutes of the fleet follow each other as fast as they
#                go. Printed: CPU of the server for a minute of the fleet, as a share of a core, and memory. That none
#                of these calls asks the database is held by a test (role/hbs/mod.rs::a_known_agent_asks_no_database).
#   aggregator   the sum of four counters over the 1,000 hosts of a group: CPU of one computation.
# Needs the release build (make build; or HAWKEYE=path), and python3. AGENTS=10000 and MINUTES=5 by default.
set -eu
cd "$(dirname "$0")/.."
hawkeye=${HAWKEYE:-target/release/hawkeye}
command -v python3 > /dev/null || { echo "python3 is missing"; exit 1; }
[ -x "$hawkeye" ] || { echo "$hawkeye is missing: make build"; exit 1; }
exec python3 bench/hbs.py "$hawkeye" "${AGENTS:-10000}" "${MINUTES:-5}"
