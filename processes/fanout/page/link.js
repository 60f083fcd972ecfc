// Talks to the server: requests over HTTP, and news over one WebSocket, which reconnects and fills gaps by itself.
import { clock } from "./clock.js";
import * as store from "./store.js";

// everything is asked for where this file came from: under a proxy that may be below a path
const HOME = new URL(".", import.meta.url);
export const at = (path) => new URL(path.slice(1), HOME).href;
const SILENT_MS = 12000,
  ASK_MS = 15000,
  WAIT_MS_MAX = 5000;
export const link = {
  me: null,
  fresh: false,
  heardMs: 0,
  freshSinceMs: 0,
  changed: () => {},
  failed: () => {},
  output: () => {},
  signedOut: () => {},
  signAgain: async () => false, // asks for a sign-in; true once there was one
};
let socket = null,
  triedMs = 0,
  tries = 0,
  timer = null;
const watched = new Map(); // id of a command whose output is shown → the offset that comes next

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const randomKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
const ROLES = ["viewer", "operator", "admin"];
export const may = (role) => ROLES.indexOf(link.me?.role) >= ROLES.indexOf(role);

export async function ask(method, path, body) {
  const answer = await fetch(at(path), {
    method,
    headers: body ? { "content-type": "application/json" } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  clock.heard(answer.headers.get("date"));
  const content = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "/login") link.signedOut();
  if (content.error === "sign_in_again" && (await link.signAgain(content.message))) return ask(method, path, body);
  if (!answer.ok)
    throw Object.assign(new Error(content.message ?? `the server answered ${answer.status}`), {
      status: answer.status,
      code: content.error,
      againMs: 1000 * (Number(answer.headers.get("retry-after")) || 0),
    });
  return content;
}

// Repeats a request, which has a key, while its outcome is unknown: perhaps the hub is just being replaced.
// `onAgain` is called before each repetition, with what went wrong.
export async function askSurely(method, path, body, onAgain = () => {}) {
  const until = Date.now() + ASK_MS;
  for (;;) {
    try {
      return await ask(method, path, body);
    } catch (error) {
      const tooSoon = error.code === "too_many_requests"; // nothing was done: it may be asked again in a while
      if (!(tooSoon || [undefined, 503, 504].includes(error.status)) || Date.now() > until) throw error;
      onAgain(error);
      await sleep((tooSoon ? Math.min(error.againMs, ASK_MS) : 0) + 500 + Math.random() * 500);
    }
  }
}

export function connect() {
  clearTimeout(timer);
  const own = new WebSocket(at("/ws").replace(/^http/, "ws"));
  socket = own;
  triedMs = Date.now();
  own.onopen = () => {
    for (const [id, offset] of watched) send({ type: "subscribe", command_id: id, offset });
  };
  own.onmessage = (event) => {
    if (own !== socket) return;
    link.heardMs = Date.now();
    try {
      take(JSON.parse(event.data));
    } catch (error) {
      link.failed(error);
    }
  };
  own.onclose = () => {
    if (own === socket) lost();
  };
}
function lost() {
  socket = null;
  link.fresh = false;
  link.changed();
  const wait = Math.random() * Math.min(WAIT_MS_MAX, 300 * 2 ** tries++);
  timer = setTimeout(async () => {
    try {
      link.me = await ask("GET", "/api/v1/me");
    } catch (error) {
      if (error.status === 401) return;
    }
    connect();
  }, wait);
}
export function disconnect() {
  const gone = socket;
  socket = null;
  gone?.close();
  clearTimeout(timer);
  link.fresh = false;
  link.me = null;
  watched.clear();
}

// Ends a connection that has been silent for too long, even if the browser thinks that it is open.
export function checkSilence() {
  if (Date.now() - Math.max(link.heardMs, triedMs) > SILENT_MS) link.cut();
}

// Called when the browser says that it is offline, or the connection is silent.
link.cut = () => {
  if (!socket) return;
  const mute = socket;
  mute.onclose = mute.onmessage = null;
  mute.close();
  lost();
};

function send(frame) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

function take(frame) {
  if (frame.type === "full_state") {
    store.whole(frame);
    if (!link.fresh) link.freshSinceMs = Date.now();
    link.fresh = true;
    tries = 0;
  } else if (frame.type === "delta" || frame.type === "sync") {
    if (!store.follow(frame)) return send({ type: "get_state" });
  } else if (frame.type === "output" || frame.type === "output_end") {
    if (!watched.has(frame.command_id)) return;
    if (frame.type === "output") {
      if (frame.offset < watched.get(frame.command_id)) return; // sent by the connection before this one
      watched.set(frame.command_id, frame.offset + 1);
    }
    return link.output(frame);
  }
  link.changed();
}

export function watch(id, offset = 0) {
  watched.set(id, offset);
  send({ type: "subscribe", command_id: id, offset });
}
export function unwatch(id) {
  if (watched.delete(id)) send({ type: "unsubscribe", command_id: id });
}

// True while the shown state is what a working hub says now.
export function trusted() {
  const hub = store.fleet.processes.get("hub");
  return (
    link.fresh &&
    store.fleet.source.from === "hub" &&
    (!hub || ["advancing", "standby", "lagging", "excused"].includes(hub.verdict))
  );
}
