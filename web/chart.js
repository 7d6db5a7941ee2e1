// Chart: series over time as SVG, with axes, gaps, a legend that switches series, and a cursor all charts share.
//
// Why our own: a page without a build step or vendored code; what monitoring needs of a chart is this much.
// How: the plot is drawn anew for each refresh and each change of width; moving the cursor only moves a line and dots
// and writes the values at that time into the legend, where a finger does not cover them. Colours are in style.css.
// Invariant: where a value is null or rows are missing nothing is drawn: a line across a gap would claim to know.

import { h, svg, setText } from "./dom.js";
import { formatTick, formatTime, formatValue } from "./format.js";
import { t } from "./i18n.js";

const HEIGHT = 176;
const MARGIN = { top: 10, right: 18, bottom: 22, left: 62 };
// Time ticks fall on multiples of these, in local time.
const TICK_STEPS_S = [1, 2, 5, 10, 15, 30]
  .map((n) => n * 60)
  .concat([1, 2, 3, 4, 6, 12, 24, 48, 168].map((n) => n * 3600));
const TICK_WIDTH_MIN = 62;
const COLOURS = 8;

// Every chart on the page; they show the same time.
const charts = new Set();
let cursorTime = null;

function moveCursor(time) {
  cursorTime = time;
  for (const chart of charts) chart.showCursor();
}

// A touch leaves the cursor where it was; the next touch outside takes it away.
document.addEventListener("pointerdown", (event) => {
  if (cursorTime !== null && !event.target.closest(".plot")) moveCursor(null);
});

export class Chart {
  // options: title, unit, stacked, total (name of the stack's sum), top (the axis reaches at least this), onRemove.
  // Series given to `show`: { name, values: [[time, value | null]…], step, mirror (drawn downwards), off (at first) }.
  constructor(options) {
    Object.assign(this, { options, series: [], start: 0, end: 1, message: null, switched: new Map(), width: 0 });
    this.time = h("span", { class: "chart-time" });
    this.plot = h("div", {
      class: "plot",
      tabindex: 0,
      role: "img",
      onpointermove: (e) => this.point(e),
      onpointerdown: (e) => this.point(e),
      onpointerleave: (e) => e.pointerType === "mouse" && moveCursor(null),
      onkeydown: (e) => this.key(e),
      onblur: () => moveCursor(null),
    });
    this.legend = h("ul", { class: /[bB]/.test(options.unit) ? "legend wide" : "legend" });
    this.spoken = h("span", { class: "hidden", "aria-live": "polite" });
    const remove =
      options.onRemove &&
      h(
        "button",
        {
          class: "icon",
          type: "button",
          title: t("remove"),
          "aria-label": `${t("remove")}: ${options.title}`,
          onclick: options.onRemove,
        },
        "×",
      );
    const head = h("figcaption", {}, h("h3", {}, options.title), this.time, remove);
    this.element = h("figure", { class: "card chart" }, head, this.plot, this.legend, this.spoken);
    this.plot.setAttribute("aria-label", `${options.title}. ${t("chart_keys")}`);
    this.observer = new ResizeObserver(([entry]) => {
      this.width = Math.floor(entry.contentRect.width);
      this.draw();
    });
    this.observer.observe(this.plot);
    charts.add(this);
  }

  close() {
    this.observer.disconnect();
    charts.delete(this);
  }

  // `message` stands in the plot where there is nothing to draw.
  show(start, end, series, message) {
    const colours = new Map();
    for (const one of series) {
      const group = one.group ?? one.name;
      if (!colours.has(group)) colours.set(group, colours.size % COLOURS);
      one.colour = colours.get(group);
    }
    const anything = series.some((one) => one.values.some(([, value]) => value !== null));
    Object.assign(this, { start, end, series, message: anything ? null : message });
    this.fillLegend();
    this.draw();
  }

  isOn(series) {
    return this.switched.get(series.name) ?? !series.off;
  }

  fillLegend() {
    // Same series as before: keep the buttons, one of them may have the focus.
    const names = this.series.map((one) => one.name + one.colour).join("\n");
    if (names === this.legendNames) return;
    this.legendNames = names;
    this.values = this.series.map(() => h("span", { class: "value" }));
    this.totalValue = h("span", { class: "value" });
    const total = this.options.total && h("li", { class: "total" }, this.options.total, this.totalValue);
    const items = this.series.map((one, index) => this.legendItem(one, this.values[index]));
    this.legend.replaceChildren(...(total ? [total] : []), ...items);
  }

