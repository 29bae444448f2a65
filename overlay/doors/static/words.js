// Numbers, times and states as words.

/** The states of a peer, the worst first: the name, its meaning, and the shape of its mark. */
export const STATES = new Map([
  ["unreachable", ["unreachable", "no answer to a handshake for 90 seconds", "M2 2 10 10M10 2 2 10"]],
  ["unresolved", ["unresolved", "the endpoint is a name that has no address", "M6 1A5 5 0 0 1 6 11A5 5 0 0 1 6 1ZM2.5 9.5 9.5 2.5"]],
  ["unconfirmed", ["unconfirmed", "handshakes lead to no common keys: compare the preshared keys", "M6 1 11 11H1Z"]],
  ["silent", ["silent", "packets were sent, and nothing came back for 15 seconds", "M6 1 11 11H1Z"]],
  ["unknown", ["unknown", "the forwarder does not report", "M1 6H11"]],
  ["connecting", ["connecting", "a handshake is in progress", "M2 6h.01M6 6h.01M10 6h.01"]],
  ["up", ["up", "the tunnel works", "M6 1A5 5 0 0 1 6 11A5 5 0 0 1 6 1Z"]],
  ["unencrypted", ["unencrypted", "it is not known whether the other end is there", "M6 1 11 6 6 11 1 6Z"]],
  ["idle", ["idle", "nothing to send since the last session ended", "M6 1A5 5 0 0 1 6 11A5 5 0 0 1 6 1Z"]],
]);

export const stateOf = (peer) => (STATES.has(peer.state) ? peer.state : "unknown");

const UNITS = ["", "k", "M", "G", "T", "P"];

function scaled(value, step, names) {
  let unit = 0;
  while (value >= 0.9995 * step && unit < names.length - 1) {
    value /= step;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${names[unit]}`;
}

/** A number with a unit, as written on an axis: 50 Mbit/s for 50.0 Mbit/s. */
export const round = (text) => text.replace(/^(\d+)\.0+ /, "$1 ").replace(/^(\d+\.\d*?)0+ /, "$1 ");

/** Bytes per second as bits, as networks are measured. */
export const rate = (value) => (value === null ? "not known" : scaled(8 * value, 1000, UNITS.map((each) => `${each}bit/s`)));
export const bytes = (value) => (value === null ? null : scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]));
export const whole = (value) => value.toLocaleString("en");
export const percent = (value) => (value === null ? "not known" : `${Number((100 * value).toFixed(1))} %`);

export function trip(seconds) {
  if (seconds === null) return "not known";
  if (seconds < 0.9995) return `${(1000 * seconds).toPrecision(seconds < 0.000995 ? 2 : 3).replace(/\.?0+$/, "")} ms`;
  return `${seconds.toFixed(2)} s`;
}

export function perSecond(value) {
  if (value === null) return "not known";
  return `${value >= 100 ? value.toFixed(0) : Number(value.toPrecision(2))} per second`;
}

/** A duration in its two largest units: 42 s, 3 min 5 s, 2 d 4 h. */
export function duration(seconds) {
  const total = Math.max(0, Math.floor(seconds));
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => total >= size);
  if (first < 0) return "0 s";
  let rest = total;
  return units
    .slice(first, first + 2)
    .map(([name, size]) => {
      const count = Math.floor(rest / size);
      rest -= count * size;
      return count ? `${count} ${name}` : "";
    })
    .filter(Boolean)
    .join(" ");
}

export const ago = (seconds) => (seconds === null ? "never" : `${duration(seconds)} ago`);
export const clock = (date, withSeconds = false) =>
  date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(withSeconds && { second: "2-digit" }) });
export const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?`]$/.test(text) ? "" : "."}`;
export const count = (number, one, many) => `${whole(number)} ${number === 1 ? one : many}`;
