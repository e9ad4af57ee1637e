// One answer of a search: spectra, bands, structure.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const plot = make("div", { class: "grow", id: "plot" });
const list = make("ul", { class: "bands", "aria-label": "bands, each with its motion" });
const box = make("div", { class: "grow viewer", id: "viewer", role: "img", "aria-label": `structure of ${data.name}` });
const motion = make("div", { class: "soft", role: "status", id: "motion" }, "Choose a band to see its motion.");
document.body.append(
  make("div", { class: "columns" }, make("div", { class: "stack" }, plot, list), make("div", { class: "stack" }, box, motion)),
);

const marks = {
  matched: { symbol: "circle", color: ink(), name: "● in both" },
  missing: { symbol: "triangle-down-open", color: "#d55e00", name: "▽ not measured" },
  extra: { symbol: "square-open", color: "#a0408a", name: "□ not the candidate's" },
};
const ends = (band) => [
  ...(band.measured === null ? [] : [[band.measured, band.measuredHeight]]),
  ...(band.computed === null ? [] : [[band.computed, -band.computedHeight]]),
];
const traces = [
  { x: data.axis, y: data.measured, name: "measured", line: { color: ink(), width: 1.3 }, fill: "tozeroy", fillcolor: "rgba(128,128,128,.14)" },
  { x: data.axis, y: data.candidate, name: "candidate, below zero", line: { color: "#1f78b4", width: 1.3 }, fill: "tozeroy", fillcolor: "rgba(31,120,180,.14)" },
].map((trace) => ({ ...trace, mode: "lines", hoverinfo: "skip" }));
for (const [status, mark] of Object.entries(marks)) {
  const points = data.bands.flatMap((band, number) =>
    band.status === status ? [...ends(band).map(([x, y]) => ({ x, y, number })), { x: null, y: null, number }] : []);
  traces.push({
    x: points.map((point) => point.x),
    y: points.map((point) => point.y),
    customdata: points.map((point) => point.number),
    text: points.map((point) => `${data.bands[point.number].label} ${data.unit}<br>${clean(data.bands[point.number].motion)}`),
    hovertemplate: "%{text}<extra></extra>",
    mode: "lines+markers",
    name: mark.name,
    marker: { symbol: mark.symbol, color: mark.color, size: 9 },
    line: { dash: "dot", width: 1, color: mark.color },
  });
}

const viewer = new Viewer(box, data.structure);
let chosen = null;
const buttons = data.bands.map((band, number) => {
  const button = make("button", { type: "button", "aria-pressed": "false", "data-band": number },
    [`${band.symbol} ${band.label} ${data.unit}`, band.motion, band.role, band.attention].filter(Boolean).join(" · "));
  button.addEventListener("click", () => choose(number));
  return button;
});
const strength = (band) => Math.max(band.measuredHeight ?? 0, band.computedHeight ?? 0);
const order = data.bands.map((_, number) => number).sort((a, b) => strength(data.bands[b]) - strength(data.bands[a]));
list.append(...order.map((number) => make("li", {}, buttons[number])));

function choose(number) {
  chosen = chosen === number ? null : number;
  buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(at === chosen)));
  if (chosen === null) {
    viewer.show(null);
    motion.textContent = "Choose a band to see its motion.";
    return;
  }
  const band = data.bands[chosen];
  viewer.show(band.moves);
  const moves = band.moves ? band.motion || "moves as shown" : "no motion is known of this band";
  motion.textContent = `${band.symbol} ${band.label} ${data.unit}: ${moves}`;
}

const layout = plotLayout(data);
layout.yaxis = { ...layout.yaxis, range: [-1.15, 1.15], tickvals: [-1, -0.5, 0, 0.5, 1], ticktext: ["1", "0.5", "0", "0.5", "1"], title: { text: "relative intensity" } };
Plotly.newPlot(plot, traces, layout, plotSettings).then(() => {
  plot.on("plotly_click", (event) => {
    const number = event.points[0].customdata;
    if (Number.isInteger(number)) choose(number);
  });
  document.body.dataset.ready = "yes";
});
