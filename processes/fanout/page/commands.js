// Commands: the list, and one command with its history and its output.

import { clock } from "./clock.js";
import { command as giveAgain } from "./commanding.js";
import { confirm, idShown, tell, toast } from "./dialogs.js";
import { $, h, icon, keyed, one } from "./dom.js";
import { ask, askSurely, may } from "./link.js";
import { Output } from "./output.js";
import { keep, said } from "./place.js";
import { fleet, isOpen, newestCommands } from "./store.js";
import {
  between,
  day,
  empty,
  facts,
  hour,
  many,
  pill,
  presenceOf,
  progressOf,
  reasonText,
  sign,
  since,
  tone,
  whole,
} from "./words.js";

const STATES = ["queued", "sent", "running", "succeeded", "failed", "rejected", "expired", "cancelled", "lost"];
const LISTED_MAX = 300,
  HISTORY_MS = 800;
const wanted = { text: "", state: "" };
const opened = new Set(); // runs whose commands are listed one by one
let scrolled = 0, // how far the list was scrolled when another command was chosen
  output = null,
  id = "",
  history = null,
  asked = "",
  redraw = () => {},
  older = [],
  sought = "", // what the address looks for in the output
  next = null;

export function commandLink(command, current, isMember = false) {
  return h(
    "a",
    {
      href: `#commands/${command.id}`,
      className: `item ${command.state === "lost" ? "alarming" : ""} ${isMember ? "member" : ""}`,
      "aria-current": current ? "true" : null,
    },
    h(
      "span",
      { className: "line" },
      h("strong", null, command.op),
      h("span", { className: "dim" }, " on "),
      h("span", null, command.host),
    ),
    pill(command.state),
    h("span", { className: "under" }, told(command) || command.actor || ""),
    h("span", { className: "under right" }, since(command.created_at)),
  );
}

// Commands of one run that stand in the list together are one row of it, which can be opened.
function grouped(commands) {
  const counts = new Map(),
    begun = new Set(),
    rows = [];
  for (const each of commands) if (each.run) counts.set(each.run, (counts.get(each.run) ?? 0) + 1);
  for (const each of commands) {
    if (!each.run || counts.get(each.run) === 1) rows.push({ command: each });
    else if (!begun.has(each.run)) {
      begun.add(each.run);
      const members = commands.filter((other) => other.run === each.run);
      rows.push({ run: each.run, members });
      if (opened.has(each.run)) rows.push(...members.map((command) => ({ command, member: true })));
    }
  }
  return rows;
}
const byState = (members) =>
  STATES.map((state) => [state, members.filter((each) => each.state === state).length]).filter(([, count]) => count);

function runItem({ run, members }) {
  const ops = [...new Set(members.map((each) => each.op))].reverse(),
    isShown = opened.has(run),
    worst = ["lost", "failed", "rejected", "expired", "cancelled", "running", "sent", "queued"].find((state) =>
      members.some((each) => each.state === state),
    );
  const turn = () => {
    if (!opened.delete(run)) opened.add(run);
    redraw();
  };
  return h(
    "div",
    { className: "item run" },
    h(
      "a",
      { className: "line", href: `#runs/${run}` },
      h("strong", null, ops.join(", ")),
      h("span", { className: "dim" }, ` on ${many(new Set(members.map((each) => each.host)).size, "host")}`),
    ),
    pill(worst ?? "succeeded"),
    h(
      "button",
      { type: "button", className: "quiet under", ariaExpanded: String(isShown), onclick: turn },
      `${isShown ? "▾" : "▸"} `,
      byState(members)
        .map(([state, count]) => `${whole(count)} ${state}`)
        .join(", "),
    ),
    h("span", { className: "under right" }, since(members.at(-1).created_at)),
  );
}

