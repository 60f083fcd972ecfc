// A table of ten thousand rows and more, of one height, of which only the visible ones exist. For mouse and keyboard.
import { h } from "./dom.js";

const AROUND = 8; // rows kept ready above and below

// columns: [{ name, text, sort }]. cells(item, selected): the cells of a row.
// print(item): all that they show, as text: a row is made anew only if it has changed.
export class Grid {
  constructor({ label, columns, rowHeight, cells, print, keyOf, onOpen, onSelect, onSort }) {
    Object.assign(this, { columns, rowHeight, cells, print, keyOf, onOpen, onSelect });
    this.items = [];
    this.at = 0;
    this.anchor = 0;
    this.selected = new Set();
    this.rows = new Map();
    this.heads = columns.map((column) =>
      h(
        "div",
        { role: "columnheader", className: `cell ${column.name}` },
        column.sort
          ? h("button", { type: "button", className: "sorter", onclick: () => onSort(column.sort) }, column.text)
          : column.text,
      ),
    );
    this.head = h("div", { role: "row", className: "row head", ariaRowIndex: "1" }, this.heads);
    this.body = h("div", { role: "rowgroup", className: "rows" });
    this.element = h(
      "div",
      {
        role: "grid",
        className: "grid",
        tabIndex: 0,
        ariaLabel: label,
        ariaMultiSelectable: "true",
        onscroll: () => this.draw(),
        onkeydown: (event) => this.key(event),
      },
      h("div", { role: "rowgroup", className: "heads" }, this.head),
      this.body,
    );
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.element);
  }

  activeKey() {
    const item = this.items[this.at];
    return item && !item.group ? this.keyOf(item) : null;
  }

  // Goes back to where the grid was left, with the keyboard too.
  restore({ key, top }) {
    const at = key === null ? -1 : this.items.findIndex((item) => !item.group && this.keyOf(item) === key);
    if (at >= 0) this.at = at;
    this.element.scrollTop = top;
    this.draw();
  }

  leave() {
    this.resized.disconnect();
  }

  sorted(name, down) {
    this.columns.forEach((column, place) => {
      this.heads[place].ariaSort = column.sort && column.sort === name ? (down ? "descending" : "ascending") : null;
    });
  }

  // items: { group, count } is a heading; everything else is a row.
  show(items) {
    const active = this.items[this.at];
    this.items = items;
    const again =
      active && !active.group ? items.findIndex((item) => !item.group && this.keyOf(item) === this.keyOf(active)) : -1;
    this.at = again >= 0 ? again : Math.min(this.at, Math.max(items.length - 1, 0));
    this.element.ariaRowCount = String(items.length + 1);
    this.body.style.height = `${items.length * this.rowHeight()}px`;
    this.draw();
  }

  draw() {
    const height = this.rowHeight(),
      top = this.element.scrollTop,
      first = Math.max(0, Math.floor(top / height) - AROUND);
    const last = Math.min(this.items.length, Math.ceil((top + this.element.clientHeight) / height) + AROUND);
    const before = this.rows,
      shown = new Map();
    for (let place = first; place < last; place++) {
      const item = this.items[place],
        key = item.group ? `group ${item.group}` : this.keyOf(item);
      const print = item.group ? `${item.count}` : `${this.print(item)}${this.selected.has(key) ? "+" : ""}`;
      let row = before.get(key);
      before.delete(key);
      if (!row || (row.print !== print && !row.element.matches(":active"))) {
        const element = this.make(item, key);
        row?.element.remove();
        row = { element, print, place: -1 };
      }
      if (row.place !== place || row.height !== height) {
        row.place = place;
        row.height = height;
        row.element.style.transform = `translateY(${place * height}px)`;
        row.element.ariaRowIndex = String(place + 2);
        row.element.id = `row-${place}`;
      }
      row.element.classList.toggle("at", place === this.at);
      shown.set(key, row);
    }
    for (const gone of before.values()) gone.element.remove();
    let next = this.body.firstElementChild; // in order for screen readers
    for (const { element } of shown.values()) {
      if (element === next) next = next.nextElementSibling;
      else this.body.insertBefore(element, next);
    }
    this.rows = shown;
    const active = shown.size && this.at >= first && this.at < last ? `row-${this.at}` : "";
    if (active) this.element.setAttribute("aria-activedescendant", active);
    else this.element.removeAttribute("aria-activedescendant");
  }

  make(item, key) {
    if (item.group)
      return h(
        "div",
        { role: "row", className: "row group" },
        h(
          "div",
          { role: "gridcell", className: "cell", ariaColSpan: String(this.columns.length) },
          h("strong", null, item.group),
          h("span", { className: "dim" }, ` ${item.count}`),
        ),
      );
    const selected = this.selected.has(key);
    return h(
      "div",
      {
        role: "row",
        className: `row${selected ? " selected" : ""}`,
        ariaSelected: String(selected),
        onclick: (event) => this.click(event, item),
      },
      this.cells(item, selected).map((children, place) =>
        h("div", { role: "gridcell", className: `cell ${this.columns[place].name}` }, children),
      ),
    );
  }

  click(event, item) {
    const place = this.items.indexOf(item);
    if (event.target.closest("a")) return;
    this.at = place;
    if (event.target.closest(".check")) {
      if (event.shiftKey) {
        for (const each of this.items.slice(Math.min(this.anchor, place), Math.max(this.anchor, place) + 1))
          this.pick(each, true);
      } else this.pick(item, !this.selected.has(this.keyOf(item)));
      this.anchor = place;
      this.onSelect();
    } else this.draw();
  }

  pick(item, on) {
    if (!item.group) on ? this.selected.add(this.keyOf(item)) : this.selected.delete(this.keyOf(item));
  }
  pickAll(on) {
    for (const item of this.items) this.pick(item, on);
    this.onSelect();
  }

  key(event) {
    if (event.target !== this.element || event.altKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.rowHeight()) - 2),
      item = this.items[this.at];
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves) this.move(moves[event.key], event.shiftKey);
    else if (event.key === " " && item && !item.group) {
      this.pick(item, !this.selected.has(this.keyOf(item)));
      this.anchor = this.at;
      this.onSelect();
    } else if (event.key === "Enter" && item && !item.group) this.onOpen(item);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.pickAll(true);
    else if (event.key === "Escape" && this.selected.size) {
      this.selected.clear();
      this.onSelect();
    } else return;
    event.preventDefault();
  }

  move(by, picking) {
    this.at = Math.min(this.items.length - 1, Math.max(0, this.at + by));
    if (picking && this.items[this.at]) {
      this.pick(this.items[this.at], true);
      this.onSelect();
    }
    const height = this.rowHeight(),
      top = this.at * height,
      room = this.element.clientHeight - height - this.head.offsetHeight;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top > this.element.scrollTop + room) this.element.scrollTop = top - room;
    this.draw();
  }
}
