#!/bin/sh
# The agent among faults: a mount whose server is gone (a FUSE that nobody serves, in a mount namespace of its own), a
# plugin that never ends, and a clock that jumps an hour ahead and back (libfaketime). Each costs its own thing, and the
# rest goes on. Everything on loopback. Needs the agent (make agent) or TEST_AGENT, root, /dev/fuse, python3, util-linux
# and libfaketime, which are installed if that may be (needs.sh).
set -eu
cd "$(dirname "$0")/../.."
. tests/services/needs.sh
need python3 python3
need unshare util-linux
[ "$(id -u)" = 0 ] && [ -e /dev/fuse ] || give_up "no root, or no /dev/fuse: no mount can be made to hang"
unshare --mount true 2> /dev/null || give_up "no mount namespace may be made here"
library() { find /usr/lib /usr/local/lib -name libfaketime.so.1 2> /dev/null | head -n 1; }
if [ -z "$(library)" ]; then install libfaketime; fi
[ -n "$(library)" ] || give_up "libfaketime is missing (apt-get install libfaketime)"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unshare --mount --propagation private python3 - "${TEST_AGENT:-target/agent/hawkeye-agent}" "$dir" "$(library)" <<'SCENE'
import collections, ctypes, glob, json, os, shutil, signal, socket, subprocess, sys, threading, time, urllib.request

binary, dir, library = sys.argv[1:]
SLEEP = "98765.4321"  # seconds of a plugin, by which its children are found

class Answering:
    """A transfer and an hbs in one: takes JSON-RPC and keeps what came."""
    def __init__(self):
        self.items, self.reports, self.batches = [], [], 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
    def accept(self):
        while True:
            peer, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()
    def serve(self, peer):
        decoder, text = json.JSONDecoder(), ""
        while True:
            read = peer.recv(65536)
            if not read: return
            text += read.decode()
            while text.strip():
                try: call, end = decoder.raw_decode(text.lstrip())
                except ValueError: break
                text = text.lstrip()[end:]
                answer = {"id": call["id"], "result": self.answer(call["method"], call["params"][0]), "error": None}
                peer.sendall(json.dumps(answer).encode() + b"\n")
    def answer(self, method, param):
        if method == "Transfer.Update":
            self.items += param
            self.batches += 1
            return {"Message": "ok", "Total": len(param), "Invalid": 0, "Latency": 0}
        if method == "Agent.ReportStatus":
            self.reports.append(param)
            return {"code": 0, "TimeMs": time.time_ns() // 1_000_000}
        if method == "Agent.MinePlugins": return {"Plugins": ["sys"], "Timestamp": 1}
        if method == "Agent.BuiltinMetrics": return {"Metrics": [], "Checksum": "c", "Timestamp": 1}
        return ""
    def of(self, metric, tags=""):
        return [item for item in list(self.items) if item["metric"] == metric and tags in item["tags"]]

def wait(what, is_so, limit=30):
    deadline = time.monotonic() + limit
    while not is_so():
        if time.monotonic() > deadline: raise AssertionError(f"{what}: not within {limit} s")
        time.sleep(0.05)

def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s: return s.getsockname()[1]

def start(name, server, text, environment={}):
    port = free_port()
    with open(f"{dir}/{name}.toml", "w") as file:
        file.write(f'hostname = "{name}"\ntransfer_addrs = ["{server.address}"]\nhbs_addr = "{server.address}"\n'
                   f'interval = "1s"\nheartbeat_interval = "1s"\n{text}\n[listen]\nagent_http = "127.0.0.1:{port}"\n')
    agent = subprocess.Popen([binary, "-c", f"{dir}/{name}.toml"], stderr=open(f"{dir}/{name}.log", "w"),
                             env={**os.environ, **environment})
    return agent, f"http://127.0.0.1:{port}"

def get(url): return urllib.request.urlopen(url, timeout=20).read().decode()
def log(name): return open(f"{dir}/{name}.log").read()
def stop(agent):
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 0, "it does not end as it should"
def sleepers():
    found = 0
    for file in glob.glob("/proc/[0-9]*/cmdline"):
        try: found += open(file, "rb").read().startswith(b"sleep\0" + SLEEP.encode())
        except OSError: pass
    return found

def a_mount_that_hangs():
    root = f"{dir}/root"
    shutil.copytree("testdata/agent/fixture_root", root)
    for folder in ("data", "gone", "later", "proc/1"): os.makedirs(f"{root}/{folder}", exist_ok=True)
    with open(f"{root}/proc/1/mountinfo", "w") as file:
        file.write("1 0 8:1 / /data rw - ext4 /dev/sda1 rw\n2 1 0:50 / /gone rw - nfs server:/gone rw\n"
                   "3 1 8:2 / /later rw - ext4 /dev/sdb1 rw\n")
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"gone", f"{root}/gone".encode(), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "mount of a FUSE")
    server = Answering()
    agent, door = start("mounts", server, f'rootfs = "{root}"')
    try:
        wait("disks behind the one that hangs", lambda: len(server.of("df.bytes.total", "mount=/later")) >= 3)
        assert len(server.of("df.bytes.total", "mount=/data")) >= 3 and len(server.of("load.1min")) >= 3
        page = json.loads(get(f"{door}/page/df"))
        assert [row[5] for row in page["data"]] == ["/data", "/later"], page
        assert not server.of("df.bytes.total", "mount=/gone")
        threads = next(line for line in open(f"/proc/{agent.pid}/status") if line.startswith("Threads:"))
        assert int(threads.split()[1]) <= 12, threads
        assert log("mounts").count('of="/gone"') == 1, log("mounts")
        # The connection ends, and with it the question.
        os.close(fuse)
        wait("the log tells that it is over", lambda: log("mounts").count('of="/gone"') == 2)
        stop(agent)
    finally:
        if agent.poll() is None: agent.kill()
        libc.umount2(f"{root}/gone".encode(), 2)
    print("a mount that hangs costs its own space")

