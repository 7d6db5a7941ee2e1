#!/bin/sh
# Hawkeye's tables in a real MariaDB: the tests of the index of an old Open-Falcon (graph.index_url), and those of the
# portal, its API, its rules and its alarms, which run over SQLite otherwise; then the real server with an index while
# MariaDB is killed, comes back with TLS, refuses the password, and never answers. Everything on loopback, in a
# directory of its own. Needs the release build (make build) or TEST_BINARY, python3, openssl, and mariadb-server-core
# with its client, which are installed if that may be (needs.sh). TEST_MYSQL=mysql://user:password@host:port (a user who
# may create databases hawkeye_test_…) runs only the tests, there.
set -eu
cd "$(dirname "$0")/../.."

run_tests() {
    cargo test --locked -p hawkeye --bin hawkeye -- --include-ignored role::graph::index::tests
    # With TEST_MYSQL, every portal of these is in MySQL; they run for themselves, for the index counts its statements.
    cargo test --locked -p hawkeye --bin hawkeye -- --include-ignored --skip a_real_mail_server \
        portal:: api:: rules:: role::alarm:: role::hbs::
}

if [ -n "${TEST_MYSQL:-}" ]; then
    run_tests
    exit
fi
. tests/services/needs.sh
need python3 python3
need openssl openssl
PATH=$PATH:/usr/sbin
# The core packages bring the programs without a service, a user or a database of the system's.
need mariadbd mariadb-server-core
need mariadb mariadb-client-core

dir=$(mktemp -d)
trap 'if [ -f "$dir/pid" ]; then kill -KILL "$(cat "$dir/pid")" 2> /dev/null || true; fi; rm -rf "$dir"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$dir/db" --skip-test-db \
    --auth-root-authentication-method=normal > "$dir/install" 2>&1 || { cat "$dir/install"; exit 1; }
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" 2> /dev/null

# $@: further options. Leaves the id of the process in $dir/pid; ends when the server answers.
cat > "$dir/start" <<START
#!/bin/sh
mariadbd --no-defaults --user="$(id -un)" --datadir="$dir/db" --socket="$dir/socket" --port=$port --bind-address=127.0.0.1 \\
    --innodb-flush-log-at-trx-commit=0 --sync-binlog=0 "\$@" >> "$dir/mariadb.log" 2>&1 &
echo \$! > "$dir/pid"
for _ in \$(seq 300); do
    mariadb --no-defaults -uroot -S "$dir/socket" -e 'SELECT 1' > /dev/null 2>&1 && exit 0
    sleep 0.1
