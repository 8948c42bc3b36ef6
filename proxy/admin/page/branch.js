// The selected branch: what is wrong, where its connections go, and why.

import { h, reconcile, setAttribute, setClass, setText, svg } from "./dom.js";
import { Tracks } from "./tracks.js";
import { moment, number, plural, seconds, span } from "./words.js";

const HELD = new Set(["held", "hold_expired"]);

export class Branch {
  constructor(root) {
    this.root = root;
    this.tracks = new Tracks();
    this.name = h("h2", { id: "branch-name" });
    this.state = h("span", { class: "state" });
    this.labels = h("ul", { class: "labels", "aria-label": "Labels" });
    this.problems = h("ul", { class: "problems", "aria-label": "Problems" });
    this.note = h("p", { class: "empty" });
    this.reasons = h("ul", { class: "reasons" });
    this.quiet = h("p", { class: "empty" }, "No login has been decided yet.");
    this.facts = h("dl", { class: "facts" });
    this.turns = h("ol", { class: "turns" });
    this.body = h("div", { class: "body", hidden: true },
      h("section", { "aria-label": "Topology" }, this.tracks.root),
      h("div", { class: "panels" },
        h("section", { class: "panel", "aria-labelledby": "why" }, h("h3", { id: "why" }, "Decisions by reason", this.span = h("small")), this.reasons, this.quiet),
        h("section", { class: "panel", "aria-labelledby": "cluster" }, h("h3", { id: "cluster" }, "Cluster and holds"), this.facts,
          h("h4", {}, "Last switches"), this.turns)));
    root.append(h("header", { class: "head" }, h("div", { class: "title" }, this.name, this.state, this.labels), this.problems), this.note, this.body);
    this.nothing("");
  }

  nothing(text) {
    this.body.hidden = true;
    setText(this.note, text);
    this.note.hidden = text === "";
    this.problems.replaceChildren();
    this.labels.replaceChildren();
    setText(this.state, "");
  }

  /// Another branch has been chosen, and nothing is known of it yet.
  begin(name) {
    setText(this.name, name);
    this.nothing(name ? "Asking …" : "Choose a branch on the left.");
  }

  take(name, status, overview, events) {
    setText(this.name, name);
    if (status === null) return this.nothing("No branch of this name is configured any more.");
    setText(this.state, status.active ? "in use" : "not in use");
    reconcile(this.labels, Object.entries(status.labels), {
      key: ([key]) => key,
      create: () => h("li"),
      update: (element, [key, value]) => setText(element, `${key}=${value}`),
    });
    reconcile(this.problems, status.problems, {
      key: ({ text }) => text.replace(/[\d.]+ s/, ""),
      create: () => h("li"),
      update: (element, { health, text }) => {
        setText(element, text);
        setAttribute(element, "class", health);
      },
    });
    this.note.hidden = status.active;
    setText(this.note, "Nobody uses this branch, so it is not probed and nothing is known of it. The first login wakes it.");
    this.body.hidden = false;
    this.tracks.take(status, overview.listeners);
    this.takeReasons(status);
    this.takeFacts(status);
    this.takeTurns(name, events);
    return undefined;
  }

  takeReasons(status) {
    const { reasons, bin_seconds: width, bins } = status.history;
    const rows = [
      ...Object.entries(status.decisions).map(([reason, total]) => ({ reason, total, refusal: false })),
      ...Object.entries(status.refusals).map(([reason, total]) => ({ reason, total, refusal: true })),
    ];
    const longest = Math.max(1, ...rows.map(({ reason }) => (reasons[reason] ?? []).length));
    const highest = Math.max(1, ...rows.flatMap(({ reason }) => reasons[reason] ?? []));
    setText(this.span, rows.length > 0 ? `last ${span(longest * width)}` : "");
    this.quiet.hidden = rows.length > 0;
    reconcile(this.reasons, rows, {
      key: ({ reason }) => reason,
      create: newReason,
      update: (element, row) => paintReason(element, row, { past: reasons[row.reason] ?? [], bins, width, highest }),
    });
  }

