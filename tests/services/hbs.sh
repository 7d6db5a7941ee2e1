#!/bin/sh
# Hbs alone (--roles hbs) over the databases of an Open-Falcon in a real MariaDB, without any table of Hawkeye's own:
# agents and judges are answered, rows that others write are seen, and MariaDB may be away. Everything on loopback, in a
# directory of its own. Needs the release build (make build) or TEST_BINARY, python3, and mariadb-server-core with its
# client, which are installed if that may be (needs.sh).
set -eu
cd "$(dirname "$0")/../.."
. tests/services/needs.sh
need python3 python3
PATH=$PATH:/usr/sbin
need mariadbd mariadb-server-core
need mariadb mariadb-client-core

dir=$(mktemp -d)
trap 'if [ -f "$dir/pid" ]; then kill -KILL "$(cat "$dir/pid")" 2> /dev/null || true; fi; rm -rf "$dir"' EXIT
mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$dir/db" --skip-test-db \
    --auth-root-authentication-method=normal > "$dir/install" 2>&1 || { cat "$dir/install"; exit 1; }
python3 - "${TEST_BINARY:-target/release/hawkeye}" "$dir" "$(id -un)" <<'SCENE'
import errno, json, os, re, signal, socket, subprocess, sys, time, urllib.request

binary, dir, user = sys.argv[1:]
held = [socket.socket() for _ in range(4)]
for s in held: s.bind(("127.0.0.1", 0))
mysql_port, hbs, hbs_http, admin = [s.getsockname()[1] for s in held]
for s in held: s.close()
server = mariadb = None
url = f"mysql://falcon:p%40ss@127.0.0.1:{mysql_port}"

def start_mariadb():
    global mariadb
    mariadb = subprocess.Popen(
        ["mariadbd", "--no-defaults", f"--user={user}", f"--datadir={dir}/db", f"--socket={dir}/socket", f"--port={mysql_port}",
         "--bind-address=127.0.0.1"], stdout=open(f"{dir}/mariadb.log", "a"), stderr=subprocess.STDOUT)
    open(f"{dir}/pid", "w").write(str(mariadb.pid))
    wait("MariaDB answers", lambda: sql("SELECT 1", check=False) == ["1"])

def sql(text, check=True):
    command = ["mariadb", "--no-defaults", "-uroot", "-S", f"{dir}/socket", "-N", "-e", text]
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout.split()

def command():
    made = [binary, "server", "--roles", "hbs", "--data-dir", f"{dir}/data"]
    for key, port in [("hbs_rpc", hbs), ("hbs_http", hbs_http), ("admin", admin)]:
        made += ["--set", f"listen.{key}=127.0.0.1:{port}"]
    return made

def start():
    global server
    log = open(f"{dir}/log", "a")
    server = subprocess.Popen(command(), stdout=log, stderr=log, env={**os.environ, "HAWKEYE_PORTAL__URL": url})
    wait("hbs listens", lambda: get(hbs_http, "/health") == "ok")

