// The map of peers: grouped by state, the worst first, as cards if there are few and as names if there are many.

import { byId, el, show, svg, sync } from "./dom.js";
import { sparkline } from "./plot.js";
import { STATES, count, rate, stateOf, trip, whole } from "./words.js";

export const FEW = 60; // peers that are shown as cards
const SHOWN = 120; // peers of one state, until the user asks for the rest

const chosen = { state: null, search: "", whole: new Set() };

/** Call `changed` when the user filters. */
export function setUp(changed) {
  const search = byId("search");
  search.addEventListener("input", () => {
    chosen.search = search.value.trim().toLowerCase();
    changed();
  });
}

/** Return the mark of a state: a shape, so that states do not differ by colour alone. */
export function mark(state) {
  return svg("svg", { class: `mark ${state}`, viewBox: "0 0 12 12", "aria-hidden": "true" }, svg("path", { d: STATES.get(state)[2] }));
}

/** Show peers, with the rows of their history by name; `changed` is called when the user filters. */
export function showPeers(status, rows, changed) {
  const peers = status.peers;
  const byState = new Map([...STATES.keys()].map((state) => [state, []]));
  for (const peer of peers) byState.get(stateOf(peer)).push(peer);
  const present = [...byState].filter(([, members]) => members.length);
  if (chosen.state && !byState.get(chosen.state).length) chosen.state = null;
  showShares(present);
  showStates(present, peers.length, changed);

  const groups = present
    .filter(([state]) => !chosen.state || chosen.state === state)
    .map(([state, members]) => [state, members.filter(matches).sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }))])
    .filter(([, members]) => members.length);
  byId("map").classList.toggle("many", peers.length > FEW);
  const focused = document.activeElement.closest("#map li")?.dataset.key;
  sync(byId("map"), groups, ([state]) => state, makeGroup, (node, group) => updateGroup(node, group, rows, changed));

  if (focused !== undefined && !document.activeElement.closest("#map li")) linkTo(focused)?.focus({ preventScroll: true });

  byId("search").parentElement.hidden = !peers.length;
  const empty = byId("no-peers");
  empty.hidden = groups.length > 0;
  const { waiting, removed } = status.absent ?? {};
  if (!peers.length && waiting) show(empty, `No tunnels: ${count(waiting, "peer waits", "peers wait")} for the private key of this node.`);
  else if (!peers.length && removed) show(empty, `No tunnels: wg removed ${count(removed, "peer", "peers")}.`);
  else if (!peers.length) show(empty, `No other peers yet. Peers that are added to ${status.peers_file} appear here automatically.`);
  else if (!groups.length) show(empty, `No peer matches “${chosen.search}”.`);
}

/** Return the link to a peer, if it is seen. */
export function linkTo(name) {
  return document.querySelector(`#map a[href="#/peer/${CSS.escape(encodeURIComponent(name))}"]`);
}

function matches(peer) {
  if (!chosen.search) return true;
  const texts = [peer.name, peer.endpoint ?? "", ...peer.addresses, ...peer.subnets];
  return texts.some((each) => each.toLowerCase().includes(chosen.search));
}

/** Draw how many peers are in each state, as parts of one bar. */
function showShares(present) {
  sync(
    byId("shares"),
    present,
    ([state]) => state,
    ([state]) => el("span", { className: state }),
    (part, [, members]) => part.style.setProperty("flex-grow", members.length),
  );
}

function showStates(present, total, changed) {
  const buttons = total ? [[null, total], ...present.map(([state, members]) => [state, members.length])] : [];
  sync(
    byId("states"),
    buttons,
    ([state]) => state ?? "all",
    ([state]) => {
      const button = el("button", { type: "button" }, ...(state ? [mark(state)] : []), el("b"), ` ${state ? STATES.get(state)[0] : "in all"}`);
      button.addEventListener("click", () => {
        chosen.state = state;
        changed();
      });
      return button;
    },
    (button, [state, number]) => {
      show(button.querySelector("b"), whole(number));
      button.setAttribute("aria-pressed", String(chosen.state === state));
    },
  );
}

function makeGroup([state]) {
  const [name, meaning] = STATES.get(state);
  const heading = el("h3", {}, mark(state), el("span", { className: state }, name), el("span", { className: "quiet" }, el("b"), el("span", { className: "meaning" }, ` · ${meaning}`)));
  return el("section", { className: "group", attributes: { "aria-label": `Peers that are ${name}` } }, heading, el("ul", { className: "peers" }), el("button", { type: "button", className: "rest" }));
}

function updateGroup(node, [state, members], rows, changed) {
  const [heading, list, rest] = node.children;
  show(heading.querySelector("b"), whole(members.length));
  const some = chosen.whole.has(state) ? members : members.slice(0, SHOWN);
  sync(list, some, (peer) => peer.name, makePeer, (item, peer) => updatePeer(item, peer, rows.get(peer.name)));
  node.classList.toggle("alone", members.length === 1);
  rest.hidden = some.length === members.length;
  if (!rest.hidden) {
    show(rest, `Show ${count(members.length - some.length, "more peer", "more peers")}`);
    rest.onclick = () => {
      chosen.whole.add(state);
      changed();
      list.children[SHOWN]?.firstElementChild.focus();
    };
  }
}

function makePeer(peer) {
  const link = el("a", { className: "peer", href: `#/peer/${encodeURIComponent(peer.name)}` });
  link.append(
    el("span", { className: "head" }, mark(stateOf(peer)), el("span", { className: "name" }, peer.name), el("span", { className: "trip" })),
    el("span", { className: "where" }),
    el("span", { className: "rates" }, el("span", {}, "↓ ", el("span", { className: "hidden" }, "received "), el("b")), el("span", {}, "↑ ", el("span", { className: "hidden" }, "sent "), el("b"))),
  );
  return el("li", {}, link);
}

function updatePeer(item, peer, row) {
  const link = item.firstElementChild;
  const state = stateOf(peer);
  if (link.dataset.state !== state) {
    link.dataset.state = state;
    link.querySelector(".mark").replaceWith(mark(state));
  }
  link.classList.toggle("noted", peer.notes.length > 0);
  link.title = peer.name;
  const last = (name) => row?.[name]?.at(-1) ?? null;
  const measured = row?.round_trip_seconds?.findLast((each) => each !== null) ?? null;
  const [received, sent] = link.querySelectorAll(".rates b");
  show(received, shortRate(last("received_bytes_per_second")));
  show(sent, shortRate(last("sent_bytes_per_second")));
  show(link.querySelector(".trip"), measured === null ? "" : trip(measured));
  show(link.querySelector(".where"), peer.endpoint ?? "no endpoint");
  const values = row?.received_bytes_per_second?.map((each, place) => (each === null ? null : each + (row.sent_bytes_per_second[place] ?? 0)));
  const old = link.querySelector(".spark");
  const known = values && values.length > 1 ? sparkline(values) : null;
  if (old) old.remove();
  if (known) link.append(known);
}

const shortRate = (value) => (value === null ? "–" : rate(value));
