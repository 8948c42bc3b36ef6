// Numbers and times as people read them.

const count = new Intl.NumberFormat("en-US");

export function number(value) {
  return count.format(value);
}

export function plural(value, one, many = one + "s") {
  return `${number(value)} ${value === 1 ? one : many}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 10) return `${Number(value.toFixed(1))} s`;
  if (value < 120) return `${Math.round(value)} s`;
  return span(value);
}

/// "3 d 4 h", "12 min": the two largest units at most.
export function span(value) {
  const whole = Math.floor(value);
  const [d, hours, m] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (d > 0) return `${d} d ${hours} h`;
  if (hours > 0) return `${hours} h ${m} min`;
  return m > 0 ? `${m} min` : `${whole} s`;
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

export function clock(unixMs) {
  return new Date(unixMs).toLocaleTimeString("en-GB");
}

/// With the day where it is not today's.
export function moment(unixMs, now = Date.now()) {
  const at = new Date(unixMs);
  if (at.toDateString() === new Date(now).toDateString()) return clock(unixMs);
  return `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock(unixMs)}`;
}
