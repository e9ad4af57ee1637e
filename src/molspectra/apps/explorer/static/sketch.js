// A molecule that is drawn; its SMILES is told to the page after every change.
import { CanvasEditor } from "./vendor/openchemlib.js";

const box = document.createElement("div");
box.id = "editor";
box.style.cssText = "height:100%;background:#ffffff;color-scheme:light";
document.body.append(box);

// The editor takes the size that its box has when it is made, which is none while the frame is folded away.
new ResizeObserver((_, observer) => {
  if (!box.clientWidth || !box.clientHeight) return;
  observer.disconnect();
  const editor = new CanvasEditor(box);
  editor.setOnChangeListener((event) => {
    if (event.type !== "molecule" || !event.isUserEvent) return;
    parent.postMessage({ choice: editor.getMolecule().toIsomericSmiles() }, "*");
  });
  document.body.dataset.ready = "yes";
}).observe(box);
