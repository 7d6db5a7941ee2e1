"""Report: ratios, then the table; read from what was measured, nothing else.

A ratio is Hawkeye over JSON-RPC, in the same run at the same size, to another system: 0.25x is a quarter of it.
"""

# Measured once with the original's own binaries, elsewhere; docs/benchmarks.md says how. Never part of a ratio.
ORIGINAL = {
    "what": "Open-Falcon's transfer, judge, graph and hbs; 100k series, 40 strategies, 20 expressions; measured elsewhere",
    "rss_mib": {"transfer": 91, "judge": 1404, "graph": 3231, "graph_peak": 3455, "hbs": 45},
    "cpu_us_per_point": {"transfer": 12, "judge": 21, "graph": 40},
    "disk_bytes_per_series": 73900,
    "judging_ms": {"median": 27, "max": 52},
}

# Name in a run, text, unit's divisor, digits. Of all these, less is better, except for points per second.
FIGURES = (
    ("rss_bytes", "RSS after load, MiB", 1 << 20, 1),
    ("rss_peak_bytes", "RSS at its highest, MiB", 1 << 20, 1),
    ("rss_bytes_per_series", "RSS, bytes per series", 1, 0),
    ("anonymous_bytes_per_series", "anonymous, bytes per series", 1, 0),
    ("cpu_us_per_point", "CPU, us per point", 1, 3),
    ("generator_cpu_us_per_point", "  (generator's CPU, us per point)", 1, 3),
    ("points_per_s", "points per second", 1, 0),
    ("disk_bytes_per_point", "disk after a stop, bytes per point", 1, 2),
    ("compacted_bytes_per_point", "disk once compacted, bytes per point", 1, 2),
    ("ready_after_kill_s", "ready after kill -9, s", 1, 3),
    ("rss_after_restart_bytes", "RSS after that, MiB", 1 << 20, 1),
)
QUERIES = (
    ("hour_of_one_counter", "hour of one counter, all hosts"),
    ("all_counters_of_one_host", "hour of one host, all counters"),
    ("day_of_one_series", "24 h of one series"),
)
RATIOS = ("rss_bytes_per_series", "anonymous_bytes_per_series", "cpu_us_per_point", "points_per_s",
          "disk_bytes_per_point", "compacted_bytes_per_point", "ready_after_kill_s")
BASE = "hawkeye json-rpc"


# Of the whole server, over JSON-RPC: text, size (None: the empty server), figure, must, aim, unit's divisor. "to" is a
# ratio to VictoriaMetrics in the same run.
TARGETS = (
    ("RSS, 100k series with rules, MB", "100k", "rss_bytes", 64, 40, 1e6),
    ("anonymous bytes per series at 1m series", "1m", "anonymous_bytes_per_series", 200, 128, 1),
    ("CPU per point, us", "100k", "cpu_us_per_point", 2, 0.7, 1),
    ("points per second", "100k", "points_per_s", 600_000, 1_500_000, 1),
    ("RSS of an empty server, MB", None, "rss_bytes", 20, 12, 1e6),
    ("start to ready of an empty server, ms", None, "ready_ms", 200, 50, 1),
    ("RSS per series to VictoriaMetrics", "100k", "to:rss_bytes_per_series", 0.5, 0.125, 1),
    ("CPU per point to VictoriaMetrics", "100k", "to:cpu_us_per_point", 1, 0.5, 1),
)


def targets(result):
    """What was aimed for, beside what was measured; only what this run has measured."""
    found = []
    for text, size, figure, must, aim, divisor in TARGETS:
        if figure.startswith("to:"):
            measured = [one["ratio"] for one in result["ratios"]
                        if (one["size"], one["figure"], one["to"]) == (size, figure[3:], "victoriametrics")]
        else:
            runs = result["empty"] if size is None else [run for run in result["runs"] if run["size"] == size]
            measured = [run[figure] / divisor for run in runs if run["system"] == BASE and run.get(figure) is not None]
        if measured:
            reached = (lambda goal: measured[0] >= goal) if figure == "points_per_s" else (lambda goal: measured[0] <= goal)
            verdict = "aim" if reached(aim) else "must" if reached(must) else "missed"
            found.append({"target": text, "must": must, "aim": aim, "measured": measured[0], "reached": verdict})
    return found


def value(run, name):
    """A figure of a run; None if it has none."""
    if name.startswith("query:"):
        _, query, quantile = name.split(":")
        return run.get("queries", {}).get(query, {}).get(quantile)
    if name.startswith("judging:"):
        return run.get("judging", {}).get(name.split(":")[1])
    return run.get(name)


