// Format: numbers, times and ages as texts. Pure functions; the language is an argument or comes from `t`.

import { t } from "./i18n.js";

// Decimal prefixes throughout: they are what network people mean by Mb/s, and what df -H and disk vendors show.
const PREFIXES = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

// `unit` is "%", "b/s", "B/s" or "" (a plain number).
export function formatValue(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "%") return digits(value) + " %";
  const [scale, prefix] = PREFIXES.find(([scale]) => Math.abs(value) >= scale) ?? [1, ""];
  const suffix = prefix + unit;
  return digits(value / scale) + (suffix && " " + suffix);
}

// Three significant digits, but never fewer than the whole part: 0.034, 1.5, 12.3, 987, 1234.
function digits(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const decimals = size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.0995 ? 2 : 3;
  return String(Number(value.toFixed(decimals)));
}

// "14:05", or the date where a day begins.
export function formatTick(seconds) {
  const date = new Date(seconds * 1000);
  if (date.getHours() === 0 && date.getMinutes() === 0) return `${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return `${pad(date.getHours())}:${pad(date.getMinutes())}`;
}

// "2026-01-31 23:59:59", local.
export function formatTime(seconds) {
  const date = new Date(seconds * 1000);
  const day = [date.getFullYear(), pad(date.getMonth() + 1), pad(date.getDate())].join("-");
  return `${day} ${formatClock(seconds)}`;
}

export function formatClock(seconds) {
  const date = new Date(seconds * 1000);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(pad).join(":");
}

function pad(number) {
  return String(number).padStart(2, "0");
}

// "12 s ago": one unit is enough to see whether something is fresh.
export function formatAge(seconds) {
  const age = Math.max(0, Math.round(seconds));
  if (age < 100) return t("age_seconds", { n: age });
  if (age < 100 * 60) return t("age_minutes", { n: Math.round(age / 60) });
  if (age < 48 * 3600) return t("age_hours", { n: Math.round(age / 3600) });
  return t("age_days", { n: Math.round(age / 86400) });
}

export function formatCount(number) {
  return number.toLocaleString("en").replaceAll(",", "\u2009");
}

// Numbers in names count as numbers: web2 before web10.
const collator = new Intl.Collator("en", { numeric: true });

export function byText(a, b) {
  return collator.compare(a, b);
}
