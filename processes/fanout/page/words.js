// How states, times and sizes are shown. Each state has a tone and a sign, so that it can be read without colour.

import { clock } from "./clock.js";
import { h, icon, plain, setText } from "./dom.js";

const STATES = {
  online: ["good", "dot"],
  quiet: ["warn", "half"],
  stale: ["warn", "half"],
  offline: ["calm", "ring"],
  unknown: ["calm", "question"],
  revoked: ["bad", "dash"],
  queued: ["calm", "clock"],
  sent: ["busy", "play"],
  running: ["busy", "play"],
  succeeded: ["good", "check"],
  failed: ["bad", "cross"],
  rejected: ["bad", "dash"],
  expired: ["warn", "clock"],
  cancelled: ["calm", "dash"],
  lost: ["lost", "question"],
  ok: ["good", "check"],
  degraded: ["warn", "bang"],
  stalled: ["bad", "pause"],
  down: ["bad", "cross"],
  advancing: ["good", "check"],
  standby: ["calm", "clock"],
  starting: ["busy", "play"],
  lagging: ["warn", "clock"],
  deaf: ["bad", "pause"],
  memory: ["bad", "bang"],
  frozen: ["bad", "pause"],
  dead: ["bad", "cross"],
  excused: ["warn", "clock"],
  unkillable: ["bad", "bang"],
  stopped: ["calm", "dash"],
  silent: ["bad", "question"],
  live: ["good", "dot"],
  busy: ["busy", "play"],
  pending: ["calm", "clock"],
  active: ["busy", "play"],
  not_attempted: ["calm", "dash"],
  open: ["bad", "bang"],
  over: ["good", "check"],
};
export const tone = (word) => STATES[word]?.[0] ?? "calm";
export const sign = (word) => icon(STATES[word]?.[1] ?? "dash");
export const pill = (word, text = word) =>
  h("span", { className: `pill ${tone(word)}` }, sign(word), h("span", null, text));

// What the verdict on a process means, as core/shown/status.py says it.
const MEANS = {
  starting: "It was started and has not done anything yet.",
  advancing: "It works.",
  standby: "It is ready, and another hub leads.",
  lagging: "It works, and work waits too long for its turn.",
  stalled: "Its loop runs, and the work that waits is not done.",
  deaf: "It accepts no connection of those that wait at its port.",
  memory: "It uses more memory than it may.",
  frozen: "It makes no progress, though it lives.",
  dead: "It does not run, though it should.",
  excused: "It makes no progress, and it is not its fault: it had no CPU, or the machine slept.",
  unkillable: "It was killed and is still there: it hangs in the kernel, mostly in a disk.",
  stopped: "An operator stopped it.",
  silent: "The watchdog tells nothing: now nobody would replace a frozen process.",
};
export function verdictPill(verdict) {
  const element = pill(verdict);
  element.title = MEANS[verdict] ?? "";
  return element;
}

// What a sentence says of a process that had this verdict, if it is not "was" and the verdict's word.
const PAST = { memory: "used too much memory" };
export const pastPhrase = (verdict) => PAST[verdict] ?? `was ${verdict}`;

// A host's presence as far as it is known now: a host is shown as online only while its heartbeats come.
export function presenceOf(host, nowMs, trusted) {
  if (!trusted) return { word: "unknown", text: `was ${host.presence}` };
  if (host.presence !== "online") return { word: host.presence, text: host.presence };
  const quietMs = nowMs - Date.parse(host.last_seen ?? "");
  return quietMs > ((host.heartbeat_interval_s ?? 5) * 2 + 3) * 1000
    ? { word: "quiet", text: "quiet" }
    : { word: "online", text: "online" };
}

// Whether a host's agent is one of ours and older than this version, as core/shown/versions.py judges it.
export function isOldAgent(host, than) {
  const [said, own] = [host.agent_version, than].map((text) =>
    /^(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?![\d.])/
      .exec(text ?? "")
      ?.slice(1)
      .map(Number),
  );
  const at = said && own ? said.findIndex((number, index) => number !== own[index]) : -1;
  return host.protocol >= 1 && at >= 0 && said[at] < own[at];
}
export const agentText = (host, than) => `${host.agent_version ?? ""}${isOldAgent(host, than) ? " (old)" : ""}`;

