// The server's time, as far as answers tell it: a Date header names the second that had begun when the answer was made.
export const clock = {
  offsetMs: null,
  heard(header) {
    const lowest = Date.parse(header ?? "") - Date.now(); // the true offset is above it, by less than a second and the way here
    if (Number.isNaN(lowest)) return;
    if (this.offsetMs === null || lowest > this.offsetMs || lowest < this.offsetMs - 5000) this.offsetMs = lowest;
  },
  now() {
    return Date.now() + (this.offsetMs ?? 0);
  },
};
