// Labels of hosts, and queries that are kept under names.
import { dialog, say, tell } from "./dialogs.js";
import { h } from "./dom.js";
import { ask, askSurely, may } from "./link.js";
import { parse } from "./query.js";
import { day, empty, many } from "./words.js";

const SHOWN_MAX = 30; // labels that are offered to be removed

const pairs = (labels) => (labels !== null && typeof labels === "object" ? Object.entries(labels) : []);
export const labelText = (labels) =>
  pairs(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");

// "role=web env=prod spare-": what is to be set, and what is to be removed. Returns null if a word is neither.
function changes(text) {
  const wanted = { set: {}, remove: [] };
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const equals = word.indexOf("=");
    if (equals > 0) wanted.set[word.slice(0, equals)] = word.slice(equals + 1);
    else if (equals < 0 && word.length > 1 && word.endsWith("-")) wanted.remove.push(word.slice(0, -1));
    else return null;
  }
  return Object.keys(wanted.set).length || wanted.remove.length ? wanted : null;
}

// Asks which labels these hosts are to have. `query`: by which they were found, if they are all that it finds.
export function label(hosts, query, done) {
  const text = h("input", {
      required: true,
      placeholder: "role=web env=prod spare-",
      ariaLabel: "labels",
      autocomplete: "off",
      spellcheck: false,
    }),
    counts = new Map();
  for (const host of hosts)
    for (const [key, value] of pairs(host.labels)) {
      const word = `${key}=${value}`;
      counts.set(word, { key, count: (counts.get(word)?.count ?? 0) + 1 });
    }
  const there = [...counts].sort((a, b) => b[1].count - a[1].count).slice(0, SHOWN_MAX);
  const removal = ([word, { key, count }]) =>
    h(
      "button",
      {
        type: "button",
        ariaLabel: `remove ${word}`,
        onclick: () => {
          if (!text.value.split(/\s+/).includes(`${key}-`)) text.value = `${text.value} ${key}-`.trim();
          text.focus();
        },
      },
      hosts.length > 1 ? `${word} (${count}) –` : `${word} –`,
    );
  dialog(
    hosts.length === 1 ? `Labels of ${hosts[0].name}` : `Labels of ${many(hosts.length, "host")}`,
    h(
      "div",
      { className: "stack" },
      there.length > 0 &&
        h("div", { className: "tools", role: "group", ariaLabel: "labels that are there" }, there.map(removal)),
      h("label", null, "Set KEY=VALUE, remove KEY-", text),
      h(
        "p",
        { className: "dim small" },
        "What a server says of itself is in its agent's file, and is not changed here.",
      ),
    ),
    async () => {
      const wanted = changes(text.value);
      if (!wanted) {
        say("Type labels as role=web, or spare- to remove one, with spaces between them.", "degraded");
        return false;
      }
      const body = { hosts: hosts.map((host) => host.name), ...wanted, ...(query ? { query } : {}) };
      const given = await tell(
        askSurely("POST", "/api/v1/hosts/labels", body),
        `${many(hosts.length, "host")}: labelled`,
      );
      if (given) done?.();
      return given !== null;
    },
    hosts.length === 1 ? "Change the labels" : `Change them on ${many(hosts.length, "host")}`,
  );
}

// Shows the saved queries: to use one, to save what is typed now, to forget one.
export async function queries(typed, use) {
  const found = await tell(ask("GET", "/api/v1/queries"));
  if (!found) return;
  const name = h("input", { placeholder: "a name", ariaLabel: "name", pattern: "[a-z][a-z0-9_.\\-]*", maxLength: 63 });
  const forget = async (query) => {
    const path = `/api/v1/queries/${encodeURIComponent(query.name)}`;
    if (await tell(askSurely("DELETE", path), `@${query.name} is forgotten`)) queries(typed, use);
  };
  const savable = may("operator") && typed.trim() !== "" && parse(typed).error === null;
  const row = (query) =>
    h(
      "li",
      { className: "tools" },
      h("button", { type: "button", className: "quiet", onclick: () => use(query.query) }, `@${query.name}`),
      h("span", { className: "mono small", title: `saved by ${query.actor} ${day(query.saved_at)}` }, query.query),
      h("span", { className: "spring" }),
      may("operator") &&
        h("button", { type: "button", ariaLabel: `forget @${query.name}`, onclick: () => forget(query) }, "Forget"),
    );
  dialog(
    "Saved queries",
    h(
      "div",
      { className: "stack" },
      found.queries.length
        ? h("ul", { className: "plain stack" }, found.queries.map(row))
        : empty("None is saved yet."),
      savable && h("label", null, `Save ${typed} as`, name),
    ),
    async () => {
      if (!savable || !name.value) return true;
      const body = { name: name.value, query: typed };
      return (await tell(askSurely("POST", "/api/v1/queries", body), `@${name.value} stands for ${typed}`)) !== null;
    },
    savable ? "Save" : "",
  );
}
