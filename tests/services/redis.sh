#!/bin/sh
# Events for an old alarm (judge.redis_url) in a real Redis: the real server while Redis is killed, takes nothing, and
# never answers, and is killed itself. Everything on loopback, in a directory of its own. Needs the release build (make
# build) or TEST_BINARY, python3, and redis-server, which is installed if that may be (needs.sh).
set -eu
cd "$(dirname "$0")/../.."
. tests/services/needs.sh
need python3 python3
need redis-server redis-server
need redis-cli redis-tools

# The ids of rules are compared.
export HAWKEYE_PORTAL__DEFAULTS=false
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 - "${TEST_BINARY:-target/release/hawkeye}" "$dir" <<'SCENE'
import hashlib, json, os, signal, socket, subprocess, sys, time, urllib.request

binary, dir = sys.argv[1:]
held = [socket.socket() for _ in range(7)]
for s in held: s.bind(("127.0.0.1", 0))
ports = [s.getsockname()[1] for s in held]
for s in held: s.close()
names = ["transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc", "api", "admin"]
redis_port, password = ports[6], "pa@ss/w#rd"
url = f"redis://:pa%40ss%2Fw%23rd@127.0.0.1:{redis_port}/2"
server = redis = token = None
sent = []  # (minute, is PROBLEM)

def start_redis():
    """With every answer after its fsync, so that what it answered for survives its end."""
    global redis
    redis = subprocess.Popen(
        ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes",
         "--appendfsync", "always", "--requirepass", password], stdout=open(f"{dir}/redis.log", "a"), stderr=subprocess.STDOUT)
    wait("Redis answers", lambda: cli("PING") == ["PONG"])

def kill_redis():
    redis.kill()
    redis.wait()

def cli(*words):
    command = ["redis-cli", "-p", str(redis_port), "-n", "2", "--no-auth-warning", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env={**os.environ, "REDISCLI_AUTH": password})
    return done.stdout.splitlines()

def start(redis_url=url):
    global server
    command = [binary, "server", "--data-dir", f"{dir}/data"]
    for name, port in zip(names, ports):
        command += ["--set", f"listen.{name}=127.0.0.1:{port}"]
    log = open(f"{dir}/log", "a")
    server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HAWKEYE_JUDGE__REDIS_URL": redis_url})
    wait("the server listens", lambda: request(ports[5], "/metrics"))

def health():
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{ports[5]}/health", timeout=5).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()

def kill():
    server.kill()
    server.wait()

def stop():
    began = time.time()
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    assert time.time() - began < 5, "a stop does not wait for Redis"

