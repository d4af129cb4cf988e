"use strict";

// The page's data: JSON in which arrays are base64 of zlib streams of little-endian numbers.

const ARRAYS = { uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array };

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new ARRAYS[packed.type](await new Response(stream).arrayBuffer());
}

/** Replaces every packed array in a tree by its numbers. */
async function unpackAll(tree) {
  for (const [key, value] of Object.entries(tree)) {
    if (value === null || typeof value !== "object") continue;
    if (typeof value.data === "string" && value.type in ARRAYS) tree[key] = await unpack(value);
    else await unpackAll(value);
  }
  return tree;
}

function readData() {
  return unpackAll(JSON.parse(document.getElementById("inspection").textContent));
}

/** Index of the entry of an ascending list that is nearest to a value. */
function nearest(list, value) {
  let best = 0;
  for (let index = 1; index < list.length; index += 1) {
    if (Math.abs(list[index] - value) < Math.abs(list[best] - value)) best = index;
  }
  return best;
}

/** Index, in the grid of kept pixels, of the one nearest to a pixel. */
function keptIndex(kept, x, y) {
  const [width, height] = kept.size;
  const column = Math.min(Math.round(x / kept.step), width - 1);
  const row = Math.min(Math.round(y / kept.step), height - 1);
  return row * width + column;
}
