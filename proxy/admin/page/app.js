// The status page: asks the router once a second and shows what it says. It only reads.

import { Branch } from "./branch.js";
import { byId, h, reconcile, setAttribute, setClass, setText } from "./dom.js";
import { Events } from "./events.js";
import { startKeys } from "./keys.js";
import { FleetList } from "./list.js";
import * as net from "./net.js";
import { startTheme } from "./theme.js";
import { clock, number, plural, span } from "./words.js";

const EVERY_MS = 1000;
const SLOWEST_MS = 4000; // between attempts while the router does not answer
const TYPING_MS = 120;
const CERTIFICATE_DAYS = 14;

const search = byId("search");
const list = new FleetList(byId("list"), { select: choose, window: () => soon(60) });
const branch = new Branch(byId("branch"));
const events = new Events(byId("events"), { select: (name) => list.select(name) });

const known = { overview: null, status: null, of: "" }; // the last answers
let answeredAt = 0; // when the router last answered
let lostSince = 0; // that, once it does not any more
let failures = 0;
let timer = 0;
let asking = false;
let again = false; // something else was wanted while asking

// ---- asking ----

function soon(ms) {
  clearTimeout(timer);
  timer = setTimeout(ask, ms);
}

async function ask() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  again = false;
  const wanted = list.selected;
  try {
    const [overview, status] = await Promise.all([net.overview({ search: search.value.trim(), ...list.window() }), wanted ? net.status(wanted) : null]);
    let news = null;
    if (events.restarted(overview.started_unix_ms) || overview.last_event > events.last || events.last === 0) news = await net.events(events.last);
    found();
    take(overview, wanted, status, news);
  } catch (error) {
    lost(error);
  }
  asking = false;
  if (again) soon(0);
  else if (!document.hidden) soon(failures === 0 ? EVERY_MS : Math.min(SLOWEST_MS, EVERY_MS * failures));
}

function take(overview, wanted, status, news) {
  known.overview = overview;
  list.take(overview, search.value.trim() !== "");
  if (news) events.take(news);
  paintFigures(overview);
  paintNotices();
  if (!list.selected && overview.rows.length > 0 && search.value === "") {
    list.select(overview.rows[0].name); // the first is the one in trouble, if any is
    return;
  }
  if (wanted !== list.selected) return; // another one was chosen meanwhile
  Object.assign(known, { status, of: wanted });
  if (wanted) branch.take(wanted, status, overview, events.all);
}

function found() {
  failures = 0;
  answeredAt = Date.now();
  lostSince = 0;
  setClass(document.body, "lost", false);
  setText(byId("pulse-text"), "live");
}

function lost(error) {
  failures += 1;
  console.info("the router does not answer:", error.message);
  if (failures < 2 && error.name !== "AbortError") return; // one connection that breaks is no news, silence is
  lostSince = lostSince || answeredAt || Date.now();
  setClass(document.body, "lost", true);
  setText(byId("pulse-text"), "no answer");
  paintNotices();
}

// ---- showing ----

function paintFigures(overview) {
  const { branches } = overview;
  const figures = [
    ["branches", number(branches.configured), ""],
    ["in use", number(branches.active), ""],
    ["errors", number(branches.error), branches.error > 0 ? "error" : ""],
    ["warnings", number(branches.warning), branches.warning > 0 ? "warning" : ""],
    ["sessions", `${number(overview.sessions)} of ${number(overview.max_connections)}`, overview.sessions > 0.9 * overview.max_connections ? "warning" : ""],
    ["held logins", number(overview.holding), overview.holding > 0 ? "warning" : ""],
    ["version", overview.version, ""],
    ["up", span((Date.now() - overview.started_unix_ms) / 1000), ""],
  ];
  reconcile(byId("figures"), figures, {
    key: ([name]) => name,
    create: () => h("div", {}, h("dt"), h("dd")),
    update: (element, [name, value, tone]) => {
      setAttribute(element, "class", tone);
      setText(element.firstElementChild, name);
      setText(element.lastElementChild, value);
    },
  });
  setText(byId("matching"), search.value.trim() ? plural(overview.matching, "match", "matches") : "");
}

