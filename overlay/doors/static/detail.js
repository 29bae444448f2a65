// One peer: its state, what is known about it, and its last hour.

import { byId, el, prose, show, showFacts, sync } from "./dom.js";
import { mark } from "./overview.js";
import { Plots } from "./plot.js";
import { STATES, ago, bytes, percent, perSecond, rate, round, stateOf, trip, whole } from "./words.js";

let plots = null;

/** Show a peer of the status; undefined if there is no such peer. */
export function showPeer(name, peer) {
  show(byId("peer-title"), name);
  const state = byId("peer-state");
  if (!peer) {
    state.replaceChildren("This peer no longer exists.");
    for (const id of ["peer-notes", "peer-facts", "plots"]) byId(id).replaceChildren();
    return;
  }
  const [word, meaning] = STATES.get(stateOf(peer));
  if (state.dataset.state !== `${name} ${word}`) {
    state.dataset.state = `${name} ${word}`;
    state.replaceChildren(mark(stateOf(peer)), el("b", { className: stateOf(peer) }, word), el("span", { className: "quiet" }, meaning));
  }
  sync(byId("peer-notes"), peer.notes, (note) => note, (note) => el("li", { className: "warning" }, el("p", {}, ...prose(note))));
  const dropped = peer.drops && Object.values(peer.drops).reduce((sum, each) => sum + each, 0);
  showFacts(byId("peer-facts"), [
    ["Endpoint", peer.endpoint ?? "none"],
    ["Addresses", peer.addresses.join(", ") || undefined],
    ["Subnets", peer.subnets.join(", ") || undefined],
    ["Encapsulation", peer.is_encrypted ? peer.encapsulation : `${peer.encapsulation}, not encrypted`],
    ["Last handshake", peer.is_encrypted ? ago(peer.last_handshake_age_seconds) : undefined],
    ["Last received", peer.rx_bytes === null ? null : ago(peer.last_received_age_seconds)],
    ["Path MTU", peer.path_mtu_bytes ? `${peer.path_mtu_bytes} bytes` : undefined],
    ["Received", bytes(peer.rx_bytes)],
    ["Sent", bytes(peer.tx_bytes)],
    ["Dropped", peer.rx_bytes === null ? null : dropped ? `${whole(dropped)}: ${reasons(peer.drops)}` : "0"],
    ["Public key", peer.public_key ?? undefined],
  ]);
}

const reasons = (drops) =>
  Object.entries(drops)
    .sort(([, a], [, b]) => b - a)
    .map(([name, number]) => `${name} ${whole(number)}`)
    .join(", ");

/** Show the history of the peer: its row, and when the samples were taken. */
export function showHistory(row, times) {
  const isKept = row !== undefined && row.is_kept;
  const unkept = byId("peer-unkept");
  unkept.hidden = isKept || row === undefined || !times.length;
  show(unkept, "The agent keeps a history for the 1,024 peers that carried packets last, and this one is not among them.");
  byId("plots").hidden = !unkept.hidden;
  if (row === undefined) return;
  plots ??= new Plots(byId("plots"));
  const unknown = times.map(() => null);
  const values = (name) => row[name] ?? unknown;
  plots.update(times, [
    {
      name: "Throughput",
      kind: "line",
      isContinuous: true,
      least: 125, // 1 kbit/s
      factor: 8,
      format: rate,
      tick: (value) => (value ? round(rate(value)) : "0"),
      series: [
        { name: "received", values: values("received_bytes_per_second") },
        { name: "sent", values: values("sent_bytes_per_second") },
      ],
    },
    {
      name: "Round trip",
      kind: "line",
      least: 0.001,
      format: trip,
      tick: (value) => (value ? round(trip(value)) : "0"),
      series: [{ name: "trip", values: values("round_trip_seconds") }],
      remark: row.round_trip_by,
    },
    { name: "Loss", kind: "bars", least: 0.1, format: percent, tick: percent, series: [{ name: "loss", values: values("loss_ratio") }] },
    {
      name: "Drops",
      kind: "bars",
      isContinuous: true,
      least: 1,
      format: perSecond,
      tick: (value) => (value ? `${value}/s` : "0"),
      series: [{ name: "drops", values: values("drops_per_second") }],
    },
  ]);
}
