// The processes as they are now (verdicts, pulses, backlogs), the queues, the canary, the ledger, and the incidents.
import { lineChart, meter } from "./charts.js";
import { clock } from "./clock.js";
import { $, h, icon, keyed, one, svg } from "./dom.js";
import { link } from "./link.js";
import { picture } from "./picture.js";
import { beats, fleet, turnsPerSecond } from "./store.js";
import { age, bytes, empty, hour, many, pastPhrase, pill, sign, since, table, tile, tone, whole } from "./words.js";

const PULSE_MS = 120000;
const silentS = () => (link.fresh ? (fleet.overall.watchdog_silent_s ?? null) : null);

function health() {
  const { canary = {}, verdict, reasons = [] } = fleet.overall,
    silent = silentS();
  const round = canary.age_s === null || canary.age_s === undefined ? "not yet" : age(canary.age_s);
  return h(
    "div",
    { className: "stack" },
    h(
      "div",
      { className: "tiles" },
      tile(verdict ?? "unknown", "overall verdict", verdict ?? "unknown"),
      tile(round, "since a canary round", canary.ok ? "ok" : "down"),
      tile(canary.latency_ms ? `${canary.latency_ms.toFixed(0)} ms` : "–", "canary round trip"),
      tile(
        canary.heartbeat_age_s === null || canary.heartbeat_age_s === undefined ? "–" : age(canary.heartbeat_age_s),
        "since a canary heartbeat",
      ),
      tile(fleet.epoch, "hub epoch"),
      silent !== null && tile(silent > 0 ? age(silent) : "never heard", "watchdog silent", "silent"),
    ),
    reasons.length > 0 &&
      h(
        "ul",
        { className: "note warn reasons" },
        reasons.map((reason) => h("li", null, reason)),
      ),
  );
}

function card(process) {
  const pulse = process.pulse,
    now = performance.timeOrigin + performance.now(),
    number = (label, value, word) => h("div", { className: word ?? "" }, h("dt", null, label), h("dd", null, value));
  return h(
    "article",
    {
      className: `panel process ${tone(process.verdict)}`,
      ariaLabel: process.name,
      tabIndex: -1,
      "data-kind": process.name.split(":")[0],
    },
    h(
      "div",
      { className: "tools" },
      h("h3", null, process.name),
      pill(process.verdict),
      !process.wanted && h("span", { className: "dim small" }, "stopped by an operator"),
      h("span", { className: "spring" }),
      h("span", { className: "dim small" }, process.pid && `pid ${process.pid}`),
    ),
    process.reason && h("p", { className: "why" }, process.reason),
    lineChart({
      title: "Turns a second",
      series: [{ name: "Turns a second", points: turnsPerSecond(process.name) }],
      from: now - PULSE_MS,
      to: now,
      gapMs: 5000,
      height: 56,
    }),
    h(
      "dl",
      { className: "numbers" },
      number("Pulse", pulse ? `${age(pulse.age_s)} ago` : "none"),
      number("Backlog", pulse ? whole(pulse.backlog) : "–", pulse?.backlog > 1000 ? "warn" : ""),
      number("Oldest waits", pulse ? age(pulse.oldest_s) : "–"),
      number("Blocked on", pulse?.blocked_on ?? "nothing", pulse?.blocked_on ? "warn" : ""),
      number("CPU", Number.isFinite(process.cpu_percent) ? `${process.cpu_percent.toFixed(0)}%` : "–"),
      number("Memory", bytes(process.rss_bytes)),
      number("Restarts", whole(process.restarts), process.restarts > 0 ? "warn" : ""),
      number("Up", age(process.uptime_s)),
      pulse?.errors > 0 && number("Errors", whole(pulse.errors), "warn"),
      pulse?.dropped > 0 && number("Dropped", whole(pulse.dropped), "warn"),
      pulse?.in_hand && number("In hand", h("span", { className: "mono small", title: pulse.in_hand }, pulse.in_hand)),
    ),
  );
}

function queue(row) {
  const full = (100 * row.items) / row.items_max;
  return h(
    "tr",
    null,
    h("td", null, h("strong", null, row.name)),
    h("td", null, meter(full, "full")),
    h("td", { className: "right" }, `${whole(row.items)} of ${whole(row.items_max)}`),
    h("td", { className: "right" }, bytes(row.bytes)),
    h("td", { className: "right" }, age(row.oldest_s)),
    h("td", { className: "right" }, whole(row.refused)),
    h("td", { className: "right" }, whole(row.dropped)),
  );
}

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
function incident(row) {
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

function ledger() {
  const { accepted, ...states } = fleet.ledger;
  if (accepted === undefined) return empty("Not known yet.");
  const sum = Object.values(states).reduce((a, b) => a + b, 0);
  return h(
    "div",
    { className: "stack" },
    h(
      "div",
      { className: "tiles small" },
      tile(whole(accepted), "accepted"),
      Object.entries(states).map(([state, count]) => tile(whole(count), state, state)),
    ),
    h(
      "p",
      { className: sum === accepted ? "note good" : "note lost" },
      icon(sum === accepted ? "check" : "bang"),
      sum === accepted
        ? `${whole(accepted)} accepted, which is the sum of all states: none is missing.`
        : `${whole(accepted)} accepted, but the sum of all states is ${whole(sum)}.`,
    ),
  );
}

export const view = {
  title: () => "Watchdog",
  build(main) {
    const heads = ["Queue", "Full", "Items", "Size", "Oldest", "Refused", "Dropped"];
    main.replaceChildren(
      h(
        "div",
        { className: "page" },
        h("div", { id: "health" }),
        h("div", { id: "picture" }),
        h("h2", { className: "heard" }, "Processes"),
        h("div", { id: "processes", className: "processes" }),
        h(
          "section",
          null,
          h("h2", null, "Incidents"),
          h("div", { id: "timeline" }),
          h("div", { id: "incidents", className: "panel items" }),
        ),
        h(
          "section",
          null,
          h("h2", null, "Queues"),
          table(
            "queues",
            heads.map((text, place) => h("th", { className: place > 1 ? "right" : "" }, text)),
            h("tbody", { id: "queues" }),
          ),
        ),
        h("section", null, h("h2", null, "Ledger of commands"), h("div", { id: "ledger" })),
      ),
    );
  },
  draw() {
    one($("health"), [fleet.overall, fleet.epoch, silentS() !== null], health);
    one($("picture"), [fleet.overall, fleet.epoch, [...fleet.processes.values()]], picture);
    keyed(
      $("processes"),
      [...fleet.processes.values()],
      (row) => row.name,
      (row) => [row, beats.get(row.name)?.length, beats.get(row.name)?.at(-1)?.at],
      card,
    );
    const incidents = [...fleet.incidents.values()].sort((a, b) => (b.found_at ?? "").localeCompare(a.found_at ?? ""));
    one($("timeline"), [incidents, Math.floor(clock.now() / 10000)], () =>
      incidents.length ? timeline(incidents) : h("span"),
    );
    if (incidents.length)
      keyed(
        $("incidents"),
        incidents,
        (row) => row.id,
        (row) => row,
        incident,
      );
    else {
      const said = fleet.version < 0 ? "Loading …" : "No incidents.";
      one($("incidents"), said, () => empty(said));
    }
    keyed(
      $("queues"),
      fleet.overall.queues ?? [],
      (row) => row.name,
      (row) => row,
      queue,
    );
    one($("ledger"), fleet.ledger, ledger);
  },
};
