// The list of branches: as long as there are branches, but only the rows in sight are in the document, and only those
// and some around them are asked for.

import { h, reconcile, setAttribute, setClass, setText } from "./dom.js";
import { number, plural, seconds } from "./words.js";

const ROW = 46; // pixels; page.css gives a row the same
const AROUND = 4; // rows kept in the document beyond the visible ones
const AHEAD = 20; // rows asked for beyond them
const MOST = 200; // rows asked for at once

export class FleetList {
  /// on.select(name), on.window(): other rows are in sight than were asked for.
  constructor(root, on) {
    this.root = root;
    this.on = on;
    this.matching = 0;
    this.offset = 0;
    this.rows = [];
    this.selected = "";
    this.selectedIndex = -1;
    this.pending = -1; // to be selected when its row has come
    this.known = false; // an answer has come at all
    this.canvas = h("div", { class: "canvas", role: "presentation" });
    this.note = h("p", { class: "empty", hidden: true });
    root.append(this.canvas, this.note);
    root.addEventListener("scroll", () => this.onScroll(), { passive: true });
    root.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row?.dataset.name) this.select(row.dataset.name, Number(row.dataset.index));
    });
    new ResizeObserver(() => this.onScroll()).observe(root);
  }

  first() {
    return Math.floor(this.root.scrollTop / ROW);
  }

  visible() {
    return Math.max(1, Math.ceil(this.root.clientHeight / ROW));
  }

  /// What to ask for.
  window() {
    const offset = Math.max(0, this.first() - AHEAD);
    return { offset, limit: Math.min(MOST, this.visible() + 2 * AHEAD) };
  }

  row(index) {
    return this.rows[index - this.offset];
  }

  take(answer, searching) {
    this.known = true;
    this.matching = answer.matching;
    this.offset = answer.offset;
    this.rows = answer.rows;
    const found = this.rows.findIndex((row) => row.name === this.selected);
    if (found >= 0) {
      this.selectedIndex = this.offset + found;
    } else if (this.row(this.selectedIndex)) {
      this.selectedIndex = -1; // another branch stands there now
    }
    if (this.matching === 0) {
      setText(this.note, searching ? "No branch matches. Esc clears the search." : "No branch is configured.");
    }
    this.note.hidden = this.matching > 0;
    if (this.pending >= 0) this.go(Math.min(this.pending, this.matching - 1));
    this.paint();
  }

  /// A new search begins at the top.
  rewind() {
    this.root.scrollTop = 0;
    this.selectedIndex = -1;
    this.pending = -1;
  }

  onScroll() {
    this.paint();
    const first = this.first();
    const last = Math.min(first + this.visible(), this.matching);
    if (first < this.offset || last > this.offset + this.rows.length) this.on.window();
  }

  paint() {
    this.canvas.style.height = `${this.matching * ROW}px`;
    const from = Math.max(0, this.first() - AROUND);
    const to = Math.min(this.matching, this.first() + this.visible() + AROUND);
    const slots = [];
    for (let index = from; index < to; index += 1) slots.push({ index, row: this.row(index) });
    reconcile(this.canvas, slots, {
      key: ({ index, row }) => row?.name ?? `\u0000${index}`,
      create: newRow,
      update: (element, slot) => this.paintRow(element, slot),
    });
    const current = this.row(this.selectedIndex) ? `branch-${this.selectedIndex}` : null;
    setAttribute(this.root, "aria-activedescendant", current);
  }

  paintRow(element, { index, row }) {
    element.style.transform = `translateY(${index * ROW}px)`;
    setAttribute(element, "id", `branch-${index}`);
    setAttribute(element, "aria-posinset", index + 1);
    setAttribute(element, "aria-setsize", this.matching);
    element.dataset.index = index;
    if (!row) return;
    const { sign, name, lag, fill, text, sessions } = element.parts;
    element.dataset.name = row.name;
    const chosen = row.name === this.selected;
    setAttribute(element, "aria-selected", chosen);
    setClass(element, "idle", row.health === "idle");
    setAttribute(sign, "class", `sign ${row.health}`);
    setText(name, row.name);
    setClass(text, "trouble", row.problem !== null);
    setText(text, textOf(row));
    setText(sessions, row.sessions > 0 ? number(row.sessions) : "");
    setAttribute(sessions, "title", row.sessions > 0 ? plural(row.sessions, "session") : null);
    const known = row.lag_seconds !== null;
    setClass(lag, "none", !known);
    if (known) {
      const share = Math.min(1, row.lag_seconds / Math.max(row.lag_limit_seconds, 0.001));
      fill.style.transform = `scaleX(${share})`;
      setClass(lag, "over", share >= 1);
      setAttribute(lag, "title", `worst lag ${seconds(row.lag_seconds)} of ${seconds(row.lag_limit_seconds)}`);
    }
    setAttribute(element, "aria-label", `${row.name}, ${row.health === "idle" ? "not in use" : row.health}, ${textOf(row)}, ${plural(row.sessions, "session")}`);
  }

  select(name, index = -1) {
    this.selected = name;
    this.pending = -1;
    const found = this.rows.findIndex((row) => row.name === name);
    this.selectedIndex = index >= 0 ? index : found >= 0 ? this.offset + found : -1;
    this.paint();
    this.on.select(name);
  }

  move(by) {
    const here = this.pending >= 0 ? this.pending : this.selectedIndex;
    this.go(here < 0 ? this.first() : here + by);
  }

  go(wanted) {
    if (this.matching === 0) return;
    const index = Math.max(0, Math.min(wanted, this.matching - 1));
    const top = index * ROW;
    const height = this.root.clientHeight;
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    if (top + ROW > this.root.scrollTop + height) this.root.scrollTop = top + ROW - height;
    const row = this.row(index);
    if (row) {
      this.select(row.name, index);
    } else {
      this.pending = index;
      this.on.window();
    }
  }
}

function textOf(row) {
  if (row.problem) return row.problems > 1 ? `${row.problem}, +${row.problems - 1}` : row.problem;
  if (row.health === "idle") return "not in use";
  return row.primary ? `primary ${row.primary}` : "looking around";
}

function newRow() {
  const parts = {
    sign: h("span", { class: "sign", "aria-hidden": "true" }),
    name: h("span", { class: "name" }),
    text: h("span", { class: "text" }),
    sessions: h("span", { class: "sessions" }),
    fill: h("span", { class: "fill" }),
  };
  parts.lag = h("span", { class: "lag none", "aria-hidden": "true" }, parts.fill);
  const element = h("div", { class: "row", role: "option", "aria-selected": "false" }, parts.sign, parts.name, parts.sessions, parts.text, parts.lag);
  element.parts = parts;
  return element;
}
