// What asks and tells: toasts, the dialog, and the dialogs that change something.
import { $, h, icon } from "/dom.js";
import { ask, askSurely, randomKey } from "/link.js";
import { many, tone } from "/words.js";

export function toast(text, word = "ok") {
  const shown = h("div", { className: `toast ${tone(word)}` }, text);
  $("toasts").append(shown);
  setTimeout(() => shown.remove(), word === "ok" ? 5000 : 12000);
}
export async function tell(promise, text) {
  try {
    const content = await promise;
    if (text) toast(text);
    return content;
  } catch (error) {
    toast(error.message, "failed");
    return null;
  }
}

// `go` returns false to keep the dialog open. `word`: go, or stop for what cannot be taken back.
export function dialog(title, body, go, text, word = "go") {
  const box = $("dialog");
  const act = async (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (button) button.disabled = true;
    if ((await go()) !== false) box.close();
    else if (button) button.disabled = false;
  };
  box.replaceChildren(
    h(
      "form",
      { onsubmit: act },
      h("h2", { id: "dialog-title" }, title),
      body,
      h(
        "div",
        { className: "tools end" },
        h("button", { type: "button", onclick: () => box.close() }, text ? "Cancel" : "Close"),
        text && h("button", { className: word }, text),
      ),
    ),
  );
  if (!box.open) box.showModal();
}

const path = (name) => `/api/v1/hosts/${encodeURIComponent(name)}`;
const namesOf = (hosts) =>
  hosts
    .slice(0, 12)
    .map((host) => host.name)
    .join(", ") + (hosts.length > 12 ? ` and ${hosts.length - 12} more` : "");

// The ops that all of these hosts offer; those that were never seen may offer anything.
export function common(hosts) {
  const lists = hosts.map((host) => host.commands).filter(Array.isArray);
  return lists.length ? [...new Set(lists[0])].filter((op) => lists.every((list) => list.includes(op))) : [];
}

// Steps on hosts, after asking: one step on one host is a command, everything else is a run that the hub carries on.
export function command(hosts, done) {
  const steps = [],
    ops = common(hosts),
    away = hosts.filter((host) => host.presence !== "online").length,
    key = randomKey();
  const number = (label, value, max) => h("input", { type: "number", min: 1, max, value, required: true, ariaLabel: label });
  const parallel = number("hosts at a time", String(Math.min(hosts.length, 10)), "10000"),
    minutes = number("minutes to wait", "60", "10080"),
    failures = h("input", { type: "number", min: "0", max: "10000", placeholder: "any", ariaLabel: "failures allowed" });
  const chosen = h("ol", { className: "steps", ariaLabel: "steps" }),
    hint = h("p", { className: "dim small" });
  const free = h("input", { placeholder: "operation", ariaLabel: "operation", maxLength: 64 });
  const show = () => {
    chosen.replaceChildren(
      ...steps.map((step, place) =>
        h(
          "li",
          null,
          step,
          h(
            "button",
            {
              type: "button",
              className: "quiet",
              ariaLabel: `leave out step ${place + 1}, ${step}`,
              onclick: () => {
                steps.splice(place, 1);
                show();
              },
            },
            icon("cross"),
          ),
        ),
      ),
    );
    hint.textContent = steps.length ? "" : "Choose what to do; choose more than one for steps that follow each other.";
  };
  const add = (op) => {
    if (op && steps.length < 20) steps.push(op);
    show();
  };
  show();
  const body = h(
    "div",
    { className: "stack" },
    h("p", null, "On ", h("strong", null, many(hosts.length, "host")), `: ${namesOf(hosts)}`),
    h(
      "div",
      { className: "tools", role: "group", ariaLabel: "operations" },
      ops.map((op) => h("button", { type: "button", onclick: () => add(op) }, `+ ${op}`)),
      !ops.length && free,
      !ops.length && h("button", { type: "button", onclick: () => add(free.value.trim()) }, "Add"),
    ),
    chosen,
    hint,
    hosts.length > 1 &&
      h(
        "div",
        { className: "fields" },
        h("label", null, "Hosts at a time", parallel),
        h("label", null, "Stop after failures", failures),
        h("label", null, "Wait at most (min)", minutes),
      ),
    hosts.length === 1 && h("div", { className: "fields" }, h("label", null, "Wait at most (min)", minutes)),
    away > 0 &&
      h("p", { className: "note warn" }, icon("half"), `${away} of them not online: the command waits for them until its time is over.`),
  );
  dialog(
    hosts.length === 1 ? `Command ${hosts[0].name}` : `Command ${many(hosts.length, "host")}`,
    body,
    async () => {
      if (!steps.length) {
        toast("Choose at least one operation.", "degraded");
        return false;
      }
      const names = hosts.map((host) => host.name),
        ttl_s = Number(minutes.value) * 60,
        single = names.length === 1 && steps.length === 1;
      const given = single
        ? await tell(askSurely("POST", "/api/v1/commands", { op: steps[0], hosts: names, ttl_s, key }), `${steps[0]}: accepted`)
        : await tell(
            askSurely("POST", "/api/v1/runs", {
              steps,
              hosts: names,
              parallel: names.length === 1 ? 1 : Number(parallel.value),
              max_failures: failures.value === "" ? null : Number(failures.value),
              ttl_s,
              key,
            }),
            `${steps.join(", ")}: accepted for ${many(names.length, "host")}`,
          );
      if (!given) return false;
      done?.();
      location.hash = single ? `#commands/${given.commands[0].id}` : `#runs/${given.id}`;
    },
    hosts.length === 1 ? "Give the command" : `Run on ${many(hosts.length, "host")}`,
  );
}

