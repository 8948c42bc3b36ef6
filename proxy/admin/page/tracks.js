// The way of a connection, drawn as a signal box draws it: one line in, a ladder of points, and the track that is set
// to the primary. Destinations keep their places; at a failover the line moves.

import { h, reconcile, setAttribute, setClass, setText, svg } from "./dom.js";
import { bytes, number, plural, seconds } from "./words.js";

const CORNER = 11; // of a track that turns, in pixels
const OVER = 1.25; // the scale of a lag bar ends a quarter beyond the limit

export class Tracks {
  constructor() {
    this.listeners = h("ul", { class: "listeners" });
    this.sessions = h("strong");
    this.sessionsWord = h("span");
    this.held = h("p", { class: "held", hidden: true });
    this.clients = h("div", { class: "station clients" }, h("h3", {}, "Clients"), this.listeners);
    this.router = h("div", { class: "station router" }, h("h3", {}, "Pointsman"), h("p", { class: "big" }, this.sessions, " ", this.sessionsWord), this.held);
    this.ends = h("ul", { class: "ends" });
    this.lines = svg("g");
    this.rails = svg("svg", { class: "rails", "aria-hidden": "true" }, this.lines);
    this.root = h("div", { class: "path", role: "group", "aria-label": "Topology: clients, router, destinations" }, this.rails, this.clients, this.router, this.ends);
    this.drawn = [];
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  take(status, listeners) {
    reconcile(this.listeners, listeners, {
      key: (listener) => listener.name,
      create: () => h("li"),
      update: (element, listener) => {
        setText(element, `:${listener.port}`);
        setAttribute(element, "title", `${listener.name}, ${listener.mode}`);
        setClass(element, "pooled", listener.mode === "pooled");
      },
    });
    const ends = destinations(status);
    const total = ends.reduce((sum, end) => sum + end.sessions, 0);
    setText(this.sessions, number(total));
    setText(this.sessionsWord, total === 1 ? "session" : "sessions");
    const waiting = status.on_hold || status.holding > 0;
    this.held.hidden = !waiting;
    setText(this.held, status.holding > 0 ? `${plural(status.holding, "login")} held` : "on hold");
    reconcile(this.ends, ends, { key: (end) => end.key, create: newEnd, update: paintEnd });
    this.drawn = ends;
    this.stopped = waiting;
    this.draw();
  }

  /// From what the browser has laid out.
  draw() {
    const frame = this.rails.getBoundingClientRect();
    if (frame.width === 0) return;
    const from = this.router.getBoundingClientRect();
    const clients = this.clients.getBoundingClientRect();
    const x0 = from.right - frame.left;
    const y0 = from.top + from.height / 2 - frame.top;
    const items = [{ key: "in", x0: clients.right - frame.left, x1: from.left - frame.left, y0, y1: y0, kind: "in", sessions: 0 }];
    for (const end of this.drawn) {
      const element = [...this.ends.children].find((child) => child.dataset.key === end.key);
      const box = element.getBoundingClientRect();
      items.push({ key: end.key, x0, y0, x1: box.left - frame.left, y1: box.top + box.height / 2 - frame.top, kind: end.kind, sessions: end.sessions });
    }
    setAttribute(this.rails, "viewBox", `0 0 ${frame.width} ${frame.height}`);
    // What matters lies on top.
    const order = ["lost", "unknown", "pool", "lagging", "replica", "in", "primary"];
    items.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
    reconcile(this.lines, items, { key: (item) => item.key, create: () => svg("g"), update: (group, item) => paintRail(group, item, this.stopped) });
  }
}

function paintRail(group, item, stopped) {
  const held = stopped && item.kind === "primary";
  setAttribute(group, "class", `rail ${item.kind}${held ? " held" : ""}`);
  const width = 2 + Math.min(4, Math.log2(1 + item.sessions) * 0.7) + (item.kind === "primary" || item.kind === "in" ? 1.5 : 0);
  const marks = [svg("path", { d: route(item), "stroke-width": width.toFixed(1) })];
  if (item.kind === "lost") marks.push(svg("path", { class: "stop", d: `M${item.x1 - 7} ${item.y1 - 7}V${item.y1 + 7}`, "stroke-width": 3 }));
  if (held) marks.push(svg("path", { class: "stop", d: `M${item.x0 + 10} ${item.y0 - 11}V${item.y0 + 11}`, "stroke-width": 4 }));
  const print = marks.map((mark) => mark.getAttribute("d") + mark.getAttribute("stroke-width")).join();
  if (group.dataset.print === print) return;
  group.dataset.print = print;
  group.replaceChildren(...marks);
}

function route({ x0, y0, x1, y1 }) {
  const height = y1 - y0;
  if (Math.abs(height) < 1) return `M${x0} ${y0}H${x1}`;
  const corner = Math.min(CORNER, Math.abs(height) / 2);
  const turn = Math.sign(height) * corner;
  const ladder = Math.round(x0 + (x1 - x0) * 0.42);
  return `M${x0} ${y0}H${ladder - corner}L${ladder} ${y0 + turn}V${y1 - turn}L${ladder + corner} ${y1}H${x1}`;
}

function destinations(status) {
  const members = status.members.map((member) => ({
    key: `m ${member.name}`,
    kind: kindOf(status, member),
    sessions: member.sessions,
    name: member.name,
    member,
    limit: status.lag_limit_seconds,
    active: status.active,
  }));
  const pools = status.pools.flatMap((pool) =>
    pool.endpoints.map((endpoint) => ({
      key: `p ${pool.name} ${endpoint.address}`,
      kind: endpoint.state === "down" ? "lost" : "pool",
      sessions: endpoint.sessions,
      name: pool.name,
      pool,
      endpoint,
      active: status.active,
    })),
  );
  return [...members, ...pools];
}

function kindOf(status, member) {
  if (member.state === "down") return "lost";
  if (status.primary === member.name) return "primary";
  if (member.state === "lagging") return "lagging";
  if (member.role === "replica" && member.state !== "unknown") return "replica";
  return "unknown";
}

function newEnd() {
  const parts = {
    sign: h("span", { class: "sign", "aria-hidden": "true" }),
    name: h("span", { class: "name" }),
    role: h("span", { class: "role" }),
    lag: h("span", { class: "lagtext" }),
    fill: h("span", { class: "fill" }),
    sessions: h("strong"),
    word: h("span"),
    where: h("span", { class: "where" }),
  };
  parts.tick = h("span", { class: "tick" });
  parts.bar = h("span", { class: "bar", "aria-hidden": "true" }, parts.fill, parts.tick);
  const element = h("li", { class: "end" },
    h("p", { class: "who" }, parts.sign, parts.name, parts.role),
    h("p", { class: "sessions" }, parts.sessions, " ", parts.word),
    parts.where,
    h("p", { class: "lagging" }, parts.bar, parts.lag));
  element.parts = parts;
  return element;
}

function paintEnd(element, end) {
  const { sign, name, role, sessions, word, where } = element.parts;
  const plain = !(end.member && end.active && end.member.role === "replica");
  setAttribute(element, "class", `end ${end.kind}${plain ? " plain" : ""}${element.classList.contains("thrown") ? " thrown" : ""}`);
  setText(name, end.name);
  setText(sessions, number(end.sessions));
  setText(word, end.sessions === 1 ? "session" : "sessions");
  if (end.member) {
    setText(role, roleText(end));
    setAttribute(sign, "class", `sign ${signOf(end)}`);
    setText(where, whereText(end.member));
    if (!plain) paintLag(element.parts, end);
    noteRole(element, end);
  } else {
    setText(role, `pool, ${end.pool.target}`);
    setAttribute(sign, "class", `sign ${end.endpoint.state === "ok" ? "ok" : end.endpoint.state === "down" ? "error" : "idle"}`);
    setText(where, end.endpoint.address + (end.endpoint.state === "unknown" ? " · no session yet proves it" : ""));
  }
}

/// The box that has just become the primary is shown so for a moment.
function noteRole(element, end) {
  const before = element.dataset.kind;
  if (before && before !== "primary" && end.kind === "primary") {
    element.classList.add("thrown");
    element.addEventListener("animationend", () => element.classList.remove("thrown"), { once: true });
  }
  element.dataset.kind = end.kind;
}

function roleText({ kind, member, active }) {
  if (!active) return "not watched";
  if (kind === "primary") return "primary";
  if (member.state === "down") return member.role === "unknown" ? "down" : `${member.role}, down`;
  if (member.state === "lagging") return "replica, lagging";
  if (member.role === "replica") return member.state === "unknown" ? "replica, lag unknown" : "replica";
  return member.state === "unknown" ? "not used" : member.role;
}

function signOf({ kind, member, active }) {
  if (!active) return "idle";
  if (member.state === "down") return "error";
  if (kind === "unknown" || member.state === "lagging") return "warning";
  return "ok";
}

function whereText(member) {
  const parts = [member.address];
  if (member.zone) parts.push(member.zone);
  if (member.timeline) parts.push(`timeline ${member.timeline}`);
  if (member.pgbouncer_port) parts.push(`PgBouncer :${member.pgbouncer_port}${member.pgbouncer_sessions ? `, ${plural(member.pgbouncer_sessions, "session")}` : ""}`);
  if (member.probe_failures) parts.push(plural(member.probe_failures, "failed probe"));
  return parts.join(" · ");
}

function paintLag({ bar, fill, tick, lag }, { member, limit }) {
  const measured = member.lag_seconds ?? member.lag_at_least_seconds ?? null;
  const scale = Math.max(limit, 0.001) * OVER;
  fill.style.transform = `scaleX(${measured === null ? 0 : Math.min(1, measured / scale)})`;
  tick.style.left = `${100 / OVER}%`;
  setClass(bar, "over", measured !== null && measured > limit);
  setClass(bar, "unknown", measured === null);
  const behind = member.lag_bytes ? ` · ${bytes(member.lag_bytes)}` : "";
  const old = member.sample_age_seconds > 3 ? `, as of ${seconds(member.sample_age_seconds)} ago` : "";
  if (measured === null) {
    setText(lag, `lag unknown, limit ${seconds(limit)}${old}`);
  } else {
    setText(lag, `${member.lag_seconds === null ? "more than " : ""}${seconds(measured)} behind, limit ${seconds(limit)}${behind}${old}`);
  }
}
