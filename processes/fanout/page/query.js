// Finding hosts: "web presence:offline cpu>80 -os:debian facts.generation=917d168". Pure.
//   word          is somewhere in the name, presence, type, system or running command
//   "…"           keeps words together: os:"nixos 26"
//   field:text    the field contains the text; field=text: it is exactly the text; field>n, field<n: compare numbers
//   -…            the opposite

import { plain } from "./dom.js";

const ALIASES = {
  os: "os_version",
  type: "host_type",
  agent: "agent_version",
  seen: "last_seen",
  ops: "commands",
  running: "op",
};
const TERM = /^(-?)([A-Za-z_][\w.]*)(:|=|>|<)(.*)$/;
export const FIELDS = [
  "name",
  "presence",
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
  "generation",
  "location",
];

// A field of a host as a number or a text, wherever it is:
// the host's own, a metric, of its running command, or what its agent reports.
export function field(host, running, name) {
  const key = Object.hasOwn(ALIASES, name) ? ALIASES[name] : name;
  if (key === "op") return running?.op;
  if (key === "state") return running?.state;
  for (const place of [host, host.metrics, host.heartbeat_facts, host.facts]) {
    const found = key
      .split(".")
      .reduce(
        (value, part) =>
          value !== null && typeof value === "object" && Object.hasOwn(value, part) ? value[part] : undefined,
        place,
      );
    if (found !== undefined && found !== null) return plain(found);
  }
  return undefined;
}
const text = (value) => String(plain(value)).toLowerCase();

function term(word) {
  const found = TERM.exec(word);
  if (!found) {
    const not = word.startsWith("-") && word.length > 1,
      needle = not ? word.slice(1) : word;
    return (host, running) =>
      [host.name, host.presence, host.os_version, host.host_type, running?.op].some((value) =>
        text(value).includes(needle),
      ) !== not;
  }
  const [, minus, name, compare, wanted] = found,
    number = Number(wanted);
  const test = {
    ":": (value) => text(value).includes(wanted),
    "=": (value) => text(value) === wanted,
    ">": (value) => value !== undefined && Number(value) > number,
    "<": (value) => value !== undefined && Number(value) < number,
  }[compare];
  return (host, running) => test(field(host, running, name)) !== Boolean(minus);
}

export function parse(query) {
  const terms = [...query.toLowerCase().matchAll(/(?:[^\s"]|"[^"]*"?)+/g)]
    .map(([word]) => word.replaceAll('"', ""))
    .filter((word) => word && !/^-?[\w.]+[:=<>]$/.test(word))
    .slice(0, 20)
    .map(term);
  return (host, running) => terms.every((test) => test(host, running));
}
