// One incident: what was found, done and lost, and the evidence that was taken before the remedy.
import { $, h, icon, one } from "./dom.js";
import { ask } from "./link.js";
import { fleet } from "./store.js";
import { age, day, empty, facts, pastPhrase, pill, since, tile } from "./words.js";

const FRAME = /^(\s*)File "(.+)", line (\d+|\?\?\?) in (.+)$|^(\s+)(\S.*) \((.+):(\d+)\)$/;
const NAMES = {
  "stacks.txt": "Stack of the main thread",
  "tasks.txt": "Other threads and tasks",
  "pyspy.txt": "Stacks seen from outside (py-spy)",
  "pulse.json": "Pulse",
  "proc.json": "The process",
  "queues.json": "Queues",
  "listening.txt": "The port, by the kernel",
  "log.txt": "End of the log",
};
const ORDER = Object.keys(NAMES),
  AGAIN_MS = 2000;
let id = "",
  found = null,
  failed = "",
  askedMs = 0,
  asking = false,
  print = "",
  redraw = () => {};

// Asks for the incident again while it is open, and when its row has changed.
async function refresh() {
  asking = true;
  askedMs = Date.now();
  try {
    found = await ask("GET", `/api/v1/incidents/${encodeURIComponent(id)}`);
    failed = "";
  } catch (error) {
    failed = error.status === 404 ? "There is no such incident (any more)." : error.message;
  }
  asking = false;
  redraw();
}

// Stacks made readable: the function first in each line, the guilty line marked, its thread on top.
function stacks(text, stuckAt) {
  const [place, guiltyName] = (stuckAt ?? "").split(" "),
    isGuilty = (file, line, name) => Boolean(place) && `/${file}:${line}`.endsWith(`/${place}`) && name === guiltyName;
  const threads = text.split(/\n\s*\n/).map((block) => ({
    block,
    guilty: block.split("\n").some((raw) => {
      const frame = FRAME.exec(raw);
      return frame && isGuilty(frame[2] ?? frame[7], frame[3] ?? frame[8], frame[4] ?? frame[6]);
    }),
  }));
  const ordered = threads
    .toSorted((a, b) => b.guilty - a.guilty)
    .map((thread) => thread.block)
    .join("\n\n");
  return h(
    "pre",
    { className: "code", tabIndex: 0 },
    ordered.split("\n").map((raw) => {
      const frame = FRAME.exec(raw);
      if (!frame)
        return h(
          "span",
          {
            className: /^(Thread|Current thread|Process|Python|#|Task|Fatal|Timeout)/.test(raw.trim()) ? "thread" : "",
          },
          raw,
          "\n",
        );
      const [file, line, name] = frame[2] ? [frame[2], frame[3], frame[4]] : [frame[7], frame[8], frame[6]];
      const guilty = isGuilty(file, line, name);
      return h(
        "span",
        { className: `frame ${guilty ? "guilty" : ""}` },
        h("b", null, `  ${name}`),
        h("span", { className: "dim" }, `  ${file}:${line}`),
        guilty && h("em", null, "  ← stuck here"),
        "\n",
      );
    }),
  );
}
function shown(name, text, stuckAt) {
  if (/stacks|pyspy|tasks/.test(name)) return stacks(text, stuckAt);
  let pretty = text;
  if (name.endsWith(".json"))
    try {
      pretty = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      /* shown as it is */
    }
  return h("pre", { className: "code", tabIndex: 0 }, pretty);
}
// Whether a part of the evidence says anything: a part that could not be collected has only a line that says why.
const hasContent = (text) => text.split("\n").some((line) => line.trim() && !line.startsWith("#"));
const rank = (name) => (ORDER.indexOf(name) + ORDER.length + 1) % (ORDER.length + 1);

function about(incident) {
  const over = incident.over_at !== null,
    texts = Object.entries(incident.evidence_text ?? {}).sort((a, b) => rank(a[0]) - rank(b[0])),
    first = texts.findIndex(([, text]) => hasContent(text)),
    halted = /stopped by a signal/.test(incident.reason);
  return h(
    "div",
    { className: "stack" },
    h(
      "div",
      { className: "tools" },
      h("a", { className: "back", href: "#incidents" }, "‹ Incidents"),
      pill(over ? "over" : "open", over ? "over" : "not over yet"),
      incident.drill && h("span", { className: "tag" }, "drill"),
      h("span", { className: "spring" }),
      h("span", { className: "dim" }, since(incident.found_at, "found ")),
    ),
    h(
      "h2",
      null,
      incident.process,
      ` ${pastPhrase(incident.verdict)}`,
      incident.reason && h("span", { className: "dim" }, ` · ${incident.reason}`),
    ),
    h(
      "div",
      { className: "tiles" },
      tile(age(incident.found_after_s), "until it was found"),
      tile(over ? age(incident.recovered_after_s) : "–", "until all was well"),
      tile(String(incident.lost), "commands lost", incident.lost ? "lost" : "ok"),
      tile(incident.epoch, "number of the hub (epoch)"),
    ),
    halted &&
      h(
        "p",
        { className: "note stuck" },
        icon("pause"),
        h(
          "span",
          null,
          "It was stopped by a signal (SIGSTOP) or by a debugger: somebody or some program did that. ",
          "It is not stuck in its own code.",
        ),
      ),
    !halted &&
      incident.stuck_at &&
      h(
        "p",
        { className: "note stuck" },
        icon("pause"),
        h("span", null, "It was stuck at ", h("code", null, incident.stuck_at)),
      ),
    facts([
      ["Done", incident.remedy],
      ["Began", day(incident.begun_at)],
      ["Found", day(incident.found_at)],
      ["Over", incident.over_at && day(incident.over_at)],
      ["Process id", incident.pid],
    ]),
    h(
      "section",
      null,
      h("h3", null, "What happened"),
      h(
        "ol",
        { className: "story lines" },
        incident.events.map((text) => {
          const [, at, rest] = /^([+-][\d.]+ s) (.*)$/s.exec(text) ?? [null, "", text];
          return h("li", null, h("span", { className: "mono dim" }, at), h("span", null, rest));
        }),
      ),
    ),
    h(
      "section",
      null,
      h("h3", null, "Evidence"),
      texts.length
        ? texts.map(([name, text], place) =>
            h(
              "details",
              { className: "panel", open: place === first },
              h(
                "summary",
                null,
                h("strong", null, NAMES[name] ?? name),
                h("span", { className: "dim small" }, ` ${name}`),
              ),
              shown(name, text, incident.stuck_at),
            ),
          )
        : empty("None was taken: the process was gone already, or nothing could be read of it."),
    ),
  );
}

export const view = {
  title: () => "Incident",
  build(main, wanted, changed) {
    redraw = changed;
    id = wanted;
    found = null;
    failed = "";
    askedMs = 0;
    print = "";
    main.replaceChildren(h("div", { className: "page", id: "incident" }, empty("Loading …")));
  },
  draw() {
    const row = fleet.incidents.get(id),
      now = JSON.stringify(row ?? null);
    if (!asking && Date.now() - askedMs > AGAIN_MS && (now !== print || !found || found.over_at === null)) {
      print = now;
      refresh();
    }
    if (found) one($("incident"), found, about);
    else if (failed) one($("incident"), failed, () => empty(failed));
  },
};
