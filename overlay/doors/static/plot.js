// Plots of the last hour: one SVG each, a cursor that all of them share, and the same numbers as a table.

import { el, show, svg, sync } from "./dom.js";
import { clock } from "./words.js";

const HOUR = 3600;
const HEIGHT = 168;
const MARGIN = { left: 74, right: 12, top: 10, bottom: 22 };
const JOINED = 35; // seconds, at most, between two samples that a line joins
const MINUTE = 6; // samples

/** The data of the plots: times as Date, one for each value of a series. */
export class Plots {
  constructor(parent) {
    this.parent = parent;
    this.plots = new Map();
    this.cursor = null; // an index into the times
    this.times = [];
    new ResizeObserver(() => this.draw()).observe(parent);
  }

  /** Show `plots`: {name, kind: "line" or "bars", format, least, series: [{name, values}]}, at these times. */
  update(times, plots) {
    this.times = times;
    if (this.cursor !== null && this.cursor >= times.length) this.cursor = null;
    sync(this.parent, plots, (each) => each.name, (each) => this.make(each));
    for (const each of plots) this.plots.get(each.name).told = each;
    for (const name of this.plots.keys()) if (!plots.some((each) => each.name === name)) this.plots.delete(name);
    this.draw();
  }

  make(told) {
    const legend = el("p", { className: "legend" });
    const area = el("div", { className: "area", tabIndex: 0, attributes: { role: "slider", "aria-orientation": "horizontal" } });
    const table = el("table");
    const more = el("details", {}, el("summary", {}, `${told.name} as a table`), el("div", { className: "scroll" }, table));
    const figure = el("figure", { className: "plot" }, el("figcaption", {}, el("h3", {}, told.name), legend), area, more);
    const plot = { told, legend, area, table, more };
    area.addEventListener("pointermove", (event) => this.point(area, event));
    area.addEventListener("pointerdown", (event) => this.point(area, event));
    area.addEventListener("pointerleave", () => this.move(null));
    area.addEventListener("blur", () => this.move(null));
    area.addEventListener("keydown", (event) => this.key(event));
    more.addEventListener("toggle", () => this.tabulate(plot));
    this.plots.set(told.name, plot);
    return figure;
  }

  key(event) {
    const last = this.times.length - 1;
    const at = this.cursor ?? last + 1;
    const steps = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1 };
    const jumps = { PageDown: at - MINUTE, PageUp: at + MINUTE, Home: 0, End: last };
    const next = { ...steps, ...jumps }[event.key];
    if (event.key === "Escape") this.move(null);
    else if (next !== undefined && last >= 0) {
      event.preventDefault();
      this.move(Math.min(last, Math.max(0, next)));
    }
  }

  point(area, event) {
    if (!this.times.length) return;
    const box = area.getBoundingClientRect();
    const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
    const wanted = this.end() - HOUR * 1000 * (1 - share);
    const distance = (place) => Math.abs(this.times[place] - wanted);
    this.move(this.times.reduce((best, _, place) => (distance(place) < distance(best) ? place : best), 0));
  }

  move(cursor) {
    if (cursor === this.cursor) return;
    this.cursor = cursor;
    this.draw();
  }

  end() {
    return this.times.at(-1).getTime();
  }

  draw() {
    for (const plot of this.plots.values()) {
      this.describe(plot);
      if (this.times.length) plot.area.replaceChildren(draw(plot.told, this.times, this.cursor, plot.area.clientWidth));
      else plot.area.replaceChildren(el("p", { className: "empty" }, "The first values appear within twelve seconds of the agent's start."));
      if (plot.more.open) this.tabulate(plot);
    }
  }

  /** Show the values at the cursor, or the last known ones. */
  describe({ told, legend, area }) {
    const last = this.times.length - 1;
    const at = this.cursor ?? last;
    const value = (series) => told.format(at < 0 ? null : (series.values[at] ?? null));
    const when = at < 0 ? "" : this.cursor === null ? "now" : clock(this.times[at], true);
    sync(legend, told.series, (each) => each.name, (each) => legendOf(told, each), (node, series) =>
      show(node.lastElementChild, value(series)),
    );
    legend.dataset.when = when;
    const said = told.series.map((each) => `${told.series.length > 1 ? `${each.name} ` : ""}${value(each)}`).join(", ");
    const values = { label: `${told.name} over the last hour`, valuemin: 0, valuemax: Math.max(0, last), valuenow: Math.max(0, at), valuetext: `${when}: ${said}` };
    for (const [name, each] of Object.entries(values)) area.setAttribute(`aria-${name}`, each);
  }

  tabulate({ told, table, more }) {
    if (!more.open) return;
    const minutes = this.times.map((_, place) => place).filter((place) => (this.times.length - 1 - place) % MINUTE === 0).reverse();
    table.replaceChildren(
      el("caption", { className: "hidden" }, `${told.name}, mean of each minute`),
      el("thead", {}, el("tr", {}, ...["Time", ...told.series.map((each) => (told.series.length > 1 ? each.name : told.name))].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...minutes.map((place) =>
        el("tr", {}, el("th", { scope: "row" }, clock(this.times[place])), ...told.series.map((each) =>
          el("td", {}, told.format(mean(each.values, place - MINUTE + 1, place)))))),
      ),
    );
  }
}

function legendOf(told, series) {
  const key = svg("svg", { class: `key ${series.name}`, viewBox: "0 0 16 8", "aria-hidden": "true" }, svg("path", { d: "M1 4H15" }));
  return el("span", { className: "entry" }, ...(told.series.length > 1 ? [key, `${series.name} `] : []), el("b"));
}

