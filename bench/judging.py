"""Judging: the same sixty rules in two languages, and how long a breaching point takes to be told of.

How: 40 strategies and 20 expressions, of which 59 look at the load and never fire, and one at a metric of its own. A
tiny HTTP server takes Hawkeye's callbacks and Prometheus' alerts; both carry the name of the series, so that each
notification is matched with the point that caused it.
"""

import http.server
import json
import queue
import struct
import threading
import time
import urllib.parse

METRIC = "bench.breach"
PREFIX = "breach-"
EVALUATION_INTERVAL = "15s"

# Metric, operator, value that is never reached.
GAUGES = (
    [("cpu.idle", "<", -1)]
    + [(f"cpu.{part}", ">", 101) for part in ("busy", "user", "system", "iowait", "softirq", "nice", "steal", "irq", "guest")]
    + [(f"load.{span}", ">", 100000) for span in ("1min", "5min", "15min")]
    + [("mem.memused.percent", ">", 101), ("mem.memfree.percent", "<", -1), ("mem.swapused.percent", ">", 101)]
    + [("mem.memused", "<", -1)]
    + [(f"df.{what}.percent", ">", 101) for what in ("bytes.used", "inodes.used", "bytes.free")]
    + [(f"ss.{state}", ">", 1000000) for state in ("estab", "timewait", "closed", "orphaned")]
    + [("kernel.files.allocated", ">", 1000000000), ("kernel.files.left", "<", -1), ("kernel.maxproc", "<", 1)]
    + [(f"disk.io.{what}", ">", 1000000) for what in ("util", "await", "svctm", "avgqu-sz")]
    + [("agent.alive", "<", 1)]
)
COUNTERS = ["net.if.in.bytes", "net.if.out.bytes", "net.if.in.packets", "cpu.switches", "TcpExt.TW",
            "disk.io.read_requests", "disk.io.write_requests"]
RATE = 99999999999
FUNCTIONS = ("all(#3)", "avg(#3)", "max(#3)")
BY_TAG = [
    f"net.if.{direction}.{what}"
    for direction, names in (
        ("in", ("bytes", "packets", "errors", "dropped", "fifo.errs", "frame.errs", "compressed", "multicast")),
        ("out", ("bytes", "packets", "errors", "dropped", "fifo.errs", "collisions", "carrier.errs", "compressed")),
        ("total", ("bytes", "packets", "errors", "dropped")),
    )
    for what in names
]


def strategies():
    """Metric, function, operator, value; of gauges and counters alike."""
    rules = [(metric, FUNCTIONS[i % 3], op, value) for i, (metric, op, value) in enumerate(GAUGES)]
    rules += [(metric, "all(#2)", ">", RATE) for metric in COUNTERS]
    return rules + [(METRIC, "all(#1)", ">", 0)]


def rules_of_hawkeye(api, hosts, webhook):
    """Through REST: a template with an action, bound to a group of all hosts; and the expressions."""
    group = json.loads(api("POST", "/hostgroup", {"name": "bench"}))["id"]
    names = hosts + [f"{PREFIX}{i:03}" for i in range(1000)]
    api("POST", "/hostgroup/host", {"hostgroup_id": group, "hosts": names})
    template = json.loads(api("POST", "/template", {"name": "bench", "parent_id": 0, "action_id": 0}))["id"]
    url = f"http://127.0.0.1:{webhook}/callback"
    api("POST", "/template/action", {"tpl_id": template, "uic": "", "url": url, "callback": 1})
    for metric, function, op, value in strategies():
        api("POST", "/strategy", {
            "tpl_id": template, "metric": metric, "tags": "", "func": function, "op": op, "right_value": str(value),
            "max_step": 1, "priority": 0, "note": "", "run_begin": "", "run_end": "",
        })
    api("POST", "/hostgroup/template", {"tpl_id": template, "grp_id": group})
    for metric in BY_TAG:
        api("POST", "/expression", {
            "expression": f"each(metric={metric} iface=eth0)", "func": "all(#2)", "op": ">", "right_value": str(RATE),
            "max_step": 1, "priority": 1, "note": "", "pause": 0,
            "action": {"uic": [], "url": url, "callback": 1},
        })


def legal(name):
    """A metric's name as the peers know it (loadgen/peer.rs)."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def expression_of_prometheus(metric, function, op, value, is_counter, labels=""):
    name = legal(metric) + labels
    if is_counter:
        return f"rate({name}[3m]) {op} {value}"
    if function == "all(#1)":
        return f"{name} {op} {value}"
    kind = {"avg(#3)": "avg", "max(#3)": "max"}.get(function) or ("min" if op == ">" else "max")
    return f"{kind}_over_time({name}[3m]) {op} {value}"


def rules_of_prometheus():
    rules = []
    for number, (metric, function, op, value) in enumerate(strategies()):
        text = expression_of_prometheus(metric, function, op, value, metric in COUNTERS)
        rules.append({"alert": f"strategy{number}", "expr": text})
    for number, metric in enumerate(BY_TAG):
        text = expression_of_prometheus(metric, "all(#2)", ">", RATE, True, '{iface="eth0"}')
        rules.append({"alert": f"expression{number}", "expr": text})
    return {"groups": [{"name": "bench", "rules": rules}]}


def prometheus_config(rules, webhook):
    config = {"global": {"evaluation_interval": EVALUATION_INTERVAL}}
    if rules is not None:
        config["rule_files"] = [rules]
        config["alerting"] = {"alertmanagers": [{"api_version": "v2", "static_configs": [{"targets": [f"127.0.0.1:{webhook}"]}]}]}
    return config


class Webhook:
    """Takes notifications: `told` holds (series, when) of each first one."""

    def __init__(self):
        self.told = queue.Queue()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                when = time.monotonic()
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                outer.note(query.get("endpoint", [""])[0], query.get("status", [""])[0] == "PROBLEM", when)
                self.answer()

            def do_POST(self):
                when = time.monotonic()
                alerts = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                for alert in alerts:
                    # An alert that is over is sent with an end in the past; that of one which holds lies ahead.
                    outer.note(alert["labels"].get("host", ""), True, when)
                self.answer()

            def answer(self):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                """A sender that was killed breaks its connections; that is no news."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def note(self, series, is_problem, when):
        if is_problem and series.startswith(PREFIX):
            self.told.put((series, when))

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def latencies(system, webhook, count, pause_s, patience_s):
    """Sends `count` breaching points, each of its own series; milliseconds until each was told of, None if never."""
    sent, told = {}, {}

    def drain(deadline):
        while len(told) < len(sent):
            try:
                series, when = webhook.told.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                return
            told.setdefault(series, when)

    for i in range(count):
        series = f"{PREFIX}{i:03}"
        sent[series] = time.monotonic()
        system.send_breach(series, int(time.time()))
        time.sleep(pause_s)
    drain(time.monotonic() + patience_s)
    return [(told[series] - when) * 1000 if series in told else None for series, when in sent.items()]


def remote_write(labels, value, time_ms):
    """A WriteRequest with one sample, in a snappy block of literals only: that needs no compressor."""
    def varint(number):
        out = bytearray()
        while number >= 0x80:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        return bytes(out) + bytes([number])

    def field(number, content):
        return varint(number << 3 | 2) + varint(len(content)) + content

    series = b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in sorted(labels.items()))
    sample = b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time_ms)
    message = field(1, series + field(2, sample))
    literal = bytes([61 << 2]) + struct.pack("<H", len(message) - 1)
    return varint(len(message)) + literal + message
