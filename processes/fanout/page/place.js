// What of a view stands in the address, behind its name: #fleet?q=role%3Dweb&sort=cpu. A link shows the same.

const split = () => {
  const [path, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
  return { path, query };
};
let entered = ""; // the view that is shown: until it is, an address is none of what the one before keeps

// Returns the name of the view, and what it is of: ["host", "web1"], as they stand in the address, which is shown now.
export function enter() {
  entered = split().path;
  return entered.split("/");
}

// What the address says beyond that, as an object of texts; null if it says nothing.
export function said() {
  const { query } = split();
  return query ? Object.fromEntries(new URLSearchParams(query)) : null;
}

// Writes it into the address, without a step in the history. What is empty, or as it is at first, is left out.
export function keep(fields, first = {}) {
  const { path, query } = split(),
    written = new URLSearchParams();
  if (path !== entered) return;
  for (const [key, value] of Object.entries(fields))
    if (value !== "" && value !== null && value !== undefined && value !== false && value !== first[key])
      written.set(key, value === true ? "1" : String(value));
  const wanted = written.toString();
  if (wanted === query) return;
  try {
    history.replaceState(null, "", `#${path}${wanted ? `?${wanted}` : ""}`);
  } catch {
    /* a browser allows only so many a minute: the next drawing tries again */
  }
}
