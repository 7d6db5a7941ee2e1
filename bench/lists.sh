#!/bin/sh
# The control plane of a site of 1,000 hosts in 50 groups with 80 templates of 40 strategies: how long each list of the
# API takes on one connection, how long a changed strategy takes until the first event by it, and what the server holds
# more than an empty one.
#
#   bench/lists.sh [--calls N] [--changes N] [BINARY]
#
# Without an argument the binary is $TEST_BINARY, or target/release/hawkeye. Needs only python3. Fails where an aim of
# docs/benchmarks.md is missed, unless --no-aims is given.
set -eu
exec python3 "$(dirname "$0")/lists.py" "$@"
