#!/usr/bin/env python3
"""Check: whether a file of results holds every figure of every system that was there, and sense.

For tests/services/bench.sh; it knows no speed, only what must be so on any machine.
"""

import json
import os
import sys

sys.dont_write_bytecode = True

import report  # noqa: E402 (after writing of bytecode is off)

FIGURES = ("rss_bytes", "anonymous_bytes", "points_per_s", "disk_bytes", "ready_after_kill_s", "newest")
WITH_QUERIES = ("hawkeye json-rpc", "hawkeye gob", "victoriametrics", "prometheus")
WITH_DAY = ("hawkeye json-rpc", "victoriametrics", "prometheus")
WITH_JUDGING = ("hawkeye json-rpc", "prometheus")


def check(result):
    """Texts of what is wrong."""
    wrong = []
    runs = {run["system"]: run for run in result["runs"]}
    expected = {"hawkeye json-rpc", "hawkeye gob", "hawkeye graph alone", "victoriametrics", "prometheus"}
    if set(runs) != expected:
        wrong.append(f"systems are {sorted(runs)}")
    for name, run in runs.items():
        if run.get("error") == "not installed" and not name.startswith("hawkeye"):
            if os.environ.get("CI") == "true":
                wrong.append(f"{name} is not installed, and nothing is skipped under CI")
            else:
                print(f"SKIPPED: {name} is not installed")
            continue
        wrong += [f"{name}: {text}" for text in check_run(name, run)]
    there = [name for name, run in runs.items() if "error" not in run]
    # The same points in all: what is answered must be the same, whoever answers.
    for query in ("hour_of_one_counter", "all_counters_of_one_host"):
        counts = {name: runs[name]["queries"][query]["series"] for name in there if "queries" in runs[name]}
        if len(set(counts.values())) != 1:
            wrong.append(f"{query}: numbers of series differ: {counts}")
    values = {name: runs[name]["newest"][1] for name in there if name in WITH_QUERIES and "newest" in runs[name]}
    if max(values.values()) - min(values.values()) > 1e-5:
        wrong.append(f"the newest values differ: {values}")
    peers = [name for name in there if not name.startswith("hawkeye")]
    if {one["to"] for one in result["ratios"]} != set(peers):
        wrong.append("ratios to some peer are missing")
    for one in result["empty"]:
        if "error" not in one and not (one["ready_ms"] > 0 and one["rss_bytes"] > 0):
            wrong.append(f"empty {one['system']}: {one}")
    return wrong


def check_run(name, run):
    if "error" in run or "fault" in run:
        return [f"{run.get('error', '')} {run.get('fault', '')}"]
    wrong = [f"{figure} is {run.get(figure)}" for figure in FIGURES if not run.get(figure)]
    tally = run["loadgen"]
    if tally["points_sent"] != run["points"] or tally["points_refused"] or tally["calls_failed"]:
        wrong.append(f"loadgen: {tally}")
    if name in WITH_QUERIES:
        queries = run["queries"]
        names = ["hour_of_one_counter", "all_counters_of_one_host"] + (["day_of_one_series"] if name in WITH_DAY else [])
        wrong += [f"{query}: {queries.get(query)}" for query in names if not queries.get(query, {}).get("points")]
    if name in WITH_JUDGING and not run["judging"]["told"] == run["judging"]["sent"] == len(run["judging"]["raw_ms"]):
        wrong.append(f"judging: {run['judging']}")
    return wrong


def main():
    path, table = sys.argv[1:]
    with open(path) as file:
        result = json.load(file)
    wrong = check(result)
    with open(table) as file:
        printed = file.read()
    if report.text(result) not in printed:
        wrong.append("the table that was printed is not that of the file")
    if wrong:
        sys.exit("\n".join(wrong + [printed]))
    print("every system that is there took the same load, was asked, killed, and came back")


if __name__ == "__main__":
    main()
