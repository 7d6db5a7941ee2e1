"""See lists.sh. The site is applied as files; the lists are those that the server's openapi.json tells of."""

import argparse, http.client, json, os, socket, sys, threading, time, urllib.parse
from explosion import Sender, item
from server import Server

HOSTS, GROUPS, TEMPLATES, STRATEGIES = 1000, 50, 80, 40
# The allocator gives pages back within ten seconds, and the code of the start goes by then.
SETTLES_S = 15
LIST_MS, LIVE_MS, MEMORY_MB = 20, 100, 8
# Fields that a list wants, by their names; those in the path are ids of what is there.
WANTED = {"tid": "1", "eid": "1", "q": "host", "event_id": "none", "startTime": "1"}


def site():
    """The files of the site."""
    rule = 'func = "all(#3)"\nop = ">"\nright_value = "90"\nmax_step = 3\npriority = 1\nnote = "what to do when it is full"\n'
    files = {}
    for template in range(TEMPLATES):
        strategies = "".join(f'\n[[strategy]]\nmetric = "metric.{at}"\ntags = "mount=/data/{at}"\n{rule}' for at in range(STRATEGIES))
        files[f"templates/{template}.toml"] = f'name = "template {template}"\n{strategies}'
    for group in range(GROUPS):
        hosts = ", ".join(f'"host-{host:04}.example.com"' for host in range(group, HOSTS, GROUPS))
        bound = ", ".join(f'"template {at}"' for at in range(group, TEMPLATES, GROUPS))
        files[f"groups/{group}.toml"] = f'name = "group {group}"\ntemplates = [{bound}]\nhosts = [{hosts}]\n'
    return files


class Connection:
    """One connection, on which requests follow one another."""

    def __init__(self, server):
        self.http = http.client.HTTPConnection("127.0.0.1", server.ports["api"], timeout=60)
        self.http.connect()
        self.http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.headers = {"Apitoken": server.token, "Content-Type": "application/json"}

    def ask(self, method, path, body=None):
        self.http.request(method, f"/api/v1{path}", None if body is None else json.dumps(body), self.headers)
        answer = self.http.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()[:500]}")
        return text