def a_plugin_that_never_ends():
    os.makedirs(f"{dir}/plugin/sys")
    for name, text in (("1_hangs.sh", f"sleep {SLEEP} & sleep {SLEEP}"),
                       ("1_fine.sh", """echo '[{"endpoint":"p","metric":"fine","value":1,"step":1,"counterType":"GAUGE","tags":""}]'""")):
        with open(f"{dir}/plugin/sys/{name}", "w") as file: file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(f"{dir}/plugin/sys/{name}", 0o755)
    server = Answering()
    agent, _ = start("plugins", server, f'[plugin]\nenabled = true\ndir = "{dir}/plugin"\nlogs = "{dir}/plugin-logs"')
    try:
        timeouts = lambda: [item["value"] for item in server.of("agent.plugin.failures", "reason=timeout")]
        wait("runs that are ended", lambda: timeouts() and max(timeouts()) >= 3)
        assert len(server.of("fine")) >= 2 and len(server.of("agent.alive")) >= 3
        assert sleepers() <= 2, "children of runs before are left"
        stop(agent)
        wait("the last run's end", lambda: sleepers() == 0, 5)
    finally:
        if agent.poll() is None: agent.kill()
    print("a plugin that never ends costs its own run")

def a_clock_that_jumps():
    clock = f"{dir}/clock"
    def set_clock(text):
        with open(clock + ".new", "w") as file: file.write(text + "\n")
        os.rename(clock + ".new", clock)
    set_clock("+0")
    server = Answering()
    agent, door = start("clock", server, "", {
        "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"})
    try:
        offsets = lambda: [report["ClockOffsetMs"] for report in server.reports if "ClockOffsetMs" in report]
        wait("a right clock", lambda: any(abs(offset) < 1000 for offset in offsets()))
        for text, offset in (("+3600", 3_600_000), ("-3600", -3_600_000), ("+3600", 3_600_000), ("+0", 0)):
            reports, alive = len(server.reports), len(server.of("agent.alive"))
            set_clock(text)
            is_near = lambda report: abs(report.get("ClockOffsetMs", 10**9) - offset) < 2000
            wait(f"hbs hears of {text}", lambda: any(is_near(report) for report in server.reports[reports:]))
            wait(f"points at {text}", lambda: len(server.of("agent.alive")) >= alive + 3)
        assert get(f"{door}/health") == "ok"
        slots = collections.Counter(item["timestamp"] for item in server.of("agent.alive"))
        assert max(slots.values()) == 1, slots
        assert server.of("agent.clock.offset_ms"), "the agent's own metric"
        used = sum(map(int, open(f"/proc/{agent.pid}/stat").read().split()[13:15])) / os.sysconf("SC_CLK_TCK")
        assert used < 5, f"{used} s of a processor: something goes round"
        assert server.batches < 400, server.batches
        stop(agent)
    finally:
        if agent.poll() is None: agent.kill()
    print("a clock that jumps costs nothing")

try:
    a_mount_that_hangs()
    a_plugin_that_never_ends()
    a_clock_that_jumps()
except BaseException:
    for name in glob.glob(f"{dir}/*.log"): print(name, open(name).read(), sep="\n")
    raise
SCENE
echo "faults cost the agent their own thing only"
