#!/bin/sh
# Runs every test that needs a server or a built program; each script says what it needs. What a machine lacks is
# skipped, and said; under CI (CI=true) it is a failure.
set -eu
cd "$(dirname "$0")"
for script in first_start.sh smtp.sh probes.sh mysql.sh redis.sh alarm.sh hbs.sh api.sh gob.sh agent_faults.sh packages.sh bench.sh; do
    echo "== $script"
    ./"$script"
done
