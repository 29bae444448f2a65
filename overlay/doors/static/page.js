// The page: queries /api/ while it is visible, and shows the answers.

import * as detail from "./detail.js";
import { byId, show } from "./dom.js";
import * as lists from "./lists.js";
import * as overview from "./overview.js";
import { STATES, clock, count, duration, sentence, stateOf } from "./words.js";

const TICK = 1000; // milliseconds
const OLD = 20_000; // milliseconds after which the page says that its data is old
const SPARK = 60; // samples: ten minutes
// Milliseconds between two questions of each kind
const INTERVALS = { status: 4000, history: 10_000, peer: 10_000, services: 5000, events: 4000, doctor: 60_000 };

const told = { status: null, rows: new Map(), peer: null, services: [], events: null, findings: undefined };
const asked = new Map(); // the current or last question of each kind, and when it was asked
let heardAt = null; // when the last status arrived, less its age
let trouble = ""; // why there is no newer one
let isShut = false; // the page asks for a token

// The token

const KEY = "overlay token";
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", `${location.pathname}#/`);
}

byId("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("token").value.trim().replace(/^.*#token=/, ""));
  byId("token").value = "";
  isShut = false;
  asked.clear();
  tick();
});

// Asking

class Refused extends Error {
  constructor(kind, text) {
    super(text);
    this.kind = kind;
  }
}

async function ask(path) {
  const token = sessionStorage.getItem(KEY);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let reply;
  let body;
  try {
    reply = await fetch(`/api/${path}`, { headers, cache: "no-store", signal: AbortSignal.timeout(25_000) });
    body = await reply.json();
  } catch {
    throw new Refused("gone", "The process that serves this page does not answer: see whether “overlay web” runs.");
  }
  if (!reply.ok) throw new Refused(body.error?.kind ?? "failed", body.error?.message ?? `The answer was ${reply.status}.`);
  return { body, age: 1000 * Number(reply.headers.get("age") ?? 0) };
}

/** Ask a question whose time has come, unless it is being asked. */
async function keep(name, path, take, refused = () => {}) {
  const last = asked.get(name);
  if (last && (last.path === path ? last.isRunning || Date.now() < last.due : false)) return;
  const mine = { path, isRunning: true, due: 0 };
  asked.set(name, mine);
  try {
    const answer = await ask(path);
    if (asked.get(name) === mine) take(answer.body, answer.age);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.kind === "token") shut();
    else if (asked.get(name) === mine) refused(error);
  } finally {
    mine.isRunning = false;
    mine.due = Date.now() + INTERVALS[name];
  }
  render();
}

function shut() {
  isShut = true;
  byId("door").hidden = false;
  byId("main").hidden = true;
  show(byId("fresh"), "");
  const wrong = sessionStorage.getItem(KEY) !== null;
  sessionStorage.removeItem(KEY);
  say(wrong ? "The token is not that of this page: a new one is made whenever “overlay web” starts." : "");
  byId("token").focus();
}

