// A structure that turns with the mouse, and moves along a vibration; used by several frames.
"use strict";

const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
const soft = () => getComputedStyle(document.documentElement).getPropertyValue("--soft").trim();
const line = () => getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
const paper = () => getComputedStyle(document.documentElement).getPropertyValue("--page").trim();
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Plotly takes its texts for a kind of HTML.
function clean(text) {
  return text.replace(/[<>&]/g, (sign) => ({ "<": "&lt;", ">": "&gt;", "&": "&amp;" })[sign]);
}

class Viewer {
  constructor(box, structure) {
    this.box = box;
    this.structure = structure;
    this.view = null;
    try {
      this.view = $3Dmol.createViewer(box, { backgroundColor: paper(), backgroundAlpha: 1 });
    } catch (error) {
      this.view = null;
    }
    if (!this.view) {
      box.append(make("p", { class: "soft" }, "The structure in 3D needs WebGL, which this browser lacks."));
      return;
    }
    this.show(null);
    this.view.zoomTo();
    this.view.render();
    addEventListener("resize", () => this.view.resize());
  }

  text(moves) {
    const rows = this.structure.symbols.map((symbol, atom) => {
      const place = this.structure.positions[atom].join(" ");
      return moves ? `${symbol} ${place} ${moves[atom].join(" ")}` : `${symbol} ${place}`;
    });
    return `${rows.length}\n\n${rows.join("\n")}\n`;
  }

  show(moves) {
    if (!this.view) return;
    this.view.stopAnimate();
    this.view.removeAllModels();
    this.view.addModel(this.text(moves), "xyz");
    this.view.setStyle({}, { stick: { radius: 0.13 }, sphere: { scale: 0.26 } });
    if (moves) {
      const arrow = { radius: 0.05, color: "#d55e00" };
      this.view.vibrate(12, calm ? 0.001 : 0.45, true, arrow);
      if (!calm) this.view.animate({ loop: "backAndForth", interval: 45 });
    } else {
      this.view.removeAllShapes();
    }
    this.box.dataset.moving = moves ? "yes" : "no";
    this.view.render();
  }
}

function plotLayout(data) {
  const axis = { gridcolor: line(), zerolinecolor: soft(), linecolor: soft(), ticks: "outside" };
  return {
    margin: { l: 52, r: 10, t: 10, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink(), size: 13 },
    showlegend: true,
    legend: { orientation: "h", y: 1.12 },
    xaxis: { ...axis, title: { text: data.axisTitle }, range: data.range, zeroline: false },
    yaxis: { ...axis },
  };
}

const plotSettings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
