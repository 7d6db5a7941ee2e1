#!/bin/sh
# What `make run` gives: the release binary with this host's agent, on a fresh directory and ports of its own. The link
# that it prints logs in; within 90 seconds the page's data name this host with its processor, memory and load; then it
# stops in order, without an error. Needs the release build (make build) or TEST_BINARY, curl and python3.
set -eu
cd "$(dirname "$0")/../.."
. tests/services/needs.sh
need curl curl
need python3 python3

dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill -KILL "$server" 2> /dev/null; fi; rm -rf "$dir"' EXIT
ports=$(python3 -c '
import socket
held = [socket.socket() for _ in range(7)]
for s in held: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in held])')
# shellcheck disable=SC2086
set -- $ports
api=http://127.0.0.1:$5
HAWKEYE_AGENT__LISTEN__AGENT_HTTP=127.0.0.1:$7 "${TEST_BINARY:-target/release/hawkeye}" server --with-agent --data-dir "$dir/data" \
    --set listen.transfer_rpc="127.0.0.1:$1" --set listen.transfer_http="127.0.0.1:$2" \
    --set listen.transfer_telnet="127.0.0.1:$3" --set listen.hbs_rpc="127.0.0.1:$4" \
    --set listen.api="127.0.0.1:$5" --set listen.admin="127.0.0.1:$6" > "$dir/out" 2> "$dir/err" &
server=$!

python3 - "$api" "$dir/out" <<'WAIT' || { cat "$dir/out" "$dir/err"; exit 1; }
import json, sys, time, urllib.request
deadline = time.time() + 90
session = None
while time.time() < deadline:
    time.sleep(0.5)
    link = open(sys.argv[2]).read().partition(sys.argv[1] + "/#login=")[2].split()
    if not link:
        continue
    try:
        if session is None:
            entered = urllib.request.urlopen(sys.argv[1] + "/ui/enter", data=link[0].encode(), timeout=5)
            session = entered.read().decode()
        ask = urllib.request.Request(sys.argv[1] + "/ui/overview", headers={"Apitoken": session})
        overview = json.load(urllib.request.urlopen(ask, timeout=5))
    except OSError:
        continue
    hosts = overview["hosts"]
    if hosts and all(hosts[0][key] is not None for key in ("cpu_busy", "mem_used_percent", "load_1min")):
        print("this host reports:", hosts[0])
        break
else:
    sys.exit("no host after 90 s")
WAIT
curl -sf "$api/" | grep -q '<title>Hawkeye</title>'
curl -sf "$api/metrics" | grep -q '^hawkeye_points_stored_total'
grep -q 'log in as root with the password' "$dir/out"
curl -sf -d '[{"endpoint":"pushed","metric":"m","value":1,"step":60,"counterType":"GAUGE","tags":""}]' \
    "http://127.0.0.1:$7/v1/push" | grep -qx 'success'

kill -INT "$server"
wait "$server"
server=
echo "the first start shows this host, takes a push, and stops in order"
