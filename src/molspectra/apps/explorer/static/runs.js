// Losses and learning rates of runs over their steps.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const plot = make("div", { id: "plot", style: "height:100%", role: "img", "aria-label": `losses and learning rates of ${data.runs.map((run) => run.name).join(", ")}` });
document.body.append(plot);

// colours of Okabe and Ito, which people with any kind of colour vision tell apart, on light and dark pages
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#808080"];
const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon"];
const kinds = [
  ["training", "training", { dash: "solid", width: 1.3 }, "y", false],
  ["validation", "validation", { dash: "dash", width: 1.6 }, "y", true],
  ["rate", "learning rate", { dash: "dot", width: 1.6 }, "y2", true],
];
const traces = data.runs.flatMap((run, at) => kinds.flatMap(([key, title, style, yaxis, marked]) => {
  const { steps, values } = run[key];
  if (!steps.length) return [];
  const name = clean(`${run.name.length > 40 ? `…${run.name.slice(-40)}` : run.name} · ${title}`);
  const size = marked && steps.length <= 60 ? 7 : 4;
  return [{
    x: steps, y: values, name, yaxis, xaxis: yaxis === "y" ? "x" : "x2", line: { ...style, color: colours[at] },
    mode: marked || steps.length === 1 ? "lines+markers" : "lines", marker: { symbol: symbols[at], size, color: colours[at] },
    hovertemplate: `${name}<br>step %{x}: %{y:.5g}<extra></extra>`,
  }];
}));

const layout = plotLayout({ axisTitle: "step", range: undefined });
const losses = traces.filter((trace) => trace.yaxis === "y").flatMap((trace) => trace.y.filter((value) => value !== null));
const scale = losses.length && Math.min(...losses) > 0 ? "log" : "linear";
const axis = { ...layout.xaxis, autorange: true };
layout.grid = { rows: 1, columns: 2, pattern: "independent", xgap: 0.14 };
layout.xaxis = axis;
layout.xaxis2 = { ...axis };
layout.yaxis2 = { ...layout.yaxis, title: { text: "learning rate" }, exponentformat: "e" };
layout.yaxis = { ...layout.yaxis, type: scale, title: { text: "loss" } };
layout.margin = { l: 62, r: 10, t: 10, b: 44 };
layout.legend = { orientation: "h", y: -0.16, yanchor: "top" };
Plotly.newPlot(plot, traces, layout, plotSettings).then(() => { document.body.dataset.ready = "yes"; });
