#!/usr/bin/env python3
"""Side by side: Hawkeye, VictoriaMetrics and Prometheus under one load, on this machine, one after the other.

`make bench` runs it; docs/benchmarks.md says what each figure is, and how to doubt it. Prints one table, ratios first,
and writes bench/results/<date>.json. Needs Python 3 and the release build; peers are the Debian packages
`victoria-metrics` and `prometheus`, and where one is missing its column says so.

Each system gets a fresh directory and is the only one running: rules, load, ten seconds of rest, figures, queries,
judging, kill -9, restart until the newest point is answered, an orderly stop, disk.
"""

import argparse
import datetime
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
if sys.version_info < (3, 8):
    sys.exit("bench: needs Python 3.8 or later")

import judging  # noqa: E402 (after the check of the version)
import machine  # noqa: E402
import report  # noqa: E402
import systems  # noqa: E402
from machine import Failure  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
METRICS = 200
STEP_S = 60
# A guess with room, from runs of 100k series: Prometheus needs most.
MEMORY_PER_SERIES = 8 << 10
DISK_PER_POINT = 40
# Slower than this after a kill counts as lost; a guess far below what any of them does.
POINTS_REPLAYED_PER_S = 100_000
# Hosts of the load for the query over 24 hours.
DAY_HOSTS = 10
DAY_ROUNDS = 24 * 60


class Load:
    """What loadgen is asked to send; ends now, so that no server finds it old."""

    def __init__(self, hosts, metrics, rounds, prefix="load-"):
        self.hosts, self.metrics, self.rounds, self.prefix = hosts, metrics, rounds, prefix
        self.start = int(time.time()) - rounds * STEP_S
        self.end = self.start + rounds * STEP_S

    @property
    def series(self):
        return self.hosts * self.metrics

    @property
    def points(self):
        return self.series * self.rounds

    def endpoint(self, host):
        return f"{self.prefix}{host:05}"

    def arguments(self):
        return ["--hosts", str(self.hosts), "--metrics", str(self.metrics), "--rounds", str(self.rounds),
                "--step", str(STEP_S), "--start", str(self.start), "--prefix", self.prefix]


def send(system, load):
    """Sends a load and waits until the server has counted every point of it."""
    before, cpu_before = system.taken(), system.process.cpu_s()
    started = time.monotonic()
    command = system.load_command(load)
    system.commands.append(" ".join(command))
    out, generator_cpu = machine.run_measured(command)
    def all_taken():
        # Peers that scrape nothing and judge count few samples of their own besides (ALERTS).
        return system.taken() - before >= load.points or None
    _, ended = machine.wait_until(all_taken, system.process, pause_s=0.02)
    return {
        "loadgen": json.loads(out), "seconds": ended - started, "points": load.points,
        "points_per_s": load.points / (ended - started), "cpu_before_s": cpu_before,
        "generator_cpu_us_per_point": generator_cpu / load.points * 1e6,
    }