  legendItem(series, value) {
    const { name, mirror, colour } = series;
    const toggle = () => {
      this.switched.set(name, !this.isOn(series));
      this.draw();
    };
    const swatch = h("i", { class: `swatch c${colour}${mirror ? " mirror" : ""}` });
    return h(
      "li",
      {},
      h("button", { type: "button", onclick: toggle }, swatch, h("span", { class: "name" }, name), value),
    );
  }

  draw() {
    if (this.width < 80) return;
    this.shown = this.series.filter((one) => this.isOn(one));
    const lines = this.options.stacked
      ? stack(this.shown)
      : this.shown.map((one) => ({
          series: one,
          rows: one.values.map(([time, value]) => [time, value === null ? null : one.mirror ? -value : value, 0]),
        }));
    const { ticks, low, high } = valueAxis(lines, this.options);
    const right = this.width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    this.x = (time) => MARGIN.left + ((time - this.start) / (this.end - this.start)) * (right - MARGIN.left);
    this.y = (value) => bottom - ((value - low) / (high - low)) * (bottom - MARGIN.top);
    this.lines = lines;
    this.cursor = svg("g", { class: "cursor" });
    const picture = svg(
      "svg",
      { width: this.width, height: HEIGHT, "aria-hidden": "true" },
      this.drawAxes(ticks, right, bottom),
      ...lines.map((line) => this.drawLine(line)),
      this.cursor,
    );
    const note = this.message && h("p", { class: "plot-message" }, this.message);
    this.plot.replaceChildren(picture, ...(note ? [note] : []));
    this.showCursor();
  }

