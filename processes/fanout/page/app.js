// The dashboard: signs in, follows /ws, heals after any gap, and gives commands over the API.
import { age, card, commandLink, facts, h, hostRow, incidentCard, keyed, pill, processRow, since, tone } from "/view.js";

const OUTPUT_LINES_MAX = 5000, COMMANDS_MAX = 500, SILENT_MS = 12000, ASK_MS = 15000;
const $ = (id) => document.getElementById(id);
const main = $("main");
const fleet = { hosts: new Map(), commands: new Map(), processes: new Map(), incidents: new Map(), overall: {}, ledger: {}, source: {}, epoch: 0, version: -1 };
const KINDS = { host: "hosts", command: "commands", process: "processes", incident: "incidents" };
const selected = new Set();
let me = null, socket = null, fresh = false, heard = 0, tries = 0, clockOffset = 0, watched = null, filter = "", dirty = true, timer = null;

// ── the API ──

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const randomKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

async function ask(method, path, body) {
  const answer = await fetch(path, { method, headers: body ? { "content-type": "application/json" } : {}, body: body ? JSON.stringify(body) : undefined });
  const date = Date.parse(answer.headers.get("date") ?? "");
  if (date) clockOffset = date - Date.now();
  const content = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "/login") signedOut();
  if (!answer.ok) throw Object.assign(new Error(content.message ?? `the server answered ${answer.status}`), { status: answer.status });
  return content;
}

// Asks again, with the same key, while nobody knows the outcome: the hub may be being replaced.
async function askSurely(method, path, body) {
  const until = Date.now() + ASK_MS;
  for (;;) {
    try { return await ask(method, path, body); } catch (error) {
      if (![undefined, 503, 504].includes(error.status) || Date.now() > until) throw error;
      await sleep(500 + Math.random() * 500);
    }
  }
}

function toast(text, word = "ok") {
  const shown = h("div", { className: `toast ${tone(word)}` }, text);
  $("toasts").append(shown);
  setTimeout(() => shown.remove(), word === "ok" ? 5000 : 12000);
}
async function tell(promise, text) {
  try { const content = await promise; if (text) toast(text); return content; } catch (error) { toast(error.message, "failed"); return null; }
}

// ── the connection ──

function connect() {
  clearTimeout(timer);
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  const own = socket;
  heard = Date.now();
  own.onopen = () => { watched = null; };
  own.onmessage = (event) => { if (own === socket) { heard = Date.now(); take(JSON.parse(event.data)); } };
  own.onclose = async () => {
    if (own !== socket) return;
    socket = null; fresh = false; dirty = true;
    const wait = Math.random() * Math.min(5000, 300 * 2 ** tries++);
    timer = setTimeout(async () => {
      try { me = await ask("GET", "/api/v1/me"); } catch (error) { if (error.status === 401) return; }
      connect();
    }, wait);
  };
}

function send(frame) { if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame)); }

function take(frame) {
  if (frame.type === "full_state") {
    for (const [kind, part] of Object.entries(KINDS)) fleet[part] = new Map(frame.state[part].map((row) => [kind === "host" || kind === "process" ? row.name : row.id, row]));
    for (const part of ["overall", "ledger", "source"]) fleet[part] = frame.state[part] ?? {};
    Object.assign(fleet, { epoch: frame.epoch, version: frame.version });
    fresh = true; tries = 0;
  } else if (frame.type === "delta" || frame.type === "sync") {
    if (frame.epoch !== fleet.epoch || frame.version !== fleet.version + (frame.type === "delta" ? 1 : 0)) return send({ type: "get_state" });
    fleet.version = frame.version;
    for (const change of frame.changes ?? []) apply(change);
  } else if (frame.type === "output" || frame.type === "output_end") takeOutput(frame);
  dirty = true;
}

function apply({ kind, id, fields }) {
  const rows = fleet[KINDS[kind.replace("_removed", "")]];
  if (!rows) { if (kind in fleet) fleet[kind] = { ...fleet[kind], ...fields }; return; }
  if (kind.endsWith("_removed")) { rows.delete(id); return; }
  rows.set(id, { ...rows.get(id), ...fields });
  if (kind === "command" && rows.size > COMMANDS_MAX * 2) for (const old of byAge().slice(COMMANDS_MAX)) if (old.finished_at) rows.delete(old.id);
}

// ── sign-in ──

