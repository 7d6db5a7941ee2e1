// Home: the open alarms and the table of hosts.

import { h, Keyed, setText } from "./dom.js";
import { byText, formatAge, formatCount, formatTime } from "./format.js";
import { t } from "./i18n.js";

export function hostLink(name, counter) {
  return `#/host/${encodeURIComponent(name)}` + (counter ? `?${new URLSearchParams({ counter })}` : "");
}

// The table of open alarms; `here` leaves out the endpoint, which the page of a host has in its title.
export class Alarms {
  constructor({ here = false } = {}) {
    this.here = here;
    const heads = ["priority", ...(here ? [] : ["host"]), "counter", "condition", "note", "since"];
    this.body = h("tbody", {});
    this.rows = new Keyed(
      this.body,
      (alarm) => alarm.id,
      (alarm) => this.row(alarm),
    );
    this.table = h(
      "table",
      { class: "alarms" },
      h("thead", {}, h("tr", {}, ...heads.map((key) => h("th", { scope: "col" }, t(key))))),
      this.body,
    );
    this.none = h(
      "p",
      { class: "calm" },
      h("span", { class: "dot up", "aria-hidden": "true" }),
      t(here ? "no_alarms_here" : "no_alarms"),
    );
    this.count = h("span", { class: "count" });
    this.unheard = h("div", { class: "unheard", role: "status", hidden: true });
    this.more = h("p", { class: "footnote" });
    this.element = h(
      "section",
      { class: "card", "aria-label": t("alarms") },
      h("div", { class: "card-head" }, h("h2", {}, t("alarms")), this.count),
      this.unheard,
      this.none,
      this.table,
      this.more,
    );
  }

  show(alarms, total, now) {
    this.now = now;
    this.rows.show(alarms);
    this.element.classList.toggle("quiet", alarms.length === 0);
    this.none.hidden = alarms.length > 0;
    this.table.hidden = alarms.length === 0;
    setText(this.count, total > 0 ? formatCount(total) : "");
    this.more.hidden = total <= alarms.length;
    setText(this.more, `${formatCount(alarms.length)} / ${formatCount(total)}`);
  }

  // That nobody hears of alarms: no way to people is configured, or some alarms told nobody.
  showUnheard({ no_gateway: noGateway, alarms_untold: untold }) {
    const lines = [noGateway && t("no_gateway"), untold > 0 && t("alarms_untold", { n: formatCount(untold) })];
    this.unheard.replaceChildren(...lines.filter(Boolean).map((line) => h("p", {}, line)));
    this.unheard.hidden = !lines.some(Boolean);
  }

  row(alarm) {
    const priority = h("td", { class: "tight" });
    const counter = h("a", { href: hostLink(alarm.endpoint, alarm.counter) }, alarm.counter);
    const condition = h("td", { class: "condition" });
    const note = h("td", { class: "note" });
    const since = h("td", { class: "tight age" });
    const endpoint = this.here
      ? null
      : h("td", { class: "strong" }, h("a", { href: hostLink(alarm.endpoint) }, alarm.endpoint));
    const element = h("tr", {}, priority, endpoint, h("td", { class: "code" }, counter), condition, note, since);
    const update = (alarm) => {
      const badge = h("span", { class: `badge p${Math.min(alarm.priority, 6)}` }, `P${alarm.priority}`);
      priority.replaceChildren(badge, h("span", { class: "status" }, alarm.status));
      condition.replaceChildren(
        h("span", { class: "code" }, alarm.func),
        " ",
        h("span", { class: "code" }, alarm.cond),
      );
      note.replaceChildren(alarm.note, ...(alarm.told ? [h("div", { class: "told" }, alarm.told)] : []));
      setText(since, alarm.since === null ? "–" : formatAge(this.now - alarm.since));
      since.title = alarm.since === null ? "" : formatTime(alarm.since);
    };
    return { element, update };
  }
}

