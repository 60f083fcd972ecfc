// The page: signs in, shows the view that the address names, and always says how current the shown state is.
import { view as account } from "./account.js";
import { clock } from "./clock.js";
import { view as commands } from "./commands.js";
import { view as conditions } from "./conditions.js";
import { view as deadletters } from "./deadletters.js";
import { $, h, icon, one, setText, visible } from "./dom.js";
import { view as fleetView } from "./fleet.js";
import { view as host } from "./host.js";
import { view as incident } from "./incident.js";
import { view as incidents } from "./incidents.js";
import { ask, at, checkSilence, connect, disconnect, link, may } from "./link.js";
import { enter } from "./place.js";
import { view as runs } from "./runs.js";
import { fleet } from "./store.js";
import { view as watchdog } from "./watchdog.js";
import { age, growAll, hour, sign, tone } from "./words.js";
import { draw as drawWrong, isQuiet } from "./wrong.js";

const VIEWS = {
  fleet: fleetView,
  host,
  conditions,
  commands,
  runs,
  watchdog,
  incidents,
  incident,
  deadletters,
  account,
};
const TABS = [
  ["fleet", "Fleet", "fleet", ["host"], "viewer"],
  ["conditions", "Conditions", "bell", [], "viewer"],
  ["commands", "Commands", "terminal", [], "viewer"],
  ["runs", "Runs", "layers", [], "viewer"],
  ["incidents", "Incidents", "flag", ["incident"], "viewer"],
  ["watchdog", "Watchdog", "pulse", [], "viewer"],
  ["deadletters", "Put aside", "letter", [], "operator"],
  ["account", "Account", "person", [], "viewer"],
];
const DRAW_MS = 250,
  REPLACED_MS = 8000,
  QUIET_S = 7; // the server sends a sync every 5 s
const main = $("main");
let undrawn = ""; // why the view could not be drawn: then its rows are old, however green all else is
let current = null,
  dirty = true,
  frame = 0,
  drawnMs = 0,
  epoch = 0,
  replacedMs = -Infinity;

// ── signing in and out ──

let problem = ""; // why nobody is signed in, if it needs to be said

async function begin() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) {
    history.replaceState(null, "", location.pathname);
    try {
      await ask("POST", "/login", { code });
    } catch (error) {
      problem = `${error.message}. A link works once, within ten minutes.`;
    }
  }
  try {
    link.me = await ask("GET", "/api/v1/me");
  } catch (error) {
    if (error.status !== 401) {
      banner("No answer from the server. Trying again …", "degraded");
      setTimeout(begin, 2000);
    }
    return;
  }
  signedIn();
}
function signedIn() {
  for (const id of ["rail", "bar"]) $(id).hidden = false;
  document.body.classList.remove("outside");
  if (!location.hash) history.replaceState(null, "", "#fleet");
  problem = "";
  connect();
  for (const [tab, , , , role] of TABS) $(`tab-${tab}`).hidden = !may(role);
  asideTab();
  route();
  $("title").focus({ preventScroll: true });
}
// What was put aside has a tab while there is something; else it is under Watchdog.
function asideTab() {
  const any = (fleet.processes.get("hub")?.pulse?.letters ?? 0) > 0;
  $("tab-deadletters").hidden = !may("operator") || !(any || document.body.dataset.view === "deadletters");
}
link.signedOut = () => {
  if (document.body.classList.contains("outside")) return;
  document.body.classList.add("outside");
  if (link.me) problem = "Your session has ended: sign in again.";
  disconnect();
  current?.leave?.();
  current = null;
  $("dialog").close();
  for (const id of ["rail", "bar", "banner", "wrong"]) $(id).hidden = true;
  document.title = "Sign in · fleethub";
  const field = h("input", {
    type: "password",
    name: "token",
    autocomplete: "current-password",
    required: true,
    ariaLabel: "operator token",
  });
  field.setAttribute("aria-describedby", "sign-in-problem");
  const wrong = h("p", { id: "sign-in-problem", className: "wrong", role: "alert" }, problem);
  const enter = async (event) => {
    event.preventDefault();
    setText(wrong, "");
    try {
      await ask("POST", "/login", { token: field.value.trim() });
      link.me = await ask("GET", "/api/v1/me");
      signedIn();
    } catch (error) {
      setText(wrong, error.message);
      field.focus();
    }
  };
  main.replaceChildren(
    h(
      "div",
      { className: "signin" },
      h("img", { src: at("/favicon.svg"), alt: "", width: 44, height: 44 }),
      h("h1", null, "Sign in to fleethub"),
      h(
        "p",
        { className: "dim" },
        "On the machine of the hub, run ",
        h("code", null, "fleethub up"),
        " and open the link that it prints: it signs you in once. Or enter a token.",
      ),
      h(
        "form",
        { onsubmit: enter },
        h("label", null, "Operator token", field),
        wrong,
        h("button", { className: "go" }, "Sign in"),
      ),
    ),
  );
  field.focus();
};

// ── views ──

