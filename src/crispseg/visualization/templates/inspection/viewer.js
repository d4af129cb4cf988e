"use strict";

// The large picture, its controls, and the pixel that is pointed at: on it or on any small picture.

async function start() {
  const data = await readData();
  const [width, height] = data.size;
  const main = document.getElementById("stage");
  const find = (id) => document.getElementById(id);
  const controls = { layer: find("layer"), opacity: find("opacity"), field: find("marks"), group: find("group"),
    all: find("all") };
  const stages = [...document.querySelectorAll(".stage")].map((stage) => ({ stage, marks: new Marks(stage, data.size) }));
  const state = { x: Math.floor(width / 2), y: Math.floor(height / 2), pinned: false };
  main.setAttribute("tabindex", "0");

  const options = () => ({
    group: controls.group ? Number(controls.group.value) : -1,
    all: Boolean(controls.all && controls.all.checked),
    size: data.size,
  });

  function draw() {
    const chosen = controls.field ? Number(controls.field.value) : -1;
    for (const { stage, marks } of stages) {
      marks.clear();
      const field = stage === main ? data.fields[chosen] : null;
      if (field) FIELDS[field.kind].draw(field, marks, state.x, state.y, options());
      marks.cross(state.x, state.y, stage === main ? 9 : 5, "pixel");
    }
    showPixel(data, state.x, state.y);
    showFields(data, chosen, state.x, state.y, options());
    const hint = state.pinned ? "Pinned. Escape lets go." : "Click to pin, or move by the arrow keys.";
    if (find("pinned").textContent !== hint) find("pinned").textContent = hint;
  }

  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }

  function move(x, y) {
    state.x = Math.min(Math.max(x, 0), width - 1);
    state.y = Math.min(Math.max(y, 0), height - 1);
    redraw();
  }

  function pointed(stage, event) {
    const box = stage.getBoundingClientRect();
    move(Math.floor(((event.clientX - box.left) / box.width) * width),
      Math.floor(((event.clientY - box.top) / box.height) * height));
  }

  for (const { stage } of stages) {
    stage.addEventListener("pointermove", (event) => {
      if (!state.pinned && event.pointerType === "mouse") pointed(stage, event);
    });
    stage.addEventListener("click", (event) => {
      state.pinned = true;
      pointed(stage, event);
    });
  }

  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  main.addEventListener("keydown", (event) => {
    if (event.key in steps) {
      const far = event.shiftKey ? 10 : 1;
      state.pinned = true;
      event.preventDefault();
      move(state.x + far * steps[event.key][0], state.y + far * steps[event.key][1]);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      state.pinned = false;
      redraw();
    }
  });

  function showLayer() {
    const source = document.querySelector(`[data-layer="${CSS.escape(controls.layer.value)}"] img`);
    const shown = find("shown");
    shown.hidden = !source;
    if (source) {
      shown.src = source.src;
      shown.className = source.parentElement.classList.contains("exact") ? "exact" : "";
      shown.style.opacity = controls.opacity.value / 100;
    }
    find("percent").textContent = `${controls.opacity.value} %`;
  }

  /** The choices that the chosen field has: heads and levels, or arrows all over the image. */
  function offerChoices() {
    const field = data.fields[Number(controls.field.value)] ?? {};
    const names = field.groups ?? [];
    controls.group.replaceChildren(...["all", ...names].map((name, index) => {
      const choice = element("option", name);
      choice.value = index - 1;
      return choice;
    }));
    find("group-row").hidden = names.length < 2;
    find("all-row").hidden = field.kind !== "flow";
  }

  find("outlined").addEventListener("input", (event) => { find("edges").hidden = !event.target.checked; });
  controls.layer.addEventListener("input", showLayer);
  controls.opacity.addEventListener("input", showLayer);
  if (controls.field) {
    controls.field.addEventListener("input", () => {
      offerChoices();
      redraw();
    });
    controls.group.addEventListener("input", redraw);
    controls.all.addEventListener("input", redraw);
    offerChoices();
  }
  for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", redraw);
  new ResizeObserver(redraw).observe(main);
  const page = document.documentElement;
  if (parent !== window) new ResizeObserver(() => parent.postMessage(page.offsetHeight, "*")).observe(page);
  showLayer();
  draw();
  document.body.dataset.ready = "yes";
}

start().catch((error) => {
  document.getElementById("pinned").textContent = `This browser cannot show the details: ${error.message}`;
});
