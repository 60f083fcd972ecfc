// Finding hosts: "role=web !os:debian cpu>80 offline since>10m name:web*". Pure. core/shown/query.py tells the whole
// language and reads the same: what is changed here is changed there; tests/browser/test_browser_query.py compares.

import { plain } from "./dom.js";

const QUERY_CHARS_MAX = 1000;
const TERMS_MAX = 16;
const STARS_MAX = 16;
const VALUE_CHARS_MAX = 1024;
const LIST_ITEMS_MAX = 1000;
const ALIASES = {
  os: "os_version",
  type: "host_type",
  agent: "agent_version",
  seen: "last_seen",
  enrolled: "enrolled_at",
  connected: "connected_since",
  condition: "conditions",
  ops: "commands",
  running: "op",
};
const TIMES = ["last_seen", "enrolled_at", "connected_since", "suspended_at", "rotation_asked_at", "code_until"];
const PRESENCES = ["online", "stale", "offline"];
export const OWN = [
  "name",
  "presence",
  "last_seen",
  "host_id",
  "enrolled_at",
  "revoked",
  "connected_since",
  "address",
  "host_type",
  "agent_version",
  "os_version",
  "protocol",
  "heartbeat_interval_s",
  "commands",
  "command_options",
  "metrics",
  "pending_command",
  "facts",
  "gateway",
  "heartbeat_facts",
  "kernel",
  "machine",
  "ledger",
  "suspended",
  "suspended_at",
  "progress",
  "rotation_asked_at",
  "code_until",
  "labels",
  "agent_labels",
  "put_aside",
  "conditions",
];
const LABELS = { label: "labels", labels: "labels", agent_label: "agent_labels", agent_labels: "agent_labels" };
const ELSEWHERE = ["metrics", "labels", "agent_labels", "heartbeat_facts", "facts"]; // the first that has it counts
const UNITS = { "": 1, "%": 1, s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

const WORD = /(?:[^ \t\r\n"]|"[^"]*"?)+/g;
const TERM = /^([A-Za-z_][A-Za-z0-9_./-]*)(!=|>=|<=|:|=|>|<)/;
const NUMBER = /^(-?[0-9]+(?:\.[0-9]+)?)(%|[smhdw])?$/;
const PLAIN_NUMBER = /^-?[0-9]{1,40}(?:\.[0-9]{1,40})?$/;
const CONTROL = /[\u0000-\u001f\u007f]/;
const TIME = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$/;

// what the page offers to sort and to look for
export const FIELDS = [
  "name",
  "presence",
  "since",
  "seen",
  "os",
  "type",
  "agent",
  "address",
  "cpu",
  "ram",
  "disk",
  "load",
  "swap",
  "running",
  "state",
  "ops",
  "revoked",
  "suspended",
  "generation",
  "location",
  "label.KEY",
  "agent_label.KEY",
];

class QueryError extends Error {
  constructor(word, message) {
    super(message);
    this.start = word.start;
    this.end = word.end;
  }
}

const own = (object, key) =>
  object !== null && typeof object === "object" && Object.hasOwn(object, key) ? object[key] : undefined;
const isList = Array.isArray;
const within = (value, path) => path.reduce((found, key) => (isList(found) ? undefined : own(found, key)), value);

// Returns what reads the field of a host, wherever it is: a function of (host, running, nowMs).
function reader(name) {
  const dot = name.indexOf("."),
    first = dot < 0 ? name : name.slice(0, dot),
    rest = dot < 0 ? "" : name.slice(dot + 1);
  if (name === "op" || name === "state") return (_host, running) => running?.[name] || undefined;
  if (name === "since")
    return (host, _running, nowMs) =>
      ageS(host.presence === "online" ? host.connected_since : host.last_seen || host.enrolled_at, nowMs);
  if (OWN.includes(name)) return (host) => own(host, name);
  if (rest && Object.hasOwn(LABELS, first)) return (host) => own(own(host, LABELS[first]), rest);
  const path = rest.split(".");
  if (OWN.includes(first)) return (host) => within(own(host, first), path);
  return (host) => {
    const place = placeOf(host, name);
    if (place) return place[name];
    return rest ? within(own(placeOf(host, first), first), path) : undefined;
  };
}
function placeOf(host, key) {
  for (const name of ELSEWHERE) {
    const place = own(host, name);
    if (place !== null && typeof place === "object" && !isList(place) && Object.hasOwn(place, key)) return place;
  }
  return undefined;
}

// The field as the page shows, sorts and groups it.
export function field(host, running, name) {
  const value = reader(Object.hasOwn(ALIASES, name) ? ALIASES[name] : name)(host, running, 0);
  return value === null || value === undefined ? undefined : plain(value);
}

function words(text) {
  const before = (end) => [...text.slice(0, end)].length; // in characters, as Python counts
  return [...text.matchAll(WORD)].map((found) => {
    const parts = found[0].split('"');
    return {
      start: before(found.index),
      end: before(found.index + found[0].length),
      text: parts.join(""),
      mask: parts.map((part, at) => (at % 2 ? "\0".repeat(part.length) : part)).join(""),
      isQuoted: parts.length > 1,
      isOpen: parts.length % 2 === 0,
    };
  });
}
const from = (word, at) => ({ ...word, text: word.text.slice(at), mask: word.mask.slice(at) });

function term(word) {
  if (word.isOpen) throw new QueryError(word, "the quotation mark is not closed");
  if (CONTROL.test(word.text)) throw new QueryError(word, "a query has no control characters");
  const isNegated = /^[!-]/.test(word.mask),
    rest = isNegated ? from(word, 1) : word,
    found = TERM.exec(rest.mask);
  if (!found) return isNegated ? opposite(bare(rest)) : bare(rest);
  const name = found[1].toLowerCase(),
    test = compared(
      Object.hasOwn(ALIASES, name) ? ALIASES[name] : name,
      found[2],
      from(rest, found[0].length),
      rest.text,
    );
  return isNegated !== (found[2] === "!=") ? opposite(test) : test;
}
const opposite =
  (test) =>
  (...looked) =>
    !test(...looked);

function bare(word) {
  if (!word.text) throw new QueryError(word, "there is nothing here to look for");
  const presence = word.mask.toLowerCase();
  if (PRESENCES.includes(presence)) return (host) => host.presence === presence;
  const parts = pieces(word),
    like = pattern(parts, true);
  if (parts.length > 1) return (host) => isText(host.name, like);
  return (host, running) => texts(host, running).some((text) => like(text.toLowerCase()));
}
function texts(host, running) {
  const found = [host.name, host.presence, host.os_version, host.host_type, running?.op]
    .filter((text) => typeof text === "string" && text)
    .map(cut);
  for (const place of [host.labels, host.agent_labels])
    for (const [key, value] of Object.entries(place ?? {})) found.push(`${key}=${value}`);
  return found;
}

function compared(name, compare, wanted, said) {
  if (!wanted.text && !(wanted.isQuoted && ["=", "!="].includes(compare))) {
    const advice = [":", "="].includes(compare)
      ? `write ${said}* for every host that has one`
      : "say what to compare with";
    throw new QueryError(wanted, `${said} has nothing after it: ${advice}`);
  }
  const read = reader(name);
  if ("<>".includes(compare[0])) return byNumber(name, read, compare, wanted, said);
  if (name === "since") throw new QueryError(wanted, "since is a length of time: compare it, as since>10m");
  const like = pattern(pieces(wanted), compare === ":");
  return (host, running, nowMs) => {
    const value = read(host, running, nowMs);
    if (!isList(value)) return isText(value, like);
    return value.slice(0, LIST_ITEMS_MAX).some((each) => !isList(each) && isText(each, like));
  };
}
const isText = (value, like) =>
  value !== null && value !== undefined && typeof value !== "object" && like(cut(String(value)).toLowerCase());
const cut = (text) => (text.length > VALUE_CHARS_MAX ? [...text].slice(0, VALUE_CHARS_MAX).join("") : text);

// What stands before, between and after the word's stars; one piece: it has none.
function pieces(word) {
  const found = [];
  let start = 0;
  for (let at = 0; at < word.mask.length; at++)
    if (word.mask[at] === "*") {
      found.push(word.text.slice(start, at).toLowerCase());
      start = at + 1;
    }
  return [...found, word.text.slice(start).toLowerCase()];
}
function pattern(parts, contains) {
  const [first] = parts,
    last = parts.at(-1);
  if (parts.length === 1) return contains ? (text) => text.includes(first) : (text) => text === first;
  return (text) => {
    let at = first.length;
    const end = text.length - last.length;
    if (at > end || !text.startsWith(first) || !text.endsWith(last)) return false;
    for (const piece of parts.slice(1, -1)) {
      const found = text.indexOf(piece, at);
      if (found < 0 || found + piece.length > end) return false;
      at = found + piece.length;
    }
    return true;
  };
}

function byNumber(name, read, compare, wanted, said) {
  const found = NUMBER.exec(wanted.mask);
  if (!found)
    throw new QueryError(wanted, `${said} does not compare with a number: write for example cpu>80 or since>10m`);
  const limit = Number(found[1]) * UNITS[found[2] ?? ""],
    isMore = compare[0] === ">",
    orEqual = compare.length === 2,
    isTime = TIMES.includes(name);
  return (host, running, nowMs) => {
    const value = read(host, running, nowMs),
      number = isTime ? ageS(value, nowMs) : numberOf(value);
    if (number === undefined) return false;
    return (isMore ? number > limit : number < limit) || (orEqual && number === limit);
  };
}
function numberOf(value) {
  if (typeof value === "number") return value;
  return typeof value === "string" && PLAIN_NUMBER.test(value) ? Number(value) : undefined;
}
function ageS(time, nowMs) {
  const at = typeof time === "string" && TIME.test(time) ? Date.parse(time) : Number.NaN;
  return Number.isNaN(at) ? undefined : (nowMs - at) / 1000;
}

// Returns what the query finds: `matches` (host, its running command, now in ms) by all terms that could be read, and
// `error`, the first that could not: its message, and from where to where it stands.
export function parse(text) {
  const tests = [];
  let error = null,
    stars = 0;
  const chars = [...text].length;
  if (chars > QUERY_CHARS_MAX)
    error = new QueryError({ start: QUERY_CHARS_MAX, end: chars }, `a query has at most ${QUERY_CHARS_MAX} characters`);
  else
    for (const word of words(text)) {
      try {
        if (tests.length === TERMS_MAX) throw new QueryError(word, `a query has at most ${TERMS_MAX} terms`);
        stars += word.mask.split("*").length - 1;
        if (stars > STARS_MAX) throw new QueryError(word, `a query has at most ${STARS_MAX} stars`);
        tests.push(term(word));
      } catch (wrong) {
        if (!(wrong instanceof QueryError)) throw wrong;
        error ??= wrong;
      }
    }
  return {
    matches: (host, running, nowMs) => tests.every((test) => test(host, running, nowMs)),
    error: error && { message: error.message, start: error.start, end: error.end },
  };
}
