"""A Hawkeye of its own for a measurement: in a directory that goes with it, on ports that nobody has."""

import json, os, pathlib, re, shutil, signal, subprocess, sys, tempfile, urllib.request
from machine import free_ports

LISTENERS = ["transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc", "api", "admin"]


class Server:
    def __init__(self, binary, budget_mib=1024, settings=()):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="hawkeye-bench-"))
        self.ports = dict(zip(LISTENERS, free_ports(len(LISTENERS))))
        listen = "\n".join(f'{name} = "127.0.0.1:{port}"' for name, port in self.ports.items())
        config = self.dir / "hawkeye.toml"
        config.write_text(f'data_dir = "{self.dir}/data"\nmemory_budget = "{budget_mib}MiB"\n[listen]\n{listen}\n[portal]\ndefaults = false\n')
        self.command = [binary, "server", "--config", config, *(part for setting in settings for part in ("--set", setting))]
        self.log = open(self.dir / "log", "w")
        self.start()
        password = (self.dir / "data/admin-password").read_text().strip()
        login = self.api("POST", "/user/login", {"name": "root", "password": password}, token=None)
        self.token = json.dumps({"name": login["name"], "sig": login["sig"]})

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=self.log)
        while b"agents report to" not in (line := self.process.stdout.readline()):
            if not line:
                sys.exit(f"the server did not start: see {self.dir}/log")

    def restart(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.start()

    def api(self, method, path, body=None, token=""):
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Apitoken"] = self.token
        url = f"http://127.0.0.1:{self.ports['api']}/api/v1{path}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
            return json.loads(answer.read())

    def page(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['admin']}{path}") as answer:
            return answer.read().decode()

    def metrics(self):
        return {name: float(value) for name, value in re.findall(r"^(hawkeye_\S+) (\S+)$", self.page("/metrics"), re.M)}

    def memory(self):
        """Resident bytes, anonymous bytes, and the most that was ever resident."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return [int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 for name in ("VmRSS", "RssAnon", "VmHWM")]

    def cpu(self):
        """Seconds of processor time so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        shutil.rmtree(self.dir)
