"""Machine: processes, ports, memory, processor time and disk, as the kernel shows them.

Why: every system is measured from outside, by the same files of /proc, so that none measures itself.
Invariants: a process is ended by the handle it was started with; nothing that was not started here is touched.
"""

import http.client
import os
import platform
import shutil
import signal
import socket
import subprocess
import time

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# A server that does not come up, or does not take what it was sent, within this time is broken.
PATIENCE_S = 600


class Failure(Exception):
    """Something did not do what it should; the text says what to look at."""


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Process:
    """A server that was started here."""

    def __init__(self, command, log, environment=None):
        self.command = command
        self.log = log
        self.started = time.monotonic()
        with open(log, "ab") as out:
            self.handle = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
            )

    @property
    def pid(self):
        return self.handle.pid

    def check_alive(self):
        if self.handle.poll() is not None:
            with open(self.log, "rb") as log:
                tail = log.read()[-2000:].decode(errors="replace")
            raise Failure(f"{self.command[0]} ended by itself with {self.handle.returncode}:\n{tail}")

    def cpu_s(self):
        """User and system time of all its threads since its start."""
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def memory(self):
        """Bytes: resident now, the most that ever was, and what no file stands behind."""
        status = read_kib(f"/proc/{self.pid}/status")
        anonymous = read_kib(f"/proc/{self.pid}/smaps_rollup").get("Anonymous", 0)
        return {"rss": status["VmRSS"], "peak": status["VmHWM"], "anonymous": anonymous}

    def kill(self):
        if self.handle.poll() is None:
            self.handle.kill()
        self.handle.wait()

    def stop(self):
        """In order, as an operator would."""
        if self.handle.poll() is None:
            self.handle.send_signal(signal.SIGTERM)
            try:
                self.handle.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise Failure(f"{self.command[0]} did not stop within {PATIENCE_S} s") from None


def read_kib(path):
    """The lines `Name:  123 kB` of a file, in bytes."""
    found = {}
    with open(path) as file:
        for line in file:
            words = line.split()
            if len(words) == 3 and words[2] == "kB":
                found[words[0].rstrip(":")] = int(words[1]) * 1024
    return found


def wait_until(question, process, pause_s=0.002, patience_s=PATIENCE_S):
    """Asks until the answer is not None; returns it and when it came. A refused connection is no answer."""
    deadline = time.monotonic() + patience_s
    while True:
        process.check_alive()
        try:
            answer = question()
            if answer is not None:
                return answer, time.monotonic()
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() > deadline:
            raise Failure(f"{process.command[0]}: no right answer within {patience_s:.0f} s")
        time.sleep(pause_s)


class Http:
    """One connection that is kept, and made anew when it broke."""

    def __init__(self, port):
        self.port = port
        self.connection = None

    def ask(self, method, path, body=None, headers=None):
        """The body of an answer with a good status."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            self.connection.request(method, path, body, headers or {})
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if answer.status == 503:
            # "Not ready yet" is what servers say while they start.
            raise http.client.HTTPException(f"{path}: 503")
        if not 200 <= answer.status < 300:
            raise Failure(f"{method} {path.split('?')[0]}: {answer.status} {text[:500].decode(errors='replace')}")
        return text

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def run_measured(command, environment=None):
    """Runs a command to its end; its output, and the processor time it took."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    before = os.times()
    out, err = process.communicate()
    after = os.times()
    used = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    if process.returncode != 0:
        raise Failure(f"{' '.join(command)}: {err.decode(errors='replace').strip()[-1000:]}")
    return out, used


def disk_bytes(path):
    """What a directory takes on the disk: blocks, not lengths (some servers reserve ahead). A block counts once."""
    total, seen = 0, set()
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                stat = os.lstat(os.path.join(directory, name))
            except FileNotFoundError:
                continue
            if stat.st_ino not in seen:
                seen.add(stat.st_ino)
                total += stat.st_blocks * 512
    return total


def available(path):
    """Bytes of memory and of disk that are free to use."""
    return read_kib("/proc/meminfo")["MemAvailable"], shutil.disk_usage(path).free


def describe():
    model = ""
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "memory_bytes": read_kib("/proc/meminfo")["MemTotal"],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg(),
    }