function noticesOf(overview) {
  const notices = [];
  if (lostSince) {
    const what = overview ? "What you see is from then." : "Nothing is known of it yet.";
    notices.push(["lost", "error", `The router has not answered since ${clock(lostSince)}. ${what} Asking again.`]);
  }
  if (!overview) return notices;
  if (overview.draining) notices.push(["draining", "warning", `This router is draining: it takes no new logins and ends sessions that are idle. ${plural(overview.sessions, "session")} left.`]);
  else if (!overview.listening) notices.push(["closed", "warning", "This router does not listen for clients yet."]);
  const { rejected_branches: rejected, failed_reloads: failed } = overview.config;
  if (rejected > 0) notices.push(["rejected", "error", `${plural(rejected, "branch", "branches")} of the configuration ${rejected === 1 ? "is" : "are"} rejected and kept as before: pointsman check says why.`]);
  const days = (overview.certificate_not_after * 1000 - Date.now()) / 86400e3;
  if (overview.certificate_not_after > 0 && days < CERTIFICATE_DAYS) {
    notices.push(["certificate", days < 3 ? "error" : "warning", days < 0 ? "The certificate that clients see has expired." : `The certificate that clients see expires in ${span(days * 86400)}.`]);
  }
  if (failed > 0) notices.push(["reload", "note", `${plural(failed, "reload")} failed since the start; the events and the log say why.`]);
  return notices;
}

function paintNotices() {
  reconcile(byId("notices"), noticesOf(known.overview), {
    key: ([name]) => name,
    create: () => h("p"),
    update: (element, [, tone, text]) => {
      setAttribute(element, "class", `notice ${tone}`);
      setText(element, text);
    },
  });
}

// ---- choosing ----

/// The list has another branch selected.
function choose(name) {
  const hash = `#${encodeURIComponent(name)}`;
  if (location.hash !== hash) history.replaceState(null, "", hash);
  document.title = name ? `${name} · Pointsman` : "Pointsman";
  if (known.of !== name) branch.begin(name);
  if (eventsOfOne) events.only(name);
  soon(40);
}

function fromHash() {
  let name = "";
  try {
    name = decodeURIComponent(location.hash.slice(1));
  } catch {
    return; // not one of ours
  }
  if (name && name !== "branch" && name !== list.selected) list.select(name);
}

let eventsOfOne = false;

function showEventsOf(one) {
  eventsOfOne = one;
  setAttribute(byId("news-one"), "aria-pressed", one);
  setAttribute(byId("news-all"), "aria-pressed", !one);
  events.only(one ? list.selected : "");
}

// ---- searching ----

const filters = [...document.querySelectorAll("button[data-filter]")];

function paintFilters() {
  const words = search.value.split(" ");
  const active = filters.find((button) => button.dataset.filter && words.includes(button.dataset.filter)) ?? filters[0];
  for (const button of filters) setAttribute(button, "aria-pressed", button === active);
}

function searched() {
  paintFilters();
  list.rewind();
  soon(TYPING_MS);
}

function clearSearch() {
  search.value = "";
  searched();
}

for (const button of filters) {
  button.addEventListener("click", () => {
    const words = search.value.split(" ").filter((word) => word && !word.startsWith("is:"));
    search.value = [button.dataset.filter, ...words].filter(Boolean).join(" ");
    searched();
  });
}

search.addEventListener("input", searched);
byId("news-all").addEventListener("click", () => showEventsOf(false));
byId("news-one").addEventListener("click", () => showEventsOf(true));
byId("help-open").addEventListener("click", () => byId("help").showModal());
addEventListener("hashchange", fromHash);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : soon(0)));

const nextTheme = startTheme(byId("theme"));
startKeys({ list, search, branch: byId("branch"), help: byId("help"), clearSearch, nextTheme, toggleEvents: () => showEventsOf(!eventsOfOne) });
fromHash();
ask();