// Silent hosts and unknown values come last, whichever way the rest is sorted.
const COLUMNS = [
  { key: "host", value: (host) => host.name },
  { key: "last_report", value: (host) => host.last_report_s },
  { key: "cpu", value: (host) => host.cpu_busy },
  { key: "memory", value: (host) => host.mem_used_percent },
  { key: "load", value: (host) => host.load_1min },
];

const ODD = {
  clock_ahead: "odd_clock_ahead",
  unreadable_time: "odd_unreadable_time",
  two_senders: "odd_two_senders",
};

// Senders whose points are not what they seem: a clock that is ahead, times in no known unit, two machines of one name.
class OddSenders {
  constructor() {
    this.body = h("tbody", {});
    this.rows = new Keyed(
      this.body,
      (odd) => `${odd.what} ${odd.endpoint}`,
      (odd) => this.row(odd),
    );
    const heads = ["host", "odd_what", "odd_detail", "odd_address", "odd_last"];
    this.element = h(
      "section",
      { class: "card", "aria-label": t("odd_senders") },
      h("div", { class: "card-head" }, h("h2", {}, t("odd_senders"))),
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ...heads.map((key) => h("th", { scope: "col" }, t(key))))),
        this.body,
      ),
    );
  }

  show(odd, now) {
    this.now = now;
    this.element.hidden = odd.length === 0;
    this.rows.show(odd);
  }

  row(odd) {
    const detail = h("td", { class: "note" });
    const address = h("td", { class: "tight code" });
    const last = h("td", { class: "tight age" });
    const name = h("td", { class: "strong" }, h("a", { href: hostLink(odd.endpoint) }, odd.endpoint));
    const element = h("tr", {}, name, h("td", {}, t(ODD[odd.what])), detail, address, last);
    const update = (odd) => {
      setText(detail, odd.detail);
      setText(address, odd.address ?? "–");
      setText(last, formatAge(this.now - odd.last));
      last.title = formatTime(odd.last);
    };
    return { element, update };
  }
}

export class Home {
  constructor({ search, onSearch }) {
    this.sort = { column: COLUMNS[0], down: false };
    this.alarms = new Alarms();
    this.odd = new OddSenders();
    this.body = h("tbody", {});
    this.rows = new Keyed(
      this.body,
      (host) => host.name,
      (host) => this.row(host),
    );
    this.search = h("input", {
      type: "search",
      placeholder: t("search_hosts"),
      "aria-label": t("search_hosts"),
      value: search,
      oninput: () => onSearch(this.search.value.trim()),
    });
    this.heads = COLUMNS.map((column) =>
      h(
        "th",
        { scope: "col", class: column.key === "host" ? null : "number" },
        h("button", { type: "button", onclick: () => this.sortBy(column) }, t(column.key)),
      ),
    );
    this.table = h("table", { class: "hosts" }, h("thead", {}, h("tr", {}, ...this.heads)), this.body);
    this.empty = h("div", { class: "message", role: "status" });
    this.count = h("span", { class: "count" });
    this.more = h("p", { class: "footnote" });
    const head = h("div", { class: "card-head" }, h("h2", {}, t("hosts")), this.count, this.search);
    this.element = h(
      "div",
      { class: "stack" },
      this.alarms.element,
      this.odd.element,
      h("section", { class: "card", "aria-label": t("hosts") }, head, this.table, this.empty, this.more),
    );
  }

  close() {}

  refresh() {}

  sortBy(column) {
    // Names read upwards from a, values are looked at from the largest down.
    this.sort = { column, down: column === this.sort.column ? !this.sort.down : column.key !== "host" };
    if (this.overview) this.show(this.overview, this.search.value.trim());
  }

