// Tests of the page's pure functions. The server's tests run this file when node is there: `node web/tests.mjs`.

import assert from "node:assert/strict";

process.env.TZ = "Asia/Shanghai";
// What chart.js and i18n.js touch of a browser while they are loaded.
globalThis.document = { addEventListener() {} };

const { formatAge, formatClock, formatTick, formatTime, formatValue } = await import("./format.js");
const { runs, stack, timeTicks, valueAxis } = await import("./chart.js");

function values() {
  const check = (value, unit, expected) => assert.equal(formatValue(value, unit), expected);
  check(null, "%", "–");
  check(undefined, "", "–");
  check(0, "b/s", "0 b/s");
  check(12.345, "%", "12.3 %");
  check(99.96, "%", "100 %");
  check(100, "%", "100 %");
  check(0.03449, "", "0.034");
  check(1.5, "", "1.5");
  check(999, "B/s", "999 B/s");
  check(1000, "B/s", "1 kB/s");
  check(2_500_000, "b/s", "2.5 Mb/s");
  check(1.25e10, "", "12.5 G");
  check(-2500, "", "-2.5 k");
}

function times() {
  // 2026-11-22 00:00:00 in Shanghai.
  const midnight = 1795276800;
  assert.equal(formatTick(midnight), "11-22");
  assert.equal(formatTick(midnight + 3600), "01:00");
  assert.equal(formatClock(midnight + 3661), "01:01:01");
  assert.equal(formatTime(midnight + 59), "2026-11-22 00:00:59");
  assert.equal(formatAge(-5), "0 s ago");
  assert.equal(formatAge(99), "99 s ago");
  assert.equal(formatAge(100), "2 min ago");
  assert.equal(formatAge(7200), "2 h ago");
  assert.equal(formatAge(3 * 86400), "3 d ago");
  // Ticks fall on round local times, also where those are no round UTC times.
  assert.deepEqual(
    timeTicks(midnight - 3000, midnight + 600, 6),
    [-50, -40, -30, -20, -10, 0, 10].map((n) => midnight + n * 60),
  );
  assert.deepEqual(
    timeTicks(midnight - 40_000, midnight + 40_000, 4).map((time) => formatTick(time)),
    ["18:00", "11-22", "06:00"],
  );
}

function axes() {
  const check = (rows, options, ticks) => {
    const axis = valueAxis([{ rows: rows.map((value, index) => [index, value]) }], options);
    assert.deepEqual(axis.ticks, ticks);
    assert.ok(axis.low <= ticks[0] && axis.high >= ticks[ticks.length - 1]);
    for (const value of rows)
      assert.ok(value === null || (value >= axis.low && value <= axis.high), `${value} is outside`);
  };
  check([], { unit: "" }, [0, 0.25, 0.5, 0.75, 1]);
  check([null, 3], { unit: "%", top: 10 }, [0, 2.5, 5, 7.5, 10]);
  check([97, 100], { unit: "%" }, [0, 25, 50, 75, 100]);
  check([130], { unit: "%" }, [0, 50, 100, 150]);
  check([0.1, 0.2, 0.3], { unit: "" }, [0, 0.1, 0.2, 0.3]);
  check([-30, 70], { unit: "b/s" }, [-50, -25, 0, 25, 50, 75]);
  check([-30], { unit: "" }, [-30, -20, -10, 0]);
}

function gaps() {
  const check = (rows, expected) =>
    assert.deepEqual(
      runs(rows, 60).map((run) => run.map(([time]) => time)),
      expected,
    );
  check([], []);
  check([[0, null]], []);
  check(
    [
      [0, 1],
      [60, 2],
      [120, null],
      [180, 3],
    ],
    [[0, 60], [180]],
  );
  check(
    [
      [0, 1],
      [180, 2],
    ],
    [[0], [180]],
  );
}

// A missing value counts as nothing where another series knows one, and as a gap where none does.
function stacks() {
  const one = {
    values: [
      [0, 1],
      [60, null],
      [120, null],
    ],
  };
  const other = {
    values: [
      [0, 2],
      [60, 5],
    ],
  };
  const [upper, lower] = stack([one, other]);
  assert.equal(lower.series, one);
  assert.deepEqual(lower.rows, [
    [0, 1, 0],
    [60, 0, 0],
    [120, null, 0],
  ]);
  assert.deepEqual(upper.rows, [
    [0, 3, 1],
    [60, 5, 0],
    [120, null, 0],
  ]);
}

for (const test of [values, times, axes, gaps, stacks]) {
  test();
  console.log(`${test.name}: ok`);
}
