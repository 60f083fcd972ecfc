// Dead letters: messages that were put aside because they ended a process, or because a step on them failed.
import { confirm } from "./dialogs.js";
import { $, h, icon, keyed, one } from "./dom.js";
import { ask, askSurely, link, may } from "./link.js";
import { bytes, day, empty, facts, since } from "./words.js";

const AGAIN_MS = 5000;
let id = "",
  deadLetters = null,
  failed = "",
  askedMs = 0,
  redraw = () => {};

async function refresh() {
  askedMs = Date.now();
  try {
    const found = await ask("GET", id ? `/api/v1/deadletters/${encodeURIComponent(id)}` : "/api/v1/deadletters");
    deadLetters = id ? [found] : found.deadletters;
    failed = "";
  } catch (error) {
    deadLetters = null;
    failed = error.status === 404 ? "There is no such dead letter (any more)." : error.message;
  }
  redraw();
}
const pretty = (event) => (typeof event === "string" ? event : JSON.stringify(event, null, 2));
const block = (title, under, text) =>
  h(
    "details",
    { className: "panel", open: true },
    h("summary", null, h("strong", null, title), under),
    h("pre", { className: "code", tabIndex: 0 }, text),
  );

function item(deadLetter) {
  return h(
    "a",
    { href: `#deadletters/${deadLetter.id}`, className: "item" },
    h(
      "span",
      { className: "line" },
      h("strong", null, deadLetter.kind),
      deadLetter.host && h("span", { className: "dim" }, ` from ${deadLetter.host}`),
      ` put aside by ${deadLetter.process}`,
    ),
    h("span", { className: "under right" }, since(deadLetter.at)),
    h("span", { className: "under" }, `${deadLetter.why}${deadLetter.error ? `: ${deadLetter.error}` : ""}`),
    h(
      "span",
      { className: "under right" },
      deadLetter.retrying ? "being retried" : deadLetter.retries ? `retried ${deadLetter.retries} times` : "",
    ),
  );
}
function about(deadLetter) {
  const path = `/api/v1/deadletters/${encodeURIComponent(deadLetter.id)}`;
  const act = (verb, word, then) =>
    confirm(
      `${verb} this message?`,
      word,
      verb,
      async () => {
        await askSurely("POST", `${path}/${verb.toLowerCase()}`);
        askedMs = 0;
        then?.();
      },
      `Asked to ${verb.toLowerCase()} it.`,
    );
  return h(
    "div",
    { className: "stack" },
    h(
      "div",
      { className: "tools" },
      h("a", { className: "back", href: "#deadletters" }, "‹ All dead letters"),
      h("span", { className: "spring" }),
      h(
        "button",
        {
          disabled: deadLetter.retrying,
          onclick: () =>
            act("Retry", "The process tries it once more. If it ends the process again, it comes back here."),
        },
        deadLetter.retrying ? "Being retried" : "Retry",
      ),
      h(
        "button",
        {
          className: "stop",
          onclick: () =>
            act("Discard", "It is gone for good.", () => {
              location.hash = "#deadletters";
            }),
        },
        "Discard",
      ),
    ),
    h(
      "h2",
      null,
      deadLetter.kind,
      deadLetter.host && [
        h("span", { className: "dim" }, " from "),
        h("a", { href: `#host/${encodeURIComponent(deadLetter.host)}` }, deadLetter.host),
      ],
    ),
    h(
      "p",
      { className: "note" },
      icon("letter"),
      h("span", null, `Put aside by ${deadLetter.process}: ${deadLetter.why}.`),
    ),
    facts([
      ["When", day(deadLetter.at)],
      ["Size", bytes(deadLetter.size_bytes)],
      ["Retries", deadLetter.retries],
      ["Id", h("span", { className: "mono small" }, deadLetter.id)],
    ]),
    deadLetter.error && block("Error", "", deadLetter.error),
    deadLetter.event !== null && block("The message", "", pretty(deadLetter.event)),
    deadLetter.deaths.map((death, place) =>
      block(
        `Death ${place + 1}: ${death.cause}`,
        [
          h("span", { className: "dim small" }, ` ${day(death.at)}, process ${death.pid} `),
          death.incident && h("a", { href: `#incident/${death.incident}` }, "incident"),
        ],
        death.stacks || "There are no stacks.",
      ),
    ),
  );
}

export const view = {
  title: () => "Put aside",
  build(main, wanted, changed) {
    redraw = changed;
    id = wanted;
    deadLetters = null;
    failed = "";
    askedMs = 0;
    main.replaceChildren(h("div", { id: "dead-letters", className: id ? "page" : "page items panel" }));
  },
  draw() {
    if (!may("operator")) {
      one($("dead-letters"), "role", () =>
        empty(`The role ${link.me.role} may not see dead letters: they hold what agents sent.`),
      );
      return;
    }
    if (Date.now() - askedMs > AGAIN_MS) refresh();
    if (!deadLetters) {
      if (failed) one($("dead-letters"), failed, () => empty(failed));
      return;
    }
    if (deadLetters.length)
      keyed(
        $("dead-letters"),
        deadLetters,
        (deadLetter) => deadLetter.id,
        (deadLetter) => deadLetter,
        id ? about : item,
      );
    else
      one($("dead-letters"), "none", () =>
        empty("Nothing. A message that ends the hub twice, or makes a step fail, is put aside here, with the stacks."),
      );
  },
};
