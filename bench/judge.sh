#!/bin/sh
# What alarms cost on the way, with 1,000 hosts, 100,000 series and strategies saved over REST, on ports of its own:
#   save -> effective   50 saves of one of 80 strategies bound to 1,000 hosts. The rules are in effect when the answer
#                       leaves.
#   memory              resident bytes before and after those 80 strategies.
#   arrival -> event    while 50,000 points a second come in and 40 strategies alarm: p50 and p99 of
#                       event_latency_seconds.
# Needs the release build (make build; or HAWKEYE=path), and python3. SECONDS_OF_LOAD=60 by default.
set -eu
cd "$(dirname "$0")/.."
hawkeye=${HAWKEYE:-target/release/hawkeye}
command -v python3 > /dev/null || { echo "python3 is missing"; exit 1; }
[ -x "$hawkeye" ] || { echo "$hawkeye is missing: make build"; exit 1; }
exec python3 - "$hawkeye" "${SECONDS_OF_LOAD:-60}" <<'PYTHON'
import http.client, json, os, re, socket, statistics, subprocess, sys, tempfile, time
hawkeye, seconds = sys.argv[1], int(sys.argv[2])
HOSTS, METRICS, STEP = 1000, 100, 2  # 50,000 points a second

held = [socket.socket() for _ in range(6)]
for s in held: s.bind(("127.0.0.1", 0))
ports = dict(zip(("transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc", "api", "admin"), (s.getsockname()[1] for s in held)))
for s in held: s.close()
folder = tempfile.TemporaryDirectory()
data = os.path.join(folder.name, "data")
listen = [part for name, port in ports.items() for part in ("--set", f"listen.{name}=127.0.0.1:{port}")]
server = subprocess.Popen([hawkeye, "server", "--data-dir", data, *listen, "--set", f"ingest.min_step={STEP}",
    "--set", "judge.min_interval=0s", "--set", "log=warn"], stdout=open(folder.name + "/out", "w"), stderr=open(folder.name + "/err", "w"))
token = ""

def call(method, path, body=None):
    global api
    text = None if body is None else json.dumps(body)
    for attempt in (1, 2):
        try:
            api.request(method, path, text, {"Content-Type": "application/json", "Apitoken": token})
            answer = api.getresponse()
            text_of_answer = answer.read().decode()
            break
        except (http.client.HTTPException, OSError):
            if attempt == 2: raise
            api = http.client.HTTPConnection("127.0.0.1", ports["api"], timeout=30)
    if answer.status != 200: sys.exit(f"{method} {path}: {answer.status} {text_of_answer}")
    return text_of_answer if path == "/metrics" else json.loads(text_of_answer)

def metric(name):
    return float(re.search(rf"^hawkeye_{name} (\S+)", call("GET", "/metrics"), re.M)[1])

def resident():
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{server.pid}/status").read())[1]) / 1024

def load(rounds, *more):
    return [hawkeye, "loadgen", "--target", f"127.0.0.1:{ports['transfer_rpc']}", "--hosts", str(HOSTS), "--metrics", str(METRICS),
            "--step", str(STEP), "--rounds", str(rounds), "--connections", "200", *more]

def strategy(template, metric, func, value, note, **more):
    return {"tpl_id": template, "metric": metric, "tags": "", "max_step": 3, "priority": 1, "func": func, "op": ">",
            "right_value": str(value), "note": note, "run_begin": "", "run_end": "", **more}

def latencies():
    found = re.findall(r'^hawkeye_event_latency_seconds_bucket\{le="([^"]+)"\} (\d+)', call("GET", "/metrics"), re.M)
    return [(float(bound), int(count)) for bound, count in found]

def quantile(buckets, q):
    want, before, low = q * buckets[-1][1], 0, 0.0
    for bound, count in buckets:
        if count >= want and count > before:
            return low + (bound - low) * (want - before) / (count - before) if bound != float("inf") else low
        before, low = count, bound
    return float("nan")

