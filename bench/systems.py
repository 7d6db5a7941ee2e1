"""Systems: how each is started, loaded, asked and stopped. One class each, all with the same methods.

Every system gets the points of `hawkeye loadgen` by a door of its own, in its default settings, except for what the
flags below say and why. All listen on loopback only.
"""

import json
import os
import shutil
import subprocess
import time
import urllib.parse

import judging
from judging import legal
from machine import Http, Process, disk_bytes, free_ports, wait_until

TOKEN = "bench"
# What the newest point is asked of: a gauge that changes, and stands in every mix.
GAUGE = "cpu.idle"


class System:
    name = ""
    door = ""
    # Connections of the load: None is one per host, as agents have.
    connections = None
    # Where rules are loaded before the load, and judge it.
    judges = False
    answers_queries = True

    def __init__(self, binary, directory):
        self.hawkeye = binary
        self.directory = directory
        self.data = os.path.join(directory, "data")
        self.process = None
        self.commands = []
        self.http = None

    def start(self):
        """Starts it on its data; the caller waits."""
        os.makedirs(self.data, exist_ok=True)
        self.process = Process(self.command(), os.path.join(self.directory, "log"), self.environment())
        self.commands.append(" ".join(self.process.command))
        self.http = Http(self.port)
        return self.process

    def environment(self):
        return {}

    def wait_healthy(self):
        _, when = wait_until(lambda: self.http.ask("GET", self.health), self.process)
        return when - self.process.started

    def make_durable(self):
        """What must be said before a kill so that nothing is lost; nothing, if the system does so by itself."""

    def kill(self):
        self.process.kill()
        self.http.close()

    def stop(self):
        self.process.stop()
        self.http.close()

    def load_command(self, load):
        command = [self.hawkeye, "loadgen", "--json", *load.arguments()]
        if self.connections is not None:
            command += ["--connections", str(min(self.connections, load.hosts))]
        return command + self.door_arguments()

    def counter(self, path, names):
        """The sum of all counters of a page in Prometheus' form whose line begins with one of the names."""
        total = 0
        for line in self.http.ask("GET", path).decode().splitlines():
            if line.startswith(names):
                total += int(float(line.rsplit(" ", 1)[1]))
        return total

    def disk(self):
        """Bytes after an orderly stop, and how they came about."""
        return disk_bytes(self.data)

    def compacted(self):
        """Bytes once everything was merged, by whatever the system offers; None if nothing is offered."""
        return None


