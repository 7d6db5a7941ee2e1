#!/bin/sh
# The benchmark side by side (make bench), with a load so small that it proves the way and not the figures: every system
# that is there takes every point, answers the queries, tells of breaching points and comes back after kill -9.
# Needs the release build (make build) and python3; installs the Debian packages victoria-metrics and prometheus if it may.
set -eu
cd "$(dirname "$0")/../.."
command -v python3 > /dev/null || { echo "skipped: python3 is missing"; exit 0; }

binary=${HAWKEYE_TEST_BINARY:-target/release/hawkeye}
# The server would take it for a key of its configuration.
unset HAWKEYE_TEST_BINARY
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
BENCH_HAWKEYE=$binary python3 bench/side_by_side.py --series 2k --rounds 5 --rest 1 --repetitions 3 --breaches 2 \
    --empty-starts 1 --day-rounds 30 --out "$dir/result.json" > "$dir/table"
python3 bench/check.py "$dir/result.json" "$dir/table"