done
echo "MariaDB does not answer"; tail "$dir/mariadb.log"; exit 1
START
chmod +x "$dir/start"
"$dir/start"
mariadb --no-defaults -uroot -S "$dir/socket" < tests/services/graph_index.sql
# Every character that a URL must write otherwise.
mariadb --no-defaults -uroot -S "$dir/socket" -e "
    CREATE USER 'falcon'@'%' IDENTIFIED BY 'p@ss/w#rd%:?';
    GRANT ALL ON \`hawkeye\\_test\\_%\`.* TO 'falcon'@'%';
    GRANT SELECT, INSERT, UPDATE ON graph.* TO 'falcon'@'%';"
user='falcon:p%40ss%2Fw%23rd%25%3A%3F'
TEST_MYSQL="mysql://$user@127.0.0.1:$port" run_tests

python3 - "${TEST_BINARY:-target/release/hawkeye}" "$dir" "mysql://$user@localhost:$port/graph" <<'SCENE'
import json, os, signal, socket, subprocess, sys, threading, time, urllib.request

binary, dir, url = sys.argv[1:]
held = [socket.socket() for _ in range(6)]
for s in held: s.bind(("127.0.0.1", 0))
ports = [s.getsockname()[1] for s in held]
for s in held: s.close()
names = ["transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc", "api", "admin"]
admin = f"http://127.0.0.1:{ports[5]}"
server = None

def start(index_url):
    global server
    command = [binary, "server", "--data-dir", f"{dir}/data", "--set", "graph.index_refresh=10s"]
    for name, port in zip(names, ports):
        command += ["--set", f"listen.{name}=127.0.0.1:{port}"]
    log = open(f"{dir}/log", "a")
    server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HAWKEYE_GRAPH__INDEX_URL": index_url})
    wait("the server listens", lambda: get("/metrics"))

def stop():
    began = time.time()
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    assert time.time() - began < 5, "a stop does not wait for MySQL"

def get(path):
    try:
        return urllib.request.urlopen(admin + path, timeout=5).read().decode()
    except OSError:
        return ""

def metric(name):
    return next(float(l.split()[1]) for l in get("/metrics").splitlines() if l.startswith(f"hawkeye_{name} "))

def push(hosts, ago, kind="GAUGE"):
    now = int(time.time()) // 60 * 60
    items = [{"endpoint": h, "metric": m, "value": 1, "step": 60, "timestamp": now - ago, "counterType": kind,
              "tags": "mount=/,fstype=ext4"} for h in hosts for m in ("df.a", "df.b")]
    began = time.time()
    request = urllib.request.Request(f"http://127.0.0.1:{ports[1]}/api/push", json.dumps(items).encode())
    assert b'"msg":"success"' in urllib.request.urlopen(request, timeout=5).read()
    assert time.time() - began < 2, "no point waits for MySQL"
    return now - ago

def sql(text):
    command = ["mariadb", "--no-defaults", "-uroot", "-S", f"{dir}/socket", "-N", "graph", "-e", text]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

def counts():
    return [int(n) for table in ("endpoint", "tag_endpoint", "endpoint_counter") for n in sql(f"SELECT COUNT(*) FROM {table}")]

def log():
    return open(f"{dir}/log").read()

def wait(what, condition):
    deadline = time.time() + 90
    while time.time() < deadline:
        if condition(): return
        assert server.poll() is None, "the server has ended"
        time.sleep(0.2)
    raise SystemExit(f"waited in vain until {what}")

def kill_mariadb():
    pid = int(open(f"{dir}/pid").read())
    os.kill(pid, signal.SIGKILL)
    wait("MariaDB is gone", lambda: not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split()[2] == "Z")

try:
    # New series, and the same again.
    start(url)
    push(["web1", "web2"], 180)
    wait("the rows are there", lambda: counts() == [2, 4, 4])
    ts = push(["web1", "web2"], 120)
    wait("every ts is refreshed", lambda: sql(
        "SELECT DISTINCT ts FROM endpoint UNION SELECT ts FROM tag_endpoint UNION SELECT ts FROM endpoint_counter") == [str(ts)])
    assert counts() == [2, 4, 4]
    assert sql("SELECT DISTINCT type FROM endpoint_counter") == ["GAUGE"]
    push(["web1", "web2"], 60, "COUNTER")
    wait("a new type is in the index", lambda: sql("SELECT DISTINCT type FROM endpoint_counter") == ["DERIVE"])

    # MariaDB is killed, and comes back with TLS.
    kill_mariadb()
    push(["web3"], 0)
    wait("it is told", lambda: "cannot write Open-Falcon's index" in log())
    assert "start MySQL" in log() and metric("index_up") == 0 and metric("index_waiting_series") == 2
    assert get("/health") == "", "a server that lacks something answers 503"
    subprocess.run([f"{dir}/start", f"--ssl-cert={dir}/cert.pem", f"--ssl-key={dir}/key.pem"], check=True)
    wait("what came meanwhile is there", lambda: counts() == [3, 6, 6])
    wait("it is told", lambda: "MySQL takes the index again" in log())
    assert get("/health") == "ok\n"
    assert log().count("cannot write Open-Falcon's index") == 1
    assert sql("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'falcon'") == ["1"], "one connection"

    # It takes nothing for a while.
    sql("SET GLOBAL read_only = 1")
    push(["web4"], 0)
    wait("it is told", lambda: "point graph.index_url at a server that may be written to" in log())
    sql("SET GLOBAL read_only = 0")
    wait("the rows are there", lambda: counts() == [4, 8, 8])

    # Rows that got lost come back when a script asks.
    sql("DELETE FROM endpoint; DELETE FROM tag_endpoint; DELETE FROM endpoint_counter")
    assert json.loads(get("/index/updateAll")) == {"msg": "ok"}
    wait("they are back", lambda: counts() == [4, 8, 8])
    wait("the run has ended", lambda: json.loads(get("/index/updateAll/concurrent")) == {"msg": "ok", "value": 0})

    # A stop in the middle of a statement that waits.
    lock = subprocess.Popen(["mariadb", "--no-defaults", "-uroot", "-S", f"{dir}/socket", "graph", "-e",
                             "LOCK TABLES endpoint WRITE; SELECT SLEEP(60)"])
    wait("the table is locked", lambda: sql("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(6%'") == ["2"])
    push(["web5"], 0)
    wait("the index waits", lambda: sql("SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE '%lock%'") == ["1"])
    stop()
    lock.kill()
    sql("SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(60)' INTO @kill; EXECUTE IMMEDIATE @kill")

    # A start while the password is wrong; then a restart writes what came, and nothing twice; the certificate is
    # checked.
    start(url.replace("falcon:", "falcon:wrong-"))
    push(["web6"], 0)
    wait("it is told", lambda: "correct the user and the password" in log())
    stop()
    start(f"{url}?ssl-mode=VERIFY_CA&ssl-ca={dir}/cert.pem")
    wait("the rows are there", lambda: counts() == [6, 12, 12])
    assert metric("index_rows_inserted_total") == 10
    stop()

    # A certificate that nobody vouches for, where the configuration wants one.
    start(f"{url}?ssl-mode=VERIFY_CA")
    wait("it is told", lambda: "set ?ssl-mode=DISABLED" in log())
    stop()

    # A database that never says a word.
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    start(f"mysql://falcon:p%40ss@127.0.0.1:{silent.getsockname()[1]}")
    push(["web7"], 0)
    stop()
    # One that says what no MySQL says; the client library panics at some of it, and the server goes on.
    def babble():
        while True:
            peer, _ = silent.accept()
            peer.sendall(b"\2\0\0\0\x0a\0")  # a greeting that ends too early
            peer.recv(1)
    threading.Thread(target=babble, daemon=True).start()
    start(f"mysql://falcon:p%40ss@127.0.0.1:{silent.getsockname()[1]}")
    wait("it is told", lambda: f"127.0.0.1:{silent.getsockname()[1]}/graph" in log())
    push(["web8"], 0)
    stop()
    for secret in ("p@ss", "p%40ss", "wrong-"):
        assert secret not in log(), "a password is in the log"
except BaseException:
    print(open(f"{dir}/log").read())
    raise
finally:
    if server and server.poll() is None: server.kill()
SCENE
echo "the index follows MySQL wherever it goes"
