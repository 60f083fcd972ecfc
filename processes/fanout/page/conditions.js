// What is wrong now: with hosts, and with the installation itself; who was told of it; what nobody is told of.
import { confirm } from "./dialogs.js";
import { $, h, keyed, one } from "./dom.js";
import { ask, askSurely, may } from "./link.js";
import { keep, said } from "./place.js";
import { day, empty, many, pill, since } from "./words.js";

const AGAIN_MS = 3000;
const TONES = { critical: "failed", warning: "degraded", info: "stale" };
let page = null,
  silences = [],
  failed = "",
  askedMs = 0,
  every = false,
  redraw = () => {};

async function refresh() {
  askedMs = Date.now();
  try {
    [page, { silences }] = await Promise.all([ask("GET", "/api/v1/conditions"), ask("GET", "/api/v1/silences")]);
    failed = "";
  } catch (error) {
    failed = error.message;
  }
  redraw();
}

const acknowledge = (row) =>
  confirm(
    `Acknowledge: ${row.title}?`,
    "Nobody is told of it any more, but of its end. What happened once is over by this.",
    "Acknowledge",
    async () => {
      await askSurely("POST", `/api/v1/conditions/${encodeURIComponent(row.id)}/acknowledge`, { why: "" });
      askedMs = 0;
    },
    "Acknowledged.",
  );
const unsilence = (row) =>
  confirm(
    `End the silence of ${row.query}?`,
    "What is wrong with these hosts is told from then on.",
    "End it",
    async () => {
      await askSurely("DELETE", `/api/v1/silences/${encodeURIComponent(row.id)}`);
      askedMs = 0;
    },
    "The silence has ended.",
  );

// Who was told, or why nobody was.
function toldText(row) {
  if (row.state === "silenced") return "silenced";
  if (row.state === "acknowledged") return `acknowledged by ${row.acknowledged_by}`;
  return row.told.length ? `told to ${row.told.join(", ")}` : row.group ? "told as one of many" : "told to nobody yet";
}

function item(row) {
  const still = row.kind === "many" && row.left < row.hosts ? ` (${row.left} of them still)` : "";
  return h(
    "div",
    { className: "item" },
    h(
      "span",
      { className: "line wrapped" },
      pill(TONES[row.severity] ?? "info", row.severity),
      " ",
      row.host
        ? h("a", { href: `#host/${encodeURIComponent(row.host)}` }, h("strong", null, row.title))
        : h("strong", null, row.title),
      still,
    ),
    h("span", { className: "under right" }, since(row.since)),
    h("span", { className: "under" }, row.text),
    h(
      "span",
      { className: "under right" },
      toldText(row),
      may("operator") &&
        row.kind !== "house" &&
        row.state === "open" &&
        h("button", { className: "small", onclick: () => acknowledge(row) }, "Acknowledge"),
    ),
  );
}
function silence(row) {
  const over = row.ended_at || Date.parse(row.until) < Date.now();
  return h(
    "div",
    { className: "item" },
    h("span", { className: "line wrapped" }, h("code", null, row.query), ` · ${row.why}`),
    h("span", { className: "under right" }, over ? "over" : `until ${day(row.until)}`),
    h("span", { className: "under" }, `by ${row.actor}, from ${day(row.starts_at)}`),
    h(
      "span",
      { className: "under right" },
      may("operator") &&
        !over &&
        h("button", { className: "small stop", onclick: () => unsilence(row) }, "End the silence"),
    ),
  );
}

export const view = {
  title: () => "Conditions",
  looksAt: () => (page ? `${many(page.conditions.length, "condition")} of hosts` : "Conditions"),
  build(main, _, changed) {
    redraw = changed;
    page = null;
    failed = "";
    askedMs = 0;
    const place = said();
    if (place) every = place.each === "1";
    main.replaceChildren(
      h(
        "div",
        { className: "page" },
        h(
          "div",
          { className: "tools" },
          h(
            "label",
            { className: "inline" },
            h("input", {
              type: "checkbox",
              checked: every,
              onchange: (event) => {
                every = event.target.checked;
                redraw();
              },
            }),
            " each host of what is told as one",
          ),
        ),
        h("div", { id: "conditions", className: "items panel" }),
        h("h2", null, "Silences"),
        h("div", { id: "silences", className: "items panel" }),
      ),
    );
  },
  draw() {
    keep({ each: every });
    if (Date.now() - askedMs > AGAIN_MS) refresh();
    if (!page) {
      if (failed) one($("conditions"), failed, () => empty(failed));
      return;
    }
    const rows = page.conditions.filter((row) => every || !row.group);
    if (rows.length)
      keyed(
        $("conditions"),
        rows,
        (row) => row.id,
        (row) => row,
        item,
      );
    else one($("conditions"), "none", () => empty("Nothing is wrong."));
    if (silences.length)
      keyed(
        $("silences"),
        silences,
        (row) => row.id,
        (row) => row,
        silence,
      );
    else
      one($("silences"), "none", () => empty("None. Before maintenance: fleethub silence 'rack=b4' --for 2h --why …"));
  },
};
