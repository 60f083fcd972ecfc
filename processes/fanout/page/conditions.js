// What is wrong now: with hosts, and with the installation itself; who was told of it; what nobody is told of.
import { clock } from "./clock.js";
import { confirm, dialog, say, tell } from "./dialogs.js";
import { $, h, keyed, one, setText } from "./dom.js";
import { ask, askSurely, may } from "./link.js";
import { keep, said } from "./place.js";
import { parse } from "./query.js";
import { conditionsOf, hostsByName, openByHost } from "./store.js";
import { day, empty, many, pill, since } from "./words.js";

const AGAIN_MS = 3000;
const UNITS = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
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

// How long a text such as 90m or 2h is, in seconds; null: it is none.
function lengthS(text) {
  const found = /^(\d+(?:\.\d+)?)\s*([smhdw])$/.exec(text.trim());
  return found && Number(found[1]) * UNITS[found[2]];
}
// Asks of which hosts nobody is to be told, from when, for how long and why. Says whom the query finds now.
function makeSilence() {
  const field = (ariaLabel, value, more) =>
      h("input", { ariaLabel, value, required: true, autocomplete: "off", spellcheck: false, ...more }),
    query = field("which hosts", "", { placeholder: "rack=b4", oninput: () => look() }),
    length = field("for how long", "2h"),
    start = field("begins in", "0m"),
    why = field("why", "", { placeholder: "new switch", maxLength: 200 }),
    found = h("p", { className: "dim small", role: "status" });
  const look = () => {
    const asked = parse(query.value.startsWith("@") ? "" : query.value),
      open = openByHost();
    const finds = (host) => {
      const conditions = conditionsOf(host.name).map((row) => row.kind);
      return asked.matches({ ...host, conditions }, open.get(host.name), clock.now());
    };
    const names = query.value.trim() && !query.value.startsWith("@") ? hostsByName().filter(finds) : null;
    setText(found, asked.error?.message ?? (names ? `It finds ${many(names.length, "host")} now.` : ""));
  };
  const body = h(
    "div",
    { className: "stack" },
    h("label", null, "Hosts, by a query or a saved one (@NAME)", query),
    found,
    h("label", null, "For how long (30m, 2h, 1d)", length),
    h("label", null, "Begins in (0m: now)", start),
    h("label", null, "Why", why),
    h("p", { className: "dim small" }, "What is wrong with these hosts is listed all the same."),
  );
  const act = async () => {
    const for_s = lengthS(length.value),
      in_s = lengthS(start.value);
    if (for_s === null || in_s === null) {
      say("Type a time with its unit, as 30m, 2h or 1d.", "degraded");
      return false;
    }
    const asked = { query: query.value.trim(), why: why.value.trim(), for_s, in_s };
    // not asked again by itself: whose answer was lost may have been made, and would be made twice
    const made = await tell(ask("POST", "/api/v1/silences", asked), "They are silenced.");
    askedMs = 0;
    return made !== null;
  };
  dialog("Silence hosts", body, act, "Silence them");
}

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
        h(
          "div",
          { className: "tools" },
          h("h2", null, "Silences"),
          h("span", { className: "spring" }),
          may("operator") && h("button", { type: "button", onclick: makeSilence }, "Silence …"),
        ),
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