const STORY = {
  queued: "waits for its host",
  sent: "to its agent, which has not confirmed it yet",
  running: "under way",
  succeeded: "ended well",
  failed: "ended badly",
  rejected: "refused by the agent",
  expired: "its time to wait was over",
  cancelled: "by an operator",
  lost: "nobody knows how it ended",
};
const told = (command) => command.message || reasonText(command.reason);

function steps(command) {
  const list = history?.id === command.id ? history.history : [];
  return h(
    "ol",
    { className: "story states" },
    list.map((step, place) =>
      h(
        "li",
        { className: tone(step.after) },
        sign(step.after),
        h(
          "span",
          null,
          h("strong", null, step.after),
          ` ${STORY[step.after] ?? ""}`,
          step.reason && h("span", { className: "dim" }, ` · ${reasonText(step.reason)}`),
          step.actor && h("span", { className: "dim" }, ` · by ${step.actor}`),
        ),
        h(
          "span",
          { className: "under" },
          place ? `${hour(step.at)} · after ${between(list[place - 1].at, step.at)}` : day(step.at),
        ),
      ),
    ),
  );
}

// How far a running command is, as its agent says.
const progressBar = (step) =>
  step &&
  h(
    "p",
    { className: "steps-done" },
    h("progress", { max: step.total, value: step.current, ariaLabel: "progress" }),
    h("span", { className: "dim" }, `step ${whole(step.current)} of ${whole(step.total)}`),
  );

// Shows what it would be and asks: what ran once may do harm the second time.
function runAgain(command, host) {
  const lost = command.state === "lost";
  giveAgain([host], null, "", {
    steps: [command.op],
    ttl_s: command.ttl_s,
    title: `Run ${command.op} again on ${command.host}?`,
    note: lost
      ? `It may have run already: ${told(command) || "nobody knows how it ended"}.`
      : command.state === "succeeded" && `It succeeded ${day(command.finished_at)}.`,
    look: lost && `I have looked at ${command.host}, and it may run once more`,
  });
}

// Why a queued command waits, and until when.
function waiting(command, host, presence) {
  const others = [...fleet.commands.values()].filter(
      (other) => other.host === command.host && isOpen(other) && other.id !== command.id,
    ),
    under = others.filter((other) => other.state !== "queued"),
    before = others.filter(
      (other) => other.state === "queued" && (other.created_at ?? "") < (command.created_at ?? ""),
    );
  const isOnline = presence?.word === "online";
  return h(
    "div",
    { className: "note", id: "waiting" },
    icon("clock"),
    h(
      "div",
      null,
      !isOnline && [
        `${command.host} is ${presence?.text ?? "unknown"}`,
        host?.last_seen ? [", last heard ", day(host.last_seen)] : ", and was never heard",
        ". It is delivered when the host is back. ",
      ],
      under.map((other) => [
        `${command.host} runs `,
        h("a", { href: `#commands/${other.id}` }, other.op),
        `, given by ${other.actor}, `,
        since(other.started_at ?? other.created_at, "for ", ""),
        ". ",
      ]),
      before.length > 0 && `${many(before.length, "command")} before it wait${before.length === 1 ? "s" : ""} there. `,
      isOnline && !others.length && "Its host is online and free: it is about to be sent. ",
      command.expires_at && ["It waits until ", h("strong", null, day(command.expires_at)), "."],
    ),
  );
}