try:
    deadline = time.time() + 30
    while True:
        try:
            api = http.client.HTTPConnection("127.0.0.1", ports["api"], timeout=30)
            api.request("GET", "/health"); api.getresponse().read(); break
        except OSError:
            if time.time() > deadline: sys.exit(open(folder.name + "/err").read())
            time.sleep(0.1)
    password = open(data + "/admin-password").read().strip()
    session = call("POST", "/api/v1/user/login", {"name": "root", "password": password})
    token = json.dumps({"name": session["name"], "sig": session["sig"]})
    subprocess.run(load(3), check=True, stdout=subprocess.DEVNULL)

    hosts = [f"load-{number:05}" for number in range(HOSTS)]
    group = call("POST", "/api/v1/hostgroup", {"name": "all"})["id"]
    call("POST", "/api/v1/hostgroup/host", {"hostgroup_id": group, "hosts": hosts})
    template = call("POST", "/api/v1/template", {"name": "bench", "parent_id": 0})["id"]
    time.sleep(2)
    before = resident()
    quiet = ["cpu.user", "cpu.system", "cpu.iowait", "cpu.busy", "load.1min", "mem.memused.percent", "df.bytes.used.percent", "ss.estab"]
    made = [call("POST", "/api/v1/strategy", strategy(template, quiet[i % len(quiet)], "all(#3)", 1e15 + i, f"quiet {i}")) for i in range(80)]
    call("POST", "/api/v1/hostgroup/template", {"tpl_id": template, "grp_id": group})
    pairs, after = metric("judge_bound_pairs"), resident()
    print(f"rules      80 strategies on {HOSTS} hosts, {pairs:.0f} bound pairs of {HOSTS * METRICS} series: "
          f"resident {before:.1f} MiB before, {after:.1f} MiB after; bindings {metric('judge_memory_bytes') / 1024:.0f} KiB")
    def save(change):
        took = []
        for number in range(50):
            body = change(number)
            started = time.perf_counter()
            call("PUT", "/api/v1/strategy", body)
            took.append((time.perf_counter() - started) * 1e3)
        return f"median {statistics.median(took):.1f} ms, p99 {sorted(took)[-1]:.1f} ms (the slowest of 50)"
    first = made[0]["id"]
    print("save       the threshold:", save(lambda n: strategy(template, quiet[0], "all(#3)", 2e15 + n, "changed", id=first)))
    print("save       the metric:   ", save(lambda n: strategy(template, quiet[n % 8], "all(#3)", 1e15, "moved", id=first)))
    print(f"resident   {resident():.1f} MiB after the saves")

    for number in range(40):
        call("PUT", "/api/v1/strategy", strategy(template, ["cpu.busy", "load.1min"][number % 2], "all(#1)",
             [50, 4][number % 2] + number / 4, f"alarms {number}", id=made[number]["id"]))
    started, events = latencies(), metric("events_total")
    done = subprocess.run(load(seconds // STEP, "--speed", "real", "--json"), check=True, stdout=subprocess.PIPE, text=True)
    sent = json.loads(done.stdout)
    buckets = [(bound, count - old) for (bound, count), (_, old) in zip(latencies(), started)]
    print(f"load       {sent['points_per_s']:.0f} points/s for {sent['seconds']:.0f} s; the senders' latency p99 {sent['latency_ms']['p99']:.2f} ms")
    print(f"events     {metric('events_total') - events:.0f} made; arrival -> in the queue: p50 {quantile(buckets, 0.5) * 1e3:.2f} ms, "
          f"p99 {quantile(buckets, 0.99) * 1e3:.2f} ms; dropped {metric('events_dropped_total'):.0f}")
    print(f"buckets    " + "  ".join(f"<={bound}: {count}" for bound, count in buckets))
finally:
    server.terminate()
    server.wait(30)
PYTHON
