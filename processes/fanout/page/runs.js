// Fleet runs: their steps, how far their hosts are, which hosts failed and why, and how to run those again.
import { clock } from "./clock.js";
import { command } from "./commanding.js";
import { confirm, idShown } from "./dialogs.js";
import { $, h, icon, keyed, one, setText } from "./dom.js";
import { ask, askSurely, may } from "./link.js";
import { keep, said } from "./place.js";
import { fleet, isOpen } from "./store.js";
import { line, PLAIN } from "./terminal.js";
import {
  between,
  day,
  empty,
  facts,
  many,
  pill,
  presenceOf,
  reasonText,
  sign,
  since,
  table,
  tone,
  whole,
} from "./words.js";

const AGAIN_MS = 1000,
  IDLE_MS = 10000,
  TOLD_MAX = 10, // failed hosts of which the last lines are shown: each costs two questions
  LAST_LINES = 3,
  LAST_CHARS = 300,
  NAMED_MAX = 5; // failed hosts that are named as they fail
// in the order in which the hosts are listed: what needs a person comes first
const PARTS = ["failed", "cancelled", "active", "pending", "not_attempted", "succeeded"];
const BAR = ["succeeded", "active", "failed", "cancelled", "pending", "not_attempted"];
let id = "",
  runs = null,
  askedMs = 0,
  asking = false,
  print = "",
  only = "", // the part of the hosts that is listed
  redraw = () => {};
const lasts = new Map(); // a failed command → { command, lines }; null while it is asked for

const words = (part) => part.replace("_", " ");
// A host whose command an operator ended has not failed.
const partOf = (row) => (row.state === "failed" && row.reason === "cancelled" ? "cancelled" : row.state);
// How many hosts are at which part. Of a run in the list the hosts are not known, so that those that were cancelled
// are among those that failed.
function counted(run) {
  const counts = Object.fromEntries(PARTS.map((part) => [part, run[part] ?? 0]));
  if (run.hosts.length) {
    counts.cancelled = run.hosts.filter((row) => partOf(row) === "cancelled").length;
    counts.failed -= counts.cancelled;
  }
  return counts;
}
// What became of the run, in words.
function outcome(run, counts = counted(run)) {
  const wrong = run.hosts.length || run.state !== "cancelled" ? "failed" : "failed or cancelled";
  return [
    counts.failed && `${whole(counts.failed)} ${wrong}`,
    counts.cancelled && `${whole(counts.cancelled)} cancelled`,
    `${whole(counts.succeeded)} of ${whole(run.total)} succeeded`,
    counts.not_attempted && `${whole(counts.not_attempted)} not attempted`,
  ]
    .filter(Boolean)
    .join(", ");
}
// True if no further host is begun because more have failed than were allowed.
const isStopped = (run) =>
  run.max_failures !== null && run.failed > run.max_failures && run.pending + run.not_attempted > 0;

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
    if (id) learnLasts(found);
  } catch (error) {
    if (error.status === 404) runs = [];
  }
  asking = false;
  redraw();
}

// Asks for what the first failed commands said last.
async function learnLasts(run) {
  const wanted = run.hosts.filter((row) => partOf(row) === "failed" && row.command_id).slice(0, TOLD_MAX);
  for (const row of wanted) {
    if (lasts.has(row.command_id)) continue;
    lasts.set(row.command_id, null);
    const path = `/api/v1/commands/${encodeURIComponent(row.command_id)}`;
    try {
      const found = await ask("GET", path),
        from = Math.max(0, (found.output_next ?? 0) - LAST_LINES),
        output = await ask("GET", `${path}/output?from=${from}`);
      const lines = output.records.slice(-LAST_LINES).map((record) =>
        line(record.data.slice(0, LAST_CHARS), PLAIN)
          .pieces.map((piece) => piece.text)
          .join(""),
      );
      lasts.set(row.command_id, { command: found, lines });
    } catch (error) {
      if (error.status !== 404) lasts.delete(row.command_id);
    }
  }
  redraw();
}