def request(port, path, body=None, method=None):
    headers = {"Content-Type": "application/json"} | ({"Apitoken": token} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        whole = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
        return urllib.request.urlopen(whole, timeout=5).read().decode()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{path}: {error.read().decode()}")
    except OSError:
        return ""

def api(path, body):
    return json.loads(request(ports[4], "/api/v1" + path, body))

def metric(name):
    lines = request(ports[5], "/metrics").splitlines()
    return next(float(l.split()[1]) for l in lines if l.startswith(f"hawkeye_{name} "))

def log():
    return open(f"{dir}/log").read()

def wait(what, condition):
    deadline = time.time() + 90
    while time.time() < deadline:
        if condition(): return
        assert server is None or server.poll() is None, "the server has ended"
        time.sleep(0.1)
    raise SystemExit(f"waited in vain until {what}")

def change(times):
    """As many events: the alarm begins and ends by turns. Each is answered when it is in the event queue."""
    for _ in range(times):
        minute, problem = first + 60 * len(sent), len(sent) % 2 == 0
        item = {"endpoint": "web-01", "metric": "cpu.idle", "value": 5.5 if problem else 80, "step": 60, "timestamp": minute,
                "counterType": "GAUGE", "tags": "k=<v>"}
        assert '"msg":"success"' in request(ports[1], "/api/push", [item])
        sent.append((minute, problem))

def expected():
    """What the original's judge writes, oldest first, byte for byte."""
    md5 = hashlib.md5(b"web-01/cpu.idle/k=<v>").hexdigest()
    rule = (f'{{"id":{strategy},"metric":"cpu.idle","tags":{{}},"func":"all(#1)","operator":"\\u003c","rightValue":10,"maxStep":3,'
            f'"priority":0,"note":"busy \\u0026 slow","tpl":{{"id":{template},"name":"of web","parentId":0,"actionId":0,'
            f'"creator":"root"}}}}')
    return [f'{{"id":"s_{strategy}_{md5}","strategy":{rule},"expression":null,"status":"{"PROBLEM" if problem else "OK"}",'
            f'"endpoint":"web-01","leftValue":{"5.5" if problem else "80"},"currentStep":1,"eventTime":{minute},'
            f'"pushedTags":{{"k":"\\u003cv\\u003e"}}}}' for minute, problem in sent]

def queued():
    """In the order in which BRPOP gives them."""
    return cli("LRANGE", "event:p0", "0", "-1")[::-1]

def all_there():
    wait("all events are there", lambda: len(queued()) >= len(sent))
    assert queued() == expected(), f"{queued()}\n{expected()}"

try:
    start_redis()
    start()
    root = open(f"{dir}/data/admin-password").read().strip()
    answer = api("/user/login", {"name": "root", "password": root})
    token = json.dumps({"name": answer["name"], "sig": answer["sig"]})
    group = api("/hostgroup", {"name": "web"})["id"]
    api("/hostgroup/host", {"hostgroup_id": group, "hosts": ["web-01"]})
    template = api("/template", {"name": "of web", "parent_id": 0})["id"]
    api("/strategy", {"tpl_id": template, "metric": "cpu.idle", "tags": "", "max_step": 3, "priority": 0, "func": "all(#1)",
                      "op": "<", "right_value": "10", "note": "busy & slow", "run_begin": "", "run_end": ""})
    api("/hostgroup/template", {"tpl_id": template, "grp_id": group})
    strategy = 1
    first = int(time.time()) // 60 * 60 - 7200

    change(2)
    all_there()
    assert metric("redis_connected") == 1 and metric("redis_events_pushed_total") == 2

    # Redis is killed; the server, too; and again.
    kill_redis()
    change(10)
    wait("it is told", lambda: "cannot push events to Redis" in log())
    assert "start Redis, or correct judge.redis_url" in log()
    assert "events wait for Redis" in health()
    wait("it shows", lambda: metric("redis_connected") == 0 and metric("redis_lag_events") == 10)
    assert metric("redis_lag_bytes") > 1000 and metric("redis_errors_total") > 0
    kill()
    start()
    change(5)
    kill()
    start()
    change(4)
    start_redis()
    all_there()
    wait("it is told", lambda: "Redis takes events again" in log())
    assert metric("redis_lag_events") == 0 and metric("redis_dropped_total") == 0
    assert health() == "ok\n"

    # Redis answers, and takes nothing.
    errors = metric("redis_errors_total")
    cli("CONFIG", "SET", "maxmemory", "1")
    change(3)
    wait("it is told", lambda: "give Redis more maxmemory" in log())
    cli("CONFIG", "SET", "maxmemory", "0")
    all_there()
    cli("REPLICAOF", "127.0.0.1", "1")
    change(2)
    wait("it is told", lambda: "point judge.redis_url at the primary" in log())
    cli("REPLICAOF", "NO", "ONE")
    all_there()
    assert metric("redis_errors_total") >= errors + 2

    # A start while the password is wrong.
    stop()
    start(url.replace("pa%40ss", "wrong"))
    change(1)
    wait("it is told", lambda: "correct the password in judge.redis_url" in log())
    stop()
    start()
    all_there()

    # Redis never answers: points are taken as ever, a stop does not wait, and the next start pushes them.
    redis.send_signal(signal.SIGSTOP)
    began = time.time()
    change(2)
    assert time.time() - began < 2, "no point waits for Redis"
    stop()
    redis.send_signal(signal.SIGCONT)
    assert "events wait for Redis; the next start pushes them" in log()
    start()
    wait("the last is there", lambda: queued()[-1:] == expected()[-1:])
    # What Redis did after the stop without being heard is there twice.
    assert list(dict.fromkeys(queued())) == expected()

    # The server is killed again and again while it pushes: nothing is missing, and what is there twice is so in order.
    cli("DEL", "event:p0")
    before = len(sent)
    for _ in range(5):
        change(10)
        kill()
        start()
    wait("the last is there", lambda: queued()[-1:] == expected()[-1:])
    assert list(dict.fromkeys(queued())) == expected()[before:]

    # Off, and on again: what came meanwhile is not told to anybody later.
    stop()
    cli("DEL", "event:p0")
    start("")
    change(4)
    stop()
    start()
    change(2)
    wait("the last is there", lambda: queued() == expected()[-2:])
    stop()
    for secret in (password, "pa%40ss", "wrong"):
        assert secret not in log(), "a password is in the log"
except BaseException:
    print(open(f"{dir}/log").read()[-6000:])
    raise
finally:
    for process in (server, redis):
        if process and process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
SCENE
echo "every event comes to Redis, whatever happens to either"
