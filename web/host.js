// Host: the charts of one host, its open alarms, and any other of its counters on demand.
//
// What the charts show is named in CHARTS by Open-Falcon's metrics. A used share is computed from the free share where
// a host does not send it: the original's agent as shipped does not. Disk throughput and time come from the cumulative
// counters, whose rate covers the whole interval; disk.io.read_bytes, write_bytes and util see its last second only.

import * as api from "./api.js";
import { Chart } from "./chart.js";
import { h, Keyed, setText } from "./dom.js";
import { byText, formatAge, formatTime, formatValue } from "./format.js";
import { Alarms, isSilent } from "./home.js";
import { t } from "./i18n.js";

export const RANGES = { "1h": 3600, "6h": 6 * 3600, "24h": 24 * 3600 };
const SECTOR_BYTES = 512;
// A counter picked by hand is a chart and a request each 15 s.
const PICKED_MAX = 12;

// Each has the counters to ask for and, from the answer, the series to draw. A `rate` needs two reports.
const CHARTS = [
  {
    key: "cpu",
    unit: "%",
    top: 10,
    stacked: true,
    counters: ["cpu.user", "cpu.system", "cpu.iowait", "cpu.steal", "cpu.softirq", "cpu.irq", "cpu.nice"],
    series: cpuSeries,
  },
  {
    key: "memory",
    unit: "%",
    top: 100,
    counters: ["mem.memused.percent", "mem.memfree.percent", "mem.swapused.percent"],
    series: memorySeries,
  },
  {
    key: "load",
    unit: "",
    top: 1,
    counters: ["load.1min", "load.5min", "load.15min"],
    series: (answer) => plain(answer, (counter) => counter.slice("load.".length).replace("min", " min")),
  },
  {
    key: "net",
    unit: "b/s",
    top: 1000,
    rate: true,
    counters: ["net.if.in.bits/*", "net.if.out.bits/*"],
    series: netSeries,
  },
  {
    key: "disk_io",
    unit: "B/s",
    top: 1000,
    rate: true,
    counters: ["disk.io.read_sectors/*", "disk.io.write_sectors/*"],
    series: diskSeries,
  },
  {
    key: "disk_busy",
    unit: "%",
    top: 10,
    rate: true,
    counters: ["disk.io.msec_total/*"],
    series: (answer) => tagged(answer, "disk.io.msec_total", "device", { scale: 0.1 }),
  },
  {
    key: "df",
    unit: "%",
    top: 100,
    counters: ["df.bytes.used.percent/*", "df.bytes.free.percent/*"],
    series: dfSeries,
  },
  {
    key: "sockets",
    unit: "",
    top: 10,
    counters: ["ss.estab", "ss.timewait"],
    series: (answer) => plain(answer, (counter) => counter.slice("ss.".length)),
  },
];

// The kinds that are nearly always zero are left out while they are.
function cpuSeries(answer) {
  const always = ["cpu.user", "cpu.system", "cpu.iowait"];
  const shown = answer.filter(
    ({ counter, values }) => always.includes(counter) || values.some(([, value]) => value >= 0.05),
  );
  return plain(shown, (counter) => counter.slice("cpu.".length));
}

function memorySeries(answer) {
  const find = (counter) => answer.find((one) => one.counter === counter);
  const used = find("mem.memused.percent") ?? rest(find("mem.memfree.percent"));
  const swap = find("mem.swapused.percent");
  return [used && { ...used, name: t("used") }, swap && { ...swap, name: t("swap") }].filter(Boolean);
}

// Devices that carry something come first. The loopback device is last, and off at first where others carry something:
// its traffic never leaves the host.
function netSeries(answer) {
  const inwards = tagged(answer, "net.if.in.bits", "iface", { suffix: t("in"), mirror: false });
  const outwards = tagged(answer, "net.if.out.bits", "iface", { suffix: t("out"), mirror: true });
  const busy = new Set([...inwards, ...outwards].filter(isAboveZero).map((one) => one.group));
  const rank = ({ group }) => (group === "lo" ? 2 : busy.has(group) ? 0 : 1);
  const othersBusy = [...busy].some((group) => group !== "lo");
  const series = pairs(inwards, outwards).sort((a, b) => rank(a) - rank(b));
  return series.map((one) => ({ ...one, off: othersBusy && one.group === "lo" }));
}

function isAboveZero({ values }) {
  return values.some(([, value]) => value > 0);
}

