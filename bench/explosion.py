"""See explosion.sh. A fleet reports each minute and toggles alarms; beside it one sender makes series without end."""

import argparse, json, os, socket, sys, time
from server import Server

HOSTS, METRICS, MESSAGE = 100, 40, 1000


class Sender:
    """Transfer.Update over one connection."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.reader = self.socket.makefile("rb")

    def send(self, items):
        request = {"method": "Transfer.Update", "params": [items], "id": 1}
        self.socket.sendall(json.dumps(request).encode())
        answer = json.loads(self.reader.readline())
        if answer["error"]:
            sys.exit(f"the server answered {answer['error']}")
        return answer["result"]["Invalid"]


def item(endpoint, metric, tags, value, now):
    return {"endpoint": endpoint, "metric": metric, "tags": tags, "value": value, "step": 60, "counterType": "GAUGE",
            "timestamp": now}


def make_alarms(server):
    """cpu.idle all(#1) < 10 on every host of the fleet."""
    group = server.api("POST", "/hostgroup", {"name": "fleet"})
    hosts = [f"web-{host:03}" for host in range(HOSTS)]
    server.api("POST", "/hostgroup/host", {"hostgroup_id": group["id"], "hosts": hosts})
    template = server.api("POST", "/template", {"name": "fleet", "parent_id": 0})
    server.api("POST", "/strategy", {"tpl_id": template["id"], "metric": "cpu.idle", "tags": "", "max_step": 3, "priority": 1,
        "func": "all(#1)", "op": "<", "right_value": "10", "note": "", "run_begin": "", "run_end": ""})
    server.api("POST", "/hostgroup/template", {"tpl_id": template["id"], "grp_id": group["id"]})


def report_fleet(sender, time_of_points, idle):
    """All points of the fleet; answers how many were refused."""
    refused = 0
    for host in range(HOSTS):
        endpoint = f"web-{host:03}"
        items = [item(endpoint, f"m{metric}", "", time_of_points % 977 + metric, time_of_points) for metric in range(METRICS)]
        refused += sender.send(items + [item(endpoint, "cpu.idle", "", idle, time_of_points)])
    return refused


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", nargs="?", default="target/release/hawkeye")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--budget", type=int, default=64)
    parser.add_argument("--series", type=int, default=600_000)
    parser.add_argument("--rate", type=int, default=1000)
    options = parser.parse_args()
    server = Server(options.binary, options.budget)
    try:
        explode(server, options)
    finally:
        server.stop()


def explode(server, options):
    budget = options.budget << 20
    empty = server.memory()
    make_alarms(server)
    fleet, culprit = Sender(server.ports["transfer_rpc"]), Sender(server.ports["transfer_rpc"])

    # Slow: as the clock goes. Fast: a round of the fleet's for each tenth of the series, at points of time that have
    # been.
    begin = time.time()
    fleet_time = int(begin) // 60 * 60 - 3600 if options.fast else None
    rounds = refused_of_fleet = invalid = sent = 0
    next_round, next_line, peak = 0, 0, 0
    print(f"empty {empty[0] / 1e6:.1f} MB; budget {budget / 1e6:.1f} MB, with 15 % {budget * 1.15 / 1e6:.1f} MB")
    print("seconds   sent refused  awake  level  RSS MB  anonymous MB")
    while sent < options.series:
        now = time.time() - begin
        if (sent * 10 >= rounds * options.series) if options.fast else now >= next_round:
            points_at = fleet_time + 60 * rounds if options.fast else int(time.time())
            # Every other round all hosts are too busy.
            refused_of_fleet += report_fleet(fleet, points_at, 5 if rounds % 2 else 50)
            rounds, next_round = rounds + 1, next_round + 60
        stamp = int(time.time())
        batch = [item("shop-07", "http.latency", f"dc=bj,request_id={os.urandom(16).hex()}", 1.5, stamp) for _ in range(MESSAGE)]
        invalid += culprit.send(batch)
        sent += MESSAGE
        resident, anonymous, _ = server.memory()
        peak = max(peak, resident)
        if (sent >= next_line * options.series / 20) if options.fast else now >= next_line * 15:
            shown = server.metrics()
            print(f"{now:7.1f} {sent:6} {invalid:7} {shown['hawkeye_series']:6.0f} {shown['hawkeye_memory_level']:6.0f}"
                  f" {resident / 1e6:7.1f} {anonymous / 1e6:13.1f}", flush=True)
            next_line += 1
        if not options.fast:
            time.sleep(max(0, begin + sent / options.rate - time.time()))
    seconds = time.time() - begin
    # The last round brings everybody back to normal.
    points_at = fleet_time + 60 * (rounds + 1) if options.fast else int(time.time()) + 60
    refused_of_fleet += report_fleet(fleet, points_at, 50)

    busy_rounds = rounds // 2
    want = 2 * busy_rounds * HOSTS
    shown = server.metrics()
    high = server.memory()[2]
    print(f"{sent} series in {seconds:.0f} s, {invalid} refused, {shown['hawkeye_memory_early_sleepers_total']:.0f} slept early;"
          f" RSS at most {high / 1e6:.1f} MB of {budget * 1.15 / 1e6:.1f}")
    print(f"fleet: {refused_of_fleet} points refused, {shown['hawkeye_events_total']:.0f} of {want} events")
    growth = json.loads(server.page("/memory?format=json"))["growth"]["growing"]
    names = {kind: growth[kind][0]["name"] for kind in ("endpoints", "metrics", "tag_keys")}
    print(f"culprit: {json.dumps(names)}")
    for title, list_of in growth.items():
        if isinstance(list_of, list):
            print(f"  {title}: " + ", ".join(f"{one['name']} {one['per_minute']}/min" for one in list_of[:3]))
    # The fleet's alarms repeat after five minutes at the earliest, so fast rounds may leave out a PROBLEM, never a
    # recovery.
    faults = []
    if high > budget * 1.15:
        faults.append("too much memory")
    if refused_of_fleet or shown["hawkeye_events_total"] < want:
        faults.append("the fleet's alarms were not all judged")
    if names != {"endpoints": "shop-07", "metrics": "http.latency", "tag_keys": "request_id"}:
        faults.append("the culprit is not named")
    if faults:
        sys.exit("FAILED: " + ", ".join(faults))
    print("ok")


if __name__ == "__main__":
    main()
