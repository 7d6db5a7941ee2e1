#!/bin/sh
# The api alone (--roles api) over the databases of an Open-Falcon in a real MariaDB, without any table of Hawkeye's
# own, and over two graphs that write Open-Falcon's index there: names are searched and deleted, charts are drawn, rules
# are saved where an old hbs reads them, and MariaDB may be away. Everything on loopback, in a directory of its own.
# Needs the release build (make build) or TEST_BINARY, python3, and mariadb-server-core with its client, which are
# installed if that may be (needs.sh).
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
import json, os, re, signal, socket, subprocess, sys, time, urllib.error, urllib.parse, urllib.request

binary, dir, user = sys.argv[1:]
NAMES = ["mysql", "api", "admin", "graph0", "graph1", "admin0", "admin1", "rpc", "http", "telnet", "admin2"]
held = [socket.socket() for _ in NAMES]
for s in held: s.bind(("127.0.0.1", 0))
port = dict(zip(NAMES, (s.getsockname()[1] for s in held)))
for s in held: s.close()
servers, mariadb, token = {}, None, ""
url = f"mysql://falcon:p%40ss@127.0.0.1:{port['mysql']}"

def start_mariadb():
    global mariadb
    mariadb = subprocess.Popen(
        ["mariadbd", "--no-defaults", f"--user={user}", f"--datadir={dir}/db", f"--socket={dir}/socket", f"--port={port['mysql']}",
         "--bind-address=127.0.0.1"], stdout=open(f"{dir}/mariadb.log", "a"), stderr=subprocess.STDOUT)
    open(f"{dir}/pid", "w").write(str(mariadb.pid))
    wait("MariaDB answers", lambda: sql("SELECT 1", check=False) == ["1"])

def sql(text, check=True):
    command = ["mariadb", "--no-defaults", "-uroot", "-S", f"{dir}/socket", "-N", "-e", text]
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout.split()

def start(name, roles, admin, *more, **environment):
    command = [binary, "server", "--roles", roles, "--data-dir", f"{dir}/{name}", "--set", f"listen.admin=127.0.0.1:{port[admin]}"]
    for one in more: command += ["--set", one]
    log = open(f"{dir}/log", "a")
    servers[name] = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
    wait(f"{name} listens", lambda: ask(admin, "GET", "/health")[0] in (200, 503))

def ask(name, method, path, body=None, form=None):
    headers = {"Apitoken": token, "Content-Type": "application/x-www-form-urlencoded" if form else "application/json"}
    data = (form or json.dumps(body)).encode() if form or body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{port[name]}{path}", data, headers, method=method)
    try:
        answer = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    except OSError:
        return 0, ""
    text = answer.read().decode()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text

def api(method, path, body=None, form=None, status=200):
    answer = ask("api", method, "/api/v1" + path, body, form)
    assert answer[0] == status, (method, path, answer)
    return answer[1]

def wait(what, condition):
    deadline = time.time() + 90
    while time.time() < deadline:
        if condition(): return
        assert all(server.poll() is None for server in servers.values()), "a server has ended"
        time.sleep(0.2)
    raise SystemExit(f"waited in vain until {what}")

def start_api():
    global token
    token = ""
    start("api", "api", "admin", f"listen.api=127.0.0.1:{port['api']}", f"graph.cluster={cluster}",
          HAWKEYE_PORTAL__URL=url, HAWKEYE_GRAPH__INDEX_URL=url + "/graph", HAWKEYE_API__VIEWER="all")
    wait("the api listens", lambda: ask("api", "GET", "/health")[0] in (200, 503))
    answer = api("POST", "/user/login", {"name": "root", "password": open(f"{dir}/api/admin-password").read().strip()})
    token = json.dumps({"name": answer["name"], "sig": answer["sig"]})