def ratios(runs):
    """For each size and each other system: Hawkeye's figure by theirs."""
    found = []
    names = [*RATIOS, *(f"query:{query}:p50_ms" for query, _ in QUERIES), "judging:median_ms"]
    for base in (run for run in runs if run["system"] == BASE and "error" not in run):
        for other in runs:
            if other["size"] != base["size"] or other["system"].startswith("hawkeye") or "error" in other:
                continue
            for name in names:
                ours, theirs = value(base, name), value(other, name)
                if ours is not None and theirs:
                    found.append({"size": base["size"], "figure": name, "to": other["system"], "ratio": ours / theirs})
            # Where a peer offers to compact, its best is compared with what Hawkeye has after a stop.
            ours, theirs = base.get("disk_bytes_per_point"), other.get("compacted_bytes_per_point")
            if ours and theirs and base.get("compacted_bytes_per_point") is None:
                figure = "disk_bytes_per_point to its compacted"
                found.append({"size": base["size"], "figure": figure, "to": other["system"], "ratio": ours / theirs})
    return found


def rows_of(runs):
    rows = [(text, [scaled(run, name, divisor, digits) for run in runs]) for name, text, divisor, digits in FIGURES]
    for query, text in QUERIES:
        for quantile in ("p50", "p99"):
            rows.append((f"{text}, {quantile} ms", [scaled(run, f"query:{query}:{quantile}_ms", 1, 2) for run in runs]))
    rows.append(("disk after a stop, 24 h of 2k series, bytes per point",
                 [scaled(run, "query:day_of_one_series:disk_bytes_per_point", 1, 2) for run in runs]))
    for which in ("median", "max"):
        rows.append((f"point to notification, {which} ms", [scaled(run, f"judging:{which}_ms", 1, 1) for run in runs]))
    return [(text, cells) for text, cells in rows if any(cell != "-" for cell in cells)]


def scaled(run, name, divisor, digits):
    if "error" in run:
        return run["error"]
    found = value(run, name)
    return "-" if found is None else f"{found / divisor:,.{digits}f}"


def table(heads, rows):
    """Columns as wide as they need to be."""
    lines = [["", *heads], *([text, *cells] for text, cells in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads) + 1)]
    def text_of(line):
        cells = [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        return "| " + " | ".join(cells) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text_of(lines[0]), rule, *(text_of(line) for line in lines[1:])])


def text(result):
    parts = []
    sizes = list(dict.fromkeys(run["size"] for run in result["runs"]))
    for size in sizes:
        found = [one for one in result["ratios"] if one["size"] == size]
        others = list(dict.fromkeys(one["to"] for one in found))
        if others:
            names = list(dict.fromkeys(one["figure"] for one in found))
            cells = {(one["figure"], one["to"]): f"{one['ratio']:.3g}x" for one in found}
            rows = [(name, [cells.get((name, other), "-") for other in others]) for name in names]
            parts.append(f"## {size}: {BASE} to …\n\n" + table(others, rows))
    for size in sizes:
        runs = [run for run in result["runs"] if run["size"] == size]
        parts.append(f"## {size}\n\n" + table([run["system"] for run in runs], rows_of(runs)))
    if result.get("empty"):
        rows = [("RSS, MiB", "rss_bytes", 1 << 20, 1), ("anonymous, MiB", "anonymous_bytes", 1 << 20, 1), ("start to ready, median ms", "ready_ms", 1, 0)]
        heads = [one["system"] for one in result["empty"]]
        cells = [(text, [scaled(one, name, divisor, digits) for one in result["empty"]]) for text, name, divisor, digits in rows]
        parts.append("## Empty server\n\n" + table(heads, cells))
    if result.get("targets"):
        rows = [(one["target"], [f"{one['must']:,}", f"{one['aim']:,}", f"{one['measured']:,.3g}" if one["measured"] < 1000
                                 else f"{one['measured']:,.0f}", one["reached"]]) for one in result["targets"]]
        parts.append("## Targets of the whole server\n\n" + table(["must", "aim", "measured", "reached"], rows))
    if result.get("notes"):
        parts.append("\n".join(f"- {note}" for note in result["notes"]))
    original = ", ".join(f"{name} {mib}" for name, mib in ORIGINAL["rss_mib"].items())
    parts.append(
        f"Reference, not of this run ({ORIGINAL['what']}): RSS in MiB {original}; CPU us per point "
        + " + ".join(str(us) for us in ORIGINAL["cpu_us_per_point"].values())
        + f"; disk {ORIGINAL['disk_bytes_per_series']:,} bytes per series; point to event "
        + f"{ORIGINAL['judging_ms']['median']} ms median, {ORIGINAL['judging_ms']['max']} ms maximum."
    )
    return "\n\n".join(parts)
