// The known state of the fleet: the rows that the WebSocket brings, and a short past of some for sparklines and pulses.

const COMMANDS_MAX = 500; // final ones; the page asks for older ones
const SPARK_MAX = 30,
  BEATS_MAX = 240; // values of one host; readings of one process, for two minutes
const KINDS = {
  host: "hosts",
  command: "commands",
  process: "processes",
  incident: "incidents",
  condition: "conditions",
};
const byText = new Intl.Collator(undefined, { numeric: true });

export const fleet = {
  hosts: new Map(),
  commands: new Map(),
  processes: new Map(),
  incidents: new Map(),
  conditions: new Map(), // those that stand
  overall: {},
  ledger: {},
  source: {},
  epoch: 0,
  version: -1,
};
export const sparks = new Map(); // host → the last loads of its CPU
export const beats = new Map(); // process → [{ at, upS, turn, pid }]
let names = null,
  standing = null; // host → the conditions that stand there

export function whole(frame) {
  for (const [kind, part] of Object.entries(KINDS))
    fleet[part] = new Map(
      (frame.state[part] ?? []).map((row) => [kind === "host" || kind === "process" ? row.name : row.id, row]),
    );
  for (const [id, row] of fleet.conditions) if (row.state === "over") fleet.conditions.delete(id);
  standing = null;
  for (const part of ["overall", "ledger", "source"]) fleet[part] = frame.state[part] ?? {};
  Object.assign(fleet, { epoch: frame.epoch, version: frame.version });
  names = null;
  for (const name of sparks.keys()) if (!fleet.hosts.has(name)) sparks.delete(name);
  for (const host of fleet.hosts.values()) remember(host);
  for (const process of fleet.processes.values()) beat(process);
}

// Returns false if a frame was missed: then the full state is needed.
export function follow(frame) {
  if (frame.epoch !== fleet.epoch || frame.version !== fleet.version + (frame.type === "delta" ? 1 : 0)) return false;
  fleet.version = frame.version;
  for (const change of frame.changes ?? []) apply(change);
  return true;
}

function apply({ kind, id, fields }) {
  const part = KINDS[kind.replace("_removed", "")],
    rows = fleet[part];
  if (!part) {
    if (kind in fleet) fleet[kind] = { ...fleet[kind], ...fields };
    return;
  }
  if (part === "hosts" && (kind === "host_removed" || !rows.has(id))) names = null;
  if (kind.endsWith("_removed")) {
    rows.delete(id);
    sparks.delete(id);
    return;
  }
  const row = { ...rows.get(id), ...fields };
  rows.set(id, row);
  if (kind === "condition") {
    standing = null;
    if (row.state === "over") rows.delete(id);
  }
  if (kind === "host" && (fields.metrics || fields.last_seen)) remember(row);
  if (kind === "process") beat(row);
  if (kind === "command" && rows.size > COMMANDS_MAX * 2) forget(rows);
}
function forget(rows) {
  let over = [...rows.values()].filter((row) => row.finished_at).length - COMMANDS_MAX;
  for (const row of rows.values())
    if (over > 0 && row.finished_at) {
      rows.delete(row.id);
      over--;
    }
}

function remember(host) {
  const cpu = host.metrics?.cpu;
  if (!Number.isFinite(cpu)) return;
  const values = sparks.get(host.name) ?? [];
  values.push(cpu);
  if (values.length > SPARK_MAX) values.shift();
  sparks.set(host.name, values);
}
function beat(process) {
  const pulse = process.pulse;
  const list = beats.get(process.name) ?? [];
  const last = list.at(-1);
  if (last?.upS === process.uptime_s && last?.pid === process.pid) return; // no new reading
  list.push({ at: performance.now(), upS: process.uptime_s, turn: pulse?.turn ?? null, pid: process.pid });
  if (list.length > BEATS_MAX) list.shift();
  beats.set(process.name, list);
}

// Turns per second between readings, as points in the browser's time, with a gap where a process was replaced.
export function turnsPerSecond(name) {
  const list = beats.get(name) ?? [],
    points = [];
  for (let place = 1; place < list.length; place++) {
    const before = list[place - 1],
      now = list[place],
      seconds = now.upS - before.upS; // by the watchdog's clock, not the browser's
    const same =
      now.pid === before.pid && now.turn !== null && before.turn !== null && now.turn >= before.turn && seconds > 0;
    points.push([performance.timeOrigin + now.at, same ? (now.turn - before.turn) / seconds : null]);
  }
  return points;
}

export function conditionsOf(host) {
  if (!standing) {
    standing = new Map();
    for (const row of fleet.conditions.values()) {
      if (!standing.has(row.host)) standing.set(row.host, []);
      standing.get(row.host).push(row);
    }
  }
  return standing.get(host) ?? [];
}

export function hostsByName() {
  names ??= [...fleet.hosts.keys()].sort(byText.compare);
  return names.map((name) => fleet.hosts.get(name));
}
export const compareText = (a, b) => byText.compare(a, b);
export const newestCommands = () =>
  [...fleet.commands.values()].sort(
    (a, b) => (b.created_at ?? "").localeCompare(a.created_at ?? "") || b.id.localeCompare(a.id),
  );
export const isOpen = (command) => ["queued", "sent", "running"].includes(command.state);

// Host → the command that is under way there, or else the one that has waited longest.
export function openByHost() {
  const found = new Map(),
    rank = { running: 3, sent: 2, queued: 1 };
  for (const command of fleet.commands.values()) {
    const other = found.get(command.host);
    if (isOpen(command) && (!other || rank[command.state] > rank[other.state])) found.set(command.host, command);
  }
  return found;
}
