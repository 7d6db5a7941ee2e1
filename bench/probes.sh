#!/bin/sh
# An agent with PROBES (1000) HTTP probes, each once a minute, beside one with none: memory and what each takes of a
# core. Needs the agent's build (make agent) and python3. PROBES_SECONDS (180) is how long they are watched after the
# two minutes in which all begin, AGENT another binary.
set -eu
cd "$(dirname "$0")/.."
. tests/services/needs.sh
need python3 python3
exec python3 bench/probes.py "${AGENT:-target/agent/hawkeye-agent}" "${PROBES:-1000}" "${PROBES_SECONDS:-180}"