class Hawkeye(System):
    name = "hawkeye json-rpc"
    door = "Transfer.Update, JSON-RPC over TCP, a connection per host (at most 1,000)"
    judges = True
    health = "/health"

    def __init__(self, binary, directory, budget="256MiB"):
        super().__init__(binary, directory)
        self.budget = budget
        names = ("transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc", "api", "admin", "graph_rpc")
        self.listen = dict(zip(names, free_ports(len(names))))
        self.port = self.listen["api"]

    def command(self):
        command = [self.hawkeye, "server", "--data-dir", self.data, "--set", f"memory_budget={self.budget}"]
        command += ["--set", 'alarm.callback_allow=["127.0.0.0/8"]']
        for name, port in self.listen.items():
            command += ["--set", f"listen.{name}=127.0.0.1:{port}"]
        return command

    def environment(self):
        return {"HAWKEYE_API__SERVER_TOKEN": TOKEN}

    @staticmethod
    def version(binary):
        return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def door_arguments(self):
        return ["--target", f"127.0.0.1:{self.listen['transfer_rpc']}"]

    def api(self, method, path, body=None):
        headers = {"Apitoken": json.dumps({"name": "root", "sig": TOKEN}), "Content-Type": "application/json"}
        text = json.dumps(body) if body is not None else None
        return self.http.ask(method, "/api/v1" + path, text, headers)

    def load_rules(self, hosts, webhook):
        judging.rules_of_hawkeye(self.api, hosts, webhook)

    def taken(self):
        return self.counter("/metrics", ("hawkeye_points_stored_total ",))

    def history(self, hosts, counters, start, end):
        request = {"hostnames": hosts, "counters": counters, "consol_fun": "AVERAGE", "start_time": start, "end_time": end}
        return self.api("POST", "/graph/history", request)

    def newest(self, load):
        """Time and value of the last point of the last host."""
        series = json.loads(self.history([load.endpoint(load.hosts - 1)], [GAUGE], load.end - 180, load.end + 60))
        points = [point for one in series for point in one["Values"] if point["value"] is not None]
        return (points[-1]["timestamp"], round(points[-1]["value"], 6)) if points else None

    def hour_of_one_counter(self, load):
        hosts = [load.endpoint(host) for host in range(load.hosts)]
        return lambda: self.history(hosts, [GAUGE], load.end - 3600, load.end)

    def all_counters_of_one_host(self, load):
        counters, host = self.counters(load), [load.endpoint(load.hosts // 2)]
        return lambda: self.history(host, counters, load.end - 3600, load.end)

    def day_of_one_series(self, load):
        return lambda: self.history([load.endpoint(load.hosts // 2)], [GAUGE], load.end - 86400, load.end)

    def counters(self, load):
        """The names of a host's counters, by the API's own list."""
        name = urllib.parse.quote("^" + load.endpoint(load.hosts // 2) + "$")
        ids = json.loads(self.api("GET", f"/graph/endpoint?q={name}&limit=10"))
        listed = self.api("GET", f"/graph/endpoint_counter?eid={ids[0]['id']}&metricQuery=.%2B&limit={load.metrics + 1}")
        return [one["counter"] for one in json.loads(listed)]

    def count(self, answer):
        series = json.loads(answer)
        return len(series), sum(point["value"] is not None for one in series for point in one["Values"])

    def send_breach(self, series, when):
        point = {"endpoint": series, "metric": judging.METRIC, "value": 1, "step": 60, "counterType": "GAUGE",
                 "tags": "", "timestamp": when}
        if not hasattr(self, "push"):
            self.push = Http(self.listen["transfer_http"])
        self.push.ask("POST", "/api/push", json.dumps([point]), {"Content-Type": "application/json"})


class HawkeyeGob(Hawkeye):
    name = "hawkeye gob"
    door = "Graph.Send, Go gob over TCP, 200 points a call, 32 connections"
    connections = 32

    def door_arguments(self):
        return ["--gob", f"127.0.0.1:{self.listen['graph_rpc']}"]


class Graph(HawkeyeGob):
    """`--roles graph`: the store behind an old transfer. It has gob and no REST, so it is asked for its size only."""

    name = "hawkeye graph alone"
    judges = False
    answers_queries = False

    def __init__(self, binary, directory, budget="256MiB"):
        super().__init__(binary, directory, budget)
        self.listen = {name: self.listen[name] for name in ("graph_rpc", "admin")}
        self.port = self.listen["admin"]

    def command(self):
        return super().command() + ["--set", 'roles=["graph"]']

    def newest(self, load):
        """It counts its series: after a restart all of them must be known again."""
        count = self.counter("/metrics", ("hawkeye_series ",))
        return ("series", count) if count else None


class VictoriaMetrics(System):
    name = "victoriametrics"
    door = "OpenTSDB put over TCP, 8 connections"
    connections = 8
    health = "/health"
    program = "victoria-metrics"

    def __init__(self, binary, directory, budget=None):
        super().__init__(binary, directory)
        self.port, self.put_port = free_ports(2)

    def command(self):
        return [
            self.program, f"-storageDataPath={self.data}", f"-httpListenAddr=127.0.0.1:{self.port}",
            f"-opentsdbListenAddr=127.0.0.1:{self.put_port}", "-retentionPeriod=1",
            # Otherwise the newest 30 s are hidden from queries.
            "-search.latencyOffset=0s",
        ]

    @staticmethod
    def version(_binary):
        return version_of("victoria-metrics", "-version")

    def door_arguments(self):
        return ["--victoria", f"127.0.0.1:{self.put_port}"]

    def taken(self):
        return self.counter("/metrics", ('vm_rows_inserted_total{type="opentsdb"}',))

    def ask(self, path, **parameters):
        # Answers kept from an equal query before would measure a lookup.
        return self.http.ask("GET", f"{path}?{urllib.parse.urlencode({**parameters, 'nocache': 1})}")

    def newest(self, load):
        return newest_by_range_vector(self.ask, load)

    def hour_of_one_counter(self, load):
        return lambda: self.ask("/api/v1/query_range", query=legal(GAUGE), start=load.end - 3600, end=load.end, step=60)

    def all_counters_of_one_host(self, load):
        query = f'{{host="{load.endpoint(load.hosts // 2)}"}}'
        return lambda: self.ask("/api/v1/query_range", query=query, start=load.end - 3600, end=load.end, step=60)

    def day_of_one_series(self, load):
        query = f'{legal(GAUGE)}{{host="{load.endpoint(load.hosts // 2)}"}}'
        return lambda: self.ask("/api/v1/query_range", query=query, start=load.end - 86400, end=load.end, step=60)

    def count(self, answer):
        series = json.loads(answer)["data"]["result"]
        return len(series), sum(len(one["values"]) for one in series)

    def make_durable(self):
        # It has no log: rows of the last ten seconds or so are in memory only, and were lost without this, also after
        # /internal/force_flush, which only makes them visible. A snapshot writes them to the disk first.
        name = json.loads(self.http.ask("GET", "/snapshot/create"))["snapshot"]
        self.http.ask("GET", f"/snapshot/delete?snapshot={name}")

    def compacted(self):
        """All parts merged into one, which it would do by itself some day."""
        self.http.ask("GET", "/internal/force_flush")
        self.http.ask("GET", "/internal/force_merge")
        # It answers before it begins.
        time.sleep(1)

        def merged():
            return self.counter("/metrics", ("vm_active_force_merges ",)) == 0 or None

        wait_until(merged, self.process, pause_s=0.2)
        return disk_bytes(self.data)


class Prometheus(System):
    name = "prometheus"
    door = "remote write 1.0, a host's series a request, 8 connections"
    connections = 8
    judges = True
    health = "/-/ready"
    program = "prometheus"

    def __init__(self, binary, directory, budget=None):
        super().__init__(binary, directory)
        (self.port,) = free_ports(1)
        self.rules, self.webhook = None, None

    def command(self):
        config = os.path.join(self.directory, "prometheus.json")
        # JSON is YAML.
        with open(config, "w") as file:
            json.dump(judging.prometheus_config(self.rules, self.webhook), file)
        return [
            self.program, f"--config.file={config}", f"--storage.tsdb.path={self.data}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--web.enable-remote-write-receiver",
            # For the snapshot by which blocks are measured.
            "--web.enable-admin-api", "--log.level=warn",
        ]

    @staticmethod
    def version(_binary):
        return version_of("prometheus", "--version")

    def load_rules(self, _hosts, webhook):
        self.rules, self.webhook = os.path.join(self.directory, "rules.json"), webhook
        with open(self.rules, "w") as file:
            json.dump(judging.rules_of_prometheus(), file)
        self.stop()
        self.start()
        self.wait_healthy()
        # It finds its alertmanager some seconds after its start; what fires before is told of a minute later only.

        def found():
            return json.loads(self.ask("/api/v1/alertmanagers"))["data"]["activeAlertmanagers"] or None

        wait_until(found, self.process, pause_s=0.1)

    def door_arguments(self):
        return ["--remote-write", f"http://127.0.0.1:{self.port}/api/v1/write"]

    def taken(self):
        names = ("prometheus_tsdb_head_samples_appended_total ", "prometheus_tsdb_head_samples_appended_total{")
        return self.counter("/metrics", names)

    def ask(self, path, **parameters):
        return self.http.ask("GET", f"{path}?{urllib.parse.urlencode(parameters)}")

    newest = VictoriaMetrics.newest
    hour_of_one_counter = VictoriaMetrics.hour_of_one_counter
    all_counters_of_one_host = VictoriaMetrics.all_counters_of_one_host
    day_of_one_series = VictoriaMetrics.day_of_one_series
    count = VictoriaMetrics.count

    def compacted(self):
        """A snapshot writes what is in memory as blocks, which the server would do by itself after some hours."""
        answer = json.loads(self.http.ask("POST", "/api/v1/admin/tsdb/snapshot?skip_head=false"))
        path = os.path.join(self.data, "snapshots", answer["data"]["name"])
        size = disk_bytes(path)
        shutil.rmtree(path)
        return size

    def send_breach(self, series, when):
        labels = {"__name__": legal(judging.METRIC), "host": series}
        body = judging.remote_write(labels, 1.0, when * 1000)
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy",
                   "X-Prometheus-Remote-Write-Version": "0.1.0"}
        self.http.ask("POST", "/api/v1/write", body, headers)


def newest_by_range_vector(ask, load):
    query = f'{legal(GAUGE)}{{host="{load.endpoint(load.hosts - 1)}"}}[3m]'
    result = json.loads(ask("/api/v1/query", query=query, time=load.end))["data"]["result"]
    if not result:
        return None
    when, value = result[0]["values"][-1]
    return int(float(when)), round(float(value), 6)


ALL = (Hawkeye, HawkeyeGob, Graph, VictoriaMetrics, Prometheus)


def version_of(program, flag):
    """The first line it says of itself (Debian's victoria-metrics says nothing), and its package's version."""
    out = subprocess.run([program, flag], capture_output=True, text=True, check=False)
    said = (out.stdout + out.stderr).strip().splitlines()[:1]
    if shutil.which("dpkg-query") is not None:
        out = subprocess.run(["dpkg-query", "-W", "-f=${Version}", program], capture_output=True, text=True, check=False)
        if out.returncode == 0:
            said.append(f"(Debian {out.stdout.strip()})")
    return " ".join(said)


def install_missing():
    """Peers are Debian packages; only root can add them, and nothing else is tried."""
    missing = [peer.program for peer in (VictoriaMetrics, Prometheus) if shutil.which(peer.program) is None]
    if not missing or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    # The packages would start services of their own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def is_installed(system):
    program = getattr(system, "program", None)
    return program is None or shutil.which(program) is not None
