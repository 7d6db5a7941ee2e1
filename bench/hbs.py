"""See hbs.sh."""

import json, resource, socket, sys, time
from explosion import Sender, item
from server import Server

GROUPS, HOSTS, AGGREGATORS, SECONDS = 50, 1000, 400, 20
# Until what new agents wrote is folded in, and the rules are read again.
SETTLES_S = 15


def request(method, param):
    return json.dumps({"method": method, "params": [param], "id": 0}).encode() + b"\n"


def name(host):
    return f"host-{host:05}"


def add_hosts(server, group, names):
    for first in range(0, len(names), 500):
        server.api("PATCH", f"/hostgroup/{group}/host", {"action": "add", "hosts": names[first:first + 500]})


def make_site(server, agents):
    """Groups of hosts, each with a template of four ports to watch and a directory of plugins."""
    rule = {"metric": "net.port.listen", "max_step": 3, "priority": 1, "func": "all(#3)", "op": "==", "right_value": "0", "note": "",
        "run_begin": "", "run_end": ""}
    for group in range(GROUPS):
        made = server.api("POST", "/hostgroup", {"name": f"group-{group:02}"})["id"]
        add_hosts(server, made, [name(host) for host in range(group, agents, GROUPS)])
        template = server.api("POST", "/template", {"name": f"template-{group:02}", "parent_id": 0, "action_id": 0})["id"]
        for port in range(4):
            server.api("POST", "/strategy", {**rule, "tpl_id": template, "tags": f"port={1000 * group + port}"})
        server.api("POST", "/hostgroup/template", {"tpl_id": template, "grp_id": made})
        server.api("POST", "/plugin", {"hostgroup_id": made, "dir_path": f"sys/{group}"})


def connect(server, host):
    """A connection, and the four calls that an agent makes on it each minute."""
    heartbeat = {"Hostname": name(host), "Checksum": ""}
    told = {"Hostname": name(host), "IP": f"10.0.{host // 250}.{host % 250}", "AgentVersion": "7.0", "PluginVersion": "x"}
    calls = [request("Agent.ReportStatus", told), request("Agent.MinePlugins", heartbeat), request("Agent.BuiltinMetrics", heartbeat),
        request("Agent.TrustableIps", {})]
    return socket.create_connection(("127.0.0.1", server.ports["hbs_rpc"]), 30), calls


def fleet_minute(peers):
    """All agents, a call of each at a time: no call is sent before the last one of its connection is answered."""
    for number in range(4):
        for first in range(0, len(peers), 500):
            part = peers[first:first + 500]
            for peer, calls in part:
                peer.sendall(calls[number])
            for peer, _ in part:
                text = b""
                while not text.endswith(b"\n"):
                    text += peer.recv(65536)
                assert b'"error":null' in text, text


def measure_hbs(server, agents, minutes):
    peers = [connect(server, host) for host in range(agents)]
    fleet_minute(peers)  # each agent is new
    time.sleep(SETTLES_S)
    before, at = server.memory()[0], server.cpu()
    for _ in range(minutes):
        fleet_minute(peers)
    spent = (server.cpu() - at) / minutes
    print(f"hbs: {agents} agents, 4 calls a minute each: {spent:.3f} s of CPU for a minute of the fleet, {spent / 60 * 100:.2f} % of a core, "
          f"{spent / agents / 4 * 1e6:.1f} us a call; {server.memory()[0] / 1e6:.1f} MB resident (before: {before / 1e6:.1f})")
    for peer, _ in peers:
        peer.close()


def measure_aggregator(server):
    group = server.api("POST", "/hostgroup", {"name": "thousand"})["id"]
    names = [name(host) for host in range(HOSTS)]
    add_hosts(server, group, names)
    at = server.cpu()
    time.sleep(SECONDS)
    idle = server.cpu() - at
    total = "+".join(f"$(m{metric}/a=b)" for metric in range(4))
    # Each is computed once in its step, and points of two steps count.
    for row in range(AGGREGATORS):
        server.api("POST", "/aggregator", {"hostgroup_id": group, "numerator": total, "denominator": "$#", "endpoint": "thousand",
            "metric": f"sum{row}", "tags": "", "step": SECONDS})
    sender, now = Sender(server.ports["transfer_rpc"]), int(time.time())
    for first in range(0, HOSTS, 100):
        items = [item(host, f"m{metric}", "a=b", 1, now) for host in names[first:first + 100] for metric in range(4)]
        assert sender.send(items) == 0
    time.sleep(2)
    counted = lambda: server.metrics()['hawkeye_items_received_total{door="aggregator"}']
    at, first = server.cpu(), counted()
    time.sleep(SECONDS)
    spent, done = server.cpu() - at - idle, counted() - first
    print(f"aggregator: 4 counters of {HOSTS} hosts: {spent / max(done, 1) * 1e3:.2f} ms of CPU a computation ({done:.0f} computations)")


def main():
    binary, agents, minutes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    server = Server(binary, settings=["ingest.min_step=1", "log=warn", f"ingest.connections_max={agents + 1000}"])
    try:
        make_site(server, agents)
        measure_hbs(server, agents, minutes)
        measure_aggregator(server)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
