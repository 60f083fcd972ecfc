// Toasts, the dialog, and the dialogs that change something.
import { $, h, icon, setText } from "./dom.js";
import { ask, askSurely, link, randomKey } from "./link.js";
import { day, many, tone } from "./words.js";

const TYPED_MIN = 20; // to remove more hosts than this, their number must be typed

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
    say(error.message, "failed");
    return null;
  }
}
// Says it in the dialog if one is open, since nothing outside of it can be reached then; otherwise as a toast.
export function say(text, word) {
  if ($("dialog").open) setText($("dialog-problem"), text);
  else toast(text, word);
}

// `go` returns false to keep the dialog open. `word`: "go", or "stop" for what cannot be undone.
// `precious`: Escape does not close it.
export function dialog(title, body, go, text, word = "go", precious = false) {
  const box = $("dialog"),
    opener = box.open ? null : document.activeElement;
  const act = async (event) => {
    event.preventDefault();
    const button = event.submitter;
    setText($("dialog-problem"), "");
    if (button) button.disabled = true;
    if ((await go()) !== false) box.close();
    else if (button) button.disabled = false;
  };
  box.oncancel = (event) => {
    if (precious) event.preventDefault(); // a handler that returns false would prevent it too
  };
  if (opener)
    box.onclose = () => {
      if (document.activeElement === document.body)
        (opener.isConnected && opener !== document.body ? opener : $("title")).focus();
    };
  box.replaceChildren(
    h(
      "form",
      { onsubmit: act },
      h("h2", { id: "dialog-title" }, title),
      body,
      h("p", { id: "dialog-problem", className: "wrong", role: "alert" }),
      h(
        "div",
        { className: "tools end" },
        h("button", { type: "button", onclick: () => box.close() }, text ? "Back" : "Close"),
        text && h("button", { className: word }, text),
      ),
    ),
  );
  if (!box.open) box.showModal();
  else box.querySelector("button, input, select")?.focus();
}

// A sign-in over whatever is open, which stays as it is: what was asked for is then repeated.
let signingIn = null; // one form for all requests that wait for it
link.signAgain = (why) => {
  signingIn ??= new Promise(signInForm.bind(null, why)).finally(() => {
    signingIn = null;
  });
  return signingIn;
};
function signInForm(why, done) {
  const field = h("input", {
      type: "password",
      autocomplete: "current-password",
      required: true,
      ariaLabel: "operator token",
    }),
    wrong = h("p", { className: "wrong", role: "alert" });
  let signedIn = false;
  const enter = async (event) => {
    event.preventDefault();
    try {
      await ask("POST", "/login", { token: field.value.trim() });
      link.me = await ask("GET", "/api/v1/me");
      signedIn = true;
      box.close();
    } catch (error) {
      setText(wrong, error.message);
      field.focus();
    }
  };
  const box = h(
    "dialog",
    { ariaLabel: "Sign in again", onclose: () => box.remove() || done(signedIn) },
    h(
      "form",
      { onsubmit: enter },
      h("h2", null, "Sign in again"),
      h("p", null, why),
      h("label", null, "Operator token", field),
      h(
        "p",
        { className: "dim small" },
        "Without a token: open a new sign-in link in this browser, go back, and press again.",
      ),
      wrong,
      h(
        "div",
        { className: "tools end" },
        h("button", { type: "button", onclick: () => box.close() }, "Back"),
        h("button", { className: "go" }, "Sign in"),
      ),
    ),
  );
  document.body.append(box);
  box.showModal();
}

const path = (name) => `/api/v1/hosts/${encodeURIComponent(name)}`;
const namesOf = (hosts) =>
  hosts
    .slice(0, 12)
    .map((host) => host.name)
    .join(", ") + (hosts.length > 12 ? ` and ${hosts.length - 12} more` : "");

// The ops that all of these hosts offer. Hosts that were never seen do not count.
export function common(hosts) {
  const lists = hosts.map((host) => host.commands).filter(Array.isArray);
  return lists.length ? [...new Set(lists[0])].filter((op) => lists.every((list) => list.includes(op))) : [];
}

