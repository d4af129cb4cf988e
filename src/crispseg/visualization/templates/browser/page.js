// Shows an image, its labels and the shares of the classes; worker.js runs the model.
const LARGEST = 2 ** 20; // pixels; larger images are reduced
const SMALLEST = 32; // pixels of a side

const element = (id) => document.getElementById(id);
const [picture, overlay] = [element("picture"), element("labels")];
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const failure = new Promise((_, reject) => {
  worker.onerror = () => reject(new Error("worker.js or a file of onnxruntime-web cannot be loaded"));
});
let record; // metadata of the model
let camera; // stream while the camera is on
let tasks = Promise.resolve();

/** Send a message to the worker and return its answer. */
function ask(message, buffer) {
  const answer = new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
    worker.postMessage(message, [buffer]);
  });
  return Promise.race([answer, failure]);
}

function say(text, kind = "soft") {
  Object.assign(element("status"), { textContent: text, className: kind });
}

/** Run a task after the earlier ones, and show its error. */
function run(text, task) {
  delete document.body.dataset.ready;
  tasks = tasks.then(async () => {
    say(text);
    await task().then((line) => say(line ?? ""), (error) => say(error.message, "error"));
    document.body.dataset.ready = "yes";
  });
}

async function openModel(bytes, name) {
  ({ record } = await ask({ bytes, name }, bytes.buffer));
  element("title").textContent = `${record.name} on ${record.backbone}`;
  element("file").disabled = element("camera").disabled = false;
  element("time").textContent = element("backend").textContent = "";
  clear(picture);
  clear(overlay);
  showLegend([]);
}

async function openImage(file) {
  if (!record) throw new Error("Choose a model first");
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" }; // the values of the file, as in training
  const bitmap = await createImageBitmap(file, options).catch(() => {
    throw new Error(`This browser cannot read ${file.name} as an image`);
  });
  clear(overlay);
  await segment(bitmap, bitmap.width, bitmap.height, true);
}

async function segment(source, sourceWidth, sourceHeight, shownFirst) {
  if (Math.min(sourceWidth, sourceHeight) < SMALLEST)
    throw new Error(`The image is ${sourceWidth} × ${sourceHeight}; give at least ${SMALLEST} pixels a side`);
  const scale = Math.min(1, Math.sqrt(LARGEST / (sourceWidth * sourceHeight)));
  const [width, height] = [sourceWidth, sourceHeight].map((side) => Math.max(SMALLEST, Math.floor(scale * side)));
  const context = new OffscreenCanvas(width, height).getContext("2d", { alpha: false, willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  if (shownFirst) draw(picture, image);
  const pixels = image.data.slice();
  const { labels, seconds, line } = await ask({ pixels, width, height }, pixels.buffer);
  draw(picture, image);
  draw(overlay, colored(labels, width, height));
  showLegend(labels);
  const reduced = scale < 1 ? `, reduced from ${sourceWidth} × ${sourceHeight}` : "";
  element("time").textContent = `${seconds.toFixed(2)} s for ${width} × ${height} pixels${reduced}`;
  element("backend").textContent = line;
}

function draw(canvas, image) {
  Object.assign(canvas, { width: image.width, height: image.height }).getContext("2d").putImageData(image, 0, 0);
  canvas.classList.add("drawn");
}

function clear(canvas) {
  Object.assign(canvas, { width: 0, height: 0 }).classList.remove("drawn");
}

function colored(labels, width, height) {
  const image = new ImageData(width, height);
  const colors = new Uint32Array(image.data.buffer); // one RGBA color each
  const palette = record.palette.map((color) => new Uint32Array(Uint8Array.of(...color, 255).buffer)[0]);
  labels.forEach((label, index) => (colors[index] = palette[label]));
  return image;
}

function showLegend(labels) {
  const counts = record.class_names.map(() => 0);
  for (const label of labels) counts[label] += 1;
  const rows = counts.map((count, label) => {
    const [row, swatch, bar, share] = ["tr", "span", "div", "div"].map((tag) => document.createElement(tag));
    const percent = labels.length ? `${((100 * count) / labels.length).toFixed(1)} %` : "";
    [swatch.className, bar.className] = ["swatch", "bar"];
    swatch.style.background = `rgb(${record.palette[label]})`;
    share.style.width = percent.replace(" ", "") || 0;
    bar.append(share);
    row.insertCell().append(swatch, record.class_names[label]);
    row.insertCell().append(bar);
    row.insertCell().append(percent);
    return row;
  });
  element("legend").replaceChildren(...rows);
}

async function startCamera() {
  camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  element("camera").textContent = "Stop the camera";
  const video = Object.assign(document.createElement("video"), { srcObject: camera, muted: true, playsInline: true });
  try {
    await video.play();
    while (camera) await segment(video, video.videoWidth, video.videoHeight, false);
  } finally {
    stopCamera();
  }
}

function stopCamera() {
  for (const track of camera?.getTracks() ?? []) track.stop();
  camera = undefined;
  element("camera").textContent = "Start the camera";
}

function open(file) {
  if (!file) return;
  stopCamera();
  if (file.name.endsWith(".onnx"))
    run("Opening the model …", async () => openModel(new Uint8Array(await file.arrayBuffer()), file.name));
  else run("Segmenting …", () => openImage(file));
}

for (const id of ["file", "model"]) {
  element(id).addEventListener("change", ({ target }) => {
    open(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  });
}
element("camera").addEventListener("click", () => (camera ? stopCamera() : run("", startCamera)));
element("opacity").addEventListener("input", ({ target }) => (overlay.style.opacity = target.value / 100));
for (const type of ["dragover", "dragleave", "drop"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    element("stage").classList.toggle("over", type === "dragover");
    if (type === "drop") open(event.dataTransfer.files[0]);
  });
}
run("Loading the model …", async () => {
  const answer = await fetch("./model.onnx");
  if (!answer.ok) return "Choose a model: a file of crispseg export RUN --input uint8 --output labels";
  await openModel(new Uint8Array(await answer.arrayBuffer()), "model.onnx");
});