const redraw = () => {
  dirty = true;
  drawnMs = 0;
  if (!frame) frame = requestAnimationFrame(draw);
};
link.changed = () => {
  dirty = true;
};
link.failed = (error) => {
  undrawn = String(error?.message ?? error).slice(0, 200);
  console.error(error);
};

function route(event) {
  if (!link.me) return;
  const [name, id] = enter(),
    known = Object.hasOwn(VIEWS, name) ? name : "fleet";
  let wanted = "";
  try {
    wanted = decodeURIComponent(id ?? "");
  } catch {
    /* then there is no such id */
  }
  current?.leave?.();
  current = VIEWS[known];
  document.body.dataset.view = known;
  for (const [tab, , , parts] of TABS) {
    const element = $(`tab-${tab}`);
    if (tab === known || parts.includes(known)) element.setAttribute("aria-current", "page");
    else element.removeAttribute("aria-current");
  }
  current.build(main, wanted, redraw);
  main.scrollTop = 0;
  setText($("title"), current.title());
  if (event) $("title").focus({ preventScroll: true });
  redraw();
}

// What is looked at, which is more than the name of the view.
function looksAt() {
  return visible(current.looksAt?.() || current.title());
}

// ── what is always shown ──

// `aged`: the part that changes each second. It stands beside the text, so that screen readers do not repeat it.
function banner(text, word, aged = "") {
  const box = $("banner");
  box.hidden = !text;
  box.className = tone(word);
  setText($("banner-text"), text);
  setText($("banner-age"), aged);
}
function truth() {
  if (fleet.epoch !== epoch) {
    if (epoch) replacedMs = Date.now();
    epoch = fleet.epoch;
  }
  const { verdict } = fleet.overall,
    shown = verdict === "ok" && isQuiet() ? "quiet" : verdict,
    heard = (Date.now() - link.heardMs) / 1000,
    serving = `${fleet.source.fanout ?? "fanout"} at ${location.host}`;
  $("verdict").hidden = !verdict || !link.fresh;
  $("verdict").className = `pill ${tone(shown)}`;
  one($("verdict"), shown ?? "", () => h("span", null, sign(shown), shown === "quiet" ? "hub quiet" : shown));
  $("verdict").title = (fleet.overall.reasons ?? []).join("; ");
  $("link").className = `pill ${link.fresh ? "good" : "bad"}`;
  one($("link"), link.fresh, () =>
    h("span", null, sign(link.fresh ? "live" : "down"), link.fresh ? "live" : "not connected"),
  );
  setText(
    $("whence"),
    link.fresh
      ? `connected to ${serving} since ${hour(link.freshSinceMs)}, hub epoch ${fleet.epoch}`
      : `not connected, last heard ${age(heard)} ago`,
  );
  $("link").title = $("whence").textContent; // on a small screen there is no rail
  const quiet = heard > QUIET_S ? `Nothing has come for ${age(heard)}.` : "";
  if (undrawn)
    banner("The page cannot draw what has come: what you see may be old. Another view may work.", "degraded", undrawn);
  else if (!link.fresh && fleet.version < 0) banner("Connecting …", "degraded");
  else if (!link.fresh) banner("Connection lost, trying again.", "degraded", `This is the state of ${age(heard)} ago.`);
  else if (quiet) banner("The connection may be lost.", "degraded", quiet);
  else if (fleet.source.from === "database")
    banner(
      "No hub is connected yet: this is read from the database.",
      "degraded",
      fleet.source.as_of
        ? `It was last written ${age((clock.now() - Date.parse(fleet.source.as_of)) / 1000)} ago.`
        : "",
    );
  else if (Date.now() - replacedMs < REPLACED_MS)
    banner(`The hub was replaced a moment ago. It is now at epoch ${fleet.epoch}; accepted commands go on.`, "busy");
  else banner("", "ok");
}
function draw() {
  frame = 0;
  if (!link.me) return;
  checkSilence();
  truth();
  asideTab();
  if (current && dirty && Date.now() - drawnMs >= DRAW_MS) {
    dirty = false;
    drawnMs = Date.now();
    try {
      current.draw();
      undrawn = "";
    } catch (error) {
      link.failed(error);
    }
  }
  // after the view, which may know by now what it looks at
  if (current) drawWrong(looksAt(), !link.fresh && fleet.version >= 0);
  growAll();
}

$("tabs").append(
  ...TABS.map(([name, text, sign]) =>
    h("a", { href: `#${name}`, id: `tab-${name}` }, icon(sign), h("span", null, text)),
  ),
);
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", (event) => (location.hash.startsWith("#code=") ? begin() : route(event)));
addEventListener("keydown", (event) => {
  if (
    !event.ctrlKey &&
    !event.metaKey &&
    !event.altKey &&
    !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) &&
    !$("dialog").open &&
    current?.key?.(event)
  )
    event.preventDefault();
});
addEventListener("offline", () => link.cut());
setInterval(() => {
  dirty ||= Date.now() - drawnMs > 1000;
  draw();
}, DRAW_MS); // ages grow even if no news comes
begin();