const chosenPeer = () => {
  const match = location.hash.match(/^#\/peer\/(.+)$/);
  try {
    return match && decodeURIComponent(match[1]);
  } catch {
    return null;
  }
};

function tick() {
  if (document.hidden || isShut) return;
  keep("status", "status", takeStatus, (error) => (trouble = error.message));
  if (told.status) {
    const peer = chosenPeer();
    const samples = told.status.peers.length > overview.FEW ? 2 : SPARK;
    if (peer) keep("peer", `history?name=${encodeURIComponent(peer)}`, (body) => (told.peer = timed(body)), () => (told.peer = null));
    else keep("history", `history?samples=${samples}`, (body) => (told.rows = new Map(body.peers.map((row) => [row.name, row]))));
    keep("services", "services", (body) => (told.services = body.services), () => (told.services = []));
    keep("events", "events?limit=200", (body) => (told.events = body.events), () => (told.events = null));
    keep("doctor", "doctor", (body) => (told.findings = body.findings), () => (told.findings = null));
  }
  render();
}

/** Return a history with its times as those of this browser's clock. */
function timed(history) {
  const now = Date.now();
  return { row: history.peers[0], times: history.times_seconds.map((time) => new Date(now - 1000 * (history.now_seconds - time))) };
}

function takeStatus(status, age) {
  announce(told.status, status);
  told.status = status;
  heardAt = Date.now() - age;
  trouble = "";
}

/** Announce changes to users of screen readers. */
function announce(before, now) {
  if (!before) return;
  const states = new Map(before.peers.map((peer) => [peer.name, stateOf(peer)]));
  const changed = now.peers.filter((peer) => states.has(peer.name) && states.get(peer.name) !== stateOf(peer));
  if (changed.length > 3) show(byId("changes"), `${changed.length} peers are in another state.`);
  else if (changed.length) show(byId("changes"), changed.map((peer) => `${peer.name} is ${STATES.get(stateOf(peer))[0]}.`).join(" "));
}

// Showing

function say(sentence) {
  const alert = byId("alert");
  alert.classList.toggle("banner", sentence !== "");
  show(alert, sentence);
}

function render() {
  try {
    draw();
  } catch (error) {
    say("This page cannot show the agent's answers, because the agent is of another version. Start it again.");
    console.error(error);
  }
}

function draw() {
  if (isShut) return;
  byId("door").hidden = true;
  const age = heardAt === null ? 0 : Date.now() - heardAt;
  const isOld = heardAt !== null && (trouble !== "" || age > OLD);
  document.body.classList.toggle("old", isOld);
  if (trouble && heardAt === null) say(sentence(trouble));
  else if (isOld) say(`${sentence(trouble || "No newer answer has arrived.")} What you see is from ${clock(new Date(heardAt), true)}.`);
  else if (told.status && !told.status.is_complete) say("The process that carries packets does not report, so much of this is not known.");
  else say("");
  show(byId("fresh"), heardAt === null ? (trouble ? "" : "Asking the agent …") : `Updated ${age < 2500 ? "now" : `${duration(age / 1000)} ago`}`);
  const { status } = told;
  byId("main").hidden = !status;
  if (!status) return;

  const peer = chosenPeer();
  const troubled = status.peers.filter((each) => ["unreachable", "unresolved", "unconfirmed", "silent"].includes(each.state)).length;
  document.title = `${troubled ? `(${troubled}) ` : ""}${peer ? `${peer} · ` : ""}${status.node} · overlay`;
  show(byId("node"), status.node);
  show(byId("about"), `${count(status.peers.length, "peer", "peers")} · ${status.interface}${status.addresses.length ? ` · ${status.addresses[0]}` : ""}`);
  byId("overview").hidden = Boolean(peer);
  byId("host").hidden = Boolean(peer);
  byId("peer").hidden = !peer;
  // "Not asked yet" differs from "refused", which is the answer of an agent that does not know the question
  if (told.findings === undefined) lists.showFindings(null, peer);
  else lists.showFindings(told.findings ?? status.notes.map((problem) => ({ severity: "warning", problem, remedy: "", peer: null })), peer);
  lists.showEvents(told.events, peer);
  if (peer) {
    detail.showPeer(peer, status.peers.find((each) => each.name === peer));
    detail.showHistory(told.peer?.row?.name === peer ? told.peer.row : undefined, told.peer?.times ?? []);
  } else {
    overview.showPeers(status, told.rows, render);
    lists.showServices(told.services);
    lists.showNode(status);
  }
}

// Moving about

let shown = null;
addEventListener("hashchange", () => {
  const peer = chosenPeer();
  tick();
  if (peer) byId("peer-title").focus();
  else if (shown) overview.linkTo(shown)?.focus();
  if (peer) scrollTo(0, 0);
  shown = peer;
});
shown = chosenPeer();

overview.setUp(render);
document.addEventListener("visibilitychange", tick);
setInterval(tick, TICK);
tick();
