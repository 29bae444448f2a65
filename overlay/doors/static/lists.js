// The lists beside the peers: findings, services, events, and the node itself.

import { byId, el, prose, show, showFacts, sync } from "./dom.js";
import { clock, count, duration, rate, whole } from "./words.js";

const SHOWN = 4; // findings at first
const SEVERITIES = ["error", "warning", "notice"];
const peerLink = (name) => el("a", { href: `#/peer/${encodeURIComponent(name)}` }, name);

/** Show findings, the worst first and the rest on a click: {severity, problem, remedy, peer}; null while they are not known. */
export function showFindings(findings, peer) {
  byId("attention").hidden = findings === null;
  if (findings === null) return;
  const shown = findings
    .filter((each) => !peer || each.peer === peer)
    .sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
  byId("attention").hidden = Boolean(peer) && !shown.length;
  const first = shown.length > SHOWN + 1 ? SHOWN : shown.length; // never hide just one
  const more = byId("more");
  more.hidden = first === shown.length;
  show(more.firstElementChild, `${shown.length - first} more findings`);
  fill(byId("findings"), shown.slice(0, first), peer);
  fill(more.lastElementChild, shown.slice(first), peer);
  const none = byId("no-findings");
  none.hidden = shown.length > 0;
  show(none, "Nothing needs attention.");
}

function fill(list, findings, peer) {
  sync(list, findings, (each) => `${each.severity} ${each.peer ?? ""} ${each.problem}`, (each) => {
    const item = el("li", { className: each.severity }, el("p", {}, el("b", { className: "severity" }, each.severity), " ", ...prose(each.problem)));
    if (each.remedy) item.append(el("p", { className: "remedy" }, ...prose(each.remedy)));
    if (each.peer && !peer) item.append(el("p", { className: "quiet" }, "Peer ", peerLink(each.peer)));
    return item;
  });
}

/** Show services with their servers. */
export function showServices(services) {
  byId("services").hidden = !services.length;
  sync(byId("service-list"), services, (each) => each.name, makeService, updateService);
}

function makeService(service) {
  const columns = [["Server", ""], ["State", ""], ["Weight", "number"], ["Active flows", "number"], ["Traffic", "number"]];
  return el(
    "section",
    { className: "service", attributes: { "aria-label": `Service ${service.name}` } },
    el("h3", {}, service.name, " ", el("span", { className: "badge" })),
    el("p", { className: "quiet" }),
    el("p", { className: "reason" }),
    el("div", { className: "scroll", tabIndex: 0, attributes: { role: "region", "aria-label": `Servers of ${service.name}` } },
      el("table", {},
        el("caption", { className: "hidden" }, `Servers of ${service.name}`),
        el("thead", {}, el("tr", {}, ...columns.map(([name, className]) => el("th", { scope: "col", className }, name)))),
        el("tbody"))),
  );
}

function updateService(node, service) {
  const [title, about, reason, scroll] = node.children;
  const badge = title.lastElementChild;
  show(badge, service.state);
  badge.dataset.state = service.state;
  const ports = service.ports.join(", ");
  const flows = service.active_flows === null ? "" : ` · ${count(service.active_flows, "active flow", "active flows")}`;
  show(about, `${service.addresses.join(", ")} · ${service.protocols.join(", ")} ${ports} · ${service.scheduler}${flows}`);
  show(reason, service.reason ?? "");
  scroll.hidden = !service.servers.length;
  sync(scroll.querySelector("tbody"), service.servers, (server) => server.name, (server) =>
    el("tr", {}, el("th", { scope: "row" }, server.name), el("td"), el("td", { className: "number" }), el("td", { className: "number" }), el("td", { className: "number" })),
    (row, server) => {
      const [, state, weight, flows, traffic] = row.children;
      row.dataset.state = server.state;
      show(state, server.reason ? `${server.state}: ${server.reason}` : server.state);
      show(weight, String(server.weight));
      show(flows, server.active_flows === null ? "not known" : whole(server.active_flows));
      show(traffic, rate(server.bytes_per_second));
    });
}

/** Show events, the newest first; null if the agent keeps none. */
export function showEvents(events, peer) {
  byId("events").hidden = events === null;
  if (events === null) return;
  show(byId("events-title"), peer ? `Events of ${peer}` : "Events");
  const shown = events.filter((each) => !peer || each.peer === peer).reverse();
  byId("no-events").hidden = shown.length > 0;
  sync(byId("event-list"), shown, (each) => each.number, (each) => {
    const at = new Date(1000 * each.timestamp_seconds);
    const when = el("time", { dateTime: at.toISOString(), title: at.toLocaleString() }, clock(at, true));
    return el("li", { className: each.level }, when, el("span", { className: "level" }, each.level), el("span", { className: "text" }, each.text));
  });
}

/** Show the facts of the node. */
export function showNode(status) {
  const store = status.store;
  showFacts(byId("host-facts"), [
    ["Addresses", status.addresses.join(", ") || "none"],
    ["Interface", `${status.interface} (${status.device})`],
    ["UDP port", status.port ?? "none"],
    ["MTU", `${status.mtu_bytes}: ${status.mtu_reason}`],
    ["Packet path", status.lanes > 1 ? `${status.packet_path}, ${status.lanes} lanes` : status.packet_path],
    ["Running for", duration(status.uptime_seconds)],
    ["Peers file", status.peers_file],
    ["Store", store ? store.state : undefined],
    ["Public key", status.public_key ?? undefined],
  ]);
  const drops = Object.entries(status.drops ?? {}).filter(([, number]) => number).sort(([, a], [, b]) => b - a);
  byId("host-drops").hidden = !drops.length;
  sync(byId("host-drops").querySelector("tbody"), drops, ([name]) => name, ([name]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", { className: "number" })),
    (row, [, number]) => show(row.lastElementChild, whole(number)));
}
