// The server is told which pixel was clicked on, or reached by the arrow keys: x and y in pixels of the image.
const inside = (value, pixels) => Math.min(Math.max(value, 0), pixels - 1);
const sizeOf = (stage) => [Number(stage.dataset.width), Number(stage.dataset.height)];
let stageOf, place;  // the picture that was last asked about, and where
const ask = () => trigger('select', { index: place, value: null });

element.addEventListener('click', (event) => {
  const stage = event.target.closest('.cs-stage');
  if (!stage) return;
  const box = stage.getBoundingClientRect();
  const [width, height] = sizeOf(stage);
  stageOf = stage;
  place = [
    inside(Math.floor((event.clientX - box.left) / box.width * width), width),
    inside(Math.floor((event.clientY - box.top) / box.height * height), height),
  ];
  ask();
});

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
let pending;
element.addEventListener('keydown', (event) => {
  const stage = event.target.closest('.cs-stage');
  const move = MOVES[event.key];
  if (!stage || !move || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();  // the page would scroll
  const sizes = sizeOf(stage);
  if (stage !== stageOf) {
    stageOf = stage;
    place = sizes.map((pixels) => Math.floor(pixels / 2));
  }
  const step = event.shiftKey ? 1 : Math.max(Math.round(Math.max(...sizes) / 50), 1);
  place = place.map((value, axis) => inside(value + step * move[axis], sizes[axis]));
  clearTimeout(pending);  // a key that is held down asks once, at its end
  pending = setTimeout(ask, 120);
});
