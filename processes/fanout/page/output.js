// A command's output as in a terminal: live and coloured, to be followed, searched and saved.
import { tell, toast } from "./dialogs.js";
import { h, setText, visible } from "./dom.js";
import { ask, link, unwatch, watch } from "./link.js";
import { line, PLAIN } from "./terminal.js";
import { many } from "./words.js";

const LINES_MAX = 5000; // shown on the page; Download saves all that the hub keeps
const BYTES_MAX = 64 * 1024 * 1024; // of a saved file

export class Output {
  constructor() {
    this.id = null;
    this.styles = {};
    this.drawn = {}; // stream → its last line, if the next line draws over it
    this.left = 0;
    this.wanted = "";
    this.hits = [];
    this.hit = -1;
    this.lines = h("div", { className: "lines" });
    this.screen = h(
      "div",
      {
        className: "screen",
        tabIndex: 0,
        role: "log",
        ariaLabel: "output",
        ariaLive: "off",
        onscroll: () => this.scrolled(),
      },
      this.lines,
    );
    this.top = 0; // where the screen was scrolled to last
    this.settling = null;
    this.looks = 0; // frames for which the end is still watched
    this.follow = h("input", { type: "checkbox", checked: true, onchange: () => this.toEnd() });
    // Lines get their true height only when they come into view, so the end moves without a new line.
    new ResizeObserver(() => this.toEnd()).observe(this.lines);
    this.find = h("input", {
      type: "search",
      placeholder: "Find in the output",
      ariaLabel: "find in the output",
      oninput: () => this.search(),
      onkeydown: (event) => {
        if (event.key === "Enter") {
          event.preventDefault();
          this.next(event.shiftKey ? -1 : 1);
        }
      },
    });
    this.found = h("span", { className: "dim small", role: "status" });
    this.save = h("button", { type: "button", onclick: () => this.download() }, "Download");
    this.element = h(
      "section",
      { className: "output", ariaLabel: "output" },
      h(
        "div",
        { className: "tools" },
        this.find,
        this.found,
        h("span", { className: "spring" }),
        h("label", { className: "inline" }, this.follow, "Follow"),
        this.save,
      ),
      this.screen,
    );
  }

  // `sought`: what is looked for in it from the start.
  show(id, sought = "") {
    if (this.id === id) return;
    this.leave();
    this.id = id;
    this.styles = {};
    this.drawn = {};
    this.left = 0;
    this.hits = [];
    this.hit = -1;
    this.find.value = sought;
    this.wanted = visible(sought).toLowerCase();
    this.follow.checked = true;
    this.lines.replaceChildren();
    this.note?.remove();
    this.count();
    link.output = (frame) => this.take(frame);
    watch(id);
  }
  leave() {
    if (this.id) unwatch(this.id);
    this.id = null;
    link.output = () => {};
  }

  take(frame) {
    if (frame.command_id !== this.id) return;
    if (frame.type === "output") {
      const { pieces, style } = line(frame.data, this.styles[frame.stream] ?? PLAIN);
      this.styles[frame.stream] = style;
      if (this.drawn[frame.stream]) {
        this.drawn[frame.stream].remove();
        this.hits = this.hits.filter((hit) => hit.isConnected);
      }
      const element = h(
        "div",
        { className: frame.stream },
        pieces.map((piece) => (piece.names ? h("span", { className: piece.names }, piece.text) : piece.text)),
        "\n",
      );
      this.drawn[frame.stream] = frame.data.endsWith("\r") ? element : null;
      this.lines.append(element);
      this.mark(element);
    } else {
      this.lines.querySelector(".end")?.remove();
      this.lines.append(
        h(
          "div",
          { className: "note end" },
          `— end of output${frame.truncated ? ": the hub has not kept the rest" : ""} —`,
        ),
      );
    }
    while (this.lines.childElementCount > LINES_MAX) {
      this.lines.firstElementChild.remove();
      this.left++;
    }
    if (this.left) {
      this.note ??= h("p", { className: "note" });
      setText(this.note, `${many(this.left, "earlier line")} not shown: Download saves them all.`);
      if (!this.note.isConnected) this.screen.prepend(this.note);
    }
    if (!this.pending) {
      this.pending = true;
      requestAnimationFrame(() => {
        this.pending = false;
        this.toEnd();
        this.count();
      });
    }
  }

  toEnd() {
    this.screen.classList.toggle("follows", this.follow.checked);
    if (this.follow.checked) this.screen.scrollTop = this.screen.scrollHeight;
    this.top = this.screen.scrollTop;
    this.looks = 3;
    if (this.follow.checked) this.settle();
  }
  // Lines that come into view at the end change its place once more, and no observer tells of it for certain.
  settle() {
    this.settling ??= requestAnimationFrame(() => {
      this.settling = null;
      if (!this.follow.checked || !this.id) return;
      const { scrollTop, clientHeight, scrollHeight } = this.screen;
      if (scrollTop + clientHeight < scrollHeight - 2) this.toEnd();
      else if (--this.looks > 0) this.settle();
    });
  }
  // Only a move upwards is a person's: the output also grows, which leaves the screen where it is, above the end.
  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.screen;
    const atEnd = scrollTop + clientHeight >= scrollHeight - 24;
    if (atEnd || scrollTop < this.top - 1) this.follow.checked = atEnd;
    this.screen.classList.toggle("follows", this.follow.checked);
    this.top = scrollTop;
  }

  mark(element) {
    const hit = this.wanted !== "" && element.textContent.toLowerCase().includes(this.wanted);
    element.classList.toggle("hit", hit);
    if (hit) this.hits.push(element);
  }
  search() {
    this.wanted = visible(this.find.value).toLowerCase();
    this.hits = [];
    this.hit = -1;
    for (const element of this.lines.children) this.mark(element);
    this.next(1);
  }
  next(by) {
    this.hits = this.hits.filter((element) => element.isConnected);
    this.hits[this.hit]?.classList.remove("current");
    if (this.hits.length) {
      this.hit = (this.hit + by + this.hits.length) % this.hits.length;
      this.follow.checked = false;
      this.hits[this.hit].classList.add("current");
      this.hits[this.hit].scrollIntoView({ block: "center" });
    }
    this.count();
  }
  count() {
    setText(
      this.found,
      this.wanted
        ? this.hits.length
          ? `${this.hit + 1} of ${many(this.hits.length, "line")}`
          : `not found${this.left ? ` in the last ${many(LINES_MAX, "line")}` : ""}`
        : "",
    );
  }

  async download() {
    const id = this.id,
      parts = [];
    let from = 0,
      size = 0;
    this.save.disabled = true;
    for (let page = null; !page || (page.records.length && size < BYTES_MAX); ) {
      page = await tell(ask("GET", `/api/v1/commands/${encodeURIComponent(id)}/output?from=${from}`));
      if (!page) break;
      for (const record of page.records) {
        parts.push(`${record.data}\n`);
        size += record.data.length + 1;
      }
      from = page.next_offset;
    }
    this.save.disabled = false;
    if (size >= BYTES_MAX) toast("Only the first 64 MB are saved: the API has the rest.", "degraded");
    const url = URL.createObjectURL(new Blob(parts, { type: "text/plain" }));
    h("a", { href: url, download: `${id}.txt` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
}
