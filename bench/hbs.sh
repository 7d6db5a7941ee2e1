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
exec python3 - "$hawkeye" "${AGENTS:-10000}" "${MINUTES:-5}" <<'PYTHON'
import http.client, json, os, re, resource, socket, subprocess, sys, tempfile, time
hawkeye, agents, minutes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
GROUPS, HOSTS, AGGREGATORS, SECONDS = 50, 1000, 400, 20

limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
held = [socket.socket() for _ in range(6)]
for s in held: s.bind(("127.0.0.1", 0))
ports = dict(zip(("transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc", "api", "admin"), (s.getsockname()[1] for s in held)))
for s in held: s.close()
folder = tempfile.TemporaryDirectory()
data = os.path.join(folder.name, "data")
listen = [part for name, port in ports.items() for part in ("--set", f"listen.{name}=127.0.0.1:{port}")]
server = subprocess.Popen([hawkeye, "server", "--data-dir", data, *listen, "--set", "ingest.min_step=1", "--set", "log=warn",
    "--set", f"ingest.connections_max={agents + 1000}"], stdout=open(folder.name + "/out", "w"), stderr=open(folder.name + "/err", "w"))
token = ""

def call(method, path, body=None):
    api = http.client.HTTPConnection("127.0.0.1", ports["api"], timeout=60)
    api.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json", "Apitoken": token})
    answer = api.getresponse()
    text = answer.read().decode()
    if answer.status != 200: sys.exit(f"{method} {path}: {answer.status} {text}")
    return text if path == "/metrics" else json.loads(text)

def cpu():
    fields = open(f"/proc/{server.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

def resident():
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{server.pid}/status").read())[1]) / 1024

def metric(name):
    return sum(float(line.rsplit(" ", 1)[1]) for line in call("GET", "/metrics").splitlines() if line.startswith(f"hawkeye_{name}"))

def request(method, param):
    return json.dumps({"method": method, "params": [param], "id": 0}).encode() + b"\n"

def fleet_minute(peers):
    """All agents, a call of each at a time: no call is sent before the last one of its connection is answered."""
    for number in range(4):
        for first in range(0, len(peers), 500):
            part = peers[first:first + 500]
            for peer, calls in part: peer.sendall(calls[number])
            for peer, _ in part:
                text = b""
                while not text.endswith(b"\n"): text += peer.recv(65536)
                assert b'"error":null' in text, text

try:
    deadline = time.time() + 60
    while True:
        # The last line of a start.
        if "agents report to" in open(folder.name + "/out").read(): break
        if time.time() > deadline or server.poll() is not None: sys.exit(open(folder.name + "/err").read())
        time.sleep(0.1)
    answer = call("POST", "/api/v1/user/login", {"name": "root", "password": open(data + "/admin-password").read().strip()})
    token = json.dumps({"name": answer["name"], "sig": answer["sig"]})
    for group in range(GROUPS):
        made = call("POST", "/api/v1/hostgroup", {"name": f"group-{group:02}"})["id"]
        names = [f"host-{i:05}" for i in range(group, agents, GROUPS)]
        for first in range(0, len(names), 500):
            call("PATCH", f"/api/v1/hostgroup/{made}/host", {"action": "add", "hosts": names[first:first + 500]})
        template = call("POST", "/api/v1/template", {"name": f"template-{group:02}", "parent_id": 0, "action_id": 0})["id"]
        for port in range(4):
            call("POST", "/api/v1/strategy", {"tpl_id": template, "metric": "net.port.listen", "tags": f"port={1000 * group + port}", "max_step": 3,
                "priority": 1, "func": "all(#3)", "op": "==", "right_value": "0", "note": "", "run_begin": "", "run_end": ""})
        call("POST", "/api/v1/hostgroup/template", {"tpl_id": template, "grp_id": made})
        call("POST", "/api/v1/plugin", {"hostgroup_id": made, "dir_path": f"sys/{group}"})
    peers = []
    for i in range(agents):
        host = f"host-{i:05}"
        peer = socket.create_connection(("127.0.0.1", ports["hbs_rpc"]), 30)
        heartbeat = {"Hostname": host, "Checksum": ""}
        peers.append((peer, [request("Agent.ReportStatus", {"Hostname": host, "IP": f"10.0.{i // 250}.{i % 250}", "AgentVersion": "7.0", "PluginVersion": "x"}),
            request("Agent.MinePlugins", heartbeat), request("Agent.BuiltinMetrics", heartbeat), request("Agent.TrustableIps", {})]))
    fleet_minute(peers)  # each agent is new
    time.sleep(15)       # until what it wrote is folded in, and the rules are read again
    before, at = resident(), cpu()
    for _ in range(minutes): fleet_minute(peers)
    spent = (cpu() - at) / minutes
    print(f"hbs: {agents} agents, 4 calls a minute each: {spent:.3f} s of CPU for a minute of the fleet, {spent / 60 * 100:.2f} % of a core, "
          f"{spent / agents / 4 * 1e6:.1f} us a call; {resident():.1f} MiB resident (before: {before:.1f})")
    for peer, _ in peers: peer.close()

    made = call("POST", "/api/v1/hostgroup", {"name": "thousand"})["id"]
    names = [f"host-{i:05}" for i in range(HOSTS)]
    for first in range(0, HOSTS, 500):
        call("PATCH", f"/api/v1/hostgroup/{made}/host", {"action": "add", "hosts": names[first:first + 500]})
    transfer = socket.create_connection(("127.0.0.1", ports["transfer_rpc"]), 30)
    def feed():
        now = int(time.time())
        for first in range(0, HOSTS, 100):
            items = [{"endpoint": name, "metric": f"m{i}", "value": 1, "step": 60, "counterType": "GAUGE", "tags": "a=b", "timestamp": now}
                     for name in names[first:first + 100] for i in range(4)]
            transfer.sendall(request("Transfer.Update", items))
            text = b""
            while not text.endswith(b"\n"): text += transfer.recv(65536)
            assert b'"Invalid":0' in text, text
    at = cpu(); time.sleep(SECONDS); idle = cpu() - at
    total = "+".join(f"$(m{i}/a=b)" for i in range(4))
    # Each is computed once in its step, and points of two steps count.
    for i in range(AGGREGATORS):
        call("POST", "/api/v1/aggregator", {"hostgroup_id": made, "numerator": total, "denominator": "$#", "endpoint": "thousand",
            "metric": f"sum{i}", "tags": "", "step": SECONDS})
    feed()
    time.sleep(2)
    counted = lambda: metric('items_received_total{door="aggregator"}')
    at, first = cpu(), counted()
    time.sleep(SECONDS)
    spent, done = cpu() - at - idle, counted() - first
    print(f"aggregator: 4 counters of {HOSTS} hosts: {spent / max(done, 1) * 1e3:.2f} ms of CPU a computation ({done:.0f} computations)")
finally:
    server.terminate()
    server.wait()
PYTHON