async function begin() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) {
    history.replaceState(null, "", location.pathname);
    try { await ask("POST", "/login", { code }); } catch (error) { toast(`${error.message}. Links are good once, for ten minutes.`, "failed"); }
  }
  try { me = await ask("GET", "/api/v1/me"); } catch (error) {
    if (error.status !== 401) { showBanner("No answer from the server. Trying again …", "down"); setTimeout(begin, 2000); }
    return;
  }
  signedIn();
}
function signedIn() {
  for (const id of ["tabs", "link", "out"]) $(id).hidden = false;
  $("out").title = `${me.actor} (${me.role})`;
  if (!location.hash) history.replaceState(null, "", "#fleet");
  route(); connect();
}
function signedOut() {
  const gone = socket; socket = null; gone?.close(); clearTimeout(timer); me = null;
  for (const id of ["tabs", "link", "out", "verdict", "banner"]) $(id).hidden = true;
  const field = h("input", { type: "password", name: "token", autocomplete: "current-password", placeholder: "operator token", required: true, ariaLabel: "operator token" });
  const enter = async (event) => {
    event.preventDefault();
    if (await tell(ask("POST", "/login", { token: field.value.trim() }))) { me = await ask("GET", "/api/v1/me"); signedIn(); }
  };
  main.replaceChildren(h("div", { className: "card signin" }, h("h2", null, "Sign in"),
    h("p", { className: "dim" }, "Run ", h("code", null, "bin/fleethub up"), " and open the link it prints: that signs you in. Or paste an operator token."),
    h("form", { onsubmit: enter }, field, h("button", { className: "go" }, "Sign in"))));
  field.focus();
}

// ── views ──

const page = { name: "", id: "" };
function route() {
  if (!me) return;
  const [name, id] = location.hash.slice(1).split("/");
  Object.assign(page, { name: views[name] ? name : "fleet", id: id ? decodeURIComponent(id) : "" });
  for (const link of $("tabs").children) link.toggleAttribute("aria-current", link.hash === `#${page.name}`);
  if (watched && watched !== page.id) { send({ type: "unsubscribe", command_id: watched }); watched = null; }
  views[page.name].build(); dirty = true;
}

const byName = () => [...fleet.hosts.values()].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
const byAge = () => [...fleet.commands.values()].sort((a, b) => (b.created_at ?? "").localeCompare(a.created_at ?? "") || b.id.localeCompare(a.id));
const runningBy = () => new Map(byAge().filter((c) => !c.finished_at).map((c) => [c.host, c]));
const may = (role) => ["viewer", "operator", "admin"].indexOf(me?.role) >= ["viewer", "operator", "admin"].indexOf(role);
const table = (heads, id) => h("div", { className: "card scroll" }, h("table", null, h("thead", null, h("tr", null, heads.map(([text, name]) => h("th", { className: name ?? "" }, text)))), h("tbody", { id })));