def quantile(values, q):
    """The value at or above which no more than 1 - q of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def measure_query(system, ask, repetitions):
    series, points = system.count(ask())  # also warms what can be warmed
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        answer = ask()
        times.append((time.perf_counter() - started) * 1000)
    return {"series": series, "points": points, "bytes": len(answer), "raw_ms": times,
            "p50_ms": statistics.median(times), "p99_ms": quantile(times, 0.99)}


def measure_judging(system, webhook, arguments):
    # Hawkeye tells at once; Prometheus with its next evaluation, so points are spread over several of them.
    pause_s = 0.1 if system.name.startswith("hawkeye") else 1.7
    raw = judging.latencies(system, webhook, arguments.breaches, pause_s, patience_s=60)
    told = [one for one in raw if one is not None]
    if not told:
        raise Failure(f"{system.name}: no notification came for {len(raw)} breaching points")
    return {"sent": len(raw), "told": len(told), "raw_ms": raw, "median_ms": statistics.median(told), "max_ms": max(told)}


def measure(kind, size, load_of, arguments, binary):
    """All figures of one system at one size."""
    with tempfile.TemporaryDirectory(prefix="hawkeye-bench-") as directory:
        load = load_of()
        budget = "256MiB" if load.series <= 500_000 else "1GiB"
        system = kind(binary, directory, budget)
        webhook = judging.Webhook()
        try:
            return measure_in(system, size, load, arguments, webhook)
        finally:
            webhook.close()
            if system.process is not None:
                system.process.kill()


def measure_in(system, size, load, arguments, webhook):
    run = {"system": system.name, "size": size, "door": system.door, "series": load.series, "points": load.points}
    system.start()
    system.wait_healthy()
    if system.judges:
        system.load_rules([load.endpoint(host) for host in range(load.hosts)], webhook.port)
    sent = send(system, load)
    run.update(sent)
    time.sleep(arguments.rest)
    memory = system.process.memory()
    # With the rest, since merging and collecting what the load left behind are part of its cost.
    run["cpu_us_per_point"] = (system.process.cpu_s() - sent["cpu_before_s"]) / load.points * 1e6
    run.update({f"{name}_bytes": value for name, value in (
        ("rss", memory["rss"]), ("rss_peak", memory["peak"]), ("anonymous", memory["anonymous"]))})
    run["rss_bytes_per_series"] = memory["rss"] / load.series
    run["anonymous_bytes_per_series"] = memory["anonymous"] / load.series
    if system.answers_queries:
        run["queries"] = {
            name: measure_query(system, getattr(system, name)(load), arguments.repetitions)
            for name in ("hour_of_one_counter", "all_counters_of_one_host")
        }
    newest = system.newest(load)
    if newest is None or system.answers_queries and newest[0] <= load.end - 2 * STEP_S:
        raise Failure(f"{system.name}: the newest point is {newest}, the load ended at {load.end}")
    if system.judges and type(system) is not systems.HawkeyeGob:
        run["judging"] = measure_judging(system, webhook, arguments)
    run["newest"] = newest
    system.make_durable()
    system.kill()
    system.start()
    try:
        patience_s = 60 + load.points / POINTS_REPLAYED_PER_S
        _, ready = machine.wait_until(lambda: system.newest(load) == newest or None, system.process, patience_s=patience_s)
        run["ready_after_kill_s"] = ready - system.process.started
    except Failure as fault:
        run["fault"] = f"after kill -9 the newest point did not come back: {fault}"
        print(f"bench: {system.name}: {run['fault']}", file=sys.stderr)
    run["rss_after_restart_bytes"] = system.process.memory()["rss"]
    compacted = system.compacted()
    run["compacted_bytes_per_point"] = None if compacted is None else compacted / load.points
    system.stop()
    run["disk_bytes"] = system.disk()
    run["disk_bytes_per_point"] = run["disk_bytes"] / load.points
    run["commands"] = system.commands
    return run


def measure_day(kind, arguments, binary):
    """24 hours of a few hosts in a server of their own: what is old must lie as it does after a day."""
    with tempfile.TemporaryDirectory(prefix="hawkeye-bench-") as directory:
        load = Load(DAY_HOSTS, METRICS, min(DAY_ROUNDS, arguments.day_rounds), "day-")
        system = kind(binary, directory)
        try:
            system.start()
            system.wait_healthy()
            send(system, load)
            time.sleep(arguments.rest)
            query = measure_query(system, system.day_of_one_series(load), 2 * arguments.repetitions)
            query["rounds"] = load.rounds
            system.stop()
            query["disk_bytes_per_point"] = system.disk() / load.points
            return query
        finally:
            if system.process is not None:
                system.process.kill()


def measure_empty(kind, starts, rest, binary):
    """A server without data: how soon it is there, and what it takes when it has come to rest."""
    times, memory = [], None
    for number in range(1, starts + 1):
        with tempfile.TemporaryDirectory(prefix="hawkeye-bench-") as directory:
            system = kind(binary, directory)
            try:
                system.start()
                times.append(system.wait_healthy() * 1000)
                if number == starts:
                    time.sleep(1.5 * rest)
                    memory = system.process.memory()
                system.stop()
            finally:
                if system.process is not None:
                    system.process.kill()
    return {"system": system.name, "raw_ms": times, "ready_ms": statistics.median(times),
            "rss_bytes": memory["rss"], "anonymous_bytes": memory["anonymous"]}


def attempt(kind, what, work):
    """A figure that cannot be had is an error in its column, never the end of the run."""
    if not systems.is_installed(kind):
        return {"system": kind.name, "error": "not installed"}
    print(f"bench: {kind.name}, {what} …", file=sys.stderr, flush=True)
    try:
        return work()
    except (Failure, OSError, ValueError, KeyError, IndexError, http.client.HTTPException) as fault:
        print(f"bench: {kind.name}, {what}: {fault!r}", file=sys.stderr)
        return {"system": kind.name, "error": "failed", "fault": repr(fault)}


def number(text):
    """`100k`, `1m` or digits."""
    scale = {"k": 1000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    digits = text[:-1] if scale > 1 else text
    if not digits.isdigit() or int(digits) * scale < METRICS:
        raise argparse.ArgumentTypeError(f"{text!r}: want a number of series such as 100k or 1m, at least {METRICS}")
    return int(digits) * scale


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", default="100k", help="sizes, joined by commas [100k]")
    parser.add_argument("--rounds", type=int, default=60, help="points of each series, one a minute [60]")
    parser.add_argument("--systems", default="", help="only these, joined by commas; parts of names are enough")
    parser.add_argument("--repetitions", type=int, default=50, help="of each query [50]")
    parser.add_argument("--breaches", type=int, default=40, help="points to be told of [40]")
    parser.add_argument("--rest", type=float, default=10, help="seconds between load and figures [10]")
    parser.add_argument("--day-rounds", type=int, default=DAY_ROUNDS, help="of the 24 hour load; 0 leaves it out [1440]")
    parser.add_argument("--empty", action="store_true", help="only the empty servers")
    parser.add_argument("--empty-starts", type=int, default=5, help="of each empty server [5]")
    parser.add_argument("--out", help="the file of results [bench/results/<date>.json]")
    arguments = parser.parse_args()
    arguments.sizes = [(text.strip(), number(text.strip())) for text in arguments.series.split(",")]
    return arguments


def kinds_of(arguments):
    wanted = [word.strip() for word in arguments.systems.split(",") if word.strip()]
    return [kind for kind in systems.ALL if not wanted or any(word in kind.name for word in wanted)]


def room_for(series, points):
    """None, or what is missing for this size."""
    memory, disk = machine.available(tempfile.gettempdir())
    if memory < series * MEMORY_PER_SERIES:
        return f"{memory >> 20} MiB of memory are free, {series * MEMORY_PER_SERIES >> 20} MiB should be"
    if disk < points * DISK_PER_POINT:
        return f"{disk >> 20} MiB are free in {tempfile.gettempdir()}, {points * DISK_PER_POINT >> 20} MiB should be"
    return None


def run_all(arguments, kinds, binary, result):
    days = {}
    if arguments.day_rounds > 0 and not arguments.empty:
        for kind in kinds:
            if kind.answers_queries and kind is not systems.HawkeyeGob:
                days[kind.name] = attempt(kind, "24 hours", lambda: measure_day(kind, arguments, binary))
        result["day"] = days
    result["empty"] = [attempt(kind, "empty", lambda: measure_empty(kind, arguments.empty_starts, arguments.rest, binary)) for kind in kinds]
    for size, series in [] if arguments.empty else arguments.sizes:
        hosts = max(1, series // METRICS)
        missing = room_for(series, series * arguments.rounds)
        if missing:
            result["notes"].append(f"{size} series were left out: {missing}")
            continue
        for kind in kinds:
            load_of = lambda: Load(hosts, METRICS, arguments.rounds)  # noqa: E731 (begins when it is sent)
            run = attempt(kind, f"{size} series", lambda: measure(kind, size, load_of, arguments, binary))
            run["size"] = size
            if "queries" in run and "p50_ms" in days.get(kind.name, {}):
                run["queries"]["day_of_one_series"] = days[kind.name]
            result["runs"].append(run)


def commit():
    """What is checked out; empty outside of a checkout, or without git."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=40"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main():
    arguments = read_arguments()
    binary = os.environ.get("BENCH_HAWKEYE") or os.path.join(ROOT, "target", "release", "hawkeye")
    if not os.access(binary, os.X_OK):
        sys.exit(f"bench: {binary} is missing: make build, or name another by BENCH_HAWKEYE")
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))
    systems.install_missing()
    kinds = kinds_of(arguments)
    now = datetime.datetime.now(datetime.timezone.utc)
    result = {
        "date": now.isoformat(timespec="seconds"), "machine": machine.describe(), "commit": commit(),
        "arguments": {name: value for name, value in vars(arguments).items() if name != "sizes"},
        "versions": {kind.name: kind.version(binary) for kind in kinds if systems.is_installed(kind)},
        "reference_measured_elsewhere": report.ORIGINAL, "notes": [], "runs": [],
    }
    run_all(arguments, kinds, binary, result)
    result["machine"]["load_average_after"] = os.getloadavg()
    result["ratios"] = report.ratios(result["runs"])
    result["targets"] = report.targets(result)
    out = arguments.out or os.path.join(ROOT, "bench", "results", now.strftime("%Y-%m-%dT%H%M%SZ") + ".json")
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with open(out, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    print(report.text(result))
    print(f"\nwritten to {out}")
    failed = [one for one in result["runs"] + result["empty"] + list(result.get("day", {}).values()) if one.get("error") == "failed"]
    sys.exit(f"bench: {len(failed)} measurements failed; see above" if failed else 0)


if __name__ == "__main__":
    main()
