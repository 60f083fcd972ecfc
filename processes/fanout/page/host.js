// One host: its state now and in the last hours, its commands, and what its agent reports.
import { known, lineChart } from "./charts.js";
import { clock } from "./clock.js";
import { command } from "./commanding.js";
import { commandLink } from "./commands.js";
import { remove, revoke, tell } from "./dialogs.js";
import { $, h, icon, keyed, one, plain } from "./dom.js";
import { label, labelText } from "./labels.js";
import { ask, askSurely, link, may, trusted } from "./link.js";
import { keep, said as placed } from "./place.js";
import { fleet, newestCommands } from "./store.js";
import { age, agentText, day, empty, facts, hour, pill, presenceOf, since, tile, whole } from "./words.js";

const AGAIN_MS = 5000,
  COMMANDS_MAX = 50;
const SPANS = {
  // a chart shows at least shortMs, however new the host is
  hour: { text: "1 hour", lengthMs: 3600000, shortMs: 300000 },
  day: { text: "24 hours", lengthMs: 86400000, shortMs: 7200000 },
};
let name = "",
  span = "hour",
  history = null,
  older = [],
  askedMs = 0,
  redraw = () => {};

async function refresh() {
  askedMs = Date.now();
  const own = name,
    reach = span,
    path = encodeURIComponent(own);
  try {
    const [found, commands] = await Promise.all([
      ask("GET", `/api/v1/hosts/${path}/metrics?span=${reach}`),
      ask("GET", `/api/v1/commands?limit=${COMMANDS_MAX}&host=${path}`),
    ]);
    if (own === name && reach === span) {
      history = found;
      older = commands.commands;
      redraw();
    }
  } catch {
    /* the next draw asks again */
  }
}

// What an agent reports beyond the fields that are known here: names and values as they are, one level deep.
function pairs(value) {
  const found = [];
  for (const [key, inner] of Object.entries(value ?? {})) {
    if (inner === "" || inner === null) continue;
    if (typeof inner === "object") {
      if (key !== "update_status") found.push([key, JSON.stringify(inner)]);
    } else found.push([key.replaceAll("_", " "), String(inner)]);
  }
  return found;
}
function updates(status) {
  const parts = Object.entries(status ?? {}).filter(
    ([, part]) => part && typeof part === "object" && (part.status || part.message),
  );
  return (
    parts.length > 0 &&
    h(
      "div",
      null,
      h("h3", null, "Up to date?"),
      facts(
        parts.map(([key, part]) => [
          key,
          [
            pill(part.status === "ok" ? "ok" : part.status ? "degraded" : "unknown", plain(part.status) || "unknown"),
            ` ${plain(part.message)} `,
            part.checked_at && h("span", { className: "dim small" }, `checked ${day(part.checked_at)}`),
          ],
        ]),
      ),
    )
  );
}

function spans() {
  const choose = (wanted) => {
    span = wanted;
    history = null;
    refresh();
    redraw();
  };
  return h(
    "div",
    { className: "chips" },
    Object.entries(SPANS).map(([wanted, { text }]) =>
      h(
        "button",
        { type: "button", className: "chip", ariaPressed: String(wanted === span), onclick: () => choose(wanted) },
        text,
      ),
    ),
  );
}

