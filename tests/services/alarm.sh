#!/bin/sh
# The alarm alone (--roles alarm) over a real Redis, beside an api and a gateway of this script: events are told once,
# also around kills and while Redis or the api is away, and what other tools push is sent. Everything on loopback, in a
# directory of its own. Needs the release build (make build) or TEST_BINARY, python3, and redis-server, which is
# installed if that may be (needs.sh).
set -eu
cd "$(dirname "$0")/../.."
. tests/services/needs.sh
need python3 python3
need redis-server redis-server
need redis-cli redis-tools

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 - "${TEST_BINARY:-target/release/hawkeye}" "$dir" <<'SCENE'
import http.server, json, os, signal, socket, subprocess, sys, threading, time, urllib.parse, urllib.request

binary, dir = sys.argv[1:]
held = [socket.socket() for _ in range(5)]
for s in held: s.bind(("127.0.0.1", 0))
redis_port, admin, alarm_http, site, other = [s.getsockname()[1] for s in held]
for s in held: s.close()
got, answers, redis, server = [], True, None, None

class Site(http.server.BaseHTTPRequestHandler):
    """The old api, the gateways and the old dashboard."""
    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if not answers: return self.answer(502, "away")
        assert json.loads(self.headers["Apitoken"]) == {"name": "falcon-alarm", "sig": "secret"}
        if self.path == "/api/v1/action/7":
            return self.answer(200, json.dumps({"id": 7, "uic": "ops", "url": "", "callback": 0}))
        if self.path == "/api/v1/team/name/ops":
            users = [{"id": 1, "name": "u", "phone": "111", "im": "im1", "email": "", "role": 0}]
            return self.answer(200, json.dumps({"id": 2, "name": "ops", "users": users}))
        self.answer(400, '{"error":"record not found"}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        got.append((self.path, body if self.path == "/portal/links/store" else dict(urllib.parse.parse_qsl(body))))
        self.answer(200, "abcd1234")

    def log_message(self, *_): pass

threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", site), Site).serve_forever, daemon=True).start()

def cli(*words):
    done = subprocess.run(["redis-cli", "-p", str(redis_port), *words], capture_output=True, text=True, timeout=20)
    return done.stdout.splitlines()

def start_redis():
    global redis
    redis = subprocess.Popen(
        ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes",
         "--appendfsync", "always"], stdout=open(f"{dir}/redis.log", "a"), stderr=subprocess.STDOUT)
    wait("Redis answers", lambda: cli("PING") == ["PONG"])

def start():
    global server
    command = [binary, "server", "--roles", "alarm", "--data-dir", f"{dir}/data"]
    url = f"http://127.0.0.1:{site}"
    for key, value in [
            ("listen.admin", f"127.0.0.1:{admin}"), ("listen.alarm_http", f"127.0.0.1:{alarm_http}"),
            ("alarm.redis_url", f"redis://127.0.0.1:{redis_port}/0"), ("alarm.plus_api", url), ("alarm.plus_api_token", "secret"),
            ("alarm.sms", f"{url}/sms"), ("alarm.im", f"{url}/im"), ("alarm.dashboard", url), ("alarm.merge", "2s")]:
        command += ["--set", f"{key}={value}"]
    log = open(f"{dir}/log", "a")
    server = subprocess.Popen(command, stdout=log, stderr=log)
    wait("the alarm listens", lambda: get(alarm_http, "/health") == "ok")

def kill():
    server.kill()
    server.wait()

def get(port, path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""

def wait(what, condition):
    deadline = time.time() + 90
    while time.time() < deadline:
        if condition(): return
        assert server is None or server.poll() is None, "the alarm has ended"
        time.sleep(0.1)
    raise SystemExit(f"waited in vain until {what}: {got}")

def push(host, priority, status="PROBLEM"):
    rule = {"id": 5, "metric": "cpu.idle", "tags": {}, "func": "all(#1)", "operator": "<", "rightValue": 10, "maxStep": 3,
            "priority": priority, "note": "busy", "tpl": {"id": 3, "name": "t", "parentId": 0, "actionId": 7, "creator": "root"}}
    event = {"id": f"s_5_{host}", "strategy": rule, "expression": None, "status": status, "endpoint": host, "leftValue": 5,
             "currentStep": 1, "eventTime": 1490000000, "pushedTags": {}}
    cli("LPUSH", f"event:p{priority}", json.dumps(event))

def sms():
    return [body["content"].split("][")[2] for path, body in got if path == "/sms" and body["content"].startswith("[P")]

try:
    start_redis()
    start()
    push("a", 0)
    wait("a is told", lambda: sms() == ["a"])
    assert ("/sms", "111") in [(path, body["tos"]) for path, body in got if path == "/sms"]
    push("a", 0, "OK")
    wait("its end is told", lambda: sms() == ["a", "a"])

    # Low priorities become one message, whose texts the old dashboard keeps.
    got.clear()
    for host in "xyz": push(host, 4)
    text = f"[P4][PROBLEM] 3 cpu.idle e.g. x http://127.0.0.1:{site}/portal/links/abcd1234 "
    wait("they are one", lambda: ("/im", {"tos": "im1", "content": text}) in got)
    assert [body.count(",,") for path, body in got if path == "/portal/links/store"] == [2]

    # Other tools.
    cli("LPUSH", "/sms", json.dumps({"tos": "5,6", "content": "a URL is slow"}))
    wait("it is sent", lambda: ("/sms", {"tos": "5,6", "content": "a URL is slow"}) in got)

    # What was popped when the alarm was killed is told; so is what comes while it, Redis or the api is away.
    kill()
    got.clear()
    push("b", 1)
    cli("RPOPLPUSH", "event:p1", "hawkeye:taken:event")
    push("c", 2)
    answers = False
    start()
    wait("both are told", lambda: sorted(sms()) == ["b", "c"])
    wait("the api is missed", lambda: "the old api cannot be asked" in get(admin, "/health"))
    answers = True
    redis.kill()
    redis.wait()
    wait("Redis is missed", lambda: "Redis cannot be read" in get(admin, "/health"))
    start_redis()
    for round in range(5):
        for number in range(10): push(f"h{round}-{number}", 1)
        kill()
        start()
    everybody = {f"h{round}-{number}" for round in range(5) for number in range(10)}
    wait("all are told", lambda: everybody <= set(sms()))
    wait("Redis has nothing left", lambda: all(key.endswith(":left") for key in cli("KEYS", "*")))
    wait("all works", lambda: get(admin, "/health") == "ok\n")
    status = subprocess.run([binary, "status", "--addr", f"127.0.0.1:{admin}"], capture_output=True, text=True)
    assert status.returncode == 0 and "roles      alarm\n" in status.stdout, status.stdout
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    assert "secret" not in open(f"{dir}/log").read(), "the token is in the log"
except BaseException:
    print(open(f"{dir}/log").read()[-6000:])
    raise
finally:
    for process in (server, redis):
        if process and process.poll() is None:
            process.kill()
            process.wait()
SCENE
echo "the alarm alone tells every event, whatever happens to it, to Redis or to the api"
