// Toasts, the dialog, and the dialogs that change something.
import { $, h, icon, setText } from "./dom.js";
import { ask, askSurely, link } from "./link.js";
import { fleet, isOpen } from "./store.js";
import { day, many, tone } from "./words.js";

export const TYPED_MIN = 20, // for what cannot be undone on more hosts than this, their number must be typed
  SHORT_CHARS = 8; // of an id: the command line and the API take as many

export function toast(text, word = "ok") {
  const shown = h("div", { className: `toast ${tone(word)}` }, text);
  $("toasts").append(shown);
  setTimeout(() => shown.remove(), word === "ok" ? 5000 : 12000);
}
// Puts it into the clipboard. Without TLS a browser has only the old way.
export async function copy(text) {
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else {
      const field = h("textarea", { value: text, className: "heard" });
      ($("dialog").open ? $("dialog") : document.body).append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      if (!done) throw new Error("refused");
    }
    toast("Copied.");
  } catch {
    toast(`Copying is not allowed here: ${text}`, "degraded");
  }
}
// An id as it is shown and typed: its beginning. The button copies all of it.
export const idShown = (id, what = "id") =>
  h(
    "span",
    { className: "id", title: id },
    h("span", { className: "mono small" }, id.slice(0, SHORT_CHARS)),
    h(
      "button",
      { type: "button", className: "quiet small", ariaLabel: `copy the ${what}`, onclick: () => copy(id) },
      "Copy",
    ),
  );
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
  if ($("dialog").open) {
    $("dialog-problem").className = tone(word) === "busy" ? "dim" : "wrong";
    setText($("dialog-problem"), text);
  } else toast(text, word);
}

// `go` returns false to keep the dialog open. `word`: "go", or "stop" for what cannot be undone.
// `precious`: Escape does not close it. Returns the button that does it.
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
  return box.querySelector(".end button:last-child");
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
export const namesOf = (hosts) =>
  hosts
    .slice(0, 12)
    .map((host) => host.name)
    .join(", ") + (hosts.length > 12 ? ` and ${hosts.length - 12} more` : "");

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
        const loopback = /^wss?:\/\/(127\.|localhost[:/]|\[::1\])/.test(given.agents_url);
        const how = [
          lifts && h("p", { className: "note warn" }, icon("dash"), lifts),
          given.code && h("p", null, "Good for one use, until ", day(given.expires_at), "."),
          h("p", null, `Type on that server, as root, and then the ${given.code ? "code" : "token"}:`),
          h("p", { className: "secret mono small" }, there),
          loopback &&
            h(
              "p",
              { className: "note warn" },
              icon("bang"),
              `${given.agents_url} leads to the machine on which it is typed. For another server, agents need an ` +
                "address of this hub that can be reached: settings agents.listen or agents.url, with TLS; or a tunnel.",
            ),
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
  dialog(
    title,
    h(
      "div",
      { className: "stack" },
      h("p", null, "Shown this once:"),
      h("p", { className: "secret mono" }, token),
      h("button", { type: "button", onclick: () => copy(token) }, "Copy it"),
      how,
    ),
    () => true,
    "",
    "go",
    true,
  );
}

// What runs or waits on these hosts, for whoever is about to part with them.
function openText(hosts) {
  const names = new Set(hosts.map((host) => host.name)),
    open = [...fleet.commands.values()].filter((one) => names.has(one.host) && isOpen(one)),
    running = open.filter((one) => one.state !== "queued"),
    online = hosts.filter((host) => host.presence === "online").length;
  const told = running
    .slice(0, 3)
    .map((one) => `${one.op} on ${one.host}, given by ${one.actor}`)
    .join("; ");
  return [
    online > 0 && (hosts.length === 1 ? "It is online." : `${online} of them are online.`),
    running.length > 0 && `${many(running.length, "command")} under way: ${told}${running.length > 3 ? " …" : ""}.`,
    open.length > running.length && `${many(open.length - running.length, "command")} queued.`,
  ]
    .filter(Boolean)
    .join(" ");
}

export const revoke = (host) =>
  confirm(
    `Revoke the token of ${host.name}?`,
    "Its connection ends within two seconds, and it cannot connect until it is enrolled again. " +
      `Its history and its queued commands stay. ${openText([host])}`,
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
      `${namesOf(hosts)}: queued commands are cancelled, sent and running ones are lost: they may run on, and nobody ` +
        "hears of it. To come back, a host has to be enrolled again. This cannot be undone.",
    ),
    openText(hosts) && h("p", { className: "note warn" }, icon("bang"), openText(hosts)),
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