// How far a host's operation is, as its agent says: { current, total }; null if it says nothing.
export function progressOf(host) {
  const steps = Object.values(host?.progress ?? {});
  return steps.find((step) => step?.total > 0 && step.status === "in_progress") ?? null;
}

export function age(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}
export const whole = (number) => (Number.isFinite(number) ? number.toLocaleString("en") : "–");
export const many = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;
export const bytes = (n) =>
  !Number.isFinite(n) ? "–" : n < 1048576 ? `${(n / 1024).toFixed(0)} KiB` : `${(n / 1048576).toFixed(0)} MiB`;
// Made once, since to make a formatter costs more than everything else in a row of the fleet.
// A time without its zone is read as the reader's, or as the server's: both stand beside each other at night.
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" },
  HOUR = new Intl.DateTimeFormat("en-GB", CLOCK),
  DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", ...CLOCK });
const said = (format, at) => {
  const moment = new Date(plain(at) || NaN);
  return Number.isNaN(moment.getTime()) ? "–" : format.format(moment);
};
export const hour = (at) => said(HOUR, at);
export const day = (at) => said(DAY, at);
export const between = (from, to) => (from && to ? age((Date.parse(to) - Date.parse(from)) / 1000) : "");

// Why a command or a host's part of a run ended as it did. docs/words.md has the same reasons.
const REASONS = {
  exit: "its exit code was not 0",
  failed: "it ended badly",
  host_offline: "its host was not connected in time",
  waited_too_long: "its host was busy for the whole time",
  not_offered: "the agent's file does not have this operation",
  unknown_op: "the agent's file does not have this operation",
  busy: "another command ran there that allows none beside it",
  expired: "its time to wait was over",
  timed_out: "it ran for too long and was ended",
  not_started: "its program could not be started",
  stopped: "the agent says that somebody stopped it",
  warning: "with a warning",
  silence: "its host was not heard of for too long",
  forgotten: "the agent came back and does not know the command",
  journal_replaced: "the agent came back with another journal",
  contradicted: "the agent said two things that cannot both be true",
  unreported: "the agent says that it runs nothing, and had not reported",
  connection_lost: "the agent's connection ended while it ran",
  quarantined: "its report is a dead letter",
  rebooted: "its machine rebooted while it ran",
  not_back: "its machine was not back from the reboot in time",
  shim_died: "the process that watched it there was killed",
  record_unreadable: "the record of its end there is damaged",
  cancelled: "an operator asked for it",
  host_removed: "its host was removed",
  restored: "the database was restored from a backup",
};
export const reasonText = (reason) => (Object.hasOwn(REASONS, reason) ? REASONS[reason] : reason);

// An element that says how long ago something was, and counts on by itself.
export function since(at, before = "", after = " ago") {
  const element = h("time", { dateTime: at ?? "", title: day(at), "data-before": before, "data-after": after });
  grow(element);
  return element;
}
function grow(element) {
  const { before, after } = element.dataset,
    at = Date.parse(element.dateTime),
    seconds = (clock.now() - at) / 1000;
  setText(
    element,
    !at ? "–" : seconds < 1 && after === " ago" ? `${before}just now` : `${before}${age(seconds)}${after}`,
  );
}
export function growAll() {
  for (const element of document.querySelectorAll("time[data-after]")) grow(element);
}

export function facts(pairs) {
  return h(
    "dl",
    { className: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
      .map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
  );
}
export const tile = (number, label, word) =>
  h(
    "div",
    { className: `tile ${word ? tone(word) : ""}` },
    h("div", { className: "number" }, number),
    h("div", { className: "label" }, word && sign(word), label),
  );
export const empty = (text) => h("p", { className: "empty" }, text);

// A table that can be scrolled sideways by keyboard. A head is a text or a cell. `body` is its tbody.
export const table = (label, heads, body) =>
  h(
    "div",
    { className: "panel table", tabIndex: 0, role: "region", ariaLabel: label },
    h(
      "table",
      null,
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          heads.map((head) => (head instanceof Node ? head : h("th", null, head))),
        ),
      ),
      body,
    ),
  );
