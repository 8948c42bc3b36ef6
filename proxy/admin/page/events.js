// What happened lately, newest first. The router keeps some hundred events; so does the page, and shows fewer.

import { h, reconcile, setAttribute, setText } from "./dom.js";
import { moment } from "./words.js";

const KEPT = 500;
const SHOWN = 120;

export class Events {
  /// on.select(branch)
  constructor(root, on) {
    this.root = root;
    this.all = [];
    this.last = 0;
    this.started = 0;
    this.branch = ""; // only this one's; "": all
    this.fresh = 0; // ids above it came while somebody looked
    this.empty = h("li", { class: "empty" });
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-branch]");
      if (button) on.select(button.dataset.branch);
    });
  }

  /// Another process counts from 1 again. True: the answer was to a question about the former one's.
  restarted(startedUnixMs) {
    const other = this.started !== 0 && this.started !== startedUnixMs;
    this.started = startedUnixMs;
    if (!other) return false;
    this.all = [];
    this.last = 0;
    this.fresh = 0;
    return true;
  }

  take(answer) {
    const first = this.last === 0;
    this.all.push(...answer.events.filter((event) => event.id > this.last));
    this.all.splice(0, Math.max(0, this.all.length - KEPT));
    this.last = Math.max(this.last, answer.last_id);
    if (first) this.fresh = this.last;
    this.paint();
  }

  only(branch) {
    this.branch = branch;
    this.paint();
  }

  paint() {
    const wanted = this.branch ? this.all.filter((event) => event.branch === this.branch) : this.all;
    const shown = wanted.slice(-SHOWN).reverse();
    reconcile(this.root, shown.length > 0 ? shown : [null], {
      key: (event) => event?.id ?? "none",
      create: (event) => (event ? this.line(event) : h("li", { class: "empty" })),
      update: (element, event) => {
        if (event) setText(element.firstElementChild, moment(event.time_unix_ms));
        else setText(element, this.branch ? "Nothing has happened to this branch lately." : "Nothing has happened lately.");
      },
    });
  }

  line(event) {
    const where = event.branch ? h("button", { type: "button", class: "link", "data-branch": event.branch }) : h("span", { class: "whole" });
    setText(where, event.branch ?? "router");
    const element = h("li", { class: `event ${event.level}` },
      h("time", { datetime: new Date(event.time_unix_ms).toISOString() }),
      h("span", { class: `sign ${event.level === "info" ? "note" : event.level}`, "aria-hidden": "true" }),
      h("span", { class: `kind of-${event.kind}` }, event.kind),
      h("span", { class: "of" }, where),
      h("span", { class: "what" }, event.text));
    setAttribute(element, "data-fresh", event.id > this.fresh);
    return element;
  }
}
