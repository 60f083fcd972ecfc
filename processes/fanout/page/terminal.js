// Splits a line of a program's output into pieces of text with styles. Colours take effect; other control sequences
// are left out.

const ESCAPE =
  /\u001b\[([0-9;:]*)m|\u001b\[[0-?]*[ -/]*[@-~]|\u001b[\]P^_X][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[ -/]*[0-~]?/g;
const LEVELS = [0, 95, 135, 175, 215, 255];
const PALETTE = [
  [0, 0, 0],
  [205, 49, 49],
  [13, 188, 121],
  [229, 229, 16],
  [36, 114, 200],
  [188, 63, 188],
  [17, 168, 205],
  [229, 229, 229],
  [102, 102, 102],
  [241, 76, 76],
  [35, 209, 139],
  [245, 245, 67],
  [59, 142, 234],
  [214, 112, 214],
  [41, 184, 219],
  [255, 255, 255],
];

export const PLAIN = Object.freeze({
  fg: null,
  bg: null,
  bold: false,
  dim: false,
  italic: false,
  underline: false,
  inverse: false,
});

// The nearest of sixteen colours. These are legible on the page; a program's own shade may not be.
export function nearest(red, green, blue) {
  const far = ([r, g, b]) => (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2;
  return PALETTE.reduce((best, colour, place) => (far(colour) < far(PALETTE[best]) ? place : best), 0);
}
function indexed(number) {
  if (number < 16) return number;
  if (number >= 232) {
    const grey = 8 + (number - 232) * 10;
    return nearest(grey, grey, grey);
  }
  const at = number - 16;
  return nearest(LEVELS[Math.floor(at / 36) % 6], LEVELS[Math.floor(at / 6) % 6], LEVELS[at % 6]);
}

function styled(style, text) {
  const codes = text
      .split(/[;:]/)
      .slice(0, 32)
      .map((code) => Number(code || 0)),
    next = { ...style };
  for (let place = 0; place < codes.length; place++) {
    const code = codes[place];
    if (code === 0) Object.assign(next, PLAIN);
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underline = true;
    else if (code === 7) next.inverse = true;
    else if (code === 22) next.bold = next.dim = false;
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code === 27) next.inverse = false;
    else if (code >= 30 && code <= 37) next.fg = code - 30;
    else if (code >= 90 && code <= 97) next.fg = code - 82;
    else if (code === 39) next.fg = null;
    else if (code >= 40 && code <= 47) next.bg = code - 40;
    else if (code >= 100 && code <= 107) next.bg = code - 92;
    else if (code === 49) next.bg = null;
    else if (code === 38 || code === 48) {
      const which = code === 38 ? "fg" : "bg",
        number = codes[place + 2];
      if (codes[place + 1] === 5) {
        if (number >= 0 && number <= 255) next[which] = indexed(number);
        place += 2;
      } else if (codes[place + 1] === 2) {
        next[which] = nearest(...[2, 3, 4].map((after) => codes[place + after] ?? 0));
        place += 4;
      }
    }
  }
  return next;
}

// Returns { pieces: [{ text, names }], style }; the next line begins with `style`. Of text that was drawn over after a
// carriage return, only the last remains.
export function line(raw, style = PLAIN) {
  const pieces = [];
  let at = 0;
  const put = (text) => {
    if (text) pieces.push({ text, names: names(style) });
  };
  const last = raw.replace(/\r+$/, "").lastIndexOf("\r");
  for (const found of raw.slice(0, last + 1).matchAll(ESCAPE))
    if (found[1] !== undefined) style = styled(style, found[1]);
  const text = raw.slice(last + 1).replace(/\r+$/, "");
  for (const found of text.matchAll(ESCAPE)) {
    put(text.slice(at, found.index));
    at = found.index + found[0].length;
    if (found[1] !== undefined) style = styled(style, found[1]);
  }
  put(text.slice(at));
  return { pieces, style };
}

function names(style) {
  const fg = style.inverse ? (style.bg ?? "ground") : style.fg,
    bg = style.inverse ? (style.fg ?? "text") : style.bg;
  const flags = ["bold", "dim", "italic", "underline"].filter((flag) => style[flag]);
  return [...flags, ...(fg === null ? [] : [`fg-${fg}`]), ...(bg === null ? [] : [`bg-${bg}`])].join(" ");
}