try:
    start_mariadb()
    # The tables of the original alone.
    schema = open("crates/hawkeye/src/portal/db/mysql.sql").read()
    schema = re.sub(r"\n  (told|explanation) .*", "", schema).replace("VARCHAR(512)", "VARCHAR(200)")
    schema = re.sub(r",(\s*\n\))", r"\1", schema)
    made = [text[text.index("CREATE TABLE"):] for text in schema.split(";\n") if re.search(r"CREATE TABLE \w+\.(?!hawkeye_)", text)]
    assert len(made) > 20, len(made)
    for name in ("uic", "falcon_portal", "dashboard", "alarms"):
        sql(f"CREATE DATABASE {name} CHARACTER SET utf8 COLLATE utf8_general_ci")
    sql("; ".join(made))
    sql(open("tests/services/graph_index.sql").read())
    sql("CREATE USER 'falcon'@'%' IDENTIFIED BY 'p@ss'")
    for name in ("uic", "falcon_portal", "dashboard", "alarms", "graph"):
        sql(f"GRANT ALL ON {name}.* TO 'falcon'@'%'")

    # Two graphs, and a transfer that fills them.
    for i in "01":
        start(f"graph{i}", "graph", f"admin{i}", f"listen.graph_rpc=127.0.0.1:{port['graph' + i]}",
              HAWKEYE_GRAPH__INDEX_URL=url + "/graph")
    cluster = "{ graph-00 = \"127.0.0.1:%d\", graph-01 = \"127.0.0.1:%d\" }" % (port["graph0"], port["graph1"])
    start("transfer", "transfer", "admin2", f"listen.transfer_rpc=127.0.0.1:{port['rpc']}", f"listen.transfer_http=127.0.0.1:{port['http']}",
          f"listen.transfer_telnet=127.0.0.1:{port['telnet']}", f"transfer.graph.cluster={cluster}")
    minute = int(time.time()) // 60 * 60
    items = [{"endpoint": host, "metric": metric, "value": 1.5, "step": 60, "timestamp": minute - back, "counterType": "GAUGE", "tags": tags}
             for back in (60, 0) for host in ("web-01", "web-02", "db.local")
             for metric, tags in (("cpu.idle", ""), ("cpu.busy", ""), ("df.free", "mount=/,fstype=ext4"))]
    assert ask("http", "POST", "/api/push", items)[1]["data"]["Invalid"] == 0
    wait("the index has all counters", lambda: sql("SELECT COUNT(*) FROM graph.endpoint_counter") == ["9"])

    # Our own tables and columns are made once, and a second start finds them.
    start_api()
    own = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'hawkeye%'"
    columns = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = 'alarms' AND column_name IN ('told', 'explanation')"
    assert (sql(own), sql(columns)) == (["9"], ["2"])
    servers.pop("api").terminate()
    start_api()

    # Names.
    names = lambda query: sorted(row["endpoint"] for row in api("GET", "/graph/endpoint?" + query))
    assert names("q=.") == names("q=.&tags=mount=/") == ["db.local", "web-01", "web-02"], names("q=.")
    assert names("q=WEB%20-01") == ["web-01"] and len(names("q=.&limit=1&page=2")) == 1 and names("q=(") == []
    assert names("q=web&tags=none") == ["web-01", "web-02"], "tags that match nothing are ignored"
    rows = api("GET", "/graph/endpointobj?endpoints=web-02&endpoints=none&endpoints=web-01")
    ids = {row["endpoint"]: row["id"] for row in rows}
    assert sorted(ids) == ["web-01", "web-02"] and all(minute - 60 <= row["ts"] <= minute for row in rows), rows
    counters = lambda query: [row["counter"] for row in api("GET", f"/graph/endpoint_counter?eid={ids['web-01']}&metricQuery={query}")]
    assert sorted(counters("")) == ["cpu.busy", "cpu.idle", "df.free/fstype=ext4,mount=/"]
    assert counters("cpu%20!idle") == ["cpu.busy"] and counters("(") == []
    find = lambda query: [item["text"] for item in ask("api", "GET", "/api/v1/grafana/metrics/find?query=" + urllib.parse.quote(query))[1]]
    assert sorted(find("")) == ["db~local", "web-01", "web-02"] and find("web-01#cpu#.*") == ["busy", "idle", "$", "%"]
    drawn = ask("api", "POST", "/api/v1/grafana/render", form=f"target=%7Bweb-01,db~local%7D%23cpu%23%25&from={minute - 300}&until={minute}")[1]
    assert [(row["endpoint"], row["counter"], row["Values"][-1]["value"]) for row in drawn] == [
        (host, counter, 1.5) for host in ("db.local", "web-01") for counter in ("cpu.busy", "cpu.idle")], drawn
    page = ask("api", "GET", "/ui/overview")[1]
    assert [(host["name"], host["cpu_busy"]) for host in page["hosts"]] == [(name, 1.5) for name in ("db.local", "web-01", "web-02")], page
    assert ask("api", "GET", "/ui/counters?endpoint=web-01&q=CPU")[1] == {"total": 2, "counters": ["cpu.busy", "cpu.idle"]}

    # What is deleted is gone in the graphs and in the index.
    assert api("DELETE", "/graph/counter", {"endpoints": ["web-01"], "counters": ["cpu.busy"]}) == {"affected_counter": 1}
    assert sorted(counters("")) == ["cpu.idle", "df.free/fstype=ext4,mount=/"]
    assert api("DELETE", "/graph/endpoint", ["web-02", "none"]) == {"affected_endpoint": 1, "affected_counter": 3}
    assert sql("SELECT COUNT(*) FROM graph.tag_endpoint") == ["4"]
    last = api("POST", "/graph/lastpoint", [{"endpoint": "web-02", "counter": "cpu.idle"}, {"endpoint": "web-01", "counter": "cpu.idle"}])
    assert [point["value"]["timestamp"] for point in last] == [0, minute], last

    # Rules are saved where others read them, and what others write is there.
    group = api("POST", "/hostgroup", {"name": "web"})["id"]
    api("POST", "/hostgroup/host", {"hostgroup_id": group, "hosts": ["web-01"]})
    assert sql("SELECT h.hostname FROM falcon_portal.host h JOIN falcon_portal.grp_host g ON g.host_id = h.id") == ["web-01"]
    sql("INSERT INTO falcon_portal.grp (grp_name, create_user) VALUES ('old', 'root')")
    assert [row["grp_name"] for row in api("GET", "/hostgroup")] == ["web", "old"]
    assert api("GET", "/alarm/eventcases?startTime=1&endTime=2000000000") == []

    # MariaDB is away, and back.
    mariadb.kill()
    mariadb.wait()
    assert ask("api", "GET", "/api/v1/grafana/metrics/find?query=")[0] >= 400
    assert "graph.index_url" in ask("admin", "GET", "/health")[1]
    start_mariadb()
    wait("names are found again", lambda: ask("api", "GET", "/api/v1/grafana/metrics/find?query=")[0] == 200)
    wait("all works", lambda: ask("admin", "GET", "/health")[0] == 200)
    servers["api"].send_signal(signal.SIGTERM)
    assert servers.pop("api").wait(20) == 0
    for secret in ("p@ss", "p%40ss"):
        assert secret not in open(f"{dir}/log").read(), "a password is told"
except BaseException:
    print(open(f"{dir}/log").read()[-6000:] if os.path.exists(f"{dir}/log") else "")
    raise
finally:
    for process in [*servers.values(), mariadb]:
        if process and process.poll() is None:
            process.kill()
            process.wait()
SCENE
echo "the api alone reads the graphs, the index and the portal of an Open-Falcon"