// The states of a run's hosts as one bar.
function bar(run) {
  const counts = counted(run),
    parts = BAR.filter((part) => counts[part]);
  return h(
    "div",
    {
      className: "progress",
      role: "img",
      ariaLabel: parts.map((part) => `${counts[part]} ${words(part)}`).join(", "),
    },
    parts.map((part) => {
      const piece = h("span", { className: `piece ${part}` });
      piece.style.flexGrow = String(counts[part]);
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
    h(
      "span",
      { className: "under whole" },
      h("span", { className: run.failed ? "wrong" : "" }, outcome(run)),
      isStopped(run) && " · stopped by its limit of failures",
      ` · ${run.actor} · `,
      since(run.created_at),
    ),
  );
}

// Asks whether these hosts are to go through the steps again.
function runAgain(run, rows, what) {
  const hosts = rows.map((row) => fleet.hosts.get(row.host)).filter(Boolean),
    gone = rows.length - hosts.length;
  command(hosts, null, "", {
    steps: run.steps,
    parallel: run.parallel,
    max_failures: run.max_failures,
    ttl_s: run.ttl_s,
    title: `Run ${run.steps.join(" → ")} again on ${what}?`,
    note: gone > 0 && `${many(gone, "host")} of them ${gone === 1 ? "is" : "are"} not enrolled any more: left out.`,
    look:
      rows.some((row) => lasts.get(row.command_id)?.command.state === "lost" || isLost(row)) &&
      "Some of them are lost: they may have run. I have looked at those hosts",
  });
}
const isLost = (row) => fleet.commands.get(row.command_id)?.state === "lost";

// The buttons that run it again, for a run that has ended.
function agains(run) {
  if (run.state === "running" || !may("operator")) return [];
  const button = (text, rows, what) =>
    rows.length > 0 &&
    rows.some((row) => fleet.hosts.has(row.host)) &&
    h("button", { type: "button", onclick: () => runAgain(run, rows, what) }, text);
  const at = (...parts) => run.hosts.filter((row) => parts.includes(partOf(row)));
  const failed = at("failed"),
    rest = at("not_attempted", "cancelled");
  return [
    button(`Again on the ${whole(failed.length)} failed …`, failed, `the ${many(failed.length, "host")} that failed`),
    button(
      `Again on the ${whole(rest.length)} not attempted${at("cancelled").length ? " or cancelled" : ""} …`,
      rest,
      `the ${many(rest.length, "host")} that were not attempted or cancelled`,
    ),
    button("Run all again …", run.hosts, `all ${many(run.hosts.length, "host")}`),
  ];
}

// What the limit of failures did.
const limit = (run) =>
  isStopped(run) &&
  h(
    "p",
    { className: "note warn" },
    icon("bang"),
    `Stopped by its limit: ${many(run.failed, "host")} failed or cancelled, ${run.max_failures} allowed. ` +
      `${many(run.pending + run.not_attempted, "host")} not begun; those already under way went on.`,
  );

// Why a host's part is as it is: the reason and the exit code, what was said last, or what is waited for.
function why(row) {
  const told = lasts.get(row.command_id),
    known = fleet.commands.get(row.command_id) ?? told?.command;
  if (row.state === "active" && known?.state === "queued") {
    const host = fleet.hosts.get(row.host),
      presence = host && presenceOf(host, clock.now(), true),
      other = [...fleet.commands.values()].find(
        (each) => each.host === row.host && isOpen(each) && each.state !== "queued",
      );
    if (presence?.word !== "online")
      return ["waits: ", presence?.text ?? "unknown", host?.last_seen && [", heard ", since(host.last_seen)]];
    return other
      ? ["waits: ", other.op, ` by ${other.actor} runs there, `, since(other.started_at, "for ", "")]
      : "waits";
  }
  if (row.state !== "failed") return "";
  const reason = known?.message || reasonText(known?.reason || row.reason),
    code = Number.isInteger(known?.exit_code) && known.exit_code !== 0 && ` · exit code ${known.exit_code}`;
  return [reason, code, told?.lines.length > 0 && h("pre", { className: "lasts mono small" }, told.lines.join("\n"))];
}

function hostRow(row) {
  return h(
    "tr",
    { "data-host": row.host },
    h("td", null, h("a", { href: `#host/${encodeURIComponent(row.host)}` }, row.host)),
    h("td", null, pill(partOf(row), words(partOf(row)))),
    h(
      "td",
      null,
      row.command_id
        ? h("a", { href: `#commands/${row.command_id}` }, `${row.step + 1}. ${row.op}`)
        : row.state !== "pending" && row.state !== "not_attempted" && `${row.step + 1}. ${row.op}`,
    ),
    h("td", null, why(row)),
  );
}

function hosts(run) {
  const order = run.hosts
    .map((row, place) => ({ row, place }))
    .sort((a, b) => PARTS.indexOf(partOf(a.row)) - PARTS.indexOf(partOf(b.row)) || a.place - b.place)
    .map(({ row }) => row)
    .filter((row) => !only || partOf(row) === only);
  return table(
    "hosts of the run",
    ["Host", "State", "Step", "Why"],
    h(
      "tbody",
      null,
      order.length ? order.map(hostRow) : h("tr", null, h("td", { colSpan: 4 }, `None ${words(only)}.`)),
    ),
  );
}
function tiles(counts) {
  const choose = (part) => {
    only = only === part ? "" : part;
    redraw();
  };
  return h(
    "div",
    { className: "tiles", role: "group", ariaLabel: "which hosts are listed" },
    PARTS.map((part) =>
      h(
        "button",
        {
          type: "button",
          className: `tile ${tone(part)}`,
          ariaPressed: String(only === part),
          onclick: () => choose(part),
        },
        h("span", { className: "number" }, whole(counts[part])),
        h("span", { className: "label" }, sign(part), words(part)),
      ),
    ),
  );
}

function about(run) {
  const counts = counted(run),
    failed = run.hosts.filter((row) => partOf(row) === "failed");
  const cancel = () =>
    confirm(
      "Cancel this run?",
      `No further host is begun: ${whole(run.pending)} are not. The ${whole(run.active)} commands that are under way ` +
        "are asked to end.",
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
      agains(run),
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
      "p",
      { id: "outcome", className: counts.failed ? "wrong" : "dim" },
      outcome(run, counts),
      failed.length > 0 &&
        `: ${failed
          .slice(0, NAMED_MAX)
          .map((row) => row.host)
          .join(", ")}${failed.length > NAMED_MAX ? " …" : ""}`,
      ".",
    ),
    limit(run),
    tiles(counts),
    bar(run),
    facts([
      ["Query", run.query],
      ["Given by", run.actor],
      ["Begun", day(run.created_at)],
      ["Ended", run.finished_at && `${day(run.finished_at)} (${between(run.created_at, run.finished_at)})`],
      [
        "Cancel asked for",
        run.cancel_requested_at && `${day(run.cancel_requested_at)} by ${run.cancel_requested_by || "somebody"}`,
      ],
      ["At a time", run.parallel],
      ["Failures allowed", run.max_failures === null ? "any number" : run.max_failures],
      ["Id", idShown(run.id, "run's id")],
    ]),
    hosts(run),
  );
}

// What the table shows of other rows than the run's: it is made anew when they change.
const around = (run) =>
  run.hosts.map(
    (row) =>
      (row.state === "active" || row.state === "failed") && [
        fleet.commands.get(row.command_id)?.state,
        row.state === "active" && fleet.hosts.get(row.host)?.presence,
        Boolean(lasts.get(row.command_id)),
      ],
  );

export const view = {
  title: () => "Runs",
  looksAt() {
    const run = id && runs?.[0];
    return run ? `${run.steps.join(" → ")} on ${many(run.total, "host")}: ${run.state}` : "Runs";
  },
  build(main, wantedId, changed) {
    redraw = changed;
    id = wantedId;
    runs = null;
    askedMs = 0;
    print = "";
    const place = said();
    only = id && PARTS.includes(place?.show) ? place.show : "";
    lasts.clear();
    main.replaceChildren(
      h("div", { id: "runs", className: id ? "page" : "page items panel" }),
      h("p", { id: "news", className: "heard", role: "status" }), // it stays, so that a screen reader says what changes
    );
  },
  draw() {
    keep({ show: only });
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
    if (id) {
      const failed = runs[0].hosts.filter((row) => partOf(row) === "failed").map((row) => row.host);
      setText($("news"), failed.length ? `${outcome(runs[0])}. Failed: ${failed.slice(-NAMED_MAX).join(", ")}` : "");
    }
    keyed(
      $("runs"),
      runs,
      (run) => run.id,
      (run) => (id ? [run, only, around(run)] : run),
      id ? about : item,
    );
  },
};
