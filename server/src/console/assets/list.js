// A table of any length: only the rows that can be seen are there. Rows keep their
// place under the reader's eyes and their focus while others come and go.

import { el } from "./dom.js";

/** Makes a list. Columns: { name, width, wide, cell(item) → text or element,
    text(item) → what tells whether the cell changed, sort(item) → what it is ordered by }. */
export class List {
  constructor({ label, columns, key, empty, order }) {
    Object.assign(this, { columns, key, emptyText: empty });
    this.order = order ?? { column: 0, down: false };
    this.items = [];
    this.rows = new Map();
    this.above = el("tr", { class: "spacer", "aria-hidden": "true" }, el("td", { colSpan: columns.length }));
    this.below = el("tr", { class: "spacer", "aria-hidden": "true" }, el("td", { colSpan: columns.length }));
    this.heads = columns.map((column, at) => el("th", { scope: "col", class: column.wide ? "wide" : "" },
      column.sort
        ? el("button", { type: "button", onclick: () => this.sortBy(at) }, column.name)
        : column.name || el("span", { class: "unseen" }, "Actions")));
    this.body = el("tbody", {}, this.above, this.below);
    this.table = el("table", { "aria-label": label },
      el("colgroup", {}, columns.map((column) => {
        const col = el("col", { class: column.wide ? "wide" : "" });
        if (column.width) col.style.width = column.width;
        return col;
      })),
      el("thead", {}, el("tr", {}, this.heads)), this.body);
    this.nothing = el("p", { class: "empty", hidden: true });
    this.element = el("div", { class: "list", tabIndex: 0, role: "region", "aria-label": label }, this.table, this.nothing);
    this.element.addEventListener("scroll", () => this.later(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.key_(event));
    this.sized = new ResizeObserver(() => this.later());
    this.sized.observe(this.element);
    this.headings();
  }

  /** Shows these; the order is the list's own. */
  set(items) {
    const first = this.element.scrollTop > 0 ? this.items[this.first()] : undefined;
    this.items = items;
    this.sort();
    if (first !== undefined) {
      const at = this.items.findIndex((item) => this.key(item) === this.key(first));
      const before = this.element.scrollTop % this.height();
      if (at >= 0) this.element.scrollTop = at * this.height() + before;
    }
    this.draw();
  }

  /** The same items, drawn anew: ages have changed. */
  draw() {
    this.planned = false;
    const height = this.height();
    const from = Math.max(0, this.first() - MARGIN);
    const to = Math.min(this.items.length, this.first() + Math.ceil(this.element.clientHeight / height) + MARGIN);
    const focused = this.element.contains(document.activeElement) ? document.activeElement : null;
    const wanted = new Set();
    for (let at = from; at < to; at += 1) wanted.add(this.key(this.items[at]));
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      row.element.remove();
      this.rows.delete(key);
    }
    let cursor = this.above.nextSibling;
    for (let at = from; at < to; at += 1) {
      const row = this.row(this.items[at]);
      row.element.setAttribute("aria-rowindex", at + 2);
      if (row.element === cursor) cursor = cursor.nextSibling;
      else this.body.insertBefore(row.element, cursor);
    }
    this.above.firstChild.style.height = `${from * height}px`;
    this.below.firstChild.style.height = `${(this.items.length - to) * height}px`;
    this.table.setAttribute("aria-rowcount", this.items.length + 1);
    this.nothing.hidden = this.items.length > 0;
    this.nothing.textContent = this.items.length > 0 ? "" : this.emptyText();
    if (focused && document.activeElement !== focused) {
      (focused.isConnected ? focused : this.element).focus({ preventScroll: true });
    }
  }

  /** Lets go of what it watches. */
  end() { this.sized.disconnect(); }

  later() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => { if (this.planned) this.draw(); });
  }

  row(item) {
    const key = this.key(item);
    let row = this.rows.get(key);
    if (!row) {
      const cells = this.columns.map((column) => el("td", { class: column.wide ? "wide" : "" }));
      row = { element: el("tr", { class: "row" }, cells), cells, texts: [] };
      this.rows.set(key, row);
    }
    this.columns.forEach((column, at) => {
      const text = column.text(item);
      if (row.texts[at] === text) return;
      row.texts[at] = text;
      const shown = column.cell ? column.cell(item) : text;
      const old = row.cells[at].firstElementChild;
      // A link that has the focus keeps it: only its words change.
      if (old?.tagName === "A" && shown.tagName === "A") {
        old.textContent = shown.textContent;
        old.href = shown.href;
      } else row.cells[at].replaceChildren(shown);
      if (typeof shown === "string") row.cells[at].title = shown;
    });
    return row;
  }

  first() { return Math.max(0, Math.floor(this.element.scrollTop / this.height())); }

  height() {
    this.rowHeight ??= parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 44;
    return this.rowHeight;
  }

  sortBy(at) {
    this.order = { column: at, down: this.order.column === at ? !this.order.down : false };
    this.headings();
    this.sort();
    this.element.scrollTop = 0;
    this.draw();
  }

  sort() {
    const by = this.columns[this.order.column].sort;
    const sign = this.order.down ? -1 : 1;
    const keyed = this.items.map((item) => ({ by: by(item), key: this.key(item), item }));
    keyed.sort((a, b) => (a.by < b.by ? -sign : a.by > b.by ? sign : a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
    this.items = keyed.map(({ item }) => item);
  }

  headings() {
    this.heads.forEach((head, at) => {
      if (at === this.order.column) head.setAttribute("aria-sort", this.order.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  /** Arrows walk from row to row, also to those that are not drawn yet. */
  key_(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey || this.items.length === 0) return;
    const row = document.activeElement.closest?.("tr.row");
    const here = row ? Number(row.getAttribute("aria-rowindex")) - 2 : -1;
    const there = Math.min(this.items.length - 1, Math.max(0, here + step));
    event.preventDefault();
    const height = this.height();
    const top = there * height;
    const room = this.element.clientHeight - this.table.tHead.offsetHeight - height;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top > this.element.scrollTop + room) this.element.scrollTop = top - room;
    this.draw();
    this.rows.get(this.key(this.items[there]))?.element.querySelector("a, button")?.focus({ preventScroll: true });
  }
}

/** Rows drawn beyond what can be seen, on either side. */
const MARGIN = 8;
