// Segments images in its own thread, with a file of `crispseg export RUN --input uint8 --output labels`.
import * as ort from "./onnxruntime-web/ort.webgpu.min.mjs";

const AGREEMENT = 0.999; // share of WebAssembly's labels that WebGPU must have on the first image
let file; // bytes of the model's file
let chosen; // its session, and the line about it

/** Yield the number and the bytes of each field of a protobuf message that has a length. */
function* fields(bytes) {
  let position = 0;
  const varint = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = bytes[position++] ?? 0;
      value += (byte % 128) * scale;
      if (byte < 128) return value;
    }
  };
  while (position < bytes.length) {
    const tag = varint();
    const type = tag % 8;
    if (type === 0) varint();
    else if (type === 1) position += 8;
    else if (type === 5) position += 4;
    else if (type === 2) {
      const length = varint();
      yield [Math.floor(tag / 8), bytes.subarray(position, position + length)];
      position += length;
    } else return; // not protobuf
  }
}

/** Return crispseg's record of an ONNX file, from `metadata_props`, field 14, which ONNX Runtime hides in browsers. */
function metadata(bytes) {
  const decoder = new TextDecoder();
  for (const [number, property] of fields(bytes)) {
    if (number !== 14) continue;
    const [key, value] = [...fields(property)].map(([, text]) => decoder.decode(text));
    if (key === "crispseg") return JSON.parse(value);
  }
}

function open(bytes, name) {
  const record = metadata(bytes);
  if (record?.input !== "uint8" || record.output !== "labels")
    throw new Error(`${name} is not a file of crispseg export RUN --input uint8 --output labels; export the run again`);
  if (record.size || record.value_range || ![1, 3].includes(record.in_chans))
    throw new Error(`${name} does not take RGB images of 8 bits and any size; choose another model`);
  [file, chosen] = [bytes, undefined];
  return { record };
}

const session = (provider) => ort.InferenceSession.create(file, { executionProviders: [provider] });

async function timed(session, images) {
  const start = performance.now();
  const { labels } = await session.run({ images });
  return { labels: await labels.getData(), seconds: (performance.now() - start) / 1000 };
}

/** Choose WebGPU if its labels agree with those of WebAssembly and it is faster, else WebAssembly. */
async function choose(images) {
  const wasm = await session("wasm");
  let reason = "this browser has no WebGPU";
  if (await navigator.gpu?.requestAdapter()) {
    try {
      const webgpu = await session("webgpu");
      const expected = await timed(wasm, images);
      await timed(webgpu, images); // compiles the shaders
      const { labels, seconds } = await timed(webgpu, images);
      const share = labels.filter((label, index) => label === expected.labels[index]).length / labels.length;
      if (share >= AGREEMENT && seconds < expected.seconds) {
        await wasm.release();
        return { session: webgpu, line: `WebGPU; ${(100 * share).toFixed(2)} % of its labels are those of WebAssembly` };
      }
      await webgpu.release();
      const slow = `WebGPU takes ${seconds.toFixed(2)} s`;
      reason = share < AGREEMENT ? `${(100 * (1 - share)).toFixed(2)} % of WebGPU's labels differ` : slow;
    } catch (error) {
      reason = `WebGPU fails: ${error.message}`;
    }
  }
  const threads = ort.env.wasm.numThreads;
  return { session: wasm, line: `WebAssembly, ${threads > 1 ? `${threads} threads` : "one thread"}; ${reason}` };
}

async function segment(pixels, width, height) {
  const colors = new Uint8Array(3 * width * height); // RGB
  for (let from = 0, to = 0; from < pixels.length; from += 4) {
    colors[to++] = pixels[from];
    colors[to++] = pixels[from + 1];
    colors[to++] = pixels[from + 2];
  }
  const images = new ort.Tensor("uint8", colors, [1, height, width, 3]);
  chosen ??= await choose(images);
  return { ...(await timed(chosen.session, images)), line: chosen.line };
}

onmessage = async ({ data: { bytes, name, pixels, width, height } }) => {
  try {
    postMessage(bytes ? open(bytes, name) : await segment(pixels, width, height));
  } catch (error) {
    postMessage({ error: error.message });
  }
};
