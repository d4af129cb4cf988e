"use strict";

// Shapes over pictures. Positions are pixels of the image, (0, 0) the centre of the first one; sizes are CSS pixels.

const SVG = "http://www.w3.org/2000/svg";

/** What draws into the overlay of one stage. */
class Marks {
  constructor(stage, size) {
    this.stage = stage;
    this.width = size[0];
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
    this.svg.setAttribute("aria-hidden", "true");
    stage.append(this.svg);
  }

  /** Pixels of the image to a CSS pixel. */
  get unit() {
    return this.width / Math.max(this.stage.clientWidth, 1);
  }

  clear() {
    this.svg.replaceChildren();
  }

  shape(name, attributes) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    this.svg.append(node);
    return node;
  }

  path(d, kind) {
    this.shape("path", { d, class: `${kind} under` });
    return this.shape("path", { d, class: kind });
  }

  cross(x, y, arm, kind) {
    const [cx, cy, r] = [x + 0.5, y + 0.5, arm * this.unit];
    const node = this.path(`M${cx - r} ${cy}H${cx + r}M${cx} ${cy - r}V${cy + r}`, kind);
    node.dataset.x = x;
    node.dataset.y = y;
  }

  circle(x, y, radius, kind, color) {
    const node = this.shape("circle", { cx: x + 0.5, cy: y + 0.5, r: radius * this.unit, class: kind });
    if (color) node.style.fill = color;
    node.dataset.x = x;
    node.dataset.y = y;
  }

  arrow(x, y, toX, toY, kind) {
    this.path(arrowPath(x, y, toX, toY, 7 * this.unit), kind);
  }
}

function arrowPath(x, y, toX, toY, longestHead) {
  const [x0, y0, x1, y1] = [x + 0.5, y + 0.5, toX + 0.5, toY + 0.5];
  const length = Math.hypot(x1 - x0, y1 - y0);
  const head = Math.min(longestHead, length / 2);
  const angle = Math.atan2(y1 - y0, x1 - x0);
  const ends = [-0.5, 0.5].map((turn) => [x1 - head * Math.cos(angle + turn), y1 - head * Math.sin(angle + turn)]);
  return `M${x0} ${y0}L${x1} ${y1}M${ends[0].join(" ")}L${x1} ${y1}L${ends[1].join(" ")}`;
}
