// A picture of the processes as they are now, from the servers to the people, with the queues and the watchdog.
import { h } from "./dom.js";
import { fleet, turnsPerSecond } from "./store.js";
import { age, many, sign, tone, whole } from "./words.js";

const WORST = [
  "dead",
  "unkillable",
  "frozen",
  "stalled",
  "deaf",
  "memory",
  "silent",
  "starting",
  "lagging",
  "excused",
  "stopped",
  "standby",
  "advancing",
];

// All processes of a kind as one: how many, their worst verdict, and the sum of their connections.
function together(kind) {
  const members = [...fleet.processes.values()].filter((row) => row.name.split(":")[0] === kind);
  const verdict = WORST.find((word) => members.some((row) => row.verdict === word)) ?? "unknown";
  const sum = (name) => members.reduce((all, row) => all + (row.pulse?.[name] ?? 0), 0);
  return { count: members.length, verdict, connections: sum("connections") };
}
// How many items the queues hold of which this is true; NaN, shown as a dash, if nobody knows of any queue yet.
const depth = (wanted) => {
  const queues = fleet.overall.queues ?? [];
  return queues.length ? queues.filter(wanted).reduce((all, row) => all + row.items, 0) : NaN;
};

// A process: its name, its verdict, and a number that tells what it does. It leads to the card of the process.
function box(kind, verdict, told, title = kind) {
  const go = () => {
    const card = document.querySelector(`[data-kind="${kind}"]`);
    card?.scrollIntoView({ block: "center" });
    card?.focus({ preventScroll: true });
  };
  return h(
    "button",
    { type: "button", className: `box ${tone(verdict)}`, onclick: go },
    h("span", { className: "line" }, sign(verdict), h("strong", null, title)),
    h("span", { className: "small" }, verdict),
    h("span", { className: "dim small" }, told),
  );
}
const people = (title, told) =>
  h("div", { className: "box ends" }, h("strong", null, title), h("span", { className: "dim small" }, told));

// A line between two processes, with what waits there. Unwell queues stop everything, so it has their tone.
function between(verdict, ...kinds) {
  const told = kinds.map((kind) => `${kind} ${whole(depth((row) => row.name.split("/")[0] === kind))}`);
  return h(
    "div",
    { className: `wire ${tone(verdict)}` },
    told.map((text) => h("span", { className: "dim small" }, text)),
  );
}

export function picture() {
  const [queues, hub, gateway, fanout, watchdog] = ["queues", "hub", "gateway", "fanout", "watchdog"].map((kind) =>
    together(kind),
  );
  const { canary = {}, fleet: hosts = {} } = fleet.overall;
  const rate = turnsPerSecond("hub").at(-1)?.[1];
  const named = (kind, { count }) => (count > 1 ? `${kind} × ${count}` : kind);
  const round =
    canary.age_s === null || canary.age_s === undefined
      ? "no canary round yet"
      : `canary round ${age(canary.age_s)} ago`;
  const parts = [
    people("servers", `${whole(hosts.online)} of ${whole(hosts.hosts)} online`),
    h("div", { className: "wire calm" }),
    box("gateway", gateway.verdict, many(gateway.connections, "socket"), named("gateway", gateway)),
    between(queues.verdict, "events", "deliveries"),
    box(
      "hub",
      hub.verdict,
      rate === null || rate === undefined ? `hub epoch ${fleet.epoch}` : `${rate.toFixed(0)} turns a second`,
    ),
    between(queues.verdict, "broadcasts"),
    box("fanout", fanout.verdict, many(fanout.connections, "socket"), named("fanout", fanout)),
    h("div", { className: "wire calm" }),
    people("people", "pages, CLI, Prometheus"),
  ];
  return h(
    "div",
    { className: "picture panel" },
    h(
      "ol",
      { className: "chain", ariaLabel: "from the servers to the people" },
      parts.map((part) => h("li", null, part)),
    ),
    h(
      "div",
      { className: "under-chain" },
      box(
        "queues",
        queues.verdict,
        `between the hub and all others: ${many(
          depth(() => true),
          "item",
        )}`,
      ),
      box("watchdog", watchdog.verdict, `watches all of them: ${round}`),
    ),
  );
}