def quantiles(times):
    """The middle, the 99th of a hundred, and the most, in milliseconds."""
    ordered = sorted(times)
    return [1e3 * ordered[min(len(ordered) - 1, len(ordered) * part // 100)] for part in (50, 99, 100)]


def lists(document):
    """Paths of all lists, with what they want filled in."""
    for path, methods in sorted(document["paths"].items()):
        parameters = methods.get("get", {}).get("parameters", [])
        if not any(one["name"] == "sort" for one in parameters):
            continue
        for one in (one for one in parameters if one["in"] == "path"):
            path = path.replace("{" + one["name"] + "}", "1")
        wanted = {one["name"]: WANTED.get(one["name"], "1") for one in parameters if one.get("required") and one["in"] == "query"}
        if path.startswith("/alarm/eventcases") or path.startswith("/graph/endpoint"):
            wanted.update({name: WANTED[name] for name in ("startTime", "q", "eid") if any(one["name"] == name for one in parameters)})
        if path == "/alarm/event_note":
            wanted["event_id"] = "none"
        yield path, path + ("?" + urllib.parse.urlencode(wanted) if wanted else "")


class Watch:
    """The stream of alarms, read by a thread; the times at which events of a metric came."""

    def __init__(self, server, metric):
        self.http = http.client.HTTPConnection("127.0.0.1", server.ports["api"], timeout=600)
        self.http.request("GET", "/api/v1/alarm/stream", headers={"Apitoken": server.token})
        self.answer = self.http.getresponse()
        self.metric, self.seen, self.came = metric, [], threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.answer:
            if line.startswith(b"data:") and self.metric.encode() in line:
                with self.came:
                    self.seen.append(time.perf_counter())
                    self.came.notify()

    def wait_for(self, count):
        with self.came:
            if not self.came.wait_for(lambda: len(self.seen) >= count, 60):
                sys.exit(f"only {len(self.seen)} events came, {count} should have")
            return self.seen[count - 1]


def measure_changes(server, connection, changes):
    """Seconds until a PUT is answered, and until the event is there that a point makes by the changed strategy."""
    metric = "changed.live"
    template = json.loads(connection.ask("POST", "/template", {"name": "changed live"}))["id"]
    connection.ask("POST", "/hostgroup/template", {"tpl_id": template, "grp_id": 1})
    rule = {"metric": metric, "tags": "", "func": "all(#1)", "op": ">", "max_step": 3, "priority": 0, "note": ""}
    connection.ask("POST", "/strategy", {**rule, "tpl_id": template, "right_value": "100"})
    strategy = json.loads(connection.ask("GET", f"/strategy?tid={template}"))[0]["id"]
    host = json.loads(connection.ask("GET", "/hostgroup/1"))["hosts"][0]["hostname"]
    watch, sender = Watch(server, metric), Sender(server.ports["transfer_rpc"])
    at = (int(time.time()) // 60 - changes - 1) * 60
    point = lambda: item(host, metric, "", 50, at)
    sender.send([point()])
    saved, live = [], []
    for change in range(changes):
        at += 60
        begin = time.perf_counter()
        # In turn the point is above the threshold, and below it.
        right_value = "100" if change % 2 else str(change % 40)
        connection.ask("PUT", "/strategy", {**rule, "id": strategy, "right_value": right_value})
        saved.append(time.perf_counter() - begin)
        sender.send([point()])
        live.append(watch.wait_for(change + 1) - begin)
    return saved, live


def settled(server):
    """What is resident, and what no file stands behind, once the allocator has given back what was freed."""
    time.sleep(SETTLES_S)
    return server.memory()[:2]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", nargs="?", default=os.environ.get("TEST_BINARY", "target/release/hawkeye"))
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--no-aims", action="store_true")
    options = parser.parse_args()
    server = Server(options.binary, 256)
    missed = []
    try:
        run(server, options, missed)
    finally:
        server.stop()
    if missed and not options.no_aims:
        sys.exit("missed: " + "; ".join(missed))


def run(server, options, missed):
    # A connection on which nothing is asked for so long is closed.
    empty, connection = settled(server), Connection(server)
    begin = time.perf_counter()
    connection.ask("POST", "/apply", {"files": site(), "kinds": ["templates", "groups"]})
    print(f"{HOSTS} hosts, {GROUPS} groups, {TEMPLATES} templates of {STRATEGIES} strategies applied in {time.perf_counter() - begin:.2f} s")
    filled = settled(server)
    server.restart()
    again, connection = settled(server), Connection(server)
    for what, now in (("behind the apply", filled), ("after a restart", again)):
        more = [(a - b) / 1e6 for a, b in zip(now, empty)]
        print(f"resident {empty[0] / 1e6:.1f} MB empty, {now[0] / 1e6:.1f} MB {what}: {more[0]:+.1f} MB, {more[1]:+.1f} MB anonymous")
    if more[0] > MEMORY_MB:
        missed.append(f"{more[0]:.1f} MB more than an empty server, {MEMORY_MB} are the aim")
    # A point of each host, so that there are endpoints and counters to list.
    sender = Sender(server.ports["transfer_rpc"])
    now = int(time.time())
    for host in range(HOSTS):
        sender.send([item(f"host-{host:04}.example.com", f"metric.{at}", f"mount=/data/{at}", 1, now) for at in range(10)])
    saved, live = measure_changes(server, connection, options.changes)
    for what, times in (("saved", saved), ("live", live)):
        p50, p99, most = quantiles(times)
        print(f"a strategy is changed and {what}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms")
    if quantiles(live)[1] > LIVE_MS:
        missed.append(f"a change is live after {quantiles(live)[1]:.1f} ms, {LIVE_MS} are the aim")
    print(f"{'list':44} {'bytes':>8} {'p50 ms':>7} {'p99 ms':>7} {'most':>7}")
    for path, asked in lists(json.loads(connection.ask("GET", "/openapi.json"))):
        times, size = [], 0
        for _ in range(options.calls):
            begin = time.perf_counter()
            size = len(connection.ask("GET", asked))
            times.append(time.perf_counter() - begin)
        p50, p99, most = quantiles(times)
        print(f"{path:44} {size:8} {p50:7.2f} {p99:7.2f} {most:7.2f}")
        if p99 > LIST_MS:
            missed.append(f"{path} takes {p99:.1f} ms, {LIST_MS} are the aim")
    busy = settled(server)
    print(f"resident {busy[0] / 1e6:.1f} MB after all that")


if __name__ == "__main__":
    main()
