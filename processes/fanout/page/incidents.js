// The incidents: what was found, mended and lost, newest first, with a timeline of the last day.
import { clock } from "./clock.js";
import { $, h, keyed, one, svg } from "./dom.js";
import { fleet } from "./store.js";
import { age, empty, hour, many, pastPhrase, sign, since } from "./words.js";

export const newest = () =>
  [...fleet.incidents.values()].sort((a, b) => (b.found_at ?? "").localeCompare(a.found_at ?? ""));

// The incidents of the last day on a timeline.
function timeline(incidents) {
  const to = clock.now(),
    found = incidents.map((one) => Date.parse(one.begun_at ?? one.found_at)).filter(Boolean),
    from = Math.min(to - 3600000, ...found.filter((at) => at > to - 86400000));
  const width = 1000,
    place = (ms) => ((ms - from) / (to - from || 1)) * width;
  return h(
    "div",
    { className: "timeline" },
    svg(
      "svg",
      {
        viewBox: `0 0 ${width} 26`,
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": `${many(found.filter((at) => at >= from).length, "incident")} since ${hour(from)}`,
      },
      svg("line", { class: "rule", x1: 0, x2: width, y1: 13, y2: 13 }),
      incidents
        .filter((one) => Date.parse(one.begun_at ?? one.found_at) >= from)
        .map((one) => {
          const begun = place(Date.parse(one.begun_at ?? one.found_at));
          return svg("rect", {
            class: one.over_at ? "over" : "open",
            x: Math.min(begun, width - 4),
            y: 4,
            width: Math.max(4, (one.over_at ? place(Date.parse(one.over_at)) : width) - begun),
            height: 18,
          });
        }),
    ),
    h("div", { className: "times" }, h("span", null, hour(from)), h("span", null, "now")),
  );
}
export function incident(row) {
  const over = row.over_at !== null;
  return h(
    "a",
    { href: `#incident/${row.id}`, className: `item incident ${over ? "" : "alarming"}` },
    h(
      "span",
      { className: "line" },
      sign(over ? "over" : "open"),
      h("strong", null, row.process),
      h("span", null, ` ${pastPhrase(row.verdict)} `),
      row.drill && h("span", { className: "tag" }, "drill"),
    ),
    h(
      "span",
      { className: "under right" },
      over ? `well again after ${age(row.recovered_after_s)}` : "not over yet",
      " · ",
      since(row.found_at),
    ),
    h("span", { className: "under mono" }, row.stuck_at ?? row.reason),
    h("span", { className: `under right ${row.lost ? "bad" : ""}` }, `commands lost: ${row.lost}`),
  );
}

// Gives `parent` these incidents, or says that there are none.
export function list(parent, incidents, none) {
  if (incidents.length)
    keyed(
      parent,
      incidents,
      (row) => row.id,
      (row) => row,
      incident,
    );
  else {
    const said = fleet.version < 0 ? "Loading …" : none;
    one(parent, said, () => empty(said));
  }
}

export const view = {
  title: () => "Incidents",
  build(main) {
    main.replaceChildren(
      h(
        "div",
        { className: "page" },
        h(
          "p",
          { className: "dim" },
          "An incident is one process that died or made no progress: what was seen, what was done, and what was lost. ",
          "The newest 50 are here; fleethub incidents lists all.",
        ),
        h("div", { id: "timeline" }),
        h("div", { id: "incidents", className: "panel items" }),
      ),
    );
  },
  draw() {
    const incidents = newest();
    one($("timeline"), [incidents, Math.floor(clock.now() / 10000)], () =>
      incidents.length ? timeline(incidents) : h("span"),
    );
    list($("incidents"), incidents, "No incidents.");
  },
};
