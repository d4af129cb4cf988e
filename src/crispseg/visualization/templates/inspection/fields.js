"use strict";

// What the model computed at a pixel. Each kind of field has `read`, its numbers there; `draw`; and `say`, rows of text.

const GROUP_COLORS = ["#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#b15fd9", "#42d4f4", "#f032e6"];

const number = (value, digits = 2) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1");
const place = (x, y) => `(${number(x, 1)}, ${number(y, 1)})`;

const FIELDS = {
  flow: {
    read(field, x, y) {
      const [width, height] = field.size;
      const column = Math.min(Math.max(Math.round((x - field.origin[0]) / field.pitch[0]), 0), width - 1);
      const row = Math.min(Math.max(Math.round((y - field.origin[1]) / field.pitch[1]), 0), height - 1);
      const at = 2 * (row * width + column);
      const [dx, dy] = [field.vectors[at] * field.step, field.vectors[at + 1] * field.step];
      const from = [field.origin[0] + column * field.pitch[0], field.origin[1] + row * field.pitch[1]];
      return { dx, dy, from, to: [from[0] + dx * field.pitch[0], from[1] + dy * field.pitch[1]] };
    },
    draw(field, marks, x, y, options) {
      if (options.all) drawArrows(field, marks, options.size);
      const { from, to } = this.read(field, x, y);
      marks.arrow(...from, ...to, "vector");
      marks.circle(...to, 4, "point");
    },
    say(field, x, y) {
      const { dx, dy, to } = this.read(field, x, y);
      return [
        ["displacement (x, y)", `${number(dx)}, ${number(dy)} px of its level`],
        ["length", `${number(Math.hypot(dx, dy))} px; longest in the image ${number(field.longest)} px`],
        ["level", `${field.size[0]} × ${field.size[1]} pixels`],
        ["position in the coarse level", `${place(...to)} px of the image`],
      ];
    },
  },

  points: {
    read(field, x, y) {
      const [column, row] = [nearest(field.xs, x), nearest(field.ys, y)];
      const count = field.groups.length * field.number;
      const first = (row * field.xs.length + column) * count;
      const points = Array.from({ length: count }, (_, index) => ({
        x: field.places[2 * (first + index)] * field.step,
        y: field.places[2 * (first + index) + 1] * field.step,
        weight: (field.weights[first + index] / 255) * field.top,
        group: Math.floor(index / field.number),
      }));
      return { from: [field.xs[column], field.ys[row]], points };
    },
    chosen(field, x, y, options) {
      const found = this.read(field, x, y);
      if (options.group < 0) return found;
      return { ...found, points: found.points.filter((point) => point.group === options.group) };
    },
    draw(field, marks, x, y, options) {
      const { from, points } = this.chosen(field, x, y, options);
      const top = Math.max(...points.map((point) => point.weight)) || 1;
      const small = Math.min(Math.max(marks.stage.clientWidth / 800, 0.4), 1);
      for (const point of points) {
        const color = field.groups.length > 1 ? GROUP_COLORS[point.group % GROUP_COLORS.length] : "";
        marks.circle(point.x, point.y, small * (2 + 5 * Math.sqrt(point.weight / top)), "point", color);
      }
      marks.cross(...from, 7, "origin");
    },
    say(field, x, y, options) {
      const { from, points } = this.chosen(field, x, y, options);
      const sum = points.reduce((total, point) => total + point.weight, 0);
      const mean = (key) => points.reduce((total, point) => total + point.weight * point[key], 0) / (sum || 1);
      const outside = points.filter((p) => p.x < -0.5 || p.y < -0.5 || p.x > options.size[0] - 0.5
        || p.y > options.size[1] - 0.5).length;
      const rows = [
        ["points", `${points.length}, of these ${outside} outside the image`],
        ["weights", `${number(Math.min(...points.map((p) => p.weight)), 3)} to ${
          number(Math.max(...points.map((p) => p.weight)), 3)}, sum ${number(sum)}`],
        ["weighted centre", `${place(mean("x"), mean("y"))} px of the image`],
        ["sampled for", `the level's pixel at ${place(...from)} px; level of ${field.size.join(" × ")}`],
      ];
      if (field.every > 1) rows.push(["kept here", `every ${field.every}th row and column of the level`]);
      return rows;
    },
  },
};

/** Arrows on a grid, as many times too long as makes them visible. */
function drawArrows(field, marks, size) {
  const spacing = Math.max(...size) / 24;
  const scale = arrowScale(field, size);
  let d = "";
  for (let y = spacing / 2; y < size[1] - 0.5; y += spacing) {
    for (let x = spacing / 2; x < size[0] - 0.5; x += spacing) {
      const { from, to } = FIELDS.flow.read(field, x, y);
      const [dx, dy] = [scale * (to[0] - from[0]), scale * (to[1] - from[1])];
      d += arrowPath(x, y, x + dx, y + dy, 5 * marks.unit);
    }
  }
  marks.path(d, "vectors");
}

function arrowScale(field, size) {
  const spacing = Math.max(...size) / 24;
  const longest = field.longest * Math.max(...field.pitch);
  return longest > 0 && longest < spacing ? 2 ** Math.ceil(Math.log2(spacing / longest)) : 1;
}