// Asks which steps to run on these hosts. One step on one host is a command; everything else is a run.
// `query`: by which they were found, if they are all that it finds; it stands in the run.
export function command(hosts, done, query = "") {
  const steps = [],
    ops = common(hosts),
    away = hosts.filter((host) => host.presence !== "online").length,
    key = randomKey();
  const number = (label, value) => h("input", { type: "number", min: 1, value, required: true, ariaLabel: label });
  const parallel = number("hosts at a time", String(Math.min(hosts.length, 10))),
    minutes = number("minutes to wait", "60"),
    failures = h("input", {
      type: "number",
      min: "0",
      placeholder: "any",
      ariaLabel: "failures allowed",
    });
  const chosen = h("ol", { className: "steps", ariaLabel: "steps" }),
    hint = h("p", { className: "dim small" });
  const free = h("input", {
    placeholder: "operation",
    ariaLabel: "operation",
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      add(free.value.trim());
    },
  });
  const known = hosts.every((host) => Array.isArray(host.commands)),
    none = known && !ops.length;
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
    hint.textContent =
      steps.length || none ? "" : "Choose what to do. Several operations are steps, one after the other.";
  };
  const add = (op) => {
    if (op) steps.push(op);
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
      !ops.length && !none && free,
      !ops.length && !none && h("button", { type: "button", onclick: () => add(free.value.trim()) }, "Add"),
    ),
    none && h("p", { className: "note warn" }, icon("dash"), "There is no operation that all of these hosts offer."),
    chosen,
    hint,
    hosts.length > 1 &&
      h(
        "div",
        { className: "fields" },
        h("label", null, "Hosts at a time", parallel),
        h("label", null, "Stop after failures", failures),
        h("label", null, "Give up if not delivered within (min)", minutes),
      ),
    hosts.length === 1 &&
      h("div", { className: "fields" }, h("label", null, "Give up if not delivered within (min)", minutes)),
    away > 0 &&
      h(
        "p",
        { className: "note warn" },
        icon("half"),
        `${away} of them not online: their command waits until its time is over.`,
      ),
  );
  dialog(
    hosts.length === 1 ? `Command ${hosts[0].name}` : `Command ${many(hosts.length, "host")}`,
    body,
    async () => {
      if (!steps.length) {
        say("Choose at least one operation.", "degraded");
        return false;
      }
      const names = hosts.map((host) => host.name),
        ttl_s = Number(minutes.value) * 60,
        single = names.length === 1 && steps.length === 1;
      const run = {
        steps,
        hosts: names,
        parallel: names.length === 1 ? 1 : Number(parallel.value),
        max_failures: failures.value === "" ? null : Number(failures.value),
        ttl_s,
        key,
        ...(query ? { query } : {}),
      };
      const again = () => say("The hub does not answer yet, asking again …", "degraded");
      try {
        const given = single
          ? await askSurely("POST", "/api/v1/commands", { op: steps[0], hosts: names, ttl_s, key }, again)
          : await askSurely("POST", "/api/v1/runs", run, again);
        toast(`${steps.join(", ")}: accepted for ${many(names.length, "host")}`);
        done?.();
        location.hash = single ? `#commands/${given.commands[0].id}` : `#runs/${given.id}`;
        return true;
      } catch (error) {
        const unsure = [undefined, 503, 504].includes(error.status);
        say(
          unsure
            ? "No answer: it may or may not have been accepted. Press again here: it will not run twice."
            : error.message,
          "failed",
        );
        return false;
      }
    },
    hosts.length === 1 ? "Give the command" : `Run on ${many(hosts.length, "host")}`,
  );
}

export function enroll() {
  const name = h("input", { required: true, placeholder: "web1", ariaLabel: "host name" }),
    again = h("input", { type: "checkbox" }),
    byCode = h("input", { type: "checkbox" });
  dialog(
    "Enrol a host",
    h(
      "div",
      { className: "stack" },
      h("label", null, "Name", name),
      h("label", { className: "inline" }, again, "It is enrolled already: make a new token, the old one becomes void"),
      h("label", { className: "inline" }, byCode, "By a one-time code: its token is made there, and nobody sees it"),
    ),
    async () => {
      const host = name.value.trim(),
        asked = byCode.checked
          ? ask("POST", `${path(host)}/code`, { again: again.checked })
          : ask("POST", "/api/v1/hosts", { name: host, again: again.checked });
      const given = await tell(
        asked.catch((error) => {
          if (error.status === 409)
            error.message = `${name.value.trim()} is enrolled already: tick the box to give it a new token.`;
          throw error;
        }),
      );
      if (given) {
        // the hub's own setting allowed that agents come without TLS
        const insecure = /^ws:\/\/(?!127\.|localhost[:/]|\[::1\])/.test(given.agents_url) ? " --insecure" : "";
        const credential = given.code ? "--code -" : `--name ${given.name} --token-file -`;
        const there = `fleethub agent --hub ${given.agents_url} ${credential} --install${insecure}`;
        const lifts = given.lifted
          ? `It was suspended, and is not any more: ${given.lifted}.`
          : given.suspended && `It is suspended until the code is used, which lifts that: ${given.suspended}.`;
        const how = [
          lifts && h("p", { className: "note warn" }, icon("dash"), lifts),
          given.code && h("p", null, "Good for one use, until ", day(given.expires_at), "."),
          h("p", null, `Type on that server, as root, and then the ${given.code ? "code" : "token"}:`),
          h("p", { className: "secret mono small" }, there),
        ];
        showToken(`${given.code ? "Code" : "Token"} of ${given.name}`, how, given.code ?? given.token);
      }
      return false;
    },
    "Enrol",
  );
}
// `how`: elements that say what to do with the token.
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
      h("button", { type: "button", onclick: copy }, "Copy it"),
      how,
    ),
    () => true,
    "",
    "go",
    true,
  );
}

export const revoke = (host) =>
  confirm(
    `Revoke the token of ${host.name}?`,
    "Its connection ends within two seconds, and it cannot connect until it is enrolled again. " +
      "Its history and its queued commands stay.",
    "Revoke",
    () => askSurely("POST", `${path(host.name)}/revoke`),
    `${host.name}: token revoked`,
  );
// To remove many hosts, their number must be typed first: one click is too little for what cannot be undone.
export function remove(hosts, done) {
  const whom = hosts.length === 1 ? hosts[0].name : many(hosts.length, "host"),
    count =
      hosts.length > TYPED_MIN &&
      h("input", { required: true, pattern: String(hosts.length), inputMode: "numeric", autocomplete: "off" });
  const body = h(
    "div",
    { className: "stack" },
    h(
      "p",
      null,
      `${namesOf(hosts)}: queued commands are cancelled, sent and running ones are lost. This cannot be undone.`,
    ),
    count && h("label", null, `Type ${hosts.length} to confirm`, count),
  );
  const act = async () => {
    let gone = 0;
    for (const host of hosts) {
      await askSurely("DELETE", path(host.name));
      if (++gone % 10 === 0) say(`${gone} of ${hosts.length} removed …`, "busy");
    }
    done?.();
  };
  dialog(`Remove ${whom}?`, body, async () => (await tell(act(), `removed ${whom}`)) !== null, "Remove", "stop");
}

export function confirm(title, text, verb, act, said) {
  dialog(title, h("p", null, text), async () => (await tell(act(), said)) !== null, verb, "stop");
}