/** Return the mean of the known values from one index to another, both included; null if none is known. */
export function mean(values, from, to) {
  const known = values.slice(Math.max(0, from), to + 1).filter((each) => each !== null);
  return known.length ? known.reduce((sum, each) => sum + each, 0) / known.length : null;
}

/** Return the least of 1, 2 and 5 times a power of ten that is not below a value; for bits, a round number of bits. */
export function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value * 0.999999);
}

function draw(told, times, cursor, width) {
  const right = width - MARGIN.right;
  const bottom = HEIGHT - MARGIN.bottom;
  const end = times.at(-1).getTime();
  const x = (time) => right - ((end - time) / 1000 / HOUR) * (right - MARGIN.left);
  const known = told.series.flatMap((each) => each.values).filter((each) => each !== null);
  const factor = told.factor ?? 1; // numbers are round in the unit that is shown
  const top = ceiling(Math.max(told.least, ...known) * factor) / factor;
  const y = (value) => bottom - (value / top) * (bottom - MARGIN.top);
  const drawing = svg("svg", { width, height: HEIGHT, "aria-hidden": "true" });
  drawing.append(...gaps(told, times, x, bottom));
  for (const share of [0, 0.5, 1]) {
    const at = y(top * share);
    drawing.append(svg("path", { class: share ? "grid" : "axis", d: `M${MARGIN.left} ${at}H${right}` }));
    drawing.append(svg("text", { class: "tick", x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" }, told.tick(top * share)));
  }
  drawing.append(...hours(end, x, bottom, width));
  for (const series of told.series) drawing.append(...(told.kind === "bars" ? bars : lines)(series, times, x, y, bottom));
  if (cursor !== null) {
    const at = x(times[cursor]);
    drawing.append(svg("path", { class: "cursor", d: `M${at} ${MARGIN.top}V${bottom}` }));
    for (const { name, values } of told.series)
      if (told.kind === "line" && values[cursor] !== null) drawing.append(svg("circle", { class: name, cx: at, cy: y(values[cursor]), r: 3.5 }));
  }
  return drawing;
}

function hours(end, x, bottom, width) {
  const step = (width < 500 ? 20 : 10) * 60_000;
  const marks = [];
  for (let time = Math.floor(end / step) * step; time > end - HOUR * 1000; time -= step) {
    const at = x(time);
    if (at < MARGIN.left + 12 || at > width - 26) continue;
    marks.push(svg("text", { class: "tick", x: at, y: bottom + 16, "text-anchor": "middle" }, clock(new Date(time))));
    marks.push(svg("path", { class: "axis", d: `M${at} ${bottom}v4` }));
  }
  return marks;
}

/** Shade the times without data: before the agent started, and while values that always exist were not reported. */
function gaps(told, times, x, bottom) {
  const spans = [];
  let from = x(times.at(-1).getTime() - HOUR * 1000);
  times.forEach((time, place) => {
    const at = x(time);
    if (!told.isContinuous || told.series.some((each) => each.values[place] !== null)) {
      if (at - from > x(JOINED * 1000) - x(0)) spans.push([from, at]);
      from = at;
    }
  });
  const last = x(times.at(-1));
  if (last - from > x(JOINED * 1000) - x(0)) spans.push([from, last]);
  return spans.flatMap(([start, stop]) => {
    const box = svg("rect", { class: "gap", x: start, y: MARGIN.top, width: stop - start, height: bottom - MARGIN.top });
    const label = svg("text", { class: "tick", x: (start + stop) / 2, y: (MARGIN.top + bottom) / 2, "text-anchor": "middle" }, "not known");
    return stop - start > 80 ? [box, label] : [box];
  });
}

function lines({ name, values }, times, x, y, bottom) {
  const runs = [];
  let before = -Infinity;
  values.forEach((value, place) => {
    if (value === null) return;
    if (times[place] - before > JOINED * 1000) runs.push([]);
    runs.at(-1).push([x(times[place]).toFixed(1), y(value).toFixed(1)]);
    before = times[place].getTime();
  });
  return runs.flatMap((run) => {
    if (run.length === 1) return [svg("circle", { class: name, cx: run[0][0], cy: run[0][1], r: 2.5 })];
    const path = `M${run.map((each) => each.join(" ")).join("L")}`;
    const fill = svg("path", { class: `fill ${name}`, d: `${path}V${bottom}H${run[0][0]}Z` });
    return [fill, svg("path", { class: `line ${name}`, d: path })];
  });
}

/** Draw the mean of each minute. */
function bars({ name, values }, times, x, y, bottom) {
  const made = [];
  for (let to = values.length - 1; to >= 0; to -= MINUTE) {
    const from = Math.max(0, to - MINUTE + 1);
    const value = mean(values, from, to);
    if (!value) continue;
    const width = Math.max(2, x(60_000) - x(0) - 1.5);
    made.push(svg("rect", { class: `bar ${name}`, x: x(times[to]) - width, y: y(value), width, height: bottom - y(value) }));
  }
  return made;
}

/** Return a small line of values without axes. */
export function sparkline(values, width = 96, height = 24) {
  const known = values.filter((each) => each !== null);
  const top = Math.max(1, ...known);
  const step = width / Math.max(1, values.length - 1);
  let path = "";
  values.forEach((value, place) => {
    if (value === null) return;
    const begins = place === 0 || values[place - 1] === null;
    path += `${begins ? "M" : "L"}${(place * step).toFixed(1)} ${(height - 1 - (value / top) * (height - 2)).toFixed(1)}`;
  });
  const drawing = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  if (path) drawing.append(svg("path", { class: "under", d: `M0 ${height}${path.replace(/M/g, "L")}V${height}Z` }), svg("path", { d: path }));
  return drawing;
}
