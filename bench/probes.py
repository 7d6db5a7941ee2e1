"""One agent with many HTTP probes beside one with none, on loopback; bench/probes.sh starts this.

Memory is what is resident at the end. Processor time is what the kernel counted for all threads (schedstat) from when
every probe has run once to the end. Targets answer at once from this process, whose time is not counted.
"""

import http.server, os, pathlib, re, socket, subprocess, sys, tempfile, threading, time

import stub

STEP = 60
SETTLE = 2 * STEP + 5


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(1)
        body = b"fine\n" * 100
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Pages(http.server.ThreadingHTTPServer):
    request_queue_size = 128


def hbs_or_transfer(method, param, probes):
    """The result of a call; probes are those of the agent that asks."""
    if method == "Transfer.Update":
        points.extend(item["endpoint"] for item in param)
        return {"Message": "ok", "Total": len(param), "Invalid": 0, "Latency": 0}
    if method == "Agent.BuiltinMetrics":
        return {"Metrics": [], "Checksum": "", "Timestamp": 1}
    if method == "Agent.TrustableIps":
        return ""
    if method == "Hawkeye.Probes":
        handles = [{"Id": number, "Digest": "d"} for number in probes]
        return {"Version": "v", "Probes": None if param["Version"] == "v" else handles}
    if method == "Hawkeye.ProbeDefinitions":
        return {"Probes": [{"Id": number, "Digest": "d", "Definition": probes[number]} for number in param["Ids"]]}
    return {"code": 0}


def start_agent(name, probes):
    listener = socket.create_server(("127.0.0.1", 0))
    stub.serve(listener, lambda method, param: hbs_or_transfer(method, param, probes))
    place = f"127.0.0.1:{listener.getsockname()[1]}"
    file = work / f"{name}.toml"
    file.write_text(f'hostname = "{name}"\ntransfer_addrs = ["{place}"]\nhbs_addr = "{place}"\n[listen]\nagent_http = ""\n')
    return subprocess.Popen([stripped, "--config", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cpu_seconds(process):
    tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def row(name, process, before, seconds):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    resident, anonymous, peak = (int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024 for key in ("VmRSS", "RssAnon", "VmHWM"))
    print(f"{name:20} {resident:8.1f} {anonymous:10.1f} {peak:8.1f} {100 * (cpu_seconds(process) - before) / seconds:8.3f}")


binary, count, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
work = pathlib.Path(tempfile.mkdtemp(prefix="hawkeye-bench-probes-"))
stripped = work / "hawkeye-agent"
subprocess.run(["strip", "-o", stripped, binary], check=True)
points, asked = [], []
pages = Pages(("127.0.0.1", 0), Page)
threading.Thread(target=pages.serve_forever, daemon=True).start()
target = f"http://127.0.0.1:{pages.server_port}/health"
body = {"kind": "http", "target": target, "step": STEP, "body_match": {"pattern": "^fine"}, "tags": {"team": "web"}}
agents = {
    "without probes": start_agent("without", {}),
    f"{count} HTTP probes": start_agent("with", {number: {"name": f"probe-{number}", **body} for number in range(count)}),
}
try:
    time.sleep(SETTLE)
    before = {name: cpu_seconds(process) for name, process in agents.items()}
    asked_before, began = len(asked), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    gone = [name for name, process in agents.items() if process.poll() is not None]
    ran = len(asked) - asked_before
    if gone or not points or ran < 0.9 * count * (passed // STEP):
        sys.exit(f"ended: {', '.join(gone)}; {ran} runs and {len(points)} points")
    print(f"{passed:.0f} s, a run a minute of each probe; {os.path.getsize(stripped) / 1e6:.1f} MB on disk")
    print(f"{'':20} {'RSS MiB':>8} {'anonymous':>10} {'peak':>8} {'CPU %':>8}")
    for name, process in agents.items():
        row(name, process, before[name], passed)
    print(f"{ran} runs; {sum(point.startswith('probe-') for point in points)} points of probes")
finally:
    for process in agents.values():
        process.terminate()
