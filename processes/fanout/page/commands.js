// Commands: the list, and one command with its history and its output.

import { clock } from "./clock.js";
import { confirm, tell, toast } from "./dialogs.js";
import { $, h, icon, keyed, one } from "./dom.js";
import { ask, askSurely, may, randomKey } from "./link.js";
import { Output } from "./output.js";
import { fleet, isOpen, newestCommands } from "./store.js";
import { between, day, empty, facts, hour, pill, presenceOf, progressOf, sign, since, tone, whole } from "./words.js";

const STATES = ["queued", "sent", "running", "succeeded", "failed", "rejected", "expired", "cancelled", "lost"];
const LISTED_MAX = 300,
  HISTORY_MS = 800;
const wanted = { text: "", state: "" };
let scrolled = 0, // how far the list was scrolled when another command was chosen
  output = null,
  id = "",
  history = null,
  asked = "",
  redraw = () => {},
  older = [],
  next = null;

export function commandLink(command, current) {
  return h(
    "a",
    {
      href: `#commands/${command.id}`,
      className: `item ${command.state === "lost" ? "alarming" : ""}`,
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
    h("span", { className: "under" }, command.reason || command.message || command.actor || ""),
    h("span", { className: "under right" }, since(command.created_at)),
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
const REASONS = {
  host_removed: "its host was removed",
  journal_replaced: "the agent came back with another journal",
  forgotten: "the agent came back and does not know the command",
  quarantined: "its report is a dead letter",
  restored: "the database was restored from a backup",
  host_offline: "its host was offline",
  exit: "its exit code was not 0",
};
const told = (command) => command.message || (REASONS[command.reason] ?? command.reason);

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
          step.reason && h("span", { className: "dim" }, ` · ${REASONS[step.reason] ?? step.reason}`),
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

function about(command) {
  const host = fleet.hosts.get(command.host),
    opened = isOpen(command);
  const cancel = () =>
    confirm(
      `Cancel ${command.op} on ${command.host}?`,
      command.state === "queued"
        ? "It is cancelled at once."
        : "Its agent is asked to end it. If it succeeds before that, it counts as succeeded.",
      "Cancel the command",
      () => askSurely("POST", `/api/v1/commands/${command.id}/cancel`),
      "Asked for the cancel.",
    );
  const again = async () => {
    const given = await tell(
      askSurely("POST", "/api/v1/commands", {
        op: command.op,
        hosts: [command.host],
        ttl_s: command.ttl_s,
        key: randomKey(),
      }),
      `${command.op}: accepted`,
    );
    if (given) location.hash = `#commands/${given.commands[0].id}`;
  };
  const waits =
    command.state === "queued" &&
    [...fleet.commands.values()].filter((other) => other.host === command.host && other.state === "queued").length;
  const presence = host && presenceOf(host, clock.now(), true);
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
      opened &&
        may("operator") &&
        h(
          "button",
          { className: "stop", onclick: cancel, disabled: Boolean(command.cancel_requested_at) },
          command.cancel_requested_at ? "Cancel asked for" : "Cancel",
        ),
      !opened && may("operator") && h("button", { onclick: again }, "Run again"),
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
    waits > 0 &&
      presence?.word !== "online" &&
      h(
        "p",
        { className: "note" },
        icon("clock"),
        h(
          "span",
          null,
          `${command.host} is ${presence?.text ?? "unknown"}, with ${whole(waits)} queued. Delivered when it is back`,
          command.expires_at && [", until ", h("strong", null, day(command.expires_at))],
          ".",
        ),
      ),
    command.state === "running" && progressBar(progressOf(host)),
    command.unheard_since &&
      opened &&
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
            `${hour(command.cancel_requested_at)} by ${command.cancel_requested_by || "somebody"}`,
        ],
        ["Took", between(command.started_at, command.finished_at)],
        ["Attempts", command.attempt > 1 ? command.attempt : null],
        ["Waits until", command.state === "queued" && day(command.expires_at)],
        ["Run", command.run && h("a", { href: `#runs/${command.run}` }, command.run.slice(0, 8))],
        ["Id", h("span", { className: "mono small" }, command.id)],
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

export const view = {
  title: () => "Commands",
  build(main, wantedId, changed) {
    redraw = changed;
    id = wantedId;
    output ??= new Output();
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
    const commands = all().filter(matches).slice(0, LISTED_MAX);
    if (commands.length)
      keyed(
        $("list"),
        commands,
        (command) => command.id,
        (command) => [command.state, command.reason, command.message, command.id === id],
        (command) => commandLink(command, command.id === id),
      );
    else $("list").replaceChildren(empty(fleet.commands.size ? "No command matches." : "No commands yet."));
    if (scrolled) $("list").scrollTop = scrolled;
    scrolled = 0;
    const command = fleet.commands.get(id) ?? older.find((one) => one.id === id);
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
    one($("about"), [command, history?.id === id ? history.history.length : 0, host?.presence, host?.progress], () =>
      about(command),
    );
    output.element.hidden = false;
    output.show(id);
  },
  leave() {
    scrolled = $("list")?.scrollTop ?? 0;
    output.leave();
  },
};