function diskSeries(answer) {
  const read = tagged(answer, "disk.io.read_sectors", "device", {
    scale: SECTOR_BYTES,
    suffix: t("read"),
    mirror: false,
  });
  const write = tagged(answer, "disk.io.write_sectors", "device", {
    scale: SECTOR_BYTES,
    suffix: t("write"),
    mirror: true,
  });
  return pairs(read, write);
}

function dfSeries(answer) {
  const used = tagged(answer, "df.bytes.used.percent", "mount", {});
  const free = tagged(answer, "df.bytes.free.percent", "mount", {}).map(rest);
  const missing = free.filter((one) => !used.some((other) => other.name === one.name));
  return [...used, ...missing].sort((a, b) => byText(a.name, b.name));
}

// The same device's two series beside each other. Devices are in order of their names in every chart, so that each has
// the same colour in all of them.
function pairs(one, other) {
  return [...one, ...other].sort((a, b) => byText(a.group, b.group) || a.mirror - b.mirror);
}

function plain(answer, nameOf) {
  return answer.map((one) => ({ ...one, name: nameOf(one.counter) }));
}

function rest(series) {
  return (
    series && { ...series, values: series.values.map(([time, value]) => [time, value === null ? null : 100 - value]) }
  );
}

// The metric's series, named by one of their tags; by all of them where that one does not tell them apart.
function tagged(answer, metric, key, { scale = 1, suffix, mirror }) {
  const found = answer.filter(({ counter }) => counter.startsWith(metric + "/"));
  const short = found.map(({ counter }) => tagOf(counter.slice(metric.length + 1), key));
  const series = found.map((one, index) => {
    const unique = short[index] !== undefined && short.filter((name) => name === short[index]).length === 1;
    const group = unique ? short[index] : one.counter.slice(metric.length + 1);
    const values =
      scale === 1 ? one.values : one.values.map(([time, value]) => [time, value === null ? null : value * scale]);
    return { ...one, values, mirror, group, name: suffix ? `${group} ${suffix}` : group };
  });
  return series.sort((a, b) => byText(a.group, b.group));
}

function tagOf(tags, key) {
  return tags
    .split(",")
    .find((tag) => tag.startsWith(key + "="))
    ?.slice(key.length + 1);
}

// A chart of one counter picked by hand. The type is not known here, so bytes are not called bytes per second.
function pickedSpec(counter) {
  const percent =
    /percent|\.util\b/.test(counter) || (counter.startsWith("cpu.") && !counter.startsWith("cpu.switches"));
  return {
    title: counter,
    unit: percent ? "%" : "",
    counters: [counter],
    series: (answer) => plain(answer, () => counter),
  };
}

export class HostPage {
  constructor({ name, range, picked, onChange }) {
    Object.assign(this, {
      name,
      range,
      onChange,
      picked: [...new Set(picked)].slice(0, PICKED_MAX),
      charts: [],
      requests: 0,
    });
    this.facts = h("div", { class: "facts" });
    this.alarms = new Alarms({ here: true });
    this.note = h("p", { class: "message", role: "status", hidden: true });
    this.grid = h("div", { class: "charts" });
    this.pickedGrid = h("div", { class: "charts" });
    this.ranges = h("div", { class: "segments", role: "group", "aria-label": t("range") });
    this.fillRanges();
    const crumbs = h("a", { class: "back", href: "#/" }, "‹ " + t("back"));
    const head = h("div", { class: "host-head" }, crumbs, h("h1", {}, name), this.facts, this.ranges);
    this.picker = new Picker(name, (counter) => this.pick(counter));
    this.element = h(
      "div",
      { class: "stack" },
      head,
      this.alarms.element,
      this.note,
      this.pickedGrid,
      this.grid,
      this.picker.element,
    );
    for (const spec of CHARTS)
      this.addChart({ ...spec, title: t(`chart_${spec.key}`), total: spec.stacked && t("busy") }, this.grid);
    for (const counter of this.picked) this.addPicked(counter);
    for (const { chart } of this.charts) chart.show(0, 1, [], t("loading"));
  }

  close() {
    this.closed = true;
    for (const { chart } of this.charts) chart.close();
  }

  addChart(spec, grid, onRemove) {
    const chart = new Chart({ ...spec, onRemove });
    this.charts.push({ spec, chart });
    grid.append(chart.element);
  }

  addPicked(counter) {
    this.addChart(pickedSpec(counter), this.pickedGrid, () => {
      const index = this.charts.findIndex(({ spec }) => spec.title === counter && !spec.key);
      const [{ chart }] = this.charts.splice(index, 1);
      chart.close();
      chart.element.remove();
      this.picked = this.picked.filter((one) => one !== counter);
      this.onChange(this.range, this.picked);
    });
  }