function about(command) {
  const host = fleet.hosts.get(command.host),
    isUnderWay = isOpen(command);
  const presence = host && presenceOf(host, clock.now(), true),
    isAway = presence?.word !== "online";
  const cancel = () =>
    confirm(
      `Cancel ${command.op} on ${command.host}?`,
      command.state === "queued"
        ? "It is cancelled at once."
        : isAway
          ? `${command.host} is ${presence?.text ?? "unknown"}: its agent is asked once it is back; it may run on.`
          : "Its agent is asked to end it. If it succeeds before that, it counts as succeeded.",
      "Cancel the command",
      () => askSurely("POST", `/api/v1/commands/${command.id}/cancel`),
      "Asked for the cancel.",
    );
  return h(
    "div",
    { className: "about" },
    h(
      "div",
      { className: "tools" },
      h(
        "h2",
        null,
        command.op,
        h("span", { className: "dim" }, " on "),
        h("a", { href: `#host/${encodeURIComponent(command.host)}` }, command.host),
      ),
      pill(command.state),
      h("span", { className: "spring" }),
      isUnderWay &&
        may("operator") &&
        h(
          "button",
          { className: "stop", onclick: cancel, disabled: Boolean(command.cancel_requested_at) },
          command.cancel_requested_at ? "Cancel asked for" : "Cancel",
        ),
      !isUnderWay && may("operator") && host && h("button", { onclick: () => runAgain(command, host) }, "Run again …"),
    ),
    command.state === "lost" &&
      h(
        "p",
        { className: "note lost" },
        icon("question"),
        h(
          "span",
          null,
          h("strong", null, "Lost. "),
          `It may or may not have run: ${told(command) || "nobody knows"}. Look at the host before running it again.`,
        ),
      ),
    command.state === "queued" && waiting(command, host, presence),
    command.state === "running" && progressBar(progressOf(host)),
    command.unheard_since &&
      isUnderWay &&
      h(
        "p",
        { className: "note warn" },
        icon("half"),
        h(
          "span",
          null,
          "Its agent has not been heard since ",
          h("strong", null, day(command.unheard_since)),
          command.state === "sent"
            ? ": it is not known whether the command arrived. The agent is asked when it is back."
            : ": it is not known whether the command still runs.",
        ),
      ),
    h(
      "div",
      { className: "columns" },
      facts([
        ["Why", command.state !== "lost" && told(command)],
        ["Exit code", command.exit_code],
        ["Given by", command.actor],
        [
          "Cancel asked for",
          command.cancel_requested_at &&
            `${day(command.cancel_requested_at)} by ${command.cancel_requested_by || "somebody"}`,
        ],
        ["Took", between(command.started_at, command.finished_at)],
        ["Attempts", command.attempt > 1 ? command.attempt : null],
        ["Waits until", command.state === "queued" && day(command.expires_at)],
        [
          "Run",
          command.run && [
            h("a", { href: `#runs/${command.run}` }, "the run that it is a part of"),
            " ",
            idShown(command.run, "run's id"),
          ],
        ],
        ["Id", idShown(command.id, "command's id")],
      ]),
      steps(command),
    ),
  );
}

// Asks for the history again when the command has changed.
async function learn(command) {
  const print = `${command.id} ${command.state} ${command.cancel_requested_at}`;
  if (asked === print) return;
  asked = print;
  try {
    history = await ask("GET", `/api/v1/commands/${encodeURIComponent(command.id)}`);
    redraw();
  } catch (error) {
    asked = "";
    setTimeout(redraw, HISTORY_MS);
    if (error.status === 404) asked = print;
  }
}
async function fetchOne(wantedId) {
  if (asked === wantedId) return;
  asked = wantedId;
  try {
    const found = await ask("GET", `/api/v1/commands/${encodeURIComponent(wantedId)}`);
    if (found.id === id) {
      older.push(found);
      history = found;
    }
  } catch (error) {
    if (error.status !== 404) asked = "";
    else $("about")?.replaceChildren(empty("There is no such command."));
  }
  redraw();
}
async function more() {
  const last = older.at(-1) ?? newestCommands().at(-1);
  const found = await tell(
    ask("GET", `/api/v1/commands?limit=100${last ? `&before=${encodeURIComponent(next ?? last.id)}` : ""}`),
  );
  if (!found) return;
  if (!found.commands.length) toast("There are no older commands.");
  older.push(...found.commands);
  next = found.next;
  redraw();
}
function all() {
  const found = newestCommands(),
    known = new Set(found.map((command) => command.id));
  return [...found, ...older.filter((command) => !known.has(command.id) && known.add(command.id))];
}
const matches = (command) =>
  (!wanted.state || (wanted.state === "open" ? isOpen(command) : command.state === wanted.state)) &&
  wanted.text
    .toLowerCase()
    .split(/\s+/)
    .every((word) =>
      `${command.op} ${command.host} ${command.actor} ${command.reason} ${command.state} ${command.id}`
        .toLowerCase()
        .includes(word),
    );