const views = {
  fleet: {
    build() {
      const all = h("input", { type: "checkbox", ariaLabel: "select all shown", onchange: (event) => { for (const host of shownHosts()) event.target.checked ? selected.add(host.name) : selected.delete(host.name); dirty = true; } });
      main.replaceChildren(h("div", { id: "counts", className: "cards" }),
        h("div", { className: "tools" }, h("input", { type: "search", placeholder: "find a host", value: filter, ariaLabel: "find a host", oninput: (event) => { filter = event.target.value; dirty = true; } }),
          h("span", { className: "spring" }), h("select", { id: "op", ariaLabel: "operation" }), h("button", { id: "run", className: "go", onclick: confirmRun }, "Run"),
          may("admin") && h("button", { onclick: enroll }, "Enrol a host")),
        table([[all], ["Host"], ["Presence"], ["Heartbeat"], ["CPU", "wide"], ["RAM", "wide"], ["Disk", "wide"], ["Load", "wide right"], ["Command"], [""]], "hosts"), h("p", { id: "none", className: "empty" }));
    },
    draw() {
      const hosts = [...fleet.hosts.values()], count = (presence) => hosts.filter((host) => host.presence === presence).length;
      $("counts").replaceChildren(...["online", "stale", "offline"].map((presence) => card(count(presence), presence, presence)), card((fleet.ledger.queued ?? 0) + (fleet.ledger.sent ?? 0) + (fleet.ledger.running ?? 0), "open commands"));
      for (const name of selected) if (!fleet.hosts.has(name)) selected.delete(name);
      const running = runningBy(), shown = shownHosts(), actions = { select: (name, on) => { on ? selected.add(name) : selected.delete(name); dirty = true; }, more, admin: may("admin") };
      keyed($("hosts"), shown, (host) => host.name, (host) => [host.presence, host.last_seen, host.metrics, host.revoked, host.os_version, running.get(host.name), selected.has(host.name)], (host) => hostRow(host, running.get(host.name), selected.has(host.name), actions));
      $("none").hidden = shown.length > 0;
      $("none").textContent = hosts.length ? "No host matches." : "No hosts yet. Enrol one, give its agent the token, and it appears here.";
      const ops = offered(), select = $("op"), before = select.value;
      if (select.dataset.ops !== ops.join()) { select.dataset.ops = ops.join(); select.replaceChildren(...ops.map((op) => h("option", null, op))); if (ops.includes(before)) select.value = before; }
      $("run").hidden = !may("operator");
      select.hidden = $("run").hidden || !ops.length;
      $("run").disabled = !ops.length;
      $("run").textContent = !selected.size ? "Select hosts" : ops.length ? `Run on ${selected.size}` : "No common operation";
    },
  },
  commands: {
    build() {
      main.replaceChildren(h("div", { className: "split" }, h("div", { id: "list", className: "card list" }), h("div", { className: "card" }, h("div", { id: "about" }), h("pre", { id: "output", hidden: true, tabIndex: 0 }))));
    },
    draw() {
      const commands = byAge().slice(0, COMMANDS_MAX);
      keyed($("list"), commands, (command) => command.id, (command) => [command.state, command.reason, command.message, command.id === page.id], (command) => commandLink(command, command.id === page.id));
      if (!commands.length) $("list").replaceChildren(h("p", { className: "empty" }, "No commands yet."));
      const command = fleet.commands.get(page.id);
      if (page.id && !command) { if ($("about").dataset.id !== page.id) { $("about").dataset.id = page.id; fetchCommand(page.id); } return; }
      if (!command) { $("about").replaceChildren(h("p", { className: "empty" }, "Choose a command to see its story and its output.")); return; }
      keyed($("about"), [command], (c) => c.id, (c) => c, aboutCommand);
      $("output").hidden = false;
      if (watched !== command.id && socket?.readyState === WebSocket.OPEN && fresh) {
        watched = command.id; $("output").replaceChildren(); send({ type: "subscribe", command_id: command.id, offset: 0 });
      }
    },
  },
  watchdog: {
    build() {
      main.replaceChildren(h("div", { id: "health", className: "cards" }), h("div", { id: "reasons" }), h("h2", null, "Processes"),
        table([["Process"], ["Verdict"], ["Pulse", "right"], ["Turn", "right wide"], ["Backlog", "right"], ["Blocked on"], ["Restarts", "right wide"], ["Memory", "right wide"], ["Up", "right wide"]], "processes"),
        h("h2", null, "Incidents"), h("div", { id: "incidents" }), h("p", { id: "quiet", className: "empty" }, "No incidents."),
        h("h2", null, "Ledger"), h("div", { id: "ledger", className: "cards" }), h("p", { id: "sum", className: "dim small" }));
    },
    draw() {
      const { canary = {}, verdict = "down", reasons = [], watchdog_silent_s: silent } = fleet.overall;
      $("health").replaceChildren(card(verdict, "verdict", verdict), card(canary.age_s === null || canary.age_s === undefined ? "never" : age(canary.age_s), "since the last canary round", canary.ok ? "ok" : "down"),
        card(canary.latency_ms ? `${canary.latency_ms.toFixed(0)} ms` : "–", "canary round trip"), card(fleet.epoch, "hub epoch"), ...(silent === null || silent === undefined ? [] : [card(age(silent), "watchdog silent", "down")]));
      $("reasons").replaceChildren(...(reasons.length ? [h("div", { className: "card" }, reasons.map((reason) => h("div", null, "• ", reason)))] : []));
      keyed($("processes"), [...fleet.processes.values()], (p) => p.name, (p) => p, processRow);
      const incidents = [...fleet.incidents.values()].sort((a, b) => (b.found_at ?? "").localeCompare(a.found_at ?? ""));
      keyed($("incidents"), incidents, (i) => i.id, (i) => i, incidentCard);
      $("quiet").hidden = incidents.length > 0;
      const { accepted = 0, ...states } = fleet.ledger, sum = Object.values(states).reduce((a, b) => a + b, 0);
      $("ledger").replaceChildren(card(accepted, "accepted"), ...Object.entries(states).map(([state, count]) => card(count, state, state)));
      $("sum").textContent = sum === accepted ? "accepted = the sum over all states: nothing is lost without a trace" : `accepted ${accepted} ≠ ${sum} the sum over all states`;
    },
  },
};