export function enroll() {
  const name = h("input", { required: true, placeholder: "web1", ariaLabel: "host name", maxLength: 253 }),
    again = h("input", { type: "checkbox" });
  dialog(
    "Enrol a host",
    h(
      "div",
      { className: "stack" },
      h("label", null, "Its name", name),
      h("label", { className: "inline" }, again, "It exists: give it a new token, the old one ends"),
    ),
    async () => {
      const given = await tell(ask("POST", "/api/v1/hosts", { name: name.value.trim(), again: again.checked }));
      if (given) {
        const there = `fleethub agent --hub ${given.agents_url} --name ${given.name} --token-file - --install`;
        const how = [h("p", null, "On that server, as root; it asks for the token:"), h("p", { className: "secret mono small" }, there)];
        showToken(`Token of ${given.name}`, how, given.token);
      }
      return false;
    },
    "Enrol",
  );
}
// `how`: elements that say what to do with it.
export function showToken(title, how, token) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(token);
      toast("Copied.");
    } catch {
      toast("Copying is not allowed here: select the text.", "degraded");
    }
  };
  dialog(
    title,
    h(
      "div",
      { className: "stack" },
      h("p", null, "Shown this once:"),
      h("p", { className: "secret mono" }, token),
      h("button", { type: "button", onclick: copy }, "Copy the token"),
      how,
    ),
    () => true,
  );
}

export const revoke = (host) =>
  confirm(
    `Revoke the token of ${host.name}?`,
    "Its connection ends within two seconds, and it stays out until it is enrolled again. Its history and its queue stay.",
    "Revoke",
    () => askSurely("POST", `${path(host.name)}/revoke`),
    `${host.name}: token revoked`,
  );
export const remove = (hosts, done) =>
  confirm(
    `Remove ${hosts.length === 1 ? hosts[0].name : many(hosts.length, "host")}?`,
    `${namesOf(hosts)}: what is queued is cancelled, what runs is given up as lost. This cannot be undone.`,
    "Remove",
    async () => {
      for (const host of hosts) await askSurely("DELETE", path(host.name));
      done?.();
    },
    `removed ${hosts.length === 1 ? hosts[0].name : many(hosts.length, "host")}`,
  );

export function confirm(title, text, verb, act, said) {
  dialog(title, h("p", null, text), async () => (await tell(act(), said)) !== null, verb, "stop");
}
