// A molecule of the library: its structure and its stored spectrum.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const box = make("div", { class: "grow viewer", id: "viewer", role: "img", "aria-label": `structure of ${data.name}` });
const plot = make("div", { class: "grow", id: "plot", role: "img", "aria-label": `spectrum of ${data.name}` });
document.body.append(make("div", { class: "columns" }, make("div", { class: "stack" }, plot), make("div", { class: "stack" }, box)));
new Viewer(box, data.structure);

if (data.spectrum) {
  const { axis, values, title } = data.spectrum;
  const trace = { x: axis, y: values, name: clean(title), mode: "lines", line: { color: ink(), width: 1.3 }, fill: "tozeroy", fillcolor: "rgba(128,128,128,.14)" };
  const layout = plotLayout(data.spectrum);
  layout.yaxis = { ...layout.yaxis, range: [0, 1.08], title: { text: "relative intensity" } };
  Plotly.newPlot(plot, [trace], layout, plotSettings).then(() => { document.body.dataset.ready = "yes"; });
} else {
  plot.append(make("p", { class: "soft" }, "The library holds no spectrum of this molecule."));
  document.body.dataset.ready = "yes";
}
