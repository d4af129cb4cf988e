"use strict";

// The text next to the picture. Names of classes and files come from users: they are set as text, never as HTML.

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function swatch(color) {
  const node = element("span", "", "swatch");
  node.style.background = color;
  return node;
}

function classText(data, id) {
  if (id === 255) return [document.createTextNode("ignored")];
  return [swatch(data.colors[id]), document.createTextNode(data.names[id])];
}

function entry(list, name, ...value) {
  const cell = element("dd");
  cell.append(...value);
  list.append(element("dt", name), cell);
}

/** What is known of a pixel. */
function showPixel(data, x, y) {
  const at = y * data.size[0] + x;
  const list = element("dl");
  entry(list, "pixel (x, y)", `${x}, ${y}`);
  entry(list, "prediction", ...classText(data, data.labels[at]));
  if (data.unrefined) entry(list, "before refinement", ...classText(data, data.unrefined[at]));
  if (data.truth) {
    const verdict = data.truth[at] === 255 ? "" : data.truth[at] === data.labels[at] ? " – right" : " – wrong";
    entry(list, "truth", ...classText(data, data.truth[at]), verdict);
  }
  const { kept } = data;
  const index = keptIndex(kept, x, y);
  entry(list, "confidence", number(kept.shares[index * kept.count] / 65535));
  document.getElementById("pixel").replaceChildren(list);
  showProbabilities(data, index);
}

function showProbabilities(data, index) {
  const { kept } = data;
  const rows = [];
  for (let rank = 0; rank < kept.count; rank += 1) {
    const id = kept.ids[index * kept.count + rank];
    const share = kept.shares[index * kept.count + rank] / 65535;
    const row = element("li");
    const bar = element("span", "", "share");
    const filled = element("i");
    filled.style.width = `${100 * share}%`;
    bar.append(filled);
    const name = element("span", undefined, "name");
    name.append(...classText(data, id));
    row.append(name, bar, element("span", `${number(100 * share, 1)} %`, "value"));
    rows.push(row);
  }
  document.getElementById("probabilities").replaceChildren(...rows);
}

/** What the fields say of a pixel: the chosen one, and the other flows in short. */
function showFields(data, chosen, x, y, options) {
  const box = document.getElementById("field");
  if (!box) return;
  const field = data.fields[chosen];
  const parts = [];
  if (field) {
    parts.push(element("h3", field.title));
    const list = element("dl");
    for (const [name, value] of FIELDS[field.kind].say(field, x, y, options)) entry(list, name, value);
    if (field.kind === "flow" && options.all) entry(list, "arrows", `${arrowScale(field, data.size)} × as long as true`);
    parts.push(list);
  }
  const others = data.fields.filter((each) => each !== field && each.kind === "flow");
  if (others.length) {
    const list = element("dl");
    for (const each of others) {
      const { dx, dy } = FIELDS.flow.read(each, x, y);
      entry(list, each.title, `${number(dx)}, ${number(dy)} px of its level`);
    }
    parts.push(list);
  }
  box.replaceChildren(...parts);
}
