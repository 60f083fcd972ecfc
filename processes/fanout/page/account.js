// Sessions (who is signed in, from where), tokens of people and scripts, and the audit trail (who did what).
import { confirm, dialog, showToken, tell } from "./dialogs.js";
import { $, h, keyed, one } from "./dom.js";
import { ask, link, may } from "./link.js";
import { day, empty, facts, since, table } from "./words.js";

const AGAIN_MS = 5000,
  TRAIL_MAX = 200;
const KINDS = {
  host: "host",
  token: "token",
  session: "session",
  letter: "dead letter",
  database: "database",
  request: "request",
};
let sessions = null,
  tokens = [],
  trail = [],
  askedMs = 0,
  redraw = () => {};

async function refresh() {
  askedMs = Date.now();
  try {
    sessions = (await ask("GET", "/api/v1/sessions")).sessions;
    if (may("admin"))
      [tokens, trail] = [
        (await ask("GET", "/api/v1/tokens")).tokens,
        (await ask("GET", `/api/v1/audit?limit=${TRAIL_MAX}`)).audit,
      ];
    redraw();
  } catch {
    /* the next draw asks again */
  }
}
const again = (act) => async () => {
  await act();
  askedMs = 0;
  redraw();
};
async function out() {
  if (await tell(ask("POST", "/logout"))) link.signedOut();
}

function sessionRow(session) {
  const end = () =>
    confirm(
      "End this session?",
      `${session.actor} from ${session.address || "an unknown address"}: its pages are cut off within two seconds.`,
      "End it",
      again(() => ask("DELETE", `/api/v1/sessions/${encodeURIComponent(session.id)}`)),
      "The session has ended.",
    );
  return h(
    "tr",
    null,
    h("td", null, h("strong", null, session.actor), session.current && h("span", { className: "tag" }, "this one")),
    h("td", null, session.role),
    h("td", null, since(session.signed_in_at)),
    h("td", { className: "mono small" }, session.address),
    h("td", { className: "small browser", title: session.browser }, session.browser),
    h("td", { className: "right" }, !session.current && h("button", { className: "stop", onclick: end }, "End")),
  );
}
function tokenRow(token) {
  const end = () =>
    confirm(
      "Void this token?",
      `${token.label || token.id}: whoever uses it is signed out, and cannot sign in again with it.`,
      "Void it",
      again(() => ask("DELETE", `/api/v1/tokens/${encodeURIComponent(token.id)}`)),
      "The token is void.",
    );
  return h(
    "tr",
    null,
    h("td", null, h("strong", null, token.label || "no label")),
    h("td", null, token.role),
    h("td", null, since(token.created_at)),
    h(
      "td",
      null,
      token.replaced_by
        ? `replaced by ${token.replaced_by}`
        : token.expired
          ? "expired"
          : token.expires_at
            ? day(token.expires_at)
            : "never",
    ),
    h("td", null, token.last_used_at ? since(token.last_used_at) : "never"),
    h("td", { className: "mono small" }, token.id.slice(0, 12)),
    h("td", { className: "right" }, h("button", { className: "stop", onclick: end }, "Void")),
  );
}
function trailRow(line) {
  return h(
    "tr",
    null,
    h("td", null, since(line.at)),
    h("td", null, h("strong", null, line.actor)),
    h("td", null, KINDS[line.kind] ?? line.kind),
    h("td", { className: "browser" }, line.subject),
    h("td", null, line.after.replaceAll("_", " ")),
    h("td", { className: "browser" }, line.reason),
  );
}
function create() {
  const role = h(
      "select",
      { ariaLabel: "role" },
      ["viewer", "operator", "admin"].map((name) => h("option", { value: name }, name)),
    ),
    label = h("input", { placeholder: "ann, backup script …", ariaLabel: "label" });
  dialog(
    "A further token",
    h(
      "div",
      { className: "stack" },
      h("label", null, "For whom", label),
      h("label", null, "Role", role),
      h(
        "p",
        { className: "dim small" },
        "A viewer may look, an operator may also give commands, an admin may also enrol, revoke and remove hosts.",
      ),
    ),
    async () => {
      const given = await tell(ask("POST", "/api/v1/tokens", { role: role.value, label: label.value.trim() }));
      if (given) {
        askedMs = 0;
        showToken("The token", h("p", null, "Sign in with it, or send it as a Bearer token."), given.token);
      }
      return false;
    },
    "Create",
  );
}
const section = (title, heads, id) =>
  h(
    "section",
    null,
    h("h2", null, title),
    table(
      title,
      heads.map((head) => head || h("td")),
      h("tbody", { id }),
    ),
  );

export const view = {
  title: () => "Account",
  build(main, _id, changed) {
    redraw = changed;
    askedMs = 0;
    main.replaceChildren(
      h(
        "div",
        { className: "page" },
        h(
          "section",
          { className: "panel" },
          h(
            "div",
            { className: "tools" },
            h("h2", null, link.me.actor),
            h("span", { className: "tag" }, link.me.role),
            h("span", { className: "spring" }),
            may("admin") && h("button", { onclick: create }, "A further token …"),
            h("button", { id: "out", onclick: out }, "Sign out"),
          ),
          h("div", { id: "me" }),
        ),
        section("Sessions", ["Who", "Role", "Signed in", "From", "Browser", ""], "sessions"),
        may("admin") && section("Tokens", ["For whom", "Role", "Created", "Expires", "Last used", "Id", ""], "tokens"),
        may("admin") && section("Who did what", ["When", "Who", "What", "Which", "Then", "Why"], "trail"),
      ),
    );
  },
  draw() {
    if (Date.now() - askedMs > AGAIN_MS) refresh();
    const mine = sessions?.find((session) => session.current);
    one($("me"), [mine ?? null, link.me], () =>
      facts([
        ["May", { viewer: "look", operator: "look, and give commands", admin: "do everything" }[link.me.role]],
        ["Signed in", mine && day(mine.signed_in_at)],
        ["Until", mine && day(mine.ends_at)],
      ]),
    );
    keyed(
      $("sessions"),
      sessions ?? [],
      (session) => session.id,
      (session) => session,
      sessionRow,
    );
    if (!may("admin")) return;
    if (tokens.length)
      keyed(
        $("tokens"),
        tokens,
        (token) => token.id,
        (token) => token,
        tokenRow,
      );
    else
      one($("tokens"), "none", () =>
        h("tr", null, h("td", { colSpan: 7 }, empty("None but the installation's own, operator.token."))),
      );
    const told = trail.filter((line) => line.kind !== "command");
    if (told.length)
      keyed(
        $("trail"),
        told,
        (line) => String(line.number),
        (line) => line,
        trailRow,
      );
    else
      one($("trail"), "none", () =>
        h(
          "tr",
          null,
          h("td", { colSpan: 6 }, empty("Nothing yet. What was done with a command is shown with the command.")),
        ),
      );
  },
};
