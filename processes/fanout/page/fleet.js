// The fleet: all hosts, to be found, filtered, sorted, grouped, selected and commanded.
import { known, meter, sparkline } from "./charts.js";
import { clock } from "./clock.js";
import { command } from "./commanding.js";
import { dialog, enroll, remove } from "./dialogs.js";
import { $, h, icon, one, setText } from "./dom.js";
import { Grid } from "./grid.js";
import { label, labelText, queries } from "./labels.js";
import { link, may, trusted } from "./link.js";
import { keep, said } from "./place.js";
import { FIELDS, field, parse } from "./query.js";
import { compareText, conditionsOf, fleet, hostsByName, openByHost, sparks } from "./store.js";
import { agentText, facts, many, pill, presenceOf, progressOf, since, whole } from "./words.js";

const PRESENCES = ["online", "quiet", "stale", "offline"];
const SORTS = {
  name: "Name",
  presence: "Presence",
  last_seen: "Last heartbeat",
  cpu: "CPU",
  ram: "Memory",
  disk: "Disk",
  load: "Load",
  op: "Command",
  agent_version: "Agent version",
};
const GROUPS = {
  "": "No groups",
  presence: "Presence",
  host_type: "Type",
  os_version: "System",
  agent_version: "Agent version",
  generation: "Generation",
  location: "Location",
  op: "Command",
};
const GROUP_CHARS_MAX = 80;
const wide = matchMedia("(min-width: 760px)");
// outlives the view, so that whoever comes back finds the same choice
const FIRST = { text: "", presence: "", sort: "name", down: false, group: "" };
const wanted = { ...FIRST };
let grid = null,
  open = new Map(),
  changed = () => {};
const picked = new Set();
let place = null; // where the grid was when the view was left

// Takes over what the address says. If it says nothing, what was chosen last stays.
function takePlace() {
  const told = said();
  if (!told) return;
  Object.assign(wanted, FIRST, {
    text: told.q ?? "",
    presence: PRESENCES.includes(told.presence) ? told.presence : "",
    sort: Object.hasOwn(SORTS, told.sort ?? "") ? told.sort : "name",
    down: told.down === "1",
    group: Object.hasOwn(GROUPS, told.group ?? "") ? told.group : "",
  });
}
const keepPlace = () =>
  keep(
    { q: wanted.text, presence: wanted.presence, sort: wanted.sort, down: wanted.down, group: wanted.group },
    { sort: "name" },
  );

const shown = () => {
  // the hosts that match, in order, and how many there are of each presence
  open = openByHost();
  const now = clock.now(),
    query = parse(wanted.text),
    found = hostsByName().filter((host) => query.matches(withConditions(host), open.get(host.name), now));
  const counts = Object.fromEntries(PRESENCES.map((presence) => [presence, 0]));
  const presence = (host) => presenceOf(host, now, true).word;
  for (const host of found) counts[presence(host)]++;
  return {
    counts,
    all: found.length,
    error: query.error,
    hosts: order(wanted.presence ? found.filter((host) => presence(host) === wanted.presence) : found),
  };
};
function order(hosts) {
  if (wanted.sort === "name") return wanted.down ? hosts.toReversed() : hosts;
  const keys = new Map(hosts.map((host) => [host, field(host, open.get(host.name), wanted.sort)])),
    way = wanted.down ? -1 : 1;
  return hosts.sort((one, other) => {
    const a = keys.get(one),
      b = keys.get(other);
    // unknown values come last in both directions
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : typeof b === "number" ? 1 : 0; // numbers first
    return way * (typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0);
  });
}
function grouped(hosts) {
  if (!wanted.group) return hosts;
  const groups = new Map();
  for (const host of hosts) {
    const name = String(field(host, open.get(host.name), wanted.group) ?? "").slice(0, GROUP_CHARS_MAX) || "none";
    if (groups.has(name)) groups.get(name).push(host);
    else groups.set(name, [host]);
  }
  return [...groups]
    .sort((a, b) => compareText(a[0], b[0]))
    .flatMap(([group, members]) => [{ group, count: members.length }, ...members]);
}

function cells(host, selected) {
  const metrics = host.metrics ?? {},
    running = open.get(host.name),
    presence = presenceOf(host, clock.now(), trusted()),
    old = host.presence !== "online";
  return [
    h("input", { type: "checkbox", checked: selected, tabIndex: -1, ariaLabel: `select ${host.name}` }),
    [
      h("a", { href: `#host/${encodeURIComponent(host.name)}`, tabIndex: -1, className: "name" }, host.name),
      h(
        "span",
        { className: "under" },
        host.put_aside
          ? "not shown: see the dead letters"
          : host.revoked
            ? "token revoked"
            : host.suspended
              ? `suspended: ${host.suspended}`
              : [host.os_version || host.host_type || "never seen", labelText(host.labels)].filter(Boolean).join(" · "),
      ),
    ],
    [
      pill(presence.word, presence.text),
      h(
        "span",
        { className: "under" },
        host.last_seen ? since(host.last_seen) : host.put_aside ? "" : "never",
        conditionsText(host.name),
      ),
    ],
    [meter(metrics.cpu, "CPU", old), sparkline(sparks.get(host.name) ?? [])],
    meter(metrics.ram, "memory", old),
    meter(metrics.disk, "disk", old),
    known(metrics.load) ? metrics.load.toFixed(2) : h("span", { className: "dim" }, "–"),
    running
      ? [
          h(
            "a",
            { href: `#commands/${running.id}`, tabIndex: -1, className: `doing ${running.state}` },
            pill(running.state, running.op),
          ),
          h("span", { className: "under" }, ...howFar(host, running)),
        ]
      : h("span", { className: "dim" }, host.pending_command ?? "–"),
    h("span", { className: "under" }, agentText(host, link.me?.version) || "–"),
  ];
}
// What is wrong with the host besides its presence.
// The host as queries look at it: with the kinds of what stands there.
function withConditions(host) {
  const standing = conditionsOf(host.name);
  return standing.length ? { ...host, conditions: standing.map((row) => row.kind) } : host;
}