  show(overview, search) {
    this.overview = overview;
    this.alarms.show(overview.alarms, overview.alarms_total, overview.now);
    this.odd.show(overview.odd_senders, overview.now);
    this.alarms.showUnheard(overview);
    this.rows.show(this.sorted(overview.hosts));
    COLUMNS.forEach((column, index) => {
      const direction = this.sort.down ? "descending" : "ascending";
      if (column === this.sort.column) this.heads[index].setAttribute("aria-sort", direction);
      else this.heads[index].removeAttribute("aria-sort");
    });
    setText(this.count, overview.hosts_total > 0 ? formatCount(overview.hosts_total) : "");
    this.search.hidden = overview.hosts_total === 0;
    this.table.hidden = overview.hosts.length === 0;
    this.showEmpty(overview, search);
    this.more.hidden = overview.hosts_matched <= overview.hosts.length;
    setText(
      this.more,
      t("shown_of", { shown: formatCount(overview.hosts.length), total: formatCount(overview.hosts_matched) }),
    );
  }

  showEmpty(overview, search) {
    this.empty.hidden = overview.hosts.length > 0;
    if (overview.hosts.length > 0) return;
    if (overview.hosts_total > 0) return this.empty.replaceChildren(h("p", {}, t("no_match", { q: search })));
    this.empty.replaceChildren(
      h("div", { class: "pulse", "aria-hidden": "true" }),
      h("p", { class: "strong" }, t("waiting_title")),
      h("p", {}, t("waiting_text")),
    );
  }

  sorted(hosts) {
    const { column, down } = this.sort;
    const sign = down ? -1 : 1;
    const compare = (a, b) => {
      const [x, y] = [column.value(a), column.value(b)];
      if (x === null || y === null) return (x === null) - (y === null) || byName(a, b);
      if (typeof x === "string") return sign * byName(a, b);
      return sign * (x - y) || byName(a, b);
    };
    return [...hosts].sort(compare);
  }

  row(host) {
    const dot = h("span", { class: "dot" });
    const silent = h("span", { class: "badge silent" }, t("silent"));
    const age = h("td", { class: "number age", "data-label": t("last_report") });
    const cpu = meter(t("cpu"));
    const memory = meter(t("memory"));
    const load = h("td", { class: "number", "data-label": t("load") });
    const name = h("td", { class: "strong" }, dot, h("a", { href: hostLink(host.name) }, host.name), silent);
    const element = h("tr", {}, name, age, cpu.element, memory.element, load);
    const update = (host) => {
      const away = isSilent(host, this.overview);
      element.classList.toggle("away", away);
      dot.className = away ? "dot down" : "dot up";
      silent.hidden = !away;
      silent.title = t("silent_hint", { n: this.overview.silent_after_s / 60 });
      setText(age, formatAge(this.overview.now - host.last_report_s));
      age.title = formatTime(host.last_report_s);
      cpu.update(host.cpu_busy);
      memory.update(host.mem_used_percent);
      setText(load, fixed(host.load_1min, 2));
    };
    return { element, update };
  }
}

export function isSilent(host, overview) {
  return overview.now - host.last_report_s > overview.silent_after_s;
}

function byName(a, b) {
  return byText(a.name, b.name);
}

// The same number of decimals in a whole column, so that the eye can compare.
function fixed(value, decimals) {
  return value === null ? "–" : value.toFixed(decimals);
}

// A percentage with a bar; the bar repeats the text and is hidden from screen readers.
function meter(label) {
  const text = h("span", { class: "meter-text" });
  const fill = h("i", {});
  const bar = h("span", { class: "meter", "aria-hidden": "true" }, fill);
  const element = h("td", { class: "number", "data-label": label }, h("span", { class: "metered" }, bar, text));
  const update = (percent) => {
    setText(text, percent === null ? "–" : `${fixed(percent, 1)} %`);
    bar.hidden = percent === null;
    fill.style.width = `${Math.min(100, Math.max(0, percent ?? 0))}%`;
    fill.className = percent >= 90 ? "high" : percent >= 75 ? "raised" : "";
  };
  return { element, update };
}
