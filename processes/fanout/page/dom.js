// Makes elements. Text goes in as text only: nothing here takes markup, and the page's policy forbids any other way.

const SVG = "http://www.w3.org/2000/svg";
const given = (child) => child !== null && child !== undefined && child !== false;
const node = (child) => (child instanceof Node ? child : document.createTextNode(visible(child)));

// Any value as a number or a text. An agent may send objects where texts are expected, and an object may bring a
// toString of its own that is no function: then String() throws.
export const plain = (value) =>
  value === null || value === undefined
    ? ""
    : typeof value === "object"
      ? Array.isArray(value) && value.every((each) => typeof each !== "object")
        ? value.join(" ")
        : JSON.stringify(value)
      : value;

// Shows control characters, and characters that are invisible or turn the direction of writing, as escapes.
export const visible = (text) =>
  String(plain(text)).replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list") element[name] = value;
    else if (given(value)) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter(given).map(node));
  return element;
}

export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) if (given(value)) element.setAttribute(name, value);
  element.append(...children.flat(Infinity).filter(given).map(node));
  return element;
}

export function setText(element, text) {
  const shown = visible(text);
  if (element.textContent !== shown) element.textContent = shown;
}
export const $ = (id) => document.getElementById(id);

const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";
const reachable = (element) => [element, ...element.querySelectorAll(FOCUSABLE)];

// Gives `parent` one child for each item, by key. An element is made anew only if what it shows (`shown`) has changed.
// The keyboard's focus moves to the same place in the new element. An element that is being pressed is left for later.
export function keyed(parent, items, key, shown, make) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild,
    focused = null;
  for (const item of items) {
    const id = key(item),
      print = JSON.stringify(shown(item));
    let element = known.get(id);
    known.delete(id);
    if (element?.dataset.print !== print && !element?.matches(":active")) {
      const fresh = make(item, element);
      fresh.dataset.key = id;
      fresh.dataset.print = print;
      if (element === place) place = place?.nextElementSibling ?? null;
      if (element?.contains(document.activeElement))
        focused = reachable(fresh)[reachable(element).indexOf(document.activeElement)];
      element?.remove();
      element = fresh;
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const gone of known.values()) gone.remove();
  focused?.focus({ preventScroll: true });
}

// Gives `parent` a single child, made anew only if what it shows has changed.
export const one = (parent, shown, make) =>
  keyed(
    parent,
    [shown],
    () => "one",
    (x) => x,
    make,
  );

const ICONS = {
  // 16 × 16, drawn as strokes
  check: "M3.5 8.5l3 3 6-7",
  cross: "M4.5 4.5l7 7m0-7l-7 7",
  question: "M6 6a2 2 0 1 1 2.8 1.9c-.6.3-.8.7-.8 1.4M8 12v.2",
  play: "M5.5 4l6 4-6 4z",
  clock: "M8 4.5V8l2.5 1.5",
  bang: "M8 4.5v4.5M8 11.7v.2",
  pause: "M6.3 5v6M9.7 5v6",
  dash: "M5 8h6",
  ring: "",
  dot: "M8 5.5a2.5 2.5 0 1 0 0 5a2.5 2.5 0 1 0 0-5z",
  half: "M8 4v8M9.5 5v6M11 6.5v3",
  fleet: "M2.5 3.5h11v4h-11zM2.5 8.8h11v4h-11zM5 5.5h.1M5 10.8h.1",
  terminal: "M2.5 3.5h11v9h-11zM5 6.5l2 1.7-2 1.7M8.5 10h2.5",
  layers: "M8 2.8l5.5 2.8L8 8.4 2.5 5.6zM2.5 8.3L8 11.1l5.5-2.8M2.5 11L8 13.6 13.5 11",
  pulse: "M1.5 8.5h3l1.5-4.5 2.6 8 1.9-5 .9 1.5h3.1",
  flag: "M4 14V2.5M4 3h8l-2 3 2 3H4",
  bell: "M8 2.2v1M4 11V7.2a4 4 0 0 1 8 0V11l1.2 1.5H2.8zM6.7 14h2.6",
  letter: "M2.5 4h11v8.5h-11zM2.5 4.5L8 9l5.5-4.5",
  person: "M8 3a2.4 2.4 0 1 0 0 4.8A2.4 2.4 0 1 0 8 3zM3.5 13c.5-2.3 2.2-3.4 4.5-3.4s4 1.1 4.5 3.4",
};
const BARE = new Set(["fleet", "terminal", "layers", "pulse", "letter", "person", "bell", "flag"]);

export function icon(name) {
  return svg(
    "svg",
    { class: `icon ${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" },
    !BARE.has(name) && svg("circle", { cx: 8, cy: 8, r: 6.6 }),
    ICONS[name] && svg("path", { d: ICONS[name] }),
  );
}