function shownHosts() {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return byName().filter((host) => words.every((word) => `${host.name} ${host.presence} ${host.host_type} ${host.os_version}`.toLowerCase().includes(word)));
}
function offered() {
  const lists = [...selected].map((name) => fleet.hosts.get(name)?.commands).filter(Array.isArray);
  return lists.length ? [...new Set(lists[0])].filter((op) => lists.every((list) => list.includes(op))).sort() : [];
}

function aboutCommand(command) {
  return h("div", null, h("div", { className: "tools" }, h("strong", null, command.op), h("span", { className: "dim" }, "on"), command.host, pill(command.state), h("span", { className: "spring" }),
    !command.finished_at && may("operator") && h("button", { className: "stop", disabled: Boolean(command.cancel_requested_at), onclick: () => tell(askSurely("POST", `/api/v1/commands/${encodeURIComponent(command.id)}/cancel`), "Cancelling") }, command.cancel_requested_at ? "Cancelling …" : "Cancel")),
  facts([["Id", h("span", { className: "mono" }, command.id)], ["By", command.actor], ["Given", since(command.created_at)], ["Started", command.started_at && since(command.started_at)], ["Ended", command.finished_at && since(command.finished_at)],
    ["Exit code", command.exit_code], ["Reason", command.reason], ["Message", command.message], ["Unheard", command.unheard_since && since(command.unheard_since, "for ", "")], ["Attempt", command.attempt > 1 ? command.attempt : null]]));
}
async function fetchCommand(id) {
  const command = await tell(ask("GET", `/api/v1/commands/${encodeURIComponent(id)}`));
  if (command?.id === page.id) { fleet.commands.set(id, command); dirty = true; } else if (!command) $("about")?.replaceChildren(h("p", { className: "empty" }, "There is no such command."));
}

function takeOutput(frame) {
  const output = $("output");
  if (!output || frame.command_id !== watched) return;
  const following = output.scrollTop + output.clientHeight >= output.scrollHeight - 30;
  if (frame.type === "output") output.append(h("span", { className: frame.stream }, frame.data, "\n"));
  else output.append(h("span", { className: "note" }, `— end of output${frame.truncated ? " (truncated)" : ""} —\n`));
  while (output.childElementCount > OUTPUT_LINES_MAX) output.firstElementChild.remove();
  if (following) output.scrollTop = output.scrollHeight;
}

// ── dialogs ──

function dialog(title, body, go, text, word = "go") {
  const box = $("dialog"), close = () => box.close();
  const act = async (event) => { event.preventDefault(); event.submitter.disabled = true; if (await go() !== false) close(); else event.submitter.disabled = false; };
  box.replaceChildren(h("form", { onsubmit: act }, h("h2", null, title), body, h("div", { className: "tools" }, h("button", { type: "button", onclick: close }, "Close"), text && h("button", { className: word }, text))));
  box.showModal();
}
function confirmRun() {
  const op = $("op").value, hosts = [...selected].sort(), key = randomKey();
  const away = hosts.filter((name) => fleet.hosts.get(name)?.presence !== "online").length;
  dialog(`Run ${op}?`, h("div", null, h("p", null, `On ${hosts.length} host${hosts.length > 1 ? "s" : ""}: ${hosts.slice(0, 12).join(", ")}${hosts.length > 12 ? " …" : ""}`), away ? h("p", { className: "dim" }, `${away} not online: the command waits for them for up to an hour.`) : null), async () => {
    const given = await tell(askSurely("POST", "/api/v1/commands", { op, hosts, key }), `${op}: accepted for ${hosts.length}`);
    if (!given) return false;
    selected.clear(); dirty = true;
    if (given.commands.length === 1) location.hash = `#commands/${given.commands[0].id}`;
  }, `Run ${op}`);
}
function enroll() {
  const name = h("input", { required: true, placeholder: "web1", ariaLabel: "host name" }), again = h("input", { type: "checkbox" });
  dialog("Enrol a host", h("div", null, h("label", null, "Its name", name), h("label", null, again, " it exists: give it a new token")), async () => {
    const given = await tell(ask("POST", "/api/v1/hosts", { name: name.value.trim(), again: again.checked }));
    if (!given) return false;
    dialog(`Token of ${given.name}`, h("div", null, h("p", null, "Shown this once. Put it into the agent's token_file:"), h("p", { className: "mono card" }, given.token)));
    return false;
  }, "Enrol");
}
function more(host) {
  const path = `/api/v1/hosts/${encodeURIComponent(host.name)}`;
  const act = (method, where, text) => async () => { if (await tell(askSurely(method, where), text)) $("dialog").close(); };
  dialog(host.name, h("div", null, facts([["Presence", host.presence], ["Address", host.address], ["Agent", host.agent_version], ["System", host.os_version], ["Offers", (host.commands ?? []).join(", ") || "unknown"], ["Connected", host.connected_since && since(host.connected_since)]]),
    h("div", { className: "tools" }, h("button", { type: "button", className: "stop", onclick: act("POST", `${path}/revoke`, `${host.name}: token revoked`) }, "Revoke its token"), h("button", { type: "button", className: "stop", onclick: act("DELETE", path, `${host.name}: removed`) }, "Remove it"))), () => true);
}