  drawAxes(ticks, right, bottom) {
    const group = svg("g", { class: "axes" });
    for (const value of ticks) {
      const y = Math.round(this.y(value)) + 0.5;
      group.append(svg("line", { class: value === 0 ? "zero" : null, x1: MARGIN.left, x2: right, y1: y, y2: y }));
      group.append(
        svg(
          "text",
          { x: MARGIN.left - 8, y: y + 3.5, "text-anchor": "end" },
          formatValue(Math.abs(value), this.options.unit),
        ),
      );
    }
    for (const time of timeTicks(this.start, this.end, (right - MARGIN.left) / TICK_WIDTH_MIN)) {
      const x = Math.round(this.x(time)) + 0.5;
      group.append(svg("line", { class: "tick", x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
      group.append(svg("text", { x, y: bottom + 16, "text-anchor": "middle" }, formatTick(time)));
    }
    return group;
  }

  // One path per run of known rows; a run of a single row is a dot.
  drawLine({ series, rows }) {
    const group = svg("g", { class: `line c${series.colour}${this.options.stacked ? " stacked" : ""}` });
    const filled = this.options.stacked || this.shown.length === 1 || series.mirror !== undefined;
    for (const run of runs(rows, series.step)) {
      const at = ([time, value]) => `${round(this.x(time))} ${round(this.y(value))}`;
      if (run.length === 1) {
        group.append(svg("circle", { cx: round(this.x(run[0][0])), cy: round(this.y(run[0][1])), r: 2.5 }));
        continue;
      }
      const upper = "M" + run.map(at).join("L");
      const lower = run
        .toReversed()
        .map(([time, , base]) => `L${round(this.x(time))} ${round(this.y(base))}`)
        .join("");
      if (filled) group.append(svg("path", { class: "area", d: `${upper}${lower}Z` }));
      group.append(svg("path", { class: "stroke", d: upper }));
    }
    return group;
  }

  // Writes the values at the cursor, or the newest ones, into the legend.
  showCursor() {
    if (!this.x) return;
    const inside = cursorTime !== null && cursorTime >= this.start && cursorTime <= this.end && !this.message;
    const rows = this.series.map((one) => (inside ? rowAt(one, cursorTime) : newestRow(one)));
    this.series.forEach((one, index) => {
      setText(this.values[index], formatValue(rows[index]?.[1], this.options.unit));
      this.values[index].parentElement.setAttribute("aria-pressed", String(this.isOn(one)));
    });
    if (this.options.total) {
      const known = rows.filter((row, index) => row && row[1] !== null && this.isOn(this.series[index]));
      setText(
        this.totalValue,
        formatValue(known.length ? known.reduce((sum, row) => sum + row[1], 0) : null, this.options.unit),
      );
    }
    this.cursor.replaceChildren();
    setText(this.time, inside ? formatTime(cursorTime) : "");
    if (!inside) return;
    const x = Math.round(this.x(cursorTime)) + 0.5;
    this.cursor.append(svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    for (const { series, rows: drawn } of this.lines) {
      const row = rowAt({ values: drawn, step: series.step }, cursorTime);
      if (row && row[1] !== null)
        this.cursor.append(
          svg("circle", { class: `c${series.colour}`, cx: round(this.x(row[0])), cy: round(this.y(row[1])), r: 3.5 }),
        );
    }
  }

  // The cursor snaps to the rows of the finest series, so that all charts read the same moment.
  point(event) {
    if (!this.x || this.message) return;
    const left = this.plot.getBoundingClientRect().left;
    const share = (event.clientX - left - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right);
    this.snap(this.start + Math.min(1, Math.max(0, share)) * (this.end - this.start));
  }

  snap(time) {
    const step = this.step();
    const snapped = Math.round(time / step) * step;
    moveCursor(Math.min(Math.floor(this.end / step) * step, Math.max(Math.ceil(this.start / step) * step, snapped)));
  }

  step() {
    return Math.min(...this.series.map((one) => one.step), 3600);
  }

  key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
    if (event.key === "Escape") return moveCursor(null);
    if (!(event.key in moves) || this.message || this.series.length === 0) return;
    event.preventDefault();
    this.snap((cursorTime ?? this.end) + moves[event.key] * this.step());
    const values = this.series.map(
      (one) => `${one.name} ${formatValue(rowAt(one, cursorTime)?.[1], this.options.unit)}`,
    );
    setText(this.spoken, `${formatTime(cursorTime)}: ${values.join(", ")}`);
  }
}

function round(pixels) {
  return Math.round(pixels * 10) / 10;
}

// Rows [time, upper, lower] of series laid on each other. A time at which no series knows anything stays a gap.
export function stack(series) {
  const times = [...new Set(series.flatMap((one) => one.values.map(([time]) => time)))].sort((a, b) => a - b);
  const base = new Map(times.map((time) => [time, 0]));
  const known = new Set(
    series.flatMap((one) => one.values.filter(([, value]) => value !== null).map(([time]) => time)),
  );
  const lines = series.map((one) => {
    const values = new Map(one.values);
    const rows = times.map((time) => {
      const lower = base.get(time);
      const upper = lower + (values.get(time) ?? 0);
      base.set(time, upper);
      return known.has(time) ? [time, upper, lower] : [time, null, 0];
    });
    return { series: one, rows };
  });
  // The uppermost first, so that lower ones are drawn over it.
  return lines.reverse();
}

// Splits rows at nulls and where more than one row is missing.
export function runs(rows, step) {
  const found = [];
  let run = [];
  for (const row of rows) {
    const apart = run.length > 0 && row[0] - run[run.length - 1][0] > 1.5 * step;
    if ((row[1] === null || apart) && run.length > 0) {
      found.push(run);
      run = [];
    }
    if (row[1] !== null) run.push(row);
  }
  return run.length > 0 ? [...found, run] : found;
}

// Round ticks that hold all values and zero; a percentage ends at 100.
export function valueAxis(lines, { unit, top }) {
  let [least, most] = [0, 0];
  for (const { rows } of lines) {
    for (const [, value] of rows) {
      if (value === null) continue;
      least = Math.min(least, value);
      most = Math.max(most, value);
    }
  }
  most = Math.max(most, least === 0 || most > 0 ? (top ?? 0) : 0);
  if (most === least) most = least + 1;
  const step = niceStep((most - least) / 4);
  const low = Math.floor(least / step + 1e-9) * step;
  let high = Math.ceil(most / step - 1e-9) * step;
  if (unit === "%" && most <= 100.5) high = Math.min(high, 100);
  const ticks = Array.from({ length: Math.floor((high - low) / step + 1e-9) + 1 }, (_, index) =>
    Number((low + index * step).toPrecision(12)),
  );
  return { ticks, low, high };
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= least * (1 - 1e-9));
}

export function timeTicks(start, end, count) {
  const step = TICK_STEPS_S.find((s) => (end - start) / s <= count) ?? TICK_STEPS_S[TICK_STEPS_S.length - 1];
  const offset = new Date(end * 1000).getTimezoneOffset() * 60;
  const ticks = [];
  for (let time = Math.ceil((start - offset) / step) * step + offset; time <= end; time += step) ticks.push(time);
  return ticks;
}

// The row nearest to `time`, if it is at most one step away.
function rowAt({ values, step }, time) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle][0] < time) low = middle + 1;
    else high = middle;
  }
  const near = [values[low - 1], values[low]]
    .filter(Boolean)
    .sort((a, b) => Math.abs(a[0] - time) - Math.abs(b[0] - time))[0];
  return near && Math.abs(near[0] - time) <= step ? near : undefined;
}

function newestRow({ values }) {
  return values.findLast(([, value]) => value !== null);
}
