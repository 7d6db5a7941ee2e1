#!/bin/sh
# How long a rehearsal takes: seven days of 1,000 hosts (HOSTS), a point a minute, by `hawkeye replay` on a running
# server; the rules look at one series of each host. Needs the release build (make build; or HAWKEYE=path) and python3.
set -eu
cd "$(dirname "$0")/.."
hawkeye=${HAWKEYE:-target/release/hawkeye}
command -v python3 > /dev/null || { echo "python3 is missing"; exit 1; }
[ -x "$hawkeye" ] || { echo "$hawkeye is missing: make build"; exit 1; }
exec python3 - "$hawkeye" "${HOSTS:-1000}" <<'PYTHON'
import json, os, socket, subprocess, sys, tempfile, time, urllib.request
hawkeye, hosts = sys.argv[1:]
held = [socket.socket() for _ in range(6)]
for s in held: s.bind(("127.0.0.1", 0))
ports = dict(zip(("transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc", "api", "admin"), (s.getsockname()[1] for s in held)))
for s in held: s.close()
folder = tempfile.TemporaryDirectory()
listen = [part for name, port in ports.items() for part in ("--set", f"listen.{name}=127.0.0.1:{port}")]
server = subprocess.Popen([hawkeye, "server", "--data-dir", folder.name + "/data", "--set", "log=warn", *listen],
                          stdout=open(folder.name + "/out", "w"), stderr=subprocess.STDOUT)
api = f"http://127.0.0.1:{ports['api']}"
try:
    deadline = time.time() + 30
    while True:
        try:
            urllib.request.urlopen(api + "/health").read(); break
        except OSError:
            if time.time() > deadline: sys.exit(open(folder.name + "/out").read())
            time.sleep(0.1)
    began = time.time()
    subprocess.run([hawkeye, "loadgen", "--target", f"127.0.0.1:{ports['transfer_rpc']}", "--hosts", hosts, "--metrics", "2",
                    "--rounds", "10080", "--connections", "100"], check=True, stdout=subprocess.DEVNULL)
    print(f"filled with 7 days of {hosts} hosts x 2 series in {time.time() - began:.0f} s")
    environment = {**os.environ, "HAWKEYE_PASSWORD": open(folder.name + "/data/admin-password").read().strip()}
    def replay(metric, func, right):
        done = subprocess.run([hawkeye, "replay", "--api", api, "--host", "*", "--metric", metric, "--func", func, "--op", ">",
                               "--right-value", right, "--json"], env=environment, capture_output=True, text=True)
        if done.returncode != 0: sys.exit(done.stderr)
        return json.loads(done.stdout)
    first = urllib.request.Request(api + "/api/v1/user/login", json.dumps({"name": "root", "password": environment["HAWKEYE_PASSWORD"]}).encode(),
                                   {"Content-Type": "application/json"})
    session = json.load(urllib.request.urlopen(first))
    token = {"Apitoken": json.dumps({"name": session["name"], "sig": session["sig"]})}
    ask = lambda path: json.load(urllib.request.urlopen(urllib.request.Request(api + "/api/v1" + path, headers=token)))
    host = ask("/graph/endpoint?q=load-00000")[0]["id"]
    one, other = sorted(row["counter"].split("/")[0] for row in ask(f"/graph/endpoint_counter?eid={host}"))[:2]
    for func, right in [("all(#3)", "1000000000000"), ("avg(#10)", "0"), ("nodata(#3)", "0"), (f"all(#3) and all(#3) of {other} > 1000000", "0")]:
        answer = replay(one, func, right)
        print(f"{func:40} {answer['series']} series, {answer['points']} points, {answer['summary']['events']} events: {answer['seconds']:.2f} s")
    status = open(f"/proc/{server.pid}/status").read()
    print("resident at most", status.split("VmHWM:")[1].split("\n")[0].strip())
finally:
    server.terminate()
    server.wait(60)
PYTHON