// ── what is always shown ──

function showBanner(text, word) { const banner = $("banner"); banner.hidden = !text; banner.className = tone(word); if (banner.textContent !== text) banner.textContent = text; }
function drawFrame() {
  const verdict = fleet.overall.verdict, hub = fleet.processes.get("hub"), link = $("link");
  $("verdict").hidden = !verdict || !fresh;
  $("verdict").className = `pill ${tone(verdict)}`; $("verdict").textContent = verdict ?? "";
  link.className = `pill ${fresh ? "good" : "bad"}`; link.textContent = fresh ? "live" : "not connected"; link.title = `${fleet.source.fanout ?? ""}, hub epoch ${fleet.epoch}`;
  if (!fresh) showBanner(fleet.version < 0 ? "Connecting …" : `Connection lost: this is how it was ${age((Date.now() - heard) / 1000)} ago. Trying again …`, "degraded");
  else if (hub && !["advancing", "lagging"].includes(hub.verdict)) showBanner(hubTrouble(hub), hub.verdict);
  else if (fleet.source.from === "database") showBanner(`No hub has spoken yet: this is from the database${fleet.source.as_of ? `, last written ${age((Date.now() + clockOffset - Date.parse(fleet.source.as_of)) / 1000)} ago` : ""}.`, "degraded");
  else if (fleet.overall.watchdog_silent_s !== null && fleet.overall.watchdog_silent_s !== undefined) showBanner(`The watchdog has been silent for ${age(fleet.overall.watchdog_silent_s)}: nobody would replace a frozen process now.`, "degraded");
  else showBanner("", "ok");
}
function hubTrouble(hub) {
  const silent = fleet.overall.watchdog_silent_s !== null && fleet.overall.watchdog_silent_s !== undefined;
  const outlook = hub.verdict === "stopped" ? "An operator stopped it." : hub.verdict === "excused" ? "It is given more time." : silent ? "The watchdog is silent too." : "It is being replaced.";
  return `The hub is ${hub.verdict}${hub.reason ? ` (${hub.reason})` : ""}. ${outlook} What you see may be old; accepted commands are kept.`;
}
function tick() {
  for (const time of document.querySelectorAll("time[data-at]")) {
    const at = Date.parse(time.dataset.at), text = at ? `${time.dataset.before}${age((Date.now() + clockOffset - at) / 1000)}${time.dataset.after}` : "–";
    if (time.textContent !== text) time.textContent = text;
  }
}
function draw() {
  if (!me) return;
  if (socket?.readyState === WebSocket.OPEN && Date.now() - heard > SILENT_MS) socket.close();
  if (socket && Date.now() - heard > SILENT_MS * 1.5) { const mute = socket; mute.onclose(); }
  drawFrame();
  if (dirty && page.name) { dirty = false; views[page.name].draw(); }
  tick();
}
addEventListener("hashchange", () => (location.hash.startsWith("#code=") ? begin() : route()));
$("out").addEventListener("click", async () => { await tell(ask("POST", "/logout")); signedOut(); });
setInterval(draw, 200);
begin();
