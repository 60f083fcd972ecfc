// The server's time, as the Date headers of its answers tell it: rounded down to a second, and late by the way here.
export const clock = {
  offsetMs: null,
  heard(header) {
    // the true offset is higher, by less than a second plus the time the answer took
    const lowest = Date.parse(header ?? "") - Date.now();
    if (Number.isNaN(lowest)) return;
    if (this.offsetMs === null || lowest > this.offsetMs || lowest < this.offsetMs - 5000) this.offsetMs = lowest;
  },
  now() {
    return Date.now() + (this.offsetMs ?? 0);
  },
};
