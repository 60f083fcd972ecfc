// The dialog that gives commands. It shows what would happen, where, and with how many at a time, and asks.
import { dialog, namesOf, say, TYPED_MIN, toast } from "./dialogs.js";
import { h, icon, setText } from "./dom.js";
import { askSurely, randomKey } from "./link.js";
import { many } from "./words.js";

const PARALLEL = 10; // hosts at a time, if nobody says otherwise
const DRASTIC = /reboot|shutdown|power-?off|halt|kexec|reinstall|wipe|erase|destroy|mkfs/i; // what stops a machine

const seen = (host) => Array.isArray(host.commands);
// Each operation with how many of these hosts offer it. Hosts that were never seen do not count.
function offers(hosts) {
  const found = new Map();
  for (const host of hosts.filter(seen))
    for (const op of new Set(host.commands)) found.set(op, (found.get(op) ?? 0) + 1);
  return [...found].sort((one, other) => other[1] - one[1]);
}

// The fields of the dialog. `before`: what was asked for once, if it is to be asked for again.
function fields(hosts, before) {
  const number = (label, value, more) =>
    h("input", { type: "number", min: "1", value, required: true, ariaLabel: label, ...more });
  return {
    parallel: number("hosts at a time", String(Math.min(hosts.length, before.parallel ?? PARALLEL))),
    minutes: number("minutes to wait", String(Math.max(1, Math.round((before.ttl_s ?? 3600) / 60)))),
    failures: number("failures allowed", String(before.max_failures ?? ""), {
      min: "0",
      required: false,
      placeholder: "any",
    }),
    typed: h("input", { pattern: String(hosts.length), inputMode: "numeric", autocomplete: "off" }),
    leave: h("input", { type: "checkbox" }),
    looked: h("input", { type: "checkbox", required: true }),
  };
}

// Asks which steps to run on these hosts. One step on one host is a command; everything else is a run.
// `query`: by which they were found, if they are all that it finds; it stands in the run.
// `before`: steps, parallel, max_failures and ttl_s of what is to run again; `note`: what is to be known of that;
// `look`: what whoever runs it again has to have seen to.
export function command(hosts, done, query = "", before = {}) {
  const steps = [...(before.steps ?? [])],
    ops = offers(hosts),
    known = hosts.filter(seen).length,
    away = hosts.filter((host) => host.presence !== "online").length,
    key = randomKey(),
    input = fields(hosts, before);
  const lacking = () => hosts.filter((host) => seen(host) && !steps.every((op) => host.commands.includes(op))),
    chosen = () => (input.leave.checked ? hosts.filter((host) => !lacking().includes(host)) : hosts);
  const list = h("ol", { className: "steps", ariaLabel: "steps" }),
    hint = h("p", { className: "dim small" }),
    lack = h("span"),
    leaveText = h("span"),
    lackNote = h("div", { className: "note warn" }, icon("dash"), h("div", { className: "stack" }, lack)),
    drastic = h("p", { className: "note bad", role: "status" }, icon("bang"), h("span")),
    typed = h("label", null, `Type ${hosts.length} to confirm`, input.typed);
  lackNote.lastChild.append(h("label", { className: "inline" }, input.leave, leaveText));
  let go = null;
  const show = () => {
    list.replaceChildren(...steps.map((op, place) => step(op, place, steps, show)));
    const without = lacking(),
      harsh = steps.filter((op) => DRASTIC.test(op)),
      count = chosen().length;
    setText(hint, steps.length || (known && !ops.length) ? "" : "Choose what to do. Several operations are steps.");
    lackNote.hidden = !without.length;
    const what = steps.length > 1 ? `not all of ${steps.join(", ")}` : `no ${steps[0]}`;
    if (without.length) {
      const few = `${without.length} of ${many(hosts.length, "host")} offer ${what}: ${namesOf(without)}.`;
      setText(lack, hosts.length === 1 ? `${hosts[0].name} offers ${what}.` : few);
      setText(leaveText, `Leave ${without.length === 1 ? "it" : `these ${without.length}`} out`);
    } else input.leave.checked = false;
    input.leave.parentElement.hidden = without.length === hosts.length;
    drastic.hidden = !harsh.length;
    setText(
      drastic.lastChild,
      `${harsh.join(", ")}: ${many(count, "host")} will stop what ${count === 1 ? "it does" : "they do"}.`,
    );
    typed.hidden = !harsh.length || count <= TYPED_MIN;
    setText(typed.firstChild, `Type ${count} to confirm`);
    Object.assign(input.typed, { required: !typed.hidden, disabled: typed.hidden, pattern: String(count) });
    if (!go) return;
    go.className = harsh.length || before.look ? "stop" : "go";
    setText(go, hosts.length === 1 ? "Give the command" : `Run on ${many(count, "host")}`);
    go.disabled = !count;
  };
  input.leave.addEventListener("change", show);
  const add = (op) => {
    if (op) steps.push(op);
    show();
  };
  const body = h(
    "div",
    { className: "stack" },
    h("p", null, "On ", h("strong", null, many(hosts.length, "host")), `: ${namesOf(hosts)}`),
    before.note && h("p", { className: "note warn" }, icon("question"), h("span", null, before.note)),
    choices(hosts, ops, known, add),
    list,
    hint,
    lackNote,
    drastic,
    h(
      "div",
      { className: "fields" },
      hosts.length > 1 && h("label", null, "Hosts at a time", input.parallel),
      hosts.length > 1 && h("label", null, "Failures allowed before it stops", input.failures),
      h("label", null, "Give up if not delivered within (min)", input.minutes),
    ),
    away > 0 &&
      h(
        "p",
        { className: "note warn" },
        icon("half"),
        hosts.length === 1
          ? "It is not online: the command waits until its time is over."
          : `${away} of them not online: their command waits until its time is over.`,
      ),
    before.look && h("label", { className: "inline" }, input.looked, before.look),
    typed,
  );
  go = dialog(
    before.title ?? (hosts.length === 1 ? `Command ${hosts[0].name}` : `Command ${many(hosts.length, "host")}`),
    body,
    () => send(steps, chosen(), lacking(), { input, query, key, done }),
    "Give the command",
  );
  show();
}

