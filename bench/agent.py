"""A made-up host, on which collectors run side by side for some minutes; bench/agent.sh starts this in namespaces.

Memory is what is resident at the end. Processor time is what the kernel counted for all threads (schedstat) between the
second minute's begin and the end, so a start costs nothing here; all of them report once a minute.
"""

import os, pathlib, re, socket, subprocess, sys, tempfile, threading, time, urllib.request

import stub

PROCESSES, DISKS, INTERFACES, MOUNTS = 500, 8, 8, 30
SETTLE = 65


def make_host(work):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for pair in range(INTERFACES // 2):
        names = ["ip", "link", "add", f"eth{2 * pair}", "type", "veth", "peer", "name", f"eth{2 * pair + 1}"]
        subprocess.run(names, check=True)
    line = "   8 {:7} sd{} 51234 4567 9876543 23456 87654 34567 7654321 98765 0 45678 122221 0 0 0 0 0 0\n"
    (work / "diskstats").write_text("".join(line.format(16 * disk, chr(97 + disk)) for disk in range(DISKS)))
    subprocess.run(["mount", "--bind", work / "diskstats", "/proc/diskstats"], check=True)
    for number in range(MOUNTS):
        image, point = work / f"{number}.img", work / f"mnt{number}"
        with open(image, "wb") as file:
            file.truncate(1 << 20)
        subprocess.run(["mkfs.ext2", "-q", image], check=True)
        point.mkdir()
        subprocess.run(["mount", "-o", "loop", image, point], check=True)
    return [subprocess.Popen(["sleep", "86400"]) for _ in range(PROCESSES)]


def take(_, param):
    """The answer of a transfer, which takes everything."""
    items.append(len(param))
    return {"Message": "ok", "Total": len(param), "Invalid": 0, "Latency": 0}


def scrape_each_minute(url):
    while True:
        try:
            with urllib.request.urlopen(url) as page:
                page.read()
        except OSError:
            pass
        time.sleep(60)


def cpu_seconds(process):
    tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def row(name, process, before, seconds, files):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    resident, anonymous = (int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024 for key in ("VmRSS", "RssAnon"))
    size = sum(os.stat(file).st_size for file in files) / 1e6
    share = 100 * (cpu_seconds(process) - before) / seconds
    print(f"{name:24} {resident:8.1f} {anonymous:10.1f} {size:8.1f} {share:10.4f}")


work = pathlib.Path(tempfile.mkdtemp(prefix="hawkeye-bench-agent-"))
agent, seconds = sys.argv[1], int(sys.argv[2])
sleepers = make_host(work)
stripped = work / "hawkeye-agent"
subprocess.run(["strip", "-o", stripped, agent], check=True)
items = []
listener = socket.create_server(("127.0.0.1", 8433))
stub.serve(listener, take)
(work / "agent.toml").write_text('hbs_addr = ""\n[listen]\nagent_http = "127.0.0.1:1988"\n')
plugins = ["cpu", "df", "disk", "interface", "load", "memory", "processes", "tcpconns"]
collectd = "".join(f"LoadPlugin {plugin}\n" for plugin in plugins) + 'Interval 60\nLoadPlugin csv\n<Plugin csv>\nDataDir "%s"\n</Plugin>\n' % work
(work / "collectd.conf").write_text(f'BaseDir "{work}"\nPIDFile "{work}/pid"\nTypesDB "/usr/share/collectd/types.db"\n{collectd}')
silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
programs = [
    ("hawkeye-agent", subprocess.Popen([stripped, "--config", work / "agent.toml"], **silent), [stripped]),
    (
        "node_exporter",
        subprocess.Popen(["prometheus-node-exporter", "--web.listen-address=127.0.0.1:9100"], **silent),
        ["/usr/bin/prometheus-node-exporter"],
    ),
    (
        "collectd",
        subprocess.Popen(["collectd", "-f", "-C", work / "collectd.conf"], **silent),
        ["/usr/sbin/collectd", *(f"/usr/lib/collectd/{plugin}.so" for plugin in plugins + ["csv"])],
    ),
]
threading.Thread(target=scrape_each_minute, args=("http://127.0.0.1:9100/metrics",), daemon=True).start()
time.sleep(SETTLE)
before = [cpu_seconds(process) for _, process, _ in programs]
began = time.monotonic()
time.sleep(seconds)
passed = time.monotonic() - began
gone = [name for name, process, _ in programs if process.poll() is not None]
if gone or not items:
    sys.exit(f"ended: {', '.join(gone)}; the agent sent {sum(items)} points")
print(f"{PROCESSES} processes, {DISKS} disks, {INTERFACES} interfaces, {MOUNTS} mounts; {passed:.0f} s, a report a minute")
print(f"{'':24} {'RSS MiB':>8} {'anonymous':>10} {'disk MB':>8} {'CPU %':>10}")
for (name, process, files), cpu in zip(programs, before):
    row(name, process, cpu, passed, files)
print(f"the agent sent {sum(items)} points in {len(items)} calls")
