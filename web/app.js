// App: which page is shown, the header, the login, and the refresh every 15 s.
//
// The address after `#` says what is shown (`#/`, `#/host/NAME?range=6h&counter=…`, `#/template/ID`, `#/expression/ID`,
// `#/login`), so that a page can be linked and the browser's back works. While the tab is hidden nothing is asked for. A
// link that the server printed at its start (`#login=SECRET`) logs in first; the secret leaves the address at once.

import * as api from "./api.js";
import { h, setText } from "./dom.js";
import { formatClock, formatCount } from "./format.js";
import { Home } from "./home.js";
import { HostPage, RANGES } from "./host.js";
import { startLanguage, switchLanguage, t } from "./i18n.js";
import { RulePage } from "./rule.js";

const REFRESH_S = 15;
// Until the first host has reported; whoever has just started the server is waiting for it.
const REFRESH_FIRST_S = 3;
const SEARCH_DELAY_MS = 200;
// Begins the address that the server prints at its start; the secret follows.
const LINK = "#login=";

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const page = { view: null, overview: null, overviewAt: 0, search: "", timer: 0, searchTimer: 0, refreshes: 0 };
let top;
// The reason why the link that led here does not log in, for the login form.
let linkProblem = "";

function start() {
  startLanguage();
  addEventListener("hashchange", () => (isLink() ? enterByLink().then(build) : show()));
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(page.timer) : refresh()));
  const skip = document.getElementById("skip");
  skip.addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  if (isLink()) enterByLink().then(build);
  else build();
}

function isLink() {
  return location.hash.startsWith(LINK);
}

async function enterByLink() {
  const secret = location.hash.slice(LINK.length);
  history.replaceState(null, "", "#/");
  try {
    await api.enter(secret);
  } catch (error) {
    const text = error.kind === "offline" ? t("offline_short") : t("refused", { reason: error.message });
    linkProblem = error.kind === "login" ? t("link_spent") : text;
  }
}

// Makes everything anew: at the start and when the language changes.
function build() {
  document.getElementById("skip").textContent = t("skip");
  top = header();
  show();
}

// The address, taken apart.
function route() {
  const [path, search = ""] = location.hash.slice(1).split("?");
  const query = new URLSearchParams(search);
  const host = path.match(/^\/host\/(.+)$/);
  if (host) {
    const range = query.get("range");
    return {
      page: "host",
      name: decode(host[1]),
      range: range in RANGES ? range : "1h",
      picked: query.getAll("counter"),
    };
  }
  const rule = path.match(/^\/(template|expression)\/(\d+)$/);
  if (rule) return { page: "rule", kind: rule[1], id: rule[2], name: `${t(rule[1])} ${rule[2]}` };
  return { page: path === "/login" ? "login" : "home" };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  const wanted = route();
  page.view?.close();
  page.view = view(wanted);
  document.title = wanted.name ? `${wanted.name} · ${t("title")}` : t("title");
  main.replaceChildren(page.view.element);
  scrollTo(0, 0);
  if (page.overview && page.view.show) page.view.show(page.overview, page.search);
  else if (wanted.page !== "login") main.replaceChildren(h("p", { class: "message", role: "status" }, t("loading")));
  refresh();
}

function view(wanted) {
  switch (wanted.page) {
    case "host":
      return hostPage(wanted);
    case "rule":
      return new RulePage(wanted);
    case "login":
      return loginPage();
    default:
      return homePage();
  }
}

function homePage() {
  const onSearch = (text) => {
    page.search = text;
    clearTimeout(page.searchTimer);
    page.searchTimer = setTimeout(refresh, SEARCH_DELAY_MS);
  };
  return new Home({ search: page.search, onSearch });
}

function hostPage({ name, range, picked }) {
  const onChange = (range, picked) => {
    const query = new URLSearchParams([
      ...(range === "1h" ? [] : [["range", range]]),
      ...picked.map((counter) => ["counter", counter]),
    ]);
    const search = query.size > 0 ? `?${query}` : "";
    // Replaced without an event: the page shows it already.
    history.replaceState(null, "", `#/host/${encodeURIComponent(name)}${search}`);
    refresh();
  };
  return new HostPage({ name, range, picked, onChange });
}

// Asks for what the page shows and shows it; then waits for the next time. A refresh that was overtaken shows nothing.
async function refresh() {
  clearTimeout(page.timer);
  if (document.hidden || !page.view.show) return;
  const mine = ++page.refreshes;
  const view = page.view;
  const overtaken = () => mine !== page.refreshes;
  try {
    const overview = await api.overview(view instanceof HostPage ? view.name : page.search);
    if (overtaken()) return;
    page.overview = overview;
    page.overviewAt = Date.now() / 1000;
    if (!main.contains(view.element)) main.replaceChildren(view.element);
    showHeader();
    view.show(overview, page.search);
    await view.refresh(overview.now);
    if (overtaken()) return;
    showReasons(overview.troubles);
  } catch (error) {
    if (overtaken()) return;
    if (error.kind === "login") return askForLogin();
    showTrouble(error);
  }
  const pause = page.overview?.hosts_total === 0 ? REFRESH_FIRST_S : REFRESH_S;
  page.timer = setTimeout(refresh, pause * 1000);
}

