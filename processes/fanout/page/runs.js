// Fleet runs: their steps, how far their hosts are, and which hosts failed and why.
import { confirm } from "./dialogs.js";
import { $, h, keyed, one } from "./dom.js";
import { ask, askSurely, may } from "./link.js";
import { fleet } from "./store.js";
import { between, day, empty, facts, many, pill, since, table, tile, whole } from "./words.js";

const AGAIN_MS = 1000,
  IDLE_MS = 10000;
const PARTS = ["succeeded", "active", "failed", "pending", "not_attempted"];
let id = "",
  runs = null,
  askedMs = 0,
  asking = false,
  print = "",
  redraw = () => {};

// True if it is time to ask for the runs again: now and then, and soon after a command of theirs has changed,
// since the server sends news of commands, but none of runs.
function stale() {
  let now = "";
  for (const command of fleet.commands.values())
    if (command.run && (!id || command.run === id)) now += command.state[0] + (command.state[1] ?? "");
  const waited = Date.now() - askedMs;
  if (waited < AGAIN_MS || asking || (now === print && waited < IDLE_MS)) return false;
  print = now;
  return true;
}
async function refresh() {
  askedMs = Date.now();
  asking = true;
  const path = id ? `/api/v1/runs/${encodeURIComponent(id)}` : "/api/v1/runs?limit=100";
  try {
    const found = await ask("GET", path);
    runs = id ? [found] : found.runs;
  } catch (error) {
    if (error.status === 404) runs = [];
  }
  asking = false;
  redraw();
}

// The states of a run's hosts as one bar.
function bar(run) {
  return h(
    "div",
    {
      className: "progress",
      role: "img",
      ariaLabel: PARTS.filter((part) => run[part])
        .map((part) => `${run[part]} ${part.replace("_", " ")}`)
        .join(", "),
    },
    PARTS.filter((part) => run[part]).map((part) => {
      const piece = h("span", { className: `piece ${part}` });
      piece.style.flexGrow = String(run[part]);
      return piece;
    }),
  );
}
function item(run) {
  return h(
    "a",
    { href: `#runs/${run.id}`, className: "item" },
    h(
      "span",
      { className: "line" },
      h("strong", null, run.steps.join(" → ")),
      h("span", { className: "dim" }, ` on ${many(run.total, "host")}`),
    ),
    pill(run.state),
    bar(run),
    h("span", { className: "under whole" }, run.actor, " · ", since(run.created_at)),
  );
}
function about(run) {
  const cancel = () =>
    confirm(
      "Cancel this run?",
      "No further host is begun, and commands that are under way are asked to end.",
      "Cancel the run",
      async () => {
        await askSurely("POST", `/api/v1/runs/${run.id}/cancel`);
        askedMs = 0;
        print = "";
      },
      "Asked for the cancel.",
    );
  return h(
    "div",
    { className: "stack" },
    h(
      "div",
      { className: "tools" },
      h("a", { className: "back", href: "#runs" }, "‹ All runs"),
      h("span", { className: "spring" }),
      run.state === "running" &&
        may("operator") &&
        h(
          "button",
          { className: "stop", onclick: cancel, disabled: Boolean(run.cancel_requested_at) },
          run.cancel_requested_at ? "Cancel asked for" : "Cancel the run",
        ),
    ),
    h("div", { className: "tools" }, h("h2", null, run.steps.join(" → ")), pill(run.state)),
    h(
      "div",
      { className: "tiles" },
      PARTS.map((part) => tile(whole(run[part]), part.replace("_", " "), part)),
    ),
    bar(run),
    facts([
      ["Query", run.query],
      ["Given by", run.actor],
      ["Begun", day(run.created_at)],
      ["Ended", run.finished_at && `${day(run.finished_at)} (${between(run.created_at, run.finished_at)})`],
      ["At a time", run.parallel],
      ["Stops after failures", run.max_failures === null ? "never" : run.max_failures],
    ]),
    table(
      "hosts of the run",
      ["Host", "State", "Step", "Why"],
      h(
        "tbody",
        null,
        run.hosts.map((part) =>
          h(
            "tr",
            null,
            h("td", null, h("a", { href: `#host/${encodeURIComponent(part.host)}` }, part.host)),
            h("td", null, pill(part.state, part.state.replace("_", " "))),
            h(
              "td",
              null,
              part.command_id
                ? h("a", { href: `#commands/${part.command_id}` }, `${part.step + 1}. ${part.op}`)
                : h("span", { className: "dim" }, `${part.step + 1}. ${part.op}`),
            ),
            h("td", null, part.reason || ""),
          ),
        ),
      ),
    ),
  );
}

export const view = {
  title: () => "Runs",
  build(main, wantedId, changed) {
    redraw = changed;
    id = wantedId;
    runs = null;
    askedMs = 0;
    print = "";
    main.replaceChildren(h("div", { id: "runs", className: id ? "page" : "page items panel" }));
  },
  draw() {
    if (stale()) refresh();
    if (!runs) return;
    if (!runs.length) {
      one($("runs"), "none", () =>
        empty(
          id
            ? "There is no such run."
            : "No runs yet. Select hosts in the fleet and give them a command: it runs on a few at a time.",
        ),
      );
      return;
    }
    keyed(
      $("runs"),
      runs,
      (run) => run.id,
      (run) => run,
      id ? about : item,
    );
  },
};
