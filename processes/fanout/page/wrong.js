// What is wrong and what to do, on top of every view, in the title and in the tab's sign: the list of the report, which
// core/shown/troubles.py makes.
import { $, h, keyed, one, setText } from "./dom.js";
import { link } from "./link.js";
import { fleet } from "./store.js";
import { many, sign, since, tone } from "./words.js";

const LOW_PX = 720; // a window that is lower has room for one trouble on top of a view, another one for two
const WORDS = { critical: "down", warning: "degraded", info: "quiet" }; // severity → a word that has a tone and a sign
const GRAVITY = { critical: 2, warning: 1, info: 0 };

// The troubles of now, the gravest first; none while the page hears nothing: then the banner says so.
export function troubles() {
  const found = link.fresh ? (fleet.overall.troubles ?? []) : [];
  return found.toSorted((a, b) => (GRAVITY[b.severity] ?? 1) - (GRAVITY[a.severity] ?? 1));
}
export const isQuiet = () => troubles().some((each) => each.code === "quiet");

// Where more is seen: the open incident of its process, if there is one, or the view that the list names.
function place(each) {
  const incident = [...fleet.incidents.values()].find((row) => row.over_at === null && row.process === each.of);
  return incident ? `incident/${incident.id}` : each.view;
}
const PLACES = {
  incident: "the incident",
  watchdog: "the processes",
  conditions: "conditions",
  deadletters: "what was put aside",
  account: "the tokens",
  host: "the host",
};

// The names of commands in a remedy, as code: what follows "fleethub" up to a stop.
function remedy(text) {
  return text
    .split(/(fleethub [a-z]+(?: [a-z0-9:.-]*[a-z0-9]| [A-Z]+\b| --[a-z]+)*)/)
    .map((part, at) => (at % 2 ? h("code", null, part) : part));
}

export function item(each) {
  const to = place(each),
    name = PLACES[to.split("/")[0]];
  return h(
    "li",
    { className: `trouble ${tone(WORDS[each.severity] ?? "degraded")}` },
    sign(WORDS[each.severity] ?? "degraded"),
    h(
      "div",
      null,
      h("strong", null, each.text),
      each.since && h("span", { className: "dim small", ariaHidden: "true" }, since(each.since, " for ", "")),
      h(
        "p",
        { className: "small" },
        "What to do: ",
        remedy(each.remedy),
        name && document.body.dataset.view !== to.split("/")[0] && [" ", h("a", { href: `#${to}` }, `See ${name}`)],
      ),
    ),
  );
}
const print = (each) => [each, place(each), document.body.dataset.view];

// The list in a place of the page.
export function list(parent, found) {
  keyed(parent, found, (each) => `${each.code} ${each.of}`, print, item);
}

// Draws the strip, the title and the tab's sign. `lost`: the page hears nothing.
export function draw(title, lost) {
  const found = troubles(),
    counted = found.filter((each) => each.severity !== "info"),
    onTop = document.body.dataset.view === "watchdog" ? [] : found.slice(0, innerHeight < LOW_PX ? 1 : 2);
  // the watchdog's view shows all of them itself
  $("wrong").hidden = !onTop.length;
  // a screen reader is told when their number changes, and not each second
  setText($("wrong-count"), counted.length ? `${many(counted.length, "thing")} wrong` : "");
  list($("wrong-list"), onTop);
  one($("wrong-more"), found.length - onTop.length, (more) =>
    more > 0 ? h("a", { href: "#watchdog" }, `and ${more} more`) : h("span"),
  );
  const said = lost ? "not connected · " : counted.length ? `${counted.length} wrong · ` : "";
  const text = `${said}${title} · fleethub`;
  if (document.title !== text) document.title = text;
  const worst = lost || counted.some((each) => each.severity === "critical") ? "bad" : counted.length ? "warn" : "";
  const file = new URL(`./favicon${worst && `-${worst}`}.svg`, import.meta.url).href;
  if ($("favicon").href !== file) $("favicon").href = file;
}