def get(port, path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""

def call(method, param):
    with socket.create_connection(("127.0.0.1", hbs), 5) as peer:
        peer.sendall(json.dumps({"method": method, "params": [param], "id": 1}).encode())
        answer = json.loads(peer.makefile().readline())
    assert answer["error"] is None, answer
    return answer["result"]

def report(host):
    with socket.create_connection(("127.0.0.1", hbs), 60) as peer:
        param = {"Hostname": host, "IP": "10.0.0.2", "AgentVersion": "5.1", "PluginVersion": "p"}
        peer.sendall(json.dumps({"method": "Agent.ReportStatus", "params": [param], "id": 1}).encode())
        return json.loads(peer.makefile().readline())

def wait(what, condition):
    deadline = time.time() + 90
    while time.time() < deadline:
        if condition(): return
        assert server is None or server.poll() is None, "hbs has ended"
        time.sleep(0.2)
    raise SystemExit(f"waited in vain until {what}")

try:
    start_mariadb()
    # The tables of the original alone.
    schema = open("crates/hawkeye/src/portal/db/mysql.sql").read()
    made = [text for text in schema.split(";\n") if re.search(r"CREATE TABLE falcon_portal\.(?!hawkeye_)", text)]
    assert len(made) > 10, len(made)
    sql("CREATE DATABASE falcon_portal CHARACTER SET utf8; " + "; ".join(text[text.index("CREATE TABLE"):] for text in made))
    sql("CREATE USER 'falcon'@'%' IDENTIFIED BY 'p@ss'; GRANT SELECT, INSERT, UPDATE ON falcon_portal.* TO 'falcon'@'%'")
    start()
    assert sql("SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'hawkeye%'") == ["0"]

    # An agent reports, and is told what it is to run; a judge gets the rules.
    call("Agent.ReportStatus", {"Hostname": "web-01", "IP": "10.0.0.1", "AgentVersion": "5.1", "PluginVersion": "p"})
    assert sql("SELECT hostname, ip FROM falcon_portal.host") == ["web-01", "10.0.0.1"]
    # One of ours says more, for which there is no table here, and is told the time.
    more = {"FullVersion": "0.1.0 x86_64", "ConfigDigest": "0123456789abcdef", "ClockOffsetMs": 400000}
    told = call("Agent.ReportStatus",
                {"Hostname": "web-01", "IP": "10.0.0.1", "AgentVersion": "5.1", "PluginVersion": "p", **more})
    assert told["code"] == 0 and abs(told["TimeMs"] / 1000 - time.time()) < 60, told
    sql("""INSERT INTO falcon_portal.grp (id, grp_name) VALUES (7, 'web');
           INSERT INTO falcon_portal.grp_host (grp_id, host_id) VALUES (7, 1);
           INSERT INTO falcon_portal.tpl (id, tpl_name, parent_id, action_id, create_user) VALUES (3, 't', 0, 9, 'root');
           INSERT INTO falcon_portal.grp_tpl (grp_id, tpl_id) VALUES (7, 3);
           INSERT INTO falcon_portal.strategy (metric, tags, func, op, right_value, tpl_id, max_step, priority)
             VALUES ('net.port.listen', 'port=80', 'all(#3)', '==', '0', 3, 3, 1);
           INSERT INTO falcon_portal.plugin_dir (grp_id, dir) VALUES (7, 'sys/ntp');
           INSERT INTO falcon_portal.expression (expression, func, op, right_value, action_id)
             VALUES ('each(metric=qps module=shop)', 'all(#1)', '>', '5', 9)""")
    strategies = lambda: call("Hbs.GetStrategies", {}).get("hostStrategies") or []
    wait("the strategy is there", lambda: [host["hostname"] for host in strategies()] == ["web-01"])
    assert strategies()[0]["strategies"][0]["tpl"]["actionId"] == 9
    assert call("Hbs.GetExpressions", {})["expressions"][0]["metric"] == "qps"
    assert call("Agent.MinePlugins", {"Hostname": "web-01"})["Plugins"] == ["sys/ntp"]
    builtin = call("Agent.BuiltinMetrics", {"Hostname": "web-01", "Checksum": ""})
    assert [metric["Tags"] for metric in builtin["Metrics"]] == ["port=80"], builtin
    assert json.loads(get(hbs_http, "/agents"))["data"] == ["web-01"]
    sql("UPDATE falcon_portal.strategy SET right_value = '1'")
    wait("the change is seen", lambda: strategies()[0]["strategies"][0]["rightValue"] == 1)

    # MariaDB is killed: judges keep their rules, and it is told; then it is back.
    mariadb.kill()
    mariadb.wait()
    began = time.time()
    wait("MySQL is missed", lambda: "(portal.url) does not answer" in get(admin, "/health"))
    assert time.time() - began < 10, "who is away is told soon"
    assert report("web-02")["error"] and time.time() - began < 20, "no report waits for long"
    wait("it is told", lambda: "the tables in MySQL cannot be read" in get(admin, "/health"))
    assert len(strategies()) == 1
    start_mariadb()
    wait("all works", lambda: get(admin, "/health") == "ok\n")
    # MariaDB hangs, and goes on.
    mariadb.send_signal(signal.SIGSTOP)
    began = time.time()
    wait("MySQL is missed", lambda: "(portal.url) does not answer" in get(admin, "/health"))
    assert time.time() - began < 12, "who hangs is told soon"
    assert report("web-02")["error"] and time.time() - began < 35, "no report waits for long"
    assert len(strategies()) == 1
    mariadb.send_signal(signal.SIGCONT)
    wait("all works", lambda: get(admin, "/health") == "ok\n")
    assert report("web-02")["error"] is None
    sql("UPDATE falcon_portal.host SET maintain_begin = 1, maintain_end = 4000000000")
    wait("maintenance is seen", lambda: strategies() == [])
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0

    # A start before MariaDB: admin says what is waited for, nobody else is accepted, and then all works.
    mariadb.kill()
    mariadb.wait()
    server = subprocess.Popen(command(), stdout=open(f"{dir}/log", "a"), stderr=subprocess.STDOUT,
                              env={**os.environ, "HAWKEYE_PORTAL__URL": url})
    wait("MySQL is missed", lambda: "(portal.url) does not answer" in get(admin, "/health"))
    with socket.socket() as peer:
        assert peer.connect_ex(("127.0.0.1", hbs)) == errno.ECONNREFUSED
    start_mariadb()
    wait("hbs listens", lambda: get(hbs_http, "/health") == "ok")
    assert get(admin, "/health") == "ok\n" and "hbs_rpc" in get(admin, "/status")
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    server = None

    # A start that cannot work ends with one line.
    wrong = subprocess.run(command(), capture_output=True, text=True, timeout=60,
                           env={**os.environ, "HAWKEYE_PORTAL__URL": url.replace("p%40ss", "wrong")})
    assert wrong.returncode == 1 and "cannot open the portal in MySQL" in wrong.stderr, wrong.stderr
    for secret in ("p@ss", "p%40ss", "wrong@"):
        assert secret not in open(f"{dir}/log").read() + wrong.stderr, "a password is told"
except BaseException:
    print(open(f"{dir}/log").read()[-6000:] if os.path.exists(f"{dir}/log") else "")
    raise
finally:
    for process in (server, mariadb):
        if process and process.poll() is None:
            process.kill()
            process.wait()
SCENE
echo "hbs alone answers from the tables of an Open-Falcon"