// What of the server does not work, as /health says it: each reason a line.
function showReasons(troubles) {
  const lines = troubles.map(({ what, why, since }) => `${what}${why && `: ${why}`} (${formatClock(since)})`);
  banner.replaceChildren(...lines.map((line) => h("p", {}, line)));
  banner.hidden = lines.length === 0;
}

function showTrouble(error) {
  // What the page's own scripts got wrong belongs in the console, with its place.
  if (!(error instanceof api.ApiError)) console.error(error);
  const text = error.kind === "offline" ? t("offline", { n: REFRESH_S }) : t("refused", { reason: error.message });
  const since = page.overview ? " " + t("offline_since", { time: formatClock(page.overviewAt) }) : "";
  setText(banner, text + since);
  banner.hidden = false;
  if (!page.overview) main.replaceChildren();
}

// Header: name, counts, language, login.

function header() {
  const stat = (key) => {
    const value = h("b", {}, "–");
    return { value, element: h("li", {}, value, " ", h("span", {}, t(key))) };
  };
  const [hosts, series, alarms] = ["hosts_reporting", "series", "open_alarms"].map(stat);
  const updated = h("span", { class: "updated" });
  const session = h("div", { class: "session" });
  const language = h(
    "button",
    {
      type: "button",
      class: "language",
      lang: t("other_language_lang"),
      title: t("other_language_hint"),
      onclick: changeLanguage,
    },
    t("other_language"),
  );
  const brand = h(
    "a",
    { class: "brand", href: "#/" },
    h("img", { src: "ui/icon.svg", alt: "", width: 28, height: 28 }),
    t("title"),
  );
  const stats = h("ul", { class: "stats", hidden: true }, hosts.element, series.element, alarms.element);
  document
    .getElementById("top")
    .replaceChildren(h("div", { class: "top-inner" }, brand, stats, updated, language, session));
  const made = { stats, hosts, series, alarms, updated, session };
  if (page.overview) showHeader(made);
  return made;
}

function showHeader({ stats, hosts, series, alarms, updated, session } = top) {
  const { overview } = page;
  stats.hidden = false;
  setText(hosts.value, `${formatCount(overview.hosts_reporting)} / ${formatCount(overview.hosts_total)}`);
  hosts.element.classList.toggle("warn", overview.hosts_reporting < overview.hosts_total);
  setText(series.value, formatCount(overview.series));
  setText(alarms.value, formatCount(overview.alarms_total));
  alarms.element.classList.toggle("bad", overview.alarms_total > 0);
  setText(updated, t("updated", { time: formatClock(page.overviewAt) }));
  if (session.dataset.user === String(overview.user)) return;
  session.dataset.user = String(overview.user);
  if (overview.user === null) return session.replaceChildren(h("a", { class: "button", href: "#/login" }, t("log_in")));
  session.replaceChildren(
    h("span", { class: "user" }, overview.user),
    h("button", { type: "button", onclick: endSession }, t("log_out")),
  );
}

function changeLanguage() {
  switchLanguage();
  build();
  document.querySelector(".language").focus();
}

// Login.

function askForLogin() {
  const ended = api.hasToken();
  api.forgetToken();
  page.overview = null;
  top = header();
  // With a token that ended the answer may still be yes without one.
  if (ended) return refresh();
  banner.hidden = true;
  const form = loginForm(linkProblem || t("login_needed"));
  linkProblem = "";
  main.replaceChildren(form);
  form.querySelector("input").focus();
}

function loginPage() {
  return { element: loginForm(), close() {} };
}

function loginForm(reason) {
  const field = (key, props) => {
    const input = h("input", {
      id: `login-${key}`,
      name: key,
      required: true,
      autocapitalize: "none",
      spellcheck: "false",
      ...props,
    });
    return [h("label", { for: input.id }, t(key)), input];
  };
  const name = field("name", { autocomplete: "username" });
  const password = field("password", { type: "password", autocomplete: "current-password" });
  const problem = h("p", { class: "problem", role: "alert" }, "");
  const button = h("button", { type: "submit", class: "button primary" }, t("log_in"));
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await api.login(name[1].value, password[1].value);
      if (location.hash === "#/login") location.hash = "#/";
      else show();
    } catch (error) {
      const wrong = ["no such user", "password error"].includes(error.message);
      const text = error.kind === "offline" ? t("offline_short") : t("refused", { reason: error.message });
      setText(problem, wrong ? t("login_wrong") : text);
      password[1].select();
    } finally {
      button.disabled = false;
    }
  };
  const form = h(
    "form",
    { class: "card login", onsubmit: submit },
    h("h1", {}, t("log_in")),
    reason && h("p", {}, reason),
    ...name,
    ...password,
    problem,
    button,
    h("p", { class: "footnote" }, t("login_hint")),
  );
  return form;
}

async function endSession() {
  try {
    await api.logout();
  } catch {
    // The server may be away or have ended the session itself; here it is over in any case.
  }
  page.overview = null;
  build();
}

start();
