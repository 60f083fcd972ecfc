// What the page shows, as DOM. Text from outside goes in as text only: there is no way to put markup in here.

export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list") element[name] = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map((child) => (child instanceof Node ? child : document.createTextNode(plain(child)))));
  return element;
}

// Colours of terminals are left out; control characters, and those that turn the direction of writing, are shown and not obeyed.
const plain = (text) => String(text).replace(/\x1b\[[0-9;]*m/g, "").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

// Makes the children of `parent` those of `items`, by key; an element is made anew only if what it shows has changed.
export function keyed(parent, items, key, shown, make) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    const print = JSON.stringify(shown(item));
    let element = known.get(id);
    known.delete(id);
    if (element?.dataset.print !== print) {
      const fresh = make(item);
      fresh.dataset.key = id;
      fresh.dataset.print = print;
      if (element === place) place = place?.nextElementSibling ?? null;
      element?.remove();
      element = fresh;
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const gone of known.values()) gone.remove();
}

export function age(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}
export const bytes = (n) => (n === null || n === undefined ? "–" : `${(n / 1048576).toFixed(0)} MiB`);

const TONES = {
  online: "good", stale: "warn", offline: "calm", queued: "calm", sent: "busy", running: "busy", succeeded: "good", failed: "bad", rejected: "bad",
  expired: "warn", cancelled: "calm", lost: "bad", ok: "good", degraded: "warn", stalled: "bad", down: "bad", advancing: "good", starting: "busy",
  lagging: "warn", frozen: "bad", dead: "bad", excused: "warn", unkillable: "bad", stopped: "calm", silent: "bad", live: "good",
};
export const tone = (word) => TONES[word] ?? "calm";
export const pill = (word, text = word) => h("span", { className: `pill ${tone(word)}` }, text);

function bar(percent) {
  if (percent === null || percent === undefined) return h("span", { className: "dim" }, "–");
  const inner = h("b");
  inner.style.width = `${Math.min(100, Math.max(0, percent))}%`;
  return h("div", { className: `bar ${percent >= 95 ? "bad" : percent >= 80 ? "warn" : ""}` }, h("i", null, inner), h("span", null, `${Math.round(percent)} %`));
}

export const card = (number, label, word) => h("div", { className: "card" }, h("div", { className: "number" }, number), h("div", { className: `label ${word ? `dot ${tone(word)}` : ""}` }, label));

// An element whose text is how long ago something was; it ages by itself (see tick in app.js).
export const since = (at, before = "", after = " ago") => h("time", { "data-at": at ?? "", "data-before": before, "data-after": after }, "–");

export function hostRow(host, running, selected, actions) {
  const metrics = host.metrics ?? {};
  return h("tr", null,
    h("td", null, h("input", { type: "checkbox", checked: selected, ariaLabel: `select ${host.name}`, onchange: (event) => actions.select(host.name, event.target.checked) })),
    h("td", null, h("strong", null, host.name), h("div", { className: "dim small" }, host.revoked ? "token revoked" : host.os_version || host.host_type || "")),
    h("td", null, pill(host.presence)),
    h("td", { className: "dim nowrap" }, host.last_seen ? since(host.last_seen) : "never seen"),
    h("td", { className: "wide" }, bar(metrics.cpu)), h("td", { className: "wide" }, bar(metrics.ram)), h("td", { className: "wide" }, bar(metrics.disk)),
    h("td", { className: "wide right" }, metrics.load === null || metrics.load === undefined ? "–" : metrics.load.toFixed(2)),
    h("td", null, running ? h("a", { href: `#commands/${running.id}` }, `${running.op} · ${running.state}`) : h("span", { className: "dim" }, "–")),
    h("td", { className: "right" }, actions.admin && h("button", { className: "quiet", ariaLabel: `more about ${host.name}`, onclick: () => actions.more(host) }, "⋯")));
}

export function commandLink(command, current) {
  return h("a", { href: `#commands/${command.id}`, "aria-current": current ? "true" : null },
    h("span", null, h("strong", null, command.op), h("span", { className: "dim" }, " on "), command.host), pill(command.state),
    h("span", { className: "dim small" }, command.reason || command.message || command.actor || ""), h("span", { className: "dim small" }, since(command.created_at)));
}

export function facts(pairs) {
  return h("dl", { className: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}

export function processRow(process) {
  const pulse = process.pulse;
  return h("tr", null,
    h("td", null, h("strong", null, process.name)), h("td", null, pill(process.verdict), process.reason && h("div", { className: "dim small" }, process.reason)),
    h("td", { className: "right" }, pulse ? age(pulse.age_s) : "–"), h("td", { className: "right wide" }, pulse ? pulse.turn : "–"),
    h("td", { className: "right" }, pulse ? pulse.backlog : "–"), h("td", null, pulse?.blocked_on ? pill("degraded", pulse.blocked_on) : h("span", { className: "dim" }, "–")),
    h("td", { className: "right wide" }, process.restarts), h("td", { className: "right wide" }, bytes(process.rss_bytes)), h("td", { className: "right wide" }, age(process.uptime_s)));
}

export function incidentCard(incident) {
  const over = incident.over_at !== null;
  return h("details", { className: "card" },
    h("summary", null, pill(incident.verdict), h("strong", null, incident.process), h("span", { className: "mono" }, incident.stuck_at ?? ""),
      h("span", { className: "spring" }), incident.drill && pill("calm", "drill"), h("span", { className: "dim small" }, over ? `healed in ${age(incident.recovered_after_s)}` : "open", " · ", since(incident.found_at))),
    facts([["Reason", incident.reason], ["Stuck at", incident.stuck_at], ["Found after", age(incident.found_after_s)], ["Done", incident.remedy], ["Lost", incident.lost], ["Evidence", incident.evidence.join(", ")]]),
    incident.events.length ? h("pre", null, incident.events.join("\n")) : null);
}
