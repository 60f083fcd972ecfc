// What is wrong now, what was lately, and the processes as they are: verdicts, queues, test commands, the ledger.
import { lineChart, meter } from "./charts.js";
import { $, h, icon, keyed, one } from "./dom.js";
import { list as listIncidents, newest } from "./incidents.js";
import { link, may } from "./link.js";
import { picture } from "./picture.js";
import { beats, fleet, turnsPerSecond } from "./store.js";
import { age, bytes, empty, table, tile, tone, verdictPill, whole } from "./words.js";
import { list as listTroubles, troubles } from "./wrong.js";

const PULSE_MS = 120000;
const OVERALL = {
  ok: "All is well: commands go round.",
  degraded: "Something is not well; commands go round.",
  stalled: "No command goes round now.",
  down: "There is no hub.",
};
const silentS = () => (link.fresh ? (fleet.overall.watchdog_silent_s ?? null) : null);

const LATELY_MAX = 5; // incidents; the others have a view of their own

// What each kind of process is for.
const KINDS = {
  queues: "carries messages between the others",
  hub: "decides and keeps all records",
  gateway: "holds the servers' connections",
  fanout: "serves this page, the API and the command line",
  watchdog: "replaces what makes no progress",
  agent: "runs commands on this machine",
};

// A number with its name, and with a sentence that explains it.
function explained(text, why) {
  return h("span", { title: why }, text);
}
function health() {
  const { canary = {}, verdict } = fleet.overall,
    silent = silentS();
  const ago = (value) => (value === null || value === undefined ? "not yet" : age(value));
  const canaryMeans = "The watchdog sends a test command (the canary) all the way round every 2 s.";
  return h(
    "div",
    { className: "tiles" },
    tile(verdict ?? "unknown", explained("overall verdict", OVERALL[verdict] ?? ""), verdict ?? "unknown"),
    tile(ago(canary.age_s), explained("since a test command came back", canaryMeans), canary.ok ? "ok" : "down"),
    tile(
      canary.latency_ms ? `${canary.latency_ms.toFixed(0)} ms` : "–",
      explained("a test command's way round", canaryMeans),
    ),
    tile(ago(canary.heartbeat_age_s), explained("since a test heartbeat", "From the watchdog's own test agent.")),
    tile(fleet.epoch, explained("number of the hub (epoch)", "Each new hub has the next number.")),
    silent !== null && tile(silent > 0 ? age(silent) : "never heard", "watchdog silent", "silent"),
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
      verdictPill(process.verdict),
      !process.wanted && h("span", { className: "dim small" }, "stopped by an operator"),
      h("span", { className: "spring" }),
      h("span", { className: "dim small" }, process.pid && `pid ${process.pid}`),
    ),
    h("p", { className: "dim small" }, KINDS[process.name.split(":")[0]]),
    process.reason && h("p", { className: "why" }, process.reason),
    lineChart({
      title: "Turns a second: how often its loop goes round",
      series: [{ name: "Turns a second", points: turnsPerSecond(process.name) }],
      from: now - PULSE_MS,
      to: now,
      gapMs: 5000,
      height: 56,
    }),
    h(
      "dl",
      { className: "numbers" },
      number(
        explained("Last turn", "When its loop last went round, by its pulse: the file in which it counts its turns."),
        pulse ? age(pulse.age_s) : "none",
      ),
      number("Waiting", pulse ? whole(pulse.backlog) : "–", pulse?.backlog > 1000 ? "warn" : ""),
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
        h(
          "section",
          null,
          h("h2", null, "What is wrong now"),
          h("ol", { id: "troubles", className: "panel troubles" }),
        ),
        h(
          "section",
          null,
          h("h2", null, "What was wrong lately"),
          h("div", { id: "lately", className: "panel items" }),
          h("p", { className: "small" }, h("a", { href: "#incidents" }, "All incidents"), h("span", { id: "aside" })),
        ),
        h("div", { id: "health" }),
        h("div", { id: "picture" }),
        h(
          "p",
          { className: "dim small" },
          "Each process goes round in a loop; one pass is a turn. As long as turns are made, it makes progress. ",
          "The watchdog replaces whoever makes none for some seconds.",
        ),
        h("h2", { className: "heard" }, "Processes"),
        h("div", { id: "processes", className: "processes" }),
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
        h("section", null, h("h2", null, "All commands, counted (the ledger)"), h("div", { id: "ledger" })),
      ),
    );
  },
  draw() {
    const found = troubles();
    if (found.length) listTroubles($("troubles"), found);
    else one($("troubles"), link.fresh, (fresh) => h("li", null, empty(fresh ? "Nothing." : "Not known: see above.")));
    listIncidents($("lately"), newest().slice(0, LATELY_MAX), "Nothing was wrong lately.");
    const aside = fleet.processes.get("hub")?.pulse?.letters ?? 0;
    one($("aside"), [aside, may("operator")], () =>
      may("operator")
        ? h("span", null, " · ", h("a", { href: "#deadletters" }, `Messages put aside (dead letters): ${whole(aside)}`))
        : h("span"),
    );
    one($("health"), [fleet.overall, fleet.epoch, silentS() !== null], health);
    one($("picture"), [fleet.overall, fleet.epoch, [...fleet.processes.values()]], picture);
    keyed(
      $("processes"),
      [...fleet.processes.values()],
      (row) => row.name,
      (row) => [row, beats.get(row.name)?.length, beats.get(row.name)?.at(-1)?.at],
      card,
    );
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
