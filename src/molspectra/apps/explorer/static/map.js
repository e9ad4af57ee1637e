// A map of the library: a point for each molecule.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const plot = make("div", { id: "plot", style: "height:100%", role: "img", "aria-label": `map of the library by ${data.colour}` });
document.body.append(plot);

const texts = data.names.map((name, at) => `${clean(name.length > 80 ? `${name.slice(0, 80)}…` : name)}<br>${clean(data.formulas[at])}`);
const points = (numbers, more) => ({
  x: numbers.map((at) => data.x[at]),
  y: numbers.map((at) => data.y[at]),
  customdata: numbers,
  text: numbers.map((at) => texts[at]),
  hovertemplate: "%{text}<extra></extra>",
  type: "scatter",
  mode: "markers",
  ...more,
});
const all = data.rows.map((_, at) => at);
const traces = [];
if (data.values) {
  const title = `${data.colour}${data.unit ? ` / ${data.unit}` : ""}`;
  const bar = { title: { text: clean(title), side: "right" }, thickness: 14, outlinewidth: 0 };
  const known = all.filter((at) => data.values[at] !== null);
  const marker = { color: known.map((at) => data.values[at]), colorscale: "Viridis", colorbar: bar, size: 6 };
  const trace = points(known, { name: clean(data.colour), marker, showlegend: false });
  trace.text = trace.text.map((text, at) => `${text}<br>${data.values[known[at]]}${data.unit ? ` ${data.unit}` : ""}`);
  traces.push(trace);
  const unknown = all.filter((at) => data.values[at] === null);
  if (unknown.length) traces.push(points(unknown, { name: "unknown", marker: { symbol: "x-thin-open", color: soft(), size: 6 } }));
} else {
  const group = clean(data.colour);
  const kinds = [
    [false, `without ${group}`, { symbol: "circle-open", color: "#56a0d3", size: 5 }],
    [true, `with ${group}`, { symbol: "diamond", color: "#d55e00", size: 8 }],
    [null, "structure not known", { symbol: "x-thin-open", color: soft(), size: 6 }],
  ];
  for (const [value, name, marker] of kinds) {
    const numbers = all.filter((at) => data.present[at] === value);
    if (numbers.length) traces.push(points(numbers, { name: `${name} (${numbers.length})`, marker }));
  }
}
const star = { symbol: "star", color: "#e0218a", size: 15, line: { color: paper(), width: 1 } };
if (data.marked.length) traces.push(points(data.marked, { name: `found (${data.marked.length})`, marker: star }));
const ring = { symbol: "circle-open", color: ink(), size: 18, line: { width: 2.5 } };
traces.push(points([], { name: "shown below", marker: ring, hoverinfo: "skip", hovertemplate: null, showlegend: false }));

const layout = plotLayout({ axisTitle: "", range: undefined });
const bare = { showticklabels: false, ticks: "", zeroline: false, title: { text: "" } };
layout.xaxis = { ...layout.xaxis, ...bare, autorange: true };
layout.yaxis = { ...layout.yaxis, ...bare, autorange: true, scaleanchor: "x" };
layout.margin = { l: 10, r: 10, t: 30, b: 10 };
layout.dragmode = "pan";
layout.hovermode = "closest";
layout.legend = { orientation: "h", y: 1.06 };
Plotly.newPlot(plot, traces, layout, { ...plotSettings, scrollZoom: true }).then(() => {
  plot.on("plotly_click", (event) => {
    const at = event.points[0].customdata;
    if (!Number.isInteger(at)) return;
    Plotly.restyle(plot, { x: [[data.x[at]]], y: [[data.y[at]]] }, [traces.length - 1]);
    parent.postMessage({ choice: String(data.rows[at]) }, "*");
  });
  document.body.dataset.ready = "yes";
});