function charts() {
  const to = clock.now(),
    { lengthMs, shortMs } = SPANS[span],
    from = Math.max(to - lengthMs, Math.min(Date.parse(history.since), to - shortMs)),
    gapMs = history.sample_s * 3000 + 20000;
  const points = (values) => history.at.map((at, place) => [at * 1000, values[place]]);
  const note = Date.parse(history.since) > from ? `kept since ${hour(history.since)}` : "";
  const chart = (title, values, unit, top) =>
    lineChart({ title, series: [{ name: title, points: points(values) }], from, to, unit, top, gapMs, note });
  return h(
    "div",
    { className: "charts" },
    chart("CPU", history.cpu, "%", 100),
    chart("Memory", history.ram, "%", 100),
    chart("Disk", history.disk, "%", 100),
    chart("Load", history.load, "", null),
  );
}
function comings() {
  const list = history.presences.toReversed();
  return h(
    "ol",
    { className: "story" },
    list.map((one, place) =>
      h(
        "li",
        null,
        pill(one.presence),
        h("span", { className: "mono small" }, one.address),
        h(
          "span",
          { className: "under" },
          day(one.at),
          place > 0 && ` · for ${age((Date.parse(list[place - 1].at) - Date.parse(one.at)) / 1000)}`,
        ),
      ),
    ),
  );
}
function head(host) {
  const presence = presenceOf(host, clock.now(), trusted()),
    metrics = host.metrics ?? {};
  const number = (value, unit) => (known(value) ? `${Math.round(value)}${unit}` : "–");
  return h(
    "div",
    { className: "stack" },
    h(
      "div",
      { className: "tools" },
      h("a", { className: "back", href: "#fleet" }, "‹ Fleet"),
      pill(presence.word, presence.text),
      host.last_seen && h("span", { className: "dim" }, since(host.last_seen, "heartbeat ")),
      host.revoked && pill("revoked", "token revoked"),
      host.put_aside && h("span", { className: "dim" }, host.put_aside),
      h("span", { className: "spring" }),
      may("operator") && h("button", { onclick: () => label([host], "") }, "Labels …"),
      may("operator") && h("button", { className: "go", onclick: () => command([host]) }, "Command …"),
      may("admin") && h("button", { className: "stop", onclick: () => revoke(host), disabled: host.revoked }, "Revoke"),
      may("admin") &&
        h(
          "button",
          {
            className: "stop",
            onclick: () =>
              remove([host], () => {
                location.hash = "#fleet";
              }),
          },
          "Remove",
        ),
    ),
    h(
      "div",
      { className: "tiles" },
      tile(number(metrics.cpu, "%"), "CPU"),
      tile(number(metrics.ram, "%"), "memory"),
      tile(number(metrics.disk, "%"), "disk"),
      tile(known(metrics.load) ? metrics.load.toFixed(2) : "–", "load"),
      tile(age(metrics.uptime_s), "up"),
      tile(whole(host.ledger?.accepted), "commands so far"),
    ),
    host.suspended &&
      h(
        "p",
        { className: "note bad" },
        icon("bang"),
        h(
          "span",
          null,
          `Its token has been suspended since ${day(host.suspended_at)}: ${host.suspended}. Its agent cannot connect. `,
          may("operator") &&
            h(
              "button",
              {
                onclick: () =>
                  tell(
                    askSurely("POST", `/api/v1/hosts/${encodeURIComponent(host.name)}/lift`),
                    "The suspension is lifted.",
                  ),
              },
              "Lift the suspension",
            ),
        ),
      ),
    host.ledger?.lost > 0 &&
      h(
        "p",
        { className: "note lost" },
        icon("question"),
        `${whole(host.ledger.lost)} of its commands are lost: nobody knows how they ended.`,
      ),
  );
}
function said(host) {
  return h(
    "div",
    { className: "stack" },
    h("h2", null, "About"),
    facts([
      ["Labels", labelText(host.labels)],
      ["Its own labels", labelText(host.agent_labels)],
      ["System", host.os_version],
      ["Kernel", [host.kernel, host.machine].filter(Boolean).join(" · ")],
      ["Type", host.host_type],
      ["Agent", agentText(host, link.me?.version)],
      ["Address", host.address],
      ["Connected", host.connected_since && host.presence === "online" && day(host.connected_since)],
      ["Enrolled", day(host.enrolled_at)],
      ["New token", host.rotation_asked_at && `asked for ${day(host.rotation_asked_at)}`],
      ["Enrolment code", host.code_until && `good until ${day(host.code_until)}`],
      ["Heartbeat", host.heartbeat_interval_s && `every ${host.heartbeat_interval_s} s`],
      ["Offers", (host.commands ?? []).join(", ") || "not known yet"],
      ["Swap", known(host.metrics?.swap) && `${Math.round(host.metrics.swap)}%`],
      [
        "Temperatures",
        Object.entries(host.metrics?.temperatures ?? {})
          .map(([key, value]) => `${key} ${plain(value)} °C`)
          .join(", "),
      ],
      ...pairs(host.facts),
      ...pairs(host.heartbeat_facts),
    ]),
    updates(host.heartbeat_facts?.update_status),
  );
}

export const view = {
  title: () => name,
  looksAt() {
    const host = fleet.hosts.get(name);
    return host ? `${name}: ${presenceOf(host, clock.now(), trusted()).text}` : name;
  },
  build(main, wanted, changed) {
    redraw = changed;
    name = wanted;
    const place = placed();
    if (place && Object.hasOwn(SPANS, place.span ?? "")) span = place.span;
    history = null;
    older = [];
    askedMs = 0;
    main.replaceChildren(
      h(
        "div",
        { className: "page" },
        h("div", { id: "head" }),
        h(
          "div",
          { id: "rest", className: "page" },
          h("div", { id: "spans", role: "group", ariaLabel: "how far back" }),
          h("div", { id: "charts" }),
          h(
            "div",
            { className: "columns" },
            h("section", { className: "panel", id: "said" }),
            h(
              "section",
              { className: "panel" },
              h("h2", null, "Commands"),
              h("div", { id: "own", className: "items flush" }),
            ),
            h("section", { className: "panel" }, h("h2", null, "Presence"), h("div", { id: "comings" })),
          ),
        ),
      ),
    );
  },
  draw() {
    keep({ span }, { span: "hour" });
    const host = fleet.hosts.get(name);
    if (!host) {
      const gone = h(
        "p",
        { className: "empty" },
        "There is no such host (any more). ",
        h("a", { href: "#fleet" }, "To the fleet"),
      );
      $("head").replaceChildren(fleet.version < 0 ? empty("Loading …") : gone);
      $("rest").hidden = true;
      return;
    }
    $("rest").hidden = false;
    if (Date.now() - askedMs > AGAIN_MS) refresh();
    one($("head"), [host, presenceOf(host, clock.now(), trusted())], () => head(host));
    one($("said"), [{ ...host, metrics: null, last_seen: null }, host.metrics?.temperatures, host.metrics?.swap], () =>
      said(host),
    );
    const live = newestCommands().filter((one) => one.host === name),
      seen = new Set(live.map((one) => one.id)),
      all = [...live, ...older.filter((one) => !seen.has(one.id))].slice(0, COMMANDS_MAX);
    if (all.length)
      keyed(
        $("own"),
        all,
        (one) => one.id,
        (one) => [one.state, one.reason, one.message],
        (one) => commandLink(one, false),
      );
    else one($("own"), "none", () => empty("It has had no command yet."));
    one($("spans"), span, spans);
    if (!history) return;
    one($("charts"), [span, history.at.at(-1), Math.floor(clock.now() / 5000)], charts);
    one($("comings"), history.presences, () =>
      history.presences.length ? comings() : empty("Its presence has not changed since it is recorded."),
    );
  },
};
