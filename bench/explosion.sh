#!/bin/sh
# A cardinality explosion against a small memory budget: a fleet of 100 hosts with alarms, and one host whose metric
# carries a request's id, 1,000 new series a second for 10 minutes. Prints what is resident over time, and fails unless
# it stays under the budget and 15 %, every alarm of the fleet fires and recovers, and the culprit is named first.
#
#   bench/explosion.sh [--fast] [--budget MiB] [--series N] [--rate N] [BINARY]
#
# --fast sends as fast as the server takes, and is over in a minute; it needs only python3 and a release build.
set -eu
exec python3 "$(dirname "$0")/explosion.py" "$@"