function conditionsText(name) {
  const kinds = conditionsOf(name).map((row) => row.kind.replaceAll("_", " "));
  return kinds.length ? ` · ${[...new Set(kinds)].join(", ")}` : "";
}
// For how long a command has run or waited. If it runs, also its steps if the agent tells them, else its lines.
function howFar(host, running) {
  const step = progressOf(host),
    told = step
      ? `step ${step.current} of ${step.total} · `
      : running.output_next
        ? `${many(running.output_next, "line")} · `
        : "";
  return [running.state === "running" && told, since(running.started_at ?? running.created_at, "", "")];
}
const print = (host) => {
  const running = open.get(host.name);
  return JSON.stringify([
    presenceOf(host, clock.now(), trusted()),
    host.last_seen,
    host.metrics,
    host.revoked,
    host.suspended,
    host.os_version,
    host.labels,
    agentText(host, link.me?.version),
    host.pending_command,
    running?.id,
    running?.state,
    running?.output_next,
    host.progress,
  ]);
};

function help() {
  dialog(
    "Finding hosts",
    h(
      "div",
      { className: "stack" },
      h("p", null, "Words are looked for in name, presence, system, type, running command and labels. All must match."),
      facts([
        ["role=web", "the label, or any other field, is exactly this; != is not"],
        ["os:debian", "the field contains the text"],
        ["cpu>80", "the field is greater; < for less, >= and <= too"],
        ["offline since>10m", "for how long: s, m, h, d, w; seen>1d: when it was heard last"],
        ["name:web*", "the whole of it, with anything in the place of *"],
        ["!type:nixos", "the opposite; - in the place of ! too"],
        ["generation:917d", "works for any field that an agent reports"],
      ]),
      h("p", { className: "dim small" }, `Fields: ${FIELDS.join(", ")}`),
      h(
        "p",
        { className: "dim small" },
        "Keys: / finds, arrows move, space selects, shift with arrows selects more, Ctrl+A selects all, Enter opens.",
      ),
    ),
    () => true,
  );
}
const choice = (label, options, value, onchange) =>
  h(
    "select",
    { ariaLabel: label, onchange: (event) => onchange(event.target.value) },
    Object.entries(options).map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
  );

