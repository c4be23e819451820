"use strict";
// Line charts as inline SVG, with a crosshair. Knows no report: only series of points, scales and how to write a value.
const SVG = "http://www.w3.org/2000/svg";
const CHART = { width: 560, height: 270, left: 58, right: 14, top: 12, bottom: 38 };

function element(name, attributes, parent) {
  const made = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null) continue;
    if (key === "text") made.textContent = value;
    else made.setAttribute(key, value);
  }
  if (parent) parent.append(made);
  return made;
}

// Steps of 1, 2, 5 (or of powers of two, for bytes) that cut a range into about `count` pieces.
function ticks(low, high, count, binary) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const decimal = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const step = binary ? 2 ** Math.ceil(Math.log2(rough)) : decimal;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

function logTicks(low, high) {
  const found = [];
  const decades = Math.log10(high / low);
  const steps = decades > 4 ? [1] : decades > 1.6 ? [1, 3] : [1, 2, 3, 5, 7];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1) {
    for (const step of steps) {
      const at = step * 10 ** power;
      if (at >= low * 0.999 && at <= high * 1.001) found.push(at);
    }
  }
  return found;
}

// spec: { series: [{name, color, dash, pale, points: [[x, y]]}], x: {log, ticks, format, label}, y: {log, format, label} }
function lineChart(spec) {
  const shown = spec.series.filter((series) => series.points.length > 0);
  const figure = element("figure");
  const caption = element("figcaption", {}, figure);
  element("h3", { text: spec.title }, caption);
  if (spec.note) element("span", { text: spec.note }, caption);
  if (shown.length === 0) return null;
  const all = shown.flatMap((series) => series.points);
  const range = (axis, index) => {
    const values = all.map((point) => point[index]).filter((v) => !axis.log || v > 0);
    let low = Math.min(...values), high = Math.max(...values);
    if (axis.log) return [low / (index ? 1.25 : 1), Math.max(high * (index ? 1.25 : 1), low * 1.5)];
    if (index) low = 0, high = high * 1.08 || 1;
    return [low, high > low ? high : low + 1];
  };
  const [xLow, xHigh] = range(spec.x, 0);
  const [yLow, yHigh] = range(spec.y, 1);
  const scale = (axis, low, high, from, to) => (value) => {
    const part = axis.log
      ? Math.log(Math.max(value, low) / low) / Math.log(high / low)
      : (value - low) / (high - low);
    return from + part * (to - from);
  };
  const { width, height, left, right, top, bottom } = CHART;
  const px = scale(spec.x, xLow, xHigh, left, width - right);
  const py = scale(spec.y, yLow, yHigh, height - bottom, top);
  const svg = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spec.title }, figure);
  for (const at of spec.y.log ? logTicks(yLow, yHigh) : ticks(yLow, yHigh, 5, spec.y.binary)) {
    element("svg:line", { class: at === 0 ? "base" : "grid", x1: left, x2: width - right, y1: py(at), y2: py(at) }, svg);
    element("svg:text", { x: left - 8, y: py(at) + 4, "text-anchor": "end", text: spec.y.format(at, true) }, svg);
  }
  const xTicks = spec.x.ticks ? spec.x.ticks.filter((t) => t >= xLow && t <= xHigh * 1.0001) : ticks(xLow, xHigh, 7);
  for (const at of xTicks) {
    if (spec.x.ticks) element("svg:line", { class: "grid", x1: px(at), x2: px(at), y1: top, y2: height - bottom }, svg);
    const anchor = px(at) > width - right - 14 ? "end" : "middle";
    element("svg:text", { x: anchor === "end" ? width - 2 : px(at), y: height - bottom + 16, "text-anchor": anchor, text: spec.x.format(at) }, svg);
  }
  element("svg:line", { class: "base", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }, svg);
  element("svg:text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle", text: spec.x.label }, svg);
  for (const series of [...shown].sort((a, b) => (b.pale ? 1 : 0) - (a.pale ? 1 : 0))) {
    const path = series.points.map((p, i) => `${i ? "L" : "M"}${px(p[0]).toFixed(1)} ${py(p[1]).toFixed(1)}`).join("");
    const look = { class: series.pale ? "curve pale" : "curve", stroke: series.color, "stroke-dasharray": series.dash, d: path };
    element("svg:path", look, svg);
  }
  follow(svg, figure, spec, shown.filter((series) => !series.pale), px, py);
  return figure;
}

// A crosshair that says all values at one x.
function follow(svg, figure, spec, series, px, py) {
  const tip = document.getElementById("tip");
  const cross = element("svg:g", { visibility: "hidden" }, svg);
  const line = element("svg:line", { class: "cross", y1: CHART.top, y2: CHART.height - CHART.bottom }, cross);
  const dots = series.map((one) => element("svg:circle", { r: 3.5, fill: one.color, stroke: "var(--card)", "stroke-width": 1.5 }, cross));
  const leave = () => { cross.setAttribute("visibility", "hidden"); tip.hidden = true; };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * CHART.width;
    const nearest = (points) => points.reduce((a, b) => (Math.abs(px(b[0]) - at) < Math.abs(px(a[0]) - at) ? b : a));
    const found = series.map((one) => nearest(one.points));
    if (found.length === 0) return;
    const lead = found.reduce((a, b) => (Math.abs(px(b[0]) - at) < Math.abs(px(a[0]) - at) ? b : a));
    line.setAttribute("x1", px(lead[0]));
    line.setAttribute("x2", px(lead[0]));
    tip.replaceChildren();
    element("div", { class: "soft", text: spec.x.tip ? spec.x.tip(lead[0]) : `${spec.x.format(lead[0])} ${spec.x.unit || ""}` }, tip);
    series.forEach((one, i) => {
      const near = Math.abs(px(found[i][0]) - px(lead[0])) < 12;
      dots[i].setAttribute("visibility", near ? "inherit" : "hidden");
      if (!near) return;
      dots[i].setAttribute("cx", px(found[i][0]));
      dots[i].setAttribute("cy", py(found[i][1]));
      const row = element("div", { class: "key", style: `color:${one.color}` }, tip);
      const left = element("span", { class: "key" }, row);
      element("i", {}, left);
      element("span", { class: "soft", text: one.name }, left);
      element("b", { text: spec.y.format(found[i][1], false) }, row);
    });
    cross.setAttribute("visibility", "visible");
    tip.hidden = false;
    const wide = tip.offsetWidth;
    const x = event.clientX + 16 + wide > window.innerWidth ? event.clientX - wide - 16 : event.clientX + 16;
    tip.style.left = `${Math.max(4, x)}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8))}px`;
  });
}
