// A click on the picture tells the server which pixel it was, x and y in pixels of the image.
element.addEventListener('click', (event) => {
  const stage = event.target.closest('.cs-stage');
  if (!stage) return;
  const box = stage.getBoundingClientRect();
  const place = (at, start, length, pixels) =>
    Math.min(Math.max(Math.floor((at - start) / length * pixels), 0), pixels - 1);
  trigger('select', {
    index: [
      place(event.clientX, box.left, box.width, Number(stage.dataset.width)),
      place(event.clientY, box.top, box.height, Number(stage.dataset.height)),
    ],
    value: null,
  });
});
