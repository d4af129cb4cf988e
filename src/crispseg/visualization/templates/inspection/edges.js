"use strict";

/** Lines between the classes of the prediction: white with a dark rim, so that they are seen on everything. */
function showEdges(canvas, data, shown) {
  canvas.hidden = !shown;
  if (!shown || canvas.dataset.drawn) return;
  const [width, height] = data.size;
  [canvas.width, canvas.height] = data.size;
  canvas.dataset.drawn = "yes";
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const paint = (at, color) => pixels.data.set(color, 4 * at);
  const lines = [];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = y * width + x;
      const left = x > 0 && data.labels[at] !== data.labels[at - 1];
      const above = y > 0 && data.labels[at] !== data.labels[at - width];
      if (left || above) lines.push([x, y]);
    }
  }
  for (const [x, y] of lines) {
    for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row += 1) {
      for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column += 1) {
        paint(row * width + column, [0, 0, 0, 150]);
      }
    }
  }
  for (const [x, y] of lines) paint(y * width + x, [255, 255, 255, 255]);
  context.putImageData(pixels, 0, 0);
}