  pick(counter) {
    if (!this.picked.includes(counter) && this.picked.length < PICKED_MAX) {
      this.picked.push(counter);
      this.addPicked(counter);
      this.onChange(this.range, this.picked);
    }
    this.pickedGrid.scrollIntoView({ block: "nearest" });
  }

  fillRanges() {
    const button = (range) =>
      h(
        "button",
        { type: "button", "aria-pressed": String(range === this.range), onclick: () => this.choose(range) },
        t(`range_${range}`),
      );
    this.ranges.replaceChildren(...Object.keys(RANGES).map(button));
  }

  choose(range) {
    this.range = range;
    [...this.ranges.children].forEach((button, index) =>
      button.setAttribute("aria-pressed", String(Object.keys(RANGES)[index] === range)),
    );
    this.onChange(range, this.picked);
  }

  show(overview) {
    const host = overview.hosts.find(({ name }) => name === this.name);
    const alarms = overview.alarms.filter(({ endpoint }) => endpoint === this.name);
    this.alarms.show(alarms, alarms.length, overview.now);
    this.reporting = host !== undefined && !isSilent(host, overview);
    if (host === undefined) return this.facts.replaceChildren(h("span", { class: "badge silent" }, t("unknown_host")));
    const fact = (name, value) => h("span", { class: "fact" }, name + " ", h("b", {}, value));
    const age = h(
      "span",
      { class: "fact", title: formatTime(host.last_report_s) },
      h("span", { class: this.reporting ? "dot up" : "dot down" }),
      t("last_report") + " ",
      h("b", {}, formatAge(overview.now - host.last_report_s)),
    );
    const values = [
      ["cpu", host.cpu_busy, "%"],
      ["memory", host.mem_used_percent, "%"],
      ["load", host.load_1min, ""],
    ].filter(([, value]) => value !== null);
    this.facts.replaceChildren(age, ...values.map(([key, value, unit]) => fact(t(key), formatValue(value, unit))));
  }

  // Asks for all charts at once and draws each as its answer comes. `now` is the server's clock.
  async refresh(now) {
    const request = ++this.requests;
    const [start, end] = [now - RANGES[this.range], now];
    const empty = await Promise.all(
      this.charts.map(async ({ spec, chart }) => {
        const answer = await api.history(this.name, spec.counters, start, end);
        // A newer refresh has begun, or the page was left.
        if (this.closed || request !== this.requests) return false;
        const series = spec.series(answer);
        chart.show(
          start,
          end,
          series,
          t(this.reporting && spec.rate && answer.length > 0 ? "waiting_rate" : "no_data"),
        );
        return spec.key !== undefined && answer.length === 0;
      }),
    );
    if (this.closed || request !== this.requests) return;
    const standard = empty.filter(Boolean).length < CHARTS.length;
    this.charts.forEach(
      ({ spec, chart }, index) => (chart.element.hidden = spec.key !== undefined && standard && empty[index]),
    );
    this.grid.hidden = !standard;
    this.note.hidden = standard;
    setText(this.note, t(this.reporting ? "no_standard" : "waiting_chart"));
  }
}

// The list of all counters of the host, filled when it is opened.
class Picker {
  constructor(host, onPick) {
    Object.assign(this, { host, onPick, requests: 0 });
    this.search = h("input", {
      type: "search",
      placeholder: t("search_counters"),
      "aria-label": t("search_counters"),
      oninput: () => this.load(),
    });
    this.list = h("ul", { class: "counters" });
    this.rows = new Keyed(
      this.list,
      (counter) => counter,
      (counter) => {
        const button = h("button", { type: "button", onclick: () => onPick(counter) }, counter);
        return { element: h("li", {}, button), update: () => {} };
      },
    );
    this.note = h("p", { class: "footnote", role: "status" });
    this.element = h(
      "details",
      { class: "card", ontoggle: () => this.element.open && this.load() },
      h("summary", {}, h("h2", {}, t("all_counters"))),
      this.search,
      this.list,
      this.note,
    );
  }

  async load() {
    const request = ++this.requests;
    try {
      const { counters, total } = await api.counters(this.host, this.search.value.trim());
      if (request !== this.requests) return;
      this.rows.show(counters);
      setText(this.note, total === 0 ? t("no_counter") : `${counters.length} / ${total}`);
    } catch (error) {
      setText(this.note, error.kind === "refused" ? t("refused", { reason: error.message }) : t("no_data"));
    }
  }
}
