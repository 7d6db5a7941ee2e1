#!/bin/sh
# What `hawkeye server --roles judge` takes: 100,000 series by Judge.Send, 40 strategies and 20 expressions that match
# half of them. The rules come from a second server over Hbs.GetStrategies, as from an original hbs; a few lines of
# Python stand for Redis. Needs the release build (make build; or HAWKEYE=path) and python3. ROUNDS=60 by default.
set -eu
cd "$(dirname "$0")/.."
hawkeye=${HAWKEYE:-target/release/hawkeye}
command -v python3 > /dev/null || { echo "python3 is missing"; exit 1; }
[ -x "$hawkeye" ] || { echo "$hawkeye is missing: make build"; exit 1; }
exec python3 - "$hawkeye" "${ROUNDS:-60}" <<'PYTHON'
import http.client, json, os, re, socket, socketserver, subprocess, sys, tempfile, threading, time
hawkeye, rounds = sys.argv[1], sys.argv[2]
HOSTS, METRICS = 500, 200

class Redis(socketserver.StreamRequestHandler):
    """Answers each command; LPUSH with a number."""
    pushed = 0
    def handle(self):
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2])
            if words[0].upper() == b"LPUSH":
                Redis.pushed += len(words) - 2
                self.wfile.write(b":1\r\n")
            else:
                self.wfile.write(b"+OK\r\n")

redis = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Redis)
redis.daemon_threads = True
threading.Thread(target=redis.serve_forever, daemon=True).start()

held = [socket.socket() for _ in range(9)]
for s in held: s.bind(("127.0.0.1", 0))
ports = [s.getsockname()[1] for s in held]
for s in held: s.close()
hbs = dict(zip(("transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc", "api", "admin"), ports))
judge = dict(zip(("judge_rpc", "judge_http", "admin"), ports[6:]))
folder = tempfile.TemporaryDirectory()

def start(name, listen, *more):
    command = [hawkeye, "server", "--data-dir", f"{folder.name}/{name}", "--set", "log=warn", *more]
    command += [part for key, port in listen.items() for part in ("--set", f"listen.{key}=127.0.0.1:{port}")]
    log = open(f"{folder.name}/{name}.log", "w")
    return subprocess.Popen(command, stdout=log, stderr=log)

def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().read().decode()

def wait(what, is_so):
    deadline = time.time() + 60
    while time.time() < deadline:
        try:
            if is_so(): return
        except OSError: pass
        time.sleep(0.1)
    sys.exit(f"waited in vain: {what}")

def call(method, path, body, token=""):
    connection = http.client.HTTPConnection("127.0.0.1", hbs["api"], timeout=30)
    connection.request(method, "/api/v1" + path, json.dumps(body), {"Content-Type": "application/json", "Apitoken": token})
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200: sys.exit(f"{method} {path}: {answer.status} {text}")
    return json.loads(text)

def metric(name):
    return float(re.search(rf"^hawkeye_{name} (\S+)", get(judge["admin"], "/metrics"), re.M)[1])

def status(pid, field):
    return int(re.search(rf"{field}:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024

def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

started = []
try:
    started.append(start("hbs", hbs))
    wait("hbs", lambda: get(hbs["api"], "/health"))
    password = open(f"{folder.name}/hbs/admin-password").read().strip()
    session = call("POST", "/user/login", {"name": "root", "password": password})
    token = json.dumps({"name": session["name"], "sig": session["sig"]})
    # The series of one simulated host by metric, so that the rules match half of them.
    subprocess.run([hawkeye, "loadgen", "--target", f"127.0.0.1:{hbs['transfer_rpc']}", "--hosts", "1", "--metrics", str(METRICS),
                    "--rounds", "1"], check=True, stdout=subprocess.DEVNULL)
    [host] = call("GET", "/graph/endpoint?q=load-00000", None, token)
    by_metric = {}
    for row in call("GET", f"/graph/endpoint_counter?eid={host['id']}&limit={METRICS}", None, token):
        name = row["counter"].split("/")[0]
        by_metric[name] = by_metric.get(name, 0) + 1
    names = sorted(by_metric, key=lambda name: -by_metric[name])
    group = call("POST", "/hostgroup", {"name": "all"}, token)["id"]
    call("POST", "/hostgroup/host", {"hostgroup_id": group, "hosts": [f"load-{i:05}" for i in range(HOSTS)]}, token)
    template = call("POST", "/template", {"name": "bench", "parent_id": 0}, token)["id"]
    chosen, matched = [], 0
    for name in names:
        if len(chosen) < 60 and matched + by_metric[name] <= METRICS // 2 + 5:
            chosen.append(name)
            matched += by_metric[name]
    for i, name in enumerate((chosen * 60)[:40]):
        call("POST", "/strategy", {"tpl_id": template, "metric": name, "tags": "", "max_step": 3, "priority": 1, "func": "all(#3)",
             "op": ">", "right_value": "1000000000000000", "note": f"{i}", "run_begin": "", "run_end": ""}, token)
    call("POST", "/hostgroup/template", {"tpl_id": template, "grp_id": group}, token)
    # An expression needs a tag, or an endpoint: one host each.
    for i, name in enumerate((chosen[40:] + chosen)[:20]):
        call("POST", "/expression", {"expression": f"each(metric={name} endpoint=load-{i:05})", "func": "all(#3)", "op": ">",
             "right_value": "1000000000000000", "max_step": 3, "priority": 1, "note": "", "pause": 0,
             "action": {"uic": [], "url": "", "callback": 0, "before_callback_sms": 0, "before_callback_mail": 0,
                        "after_callback_sms": 0, "after_callback_mail": 0}}, token)
    judged = start("judge", judge, "--roles", "judge", "--set", f'judge.hbs_addrs=["127.0.0.1:{hbs["hbs_rpc"]}"]',
                   "--set", f"judge.redis_url=redis://127.0.0.1:{redis.server_address[1]}")
    started.append(judged)
    wait("the judge's door", lambda: "takes points" in open(f"{folder.name}/judge.log").read())
    empty, before = status(judged.pid, "VmRSS"), cpu_seconds(judged.pid)
    sent = subprocess.run([hawkeye, "loadgen", "--judge-gob", f"127.0.0.1:{judge['judge_rpc']}", "--hosts", str(HOSTS), "--metrics", str(METRICS),
                           "--rounds", rounds, "--json"], check=True, capture_output=True, text=True)
    sent = json.loads(sent.stdout)
    points = HOSTS * METRICS * int(rounds)
    print(f"rules      40 strategies on {HOSTS} hosts, 20 expressions; {metric('judge_bound_series'):.0f} of {HOSTS * METRICS} series have one")
    print(f"resident   {status(judged.pid, 'VmRSS'):.1f} MB, of which {status(judged.pid, 'RssAnon'):.1f} anonymous; peak {status(judged.pid, 'VmHWM'):.1f}; empty {empty:.1f}")
    print(f"windows    {metric('judge_window_bytes') / 1e6:.1f} MB; bindings and states {metric('judge_memory_bytes') / 1e6:.2f} MB")
    print(f"load       {sent['points_per_s']:.0f} items/s, {(cpu_seconds(judged.pid) - before) * 1e6 / points:.2f} us of processor per item")
    print(f"events     {metric('events_total'):.0f}, {Redis.pushed} in Redis")
finally:
    for server in reversed(started):
        server.terminate()
        server.wait(30)
PYTHON
