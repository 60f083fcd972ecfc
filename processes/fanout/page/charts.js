// Small charts as SVG: a meter, a sparkline, a line chart. Each says in words what it shows.
import { h, svg } from "./dom.js";
import { hour } from "./words.js";

// Whatever is no number is not known.
export const known = Number.isFinite;

// The path through the points. Unknown values and gaps in time leave gaps in the line.
// points: [x, y or null] with growing x. box: { x0, x1, y0, y1 } in the units of the points. width, height: pixels.
export function path(points, box, width, height, gap = Infinity) {
  const place = ([x, y]) => [
    ((x - box.x0) / (box.x1 - box.x0 || 1)) * width,
    height - ((Math.min(y, box.y1) - box.y0) / (box.y1 - box.y0 || 1)) * height,
  ];
  let text = "",
    before = null;
  for (const point of points) {
    if (!known(point[1])) {
      before = null;
      continue;
    }
    const [x, y] = place(point).map((value) => Math.round(value * 10) / 10);
    text += before !== null && point[0] - before <= gap ? `L${x} ${y}` : `M${x} ${y}`;
    before = point[0];
  }
  return text;
}

// Where an axis ends: the least of 1, 2, 5 × 10^n that is not below the value.
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.9999);
}

export function sparkline(values, top = 100, width = 64, height = 18) {
  const points = values.map((value, place) => [place, value]);
  const line = path(points, { x0: 0, x1: Math.max(values.length - 1, 1), y0: 0, y1: top }, width, height - 2);
  return svg(
    "svg",
    {
      class: "spark",
      viewBox: `0 -1 ${width} ${height}`,
      width,
      height,
      "aria-hidden": "true",
      preserveAspectRatio: "none",
    },
    svg("path", { d: line }),
  );
}

// `old`: the value is not current, so it gets no alarming colour.
export function meter(percent, label, old = false) {
  if (!known(percent)) return h("span", { className: "dim" }, "–");
  const shown = Math.min(100, Math.max(0, percent)),
    level = old ? "old" : percent >= 95 ? "bad" : percent >= 80 ? "warn" : "";
  return h(
    "span",
    { className: `meter ${level}`, title: `${label} ${old ? "was " : ""}${percent.toFixed(1)} %` },
    svg(
      "svg",
      { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "track", width: 100, height: 6 }),
      svg("rect", { class: "level", width: shown, height: 6 }),
    ),
    h("span", { className: "amount" }, `${Math.round(percent)}%`),
  );
}

// series: [{ name, points: [[ms, value or null], …] }], at most three. from, to: ms.
// top: where the axis ends; null to choose it by the values.
export function lineChart({
  title,
  series,
  from,
  to,
  unit = "",
  top = null,
  gapMs = Infinity,
  height = 120,
  note = "",
}) {
  const width = 600,
    values = series.flatMap((one) => one.points.map((point) => point[1])).filter(known);
  const y1 = top ?? ceiling(Math.max(0, ...values)),
    box = { x0: from, x1: to, y0: 0, y1 };
  const last = (one) => one.points.findLast((point) => known(point[1]))?.[1];
  const said = (value) =>
    known(value) ? `${value.toFixed(value < 10 && unit !== "%" ? 2 : 0)}${unit}` : "no figures yet";
  const summary = `${title}: ${series.map((one) => `${one.name} ${said(last(one))}`).join(", ")}, axis to ${y1}${unit}`;
  const grid = [0, 0.5, 1].map((part) =>
    svg("line", { class: "rule", x1: 0, x2: width, y1: height * part, y2: height * part }),
  );
  const lines = series.map((one, place) =>
    svg("path", { class: `line line${place}`, d: path(one.points, box, width, height, gapMs) }),
  );
  return h(
    "figure",
    { className: "chart" },
    h(
      "figcaption",
      null,
      h("strong", null, title),
      h(
        "span",
        { className: "legend" },
        series.map((one, place) =>
          h(
            "span",
            { className: `key line${place}` },
            `${series.length > 1 || one.name !== title ? `${one.name} ` : ""}${said(last(one))}`,
          ),
        ),
      ),
    ),
    h(
      "div",
      { className: "plot" },
      h("span", { className: "axis" }, `${y1}${unit}`),
      svg(
        "svg",
        { viewBox: `0 -2 ${width} ${height + 4}`, preserveAspectRatio: "none", role: "img", "aria-label": summary },
        ...grid,
        ...lines,
      ),
    ),
    h(
      "div",
      { className: "times" },
      h("span", null, hour(from)),
      note && h("span", null, note),
      h("span", null, hour(to)),
    ),
  );
}