// The operations to choose from, with how many of the hosts offer them.
function choices(hosts, ops, known, add) {
  const free = h("input", {
    placeholder: "operation",
    ariaLabel: "operation",
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      add(free.value.trim());
    },
  });
  if (ops.length)
    return h(
      "div",
      { className: "tools", role: "group", ariaLabel: "operations" },
      ops.map(([op, count]) =>
        h(
          "button",
          { type: "button", onclick: () => add(op) },
          `+ ${op}`,
          count < known && h("span", { className: "dim small" }, `${count} of ${hosts.length}`),
        ),
      ),
    );
  if (known === hosts.length)
    return h(
      "p",
      { className: "note warn" },
      icon("dash"),
      `${hosts.length === 1 ? "It offers" : "They offer"} no operation: [commands] in agent.toml has them.`,
    );
  return h(
    "div",
    { className: "stack" },
    h(
      "p",
      { className: "dim small" },
      "What they offer is not known before they have been seen once. Type the name of an operation.",
    ),
    h(
      "div",
      { className: "tools" },
      free,
      h("button", { type: "button", onclick: () => add(free.value.trim()) }, "Add"),
    ),
  );
}
const step = (op, place, steps, show) =>
  h(
    "li",
    null,
    op,
    h(
      "button",
      {
        type: "button",
        className: "quiet",
        ariaLabel: `leave out step ${place + 1}, ${op}`,
        onclick: () => {
          steps.splice(place, 1);
          show();
        },
      },
      icon("cross"),
    ),
  );

// Gives it. Returns false, and says why in the dialog, if that cannot be or is not sure.
async function send(steps, hosts, lacking, { input, query, key, done }) {
  if (!steps.length) {
    say("Choose at least one operation.", "degraded");
    return false;
  }
  const wanting = lacking.filter((host) => hosts.includes(host));
  if (wanting.length) {
    say(
      `${namesOf(wanting)}: not offered there, and nothing was sent. Leave out hosts or steps that do not fit.`,
      "degraded",
    );
    return false;
  }
  const names = hosts.map((host) => host.name),
    ttl_s = Number(input.minutes.value) * 60,
    single = names.length === 1 && steps.length === 1;
  const run = {
    steps,
    hosts: names,
    parallel: Math.min(names.length, Number(input.parallel.value)),
    max_failures: input.failures.value === "" ? null : Number(input.failures.value),
    ttl_s,
    key,
    ...(query ? { query } : {}),
  };
  const again = ({ code, message }) =>
    say(code ? `${message}. Asking again …` : "The hub does not answer yet, asking again …", "busy");
  try {
    const given = single
      ? await askSurely("POST", "/api/v1/commands", { op: steps[0], hosts: names, ttl_s, key }, again)
      : await askSurely("POST", "/api/v1/runs", run, again);
    toast(`${steps.join(", ")}: accepted for ${many(names.length, "host")}`);
    done?.();
    location.hash = single ? `#commands/${given.commands[0].id}` : `#runs/${given.id}`;
    return true;
  } catch (error) {
    const unsure = [undefined, 503, 504].includes(error.status),
      told = error.code ? error.message : "No answer: it may or may not have been accepted";
    say(unsure ? `${told}. Press again here: it will not run twice.` : error.message, "failed");
    return false;
  }
}
