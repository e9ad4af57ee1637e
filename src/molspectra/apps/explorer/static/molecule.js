// One molecule: a panel of spectra for each modality, the structure, and its vibrations.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const box = make("div", { class: "grow viewer", id: "viewer", role: "img", "aria-label": `structure of ${data.name}` });
const motion = make("div", { class: "soft", role: "status", id: "motion" });
const list = make("ul", { class: "bands", "aria-label": "vibrations, each with its motion" });
const panels = make("div", { class: "stack" });
const right = make("div", { class: "stack" }, box, ...(data.vibrations.length ? [motion, list] : []));
document.body.append(make("div", { class: "columns" }, panels, right));

const viewer = new Viewer(box, data.structure);
const hint = "Choose a vibration, or a line of a vibrational spectrum, to see its motion.";
motion.textContent = hint;
let chosen = null;
const buttons = data.vibrations.map((vibration, number) => {
  const button = make("button", { type: "button", "aria-pressed": "false", "data-vibration": number },
    `${vibration.label} · ${vibration.motion}`);
  button.addEventListener("click", () => choose(number));
  return button;
});
list.append(...buttons.map((button) => make("li", {}, button)));

function choose(number) {
  chosen = chosen === number ? null : number;
  buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(at === chosen)));
  const vibration = chosen === null ? null : data.vibrations[chosen];
  viewer.show(vibration?.moves ?? null);
  motion.textContent = vibration ? `${vibration.label}: ${vibration.motion}` : hint;
  if (vibration) buttons[chosen].scrollIntoView({ block: "nearest" });
}

// all places stand before the first plot is drawn, which takes the height that is left for it
const places = data.panels.map((panel) => make("div", { class: "grow", "data-panel": panel.name }));
data.panels.forEach((panel, number) => panels.append(make("div", {}, make("strong", {}, panel.title)), places[number]));
const colours = { dash: "#d55e00", solid: "#1f78b4" };
function draw(panel, number) {
  const plot = places[number];
  const traces = panel.curves.map((curve) => ({
    x: panel.axis, y: curve.values, name: clean(curve.name), mode: "lines", hoverinfo: "skip",
    line: { color: colours[curve.dash], width: 1.5, dash: curve.dash },
  }));
  if (panel.lines.length) {
    traces.push({
      x: panel.lines.flatMap((line) => [line.at, line.at, null]),
      y: panel.lines.flatMap((line) => [0, line.height, null]),
      mode: "lines", hoverinfo: "skip", showlegend: false, line: { color: soft(), width: 1 },
    }, {
      x: panel.lines.map((line) => line.at),
      y: panel.lines.map((line) => line.height),
      customdata: panel.lines.map((line) => line.vibration),
      text: panel.lines.map((line) => clean(line.label) + (line.motion ? `<br>${clean(line.motion)}` : "")),
      hovertemplate: "%{text}<extra></extra>",
      mode: "markers", name: "lines", marker: { symbol: "circle-open", color: soft(), size: 6 },
    });
  }
  const layout = plotLayout(panel);
  layout.yaxis = { ...layout.yaxis, range: [0, 1.08], nticks: 3, title: { text: "relative" } };
  layout.legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 };
  layout.margin = { l: 46, r: 10, t: 22, b: 40 };
  layout.font.size = 12;
  return Plotly.newPlot(plot, traces, layout, plotSettings).then(() =>
    plot.on("plotly_click", (event) => {
      const number = event.points[0].customdata;
      if (Number.isInteger(number)) choose(number);
    }));
}

if (!data.panels.length) panels.append(make("p", { class: "soft" }, "No spectra yet: simulate some."));
Promise.all(data.panels.map(draw)).then(() => { document.body.dataset.ready = "yes"; });