const shownCommand = () => fleet.commands.get(id) ?? older.find((each) => each.id === id);
export const view = {
  title: () => "Commands",
  looksAt() {
    const command = id && shownCommand();
    if (command) return `${command.op} on ${command.host}: ${command.state}`;
    return [wanted.state, wanted.text.trim(), "Commands"].filter(Boolean).join(" · ");
  },
  build(main, wantedId, changed) {
    redraw = changed;
    id = wantedId;
    output ??= new Output();
    const place = said();
    if (place) Object.assign(wanted, { text: place.q ?? "", state: place.state ?? "" });
    sought = place?.find ?? "";
    const states = h(
      "select",
      {
        id: "state",
        ariaLabel: "state",
        onchange: (event) => {
          wanted.state = event.target.value;
          redraw();
        },
      },
      ["", "open", ...STATES].map((state) =>
        h("option", { value: state, selected: state === wanted.state }, state || "All states"),
      ),
    );
    main.replaceChildren(
      h(
        "div",
        { className: `split ${id ? "chosen-one" : ""}` },
        h(
          "section",
          { className: "panel list", ariaLabel: "commands" },
          h(
            "div",
            { className: "tools" },
            h("input", {
              type: "search",
              placeholder: "Find: host, operation, person …",
              ariaLabel: "find commands",
              value: wanted.text,
              oninput: (event) => {
                wanted.text = event.target.value;
                redraw();
              },
            }),
            states,
          ),
          h("div", { id: "list", className: "items", tabIndex: 0, role: "region", ariaLabel: "commands found" }),
          h("button", { className: "quiet", onclick: more }, "Older commands"),
        ),
        h(
          "section",
          { className: "panel detail", ariaLabel: "one command" },
          id && h("a", { className: "back", href: "#commands" }, "‹ All commands"),
          h("div", { id: "about" }),
          output.element,
        ),
      ),
    );
    output.element.hidden = true;
  },
  draw() {
    keep({ q: wanted.text, state: wanted.state, find: output.id ? output.find.value : sought });
    const rows = grouped(all().filter(matches)).slice(0, LISTED_MAX);
    if (rows.length)
      keyed(
        $("list"),
        rows,
        ({ run, command }) => (run ? `run ${run}` : command.id),
        ({ run, members, member, command }) =>
          run
            ? [byState(members), opened.has(run)]
            : [command.state, command.reason, command.message, command.id === id, member],
        (row) => (row.run ? runItem(row) : commandLink(row.command, row.command.id === id, row.member)),
      );
    else $("list").replaceChildren(empty(fleet.commands.size ? "No command matches." : "No commands yet."));
    if (scrolled) $("list").scrollTop = scrolled;
    scrolled = 0;
    const command = shownCommand();
    if (!id) {
      $("about").replaceChildren(empty("Choose a command to see its history and its output."));
      return;
    }
    if (!command) {
      fetchOne(id);
      return;
    }
    learn(command);
    const host = fleet.hosts.get(command.host);
    const beside =
      command.state === "queued" &&
      [...fleet.commands.values()]
        .filter((each) => each.host === command.host && isOpen(each))
        .map((each) => [each.id, each.state]);
    one(
      $("about"),
      [command, history?.id === id ? history.history.length : 0, host?.presence, host?.progress, beside, Boolean(host)],
      () => about(command),
    );
    output.element.hidden = false;
    output.show(id, sought);
    sought = "";
  },
  leave() {
    scrolled = $("list")?.scrollTop ?? 0;
    output.leave();
  },
};