export const view = {
  title: () => "Fleet",
  looksAt: () => [wanted.presence, wanted.text.trim(), "Fleet"].filter(Boolean).join(" · "),
  build(main, _id, redraw) {
    changed = redraw;
    takePlace();
    grid = new Grid({
      label: "hosts",
      keyOf: (host) => host.name,
      cells,
      print,
      rowHeight: () => (wide.matches ? 52 : 76),
      columns: [
        { name: "check", text: "" },
        { name: "host", text: "Host", sort: "name" },
        { name: "presence", text: "Presence", sort: "presence" },
        { name: "cpu", text: "CPU", sort: "cpu" },
        { name: "ram", text: "Memory", sort: "ram" },
        { name: "disk", text: "Disk", sort: "disk" },
        { name: "load", text: "Load", sort: "load" },
        { name: "op", text: "Command", sort: "op" },
        { name: "agent", text: "Agent", sort: "agent_version" },
      ],
      onOpen: (host) => {
        location.hash = `#host/${encodeURIComponent(host.name)}`;
      },
      onSelect: () => changed(),
      onSort: (name) => {
        wanted.down = wanted.sort === name && !wanted.down;
        wanted.sort = name;
        changed();
      },
    });
    grid.selected = picked;
    const all = h("input", {
      type: "checkbox",
      id: "all",
      ariaLabel: "select all shown",
      onchange: (event) => grid.pickAll(event.target.checked),
    });
    grid.heads[0].append(all);
    main.replaceChildren(
      h(
        "div",
        { className: "column" },
        h(
          "div",
          { className: "tools" },
          h(
            "div",
            { className: "search" },
            h("input", {
              id: "find",
              type: "search",
              placeholder: "Find hosts: name, role=web, cpu>80 …",
              value: wanted.text,
              ariaLabel: "find hosts",
              autocomplete: "off",
              spellcheck: false,
              oninput: (event) => {
                wanted.text = event.target.value;
                changed();
              },
            }),
            h(
              "button",
              { type: "button", className: "quiet", ariaLabel: "how to find hosts", onclick: help },
              icon("question"),
            ),
          ),
          h("button", { type: "button", onclick: () => queries(wanted.text, use) }, "Queries …"),
          choice("sort by", SORTS, wanted.sort, (value) => {
            wanted.sort = value;
            wanted.down = false;
            changed();
          }),
          choice("group by", GROUPS, wanted.group, (value) => {
            wanted.group = value;
            changed();
          }),
          h("span", { className: "spring" }),
          may("admin") && h("button", { className: "go", onclick: enroll }, "Enrol a host"),
        ),
        h("p", { id: "query-error", className: "wrong", role: "status" }),
        h("h2", { className: "heard" }, "Hosts"),
        h("div", { id: "counts", className: "chips", role: "group", ariaLabel: "presence" }),
        h("p", { id: "none", className: "empty", hidden: true }),
        grid.element,
        h(
          "div",
          { id: "chosen", className: "chosen", hidden: true },
          h("strong", { id: "chosen-count" }),
          h("span", { className: "spring" }),
          h(
            "button",
            {
              className: "quiet",
              onclick: () => {
                picked.clear();
                changed();
              },
            },
            "Clear",
          ),
          may("admin") &&
            h(
              "button",
              {
                className: "stop",
                onclick: () =>
                  remove(chosen(), () => {
                    picked.clear();
                    changed();
                  }),
              },
              "Remove",
            ),
          may("operator") && h("button", { onclick: () => label(chosen(), chosenBy(), changed) }, "Labels …"),
          may("operator") &&
            h(
              "button",
              { className: "go", id: "run", onclick: () => command(chosen(), () => picked.clear(), chosenBy()) },
              "Command …",
            ),
        ),
      ),
    );
  },
  draw() {
    for (const name of picked) if (!fleet.hosts.has(name)) picked.delete(name);
    const { counts, all, error, hosts } = shown();
    tellError(error);
    keepPlace();
    grid.element.hidden = !hosts.length; // what is to be read then stands where one looks, and not below an empty table
    $("none").hidden = hosts.length > 0;
    grid.show(grouped(hosts));
    if (place && hosts.length) {
      grid.restore(place);
      place = null;
    }
    grid.sorted(wanted.sort, wanted.down);
    chips([["", "All", all], ...PRESENCES.map((presence) => [presence, presence, counts[presence]])]);
    $("counts").classList.toggle("past", !trusted());
    const shownPicked = hosts.filter((host) => picked.has(host.name)).length;
    $("all").checked = hosts.length > 0 && shownPicked === hosts.length;
    $("all").indeterminate = shownPicked > 0 && shownPicked < hosts.length;
    $("none").textContent = fleet.hosts.size
      ? "No host matches."
      : "No hosts yet. Enrol one and give its agent the token: then it appears here.";
    $("chosen").hidden = !picked.size;
    setText($("chosen-count"), `${many(picked.size, "host")} selected`);
  },
  leave() {
    place = { key: grid.activeKey(), top: grid.element.scrollTop };
    grid.leave();
  },
  key(event) {
    if (event.key === "/") {
      $("find").focus();
      return true;
    }
    return false;
  },
};
// Puts a query in the place of the one that is typed.
function use(text) {
  wanted.text = text;
  $("find").value = text;
  $("dialog").close();
  changed();
  $("find").focus();
}
// What is wrong with the query, with the piece that is; the rest of it is looked for meanwhile.
function tellError(error) {
  const place = $("query-error"),
    chars = [...wanted.text],
    piece = error && chars.slice(error.start, error.end).join("");
  $("find").ariaInvalid = String(Boolean(error));
  if (!error) return place.replaceChildren();
  const before = chars.slice(0, error.start).join(""),
    after = chars.slice(error.end).join("");
  one(place, [before, piece, after, error.message], () =>
    h("span", null, before, h("mark", null, piece), after, h("br"), error.message),
  );
}
// The query by which the chosen hosts were found; empty, if they are not exactly all that it finds.
function chosenBy() {
  const { hosts, error } = shown(),
    whole = hosts.length === picked.size && hosts.every((host) => picked.has(host.name));
  return whole && !error && !wanted.presence ? wanted.text.trim() : "";
}
const chosen = () =>
  [...picked]
    .sort(compareText)
    .map((name) => fleet.hosts.get(name))
    .filter(Boolean);
function chips(list) {
  const parent = $("counts");
  if (!parent.children.length)
    parent.append(
      ...list.map(([value, name]) =>
        h(
          "button",
          {
            type: "button",
            className: "chip",
            value,
            onclick: () => {
              wanted.presence = value;
              changed();
            },
          },
          value ? pill(value) : name,
          h("b"),
        ),
      ),
    );
  list.forEach(([value, , count], place) => {
    const chip = parent.children[place];
    chip.ariaPressed = String(wanted.presence === value);
    chip.hidden = value === "quiet" && !count && wanted.presence !== value;
    setText(chip.lastChild, whole(count));
  });
}
