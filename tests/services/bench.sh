#!/bin/sh
# The benchmark side by side (make bench), with a load so small that it proves the way and not the figures: every system
# that is there takes every point, answers the queries, tells of breaching points and comes back after kill -9.
# Needs the release build (make build) or TEST_BINARY, python3, and the Debian packages victoria-metrics and prometheus,
# which are installed if that may be (needs.sh); where one is missing its column is left out, and under CI that is a
# failure.
set -eu
cd "$(dirname "$0")/../.."
. tests/services/needs.sh
need python3 python3

binary=${TEST_BINARY:-target/release/hawkeye}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
BENCH_HAWKEYE=$binary python3 bench/side_by_side.py --series 2k --rounds 5 --rest 1 --repetitions 3 --breaches 2 \
    --empty-starts 1 --day-rounds 30 --out "$dir/result.json" > "$dir/table"
python3 bench/check.py "$dir/result.json" "$dir/table"