  takeFacts(status) {
    const replicas = status.members.filter((member) => member.role === "replica");
    const facts = [
      ["Primary", status.primary ?? (status.active ? "none" : "–")],
      ["Timeline", status.timeline ?? "–"],
      ["Replicas eligible", status.active ? `${replicas.filter((member) => member.state === "ok").length} of ${replicas.length}` : "–"],
      ["Lag limit", seconds(status.lag_limit_seconds)],
      ["Held logins", status.on_hold ? `${number(status.holding)}, on hold` : number(status.holding)],
      ["Longest hold", seconds(status.hold_timeout_seconds)],
      ["Failovers seen", number(status.failovers)],
    ];
    if (status.discovery) {
      const { source, state, age_seconds: age } = status.discovery;
      facts.push(["Members from", `${source}, ${state}${age !== null && state !== "unknown" ? `, ${seconds(age)} ago` : ""}`]);
    }
    if (status.system_identifier) facts.push(["System identifier", status.system_identifier]);
    reconcile(this.facts, facts, {
      key: ([name]) => name,
      create: () => h("div", {}, h("dt"), h("dd")),
      update: (element, [name, value]) => {
        setText(element.firstElementChild, name);
        setText(element.lastElementChild, value);
        setClass(element, "wide", String(value).length > 14);
      setClass(element, "bad", (name === "Primary" && value === "none") || (name === "Held logins" && status.holding > 0));
      },
    });
  }

  takeTurns(name, events) {
    const turns = events.filter((event) => event.branch === name && (event.kind === "failover" || event.kind === "hold")).slice(-4).reverse();
    const shown = turns.length > 0 ? turns : [{ id: 0, text: "none since the router started" }];
    reconcile(this.turns, shown, {
      key: ({ id }) => id,
      create: () => h("li", {}, h("time"), h("span")),
      update: (element, event) => {
        setText(element.firstElementChild, event.id ? moment(event.time_unix_ms) : "");
        setText(element.lastElementChild, event.text);
      },
    });
  }
}

function newReason() {
  const parts = {
    reason: h("span", { class: "reason" }),
    total: h("span", { class: "total" }),
    rate: h("span", { class: "rate" }),
    area: svg("path", { class: "area" }),
    line: svg("path", { class: "line" }),
  };
  const spark = svg("svg", { class: "spark", viewBox: "0 0 108 22", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { class: "base", d: "M0 21.5H108" }), parts.area, parts.line);
  const element = h("li", {}, parts.reason, spark, parts.rate, parts.total);
  element.parts = parts;
  return element;
}

function paintReason(element, { reason, total, refusal }, { past, bins, width, highest }) {
  const { parts } = element;
  setAttribute(element, "class", refusal ? "refusal" : HELD.has(reason) ? "holding" : "decision");
  setText(parts.reason, reason);
  setText(parts.total, number(total));
  setAttribute(parts.total, "title", `${plural(total, refusal ? "refusal" : "decision")} since the branch came into use`);
  const last = past.length > 0 ? past[past.length - 1] / width : 0;
  setText(parts.rate, last > 0 ? `${last >= 10 ? Math.round(last) : last.toFixed(1)}/s` : "");
  // The newest bin stands at the right edge; all reasons share one scale, on which little is still seen.
  const step = 108 / (bins - 1);
  const height = (value) => (value === 0 ? 0 : 3 + 18 * Math.sqrt(value / highest));
  const points = past.map((value, i) => `${(108 - (past.length - 1 - i) * step).toFixed(1)} ${(21.5 - height(value)).toFixed(1)}`);
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  setAttribute(parts.line, "d", line);
  setAttribute(parts.area, "d", line && `${line}V22H${(108 - (past.length - 1) * step).toFixed(1)}Z`);
}
