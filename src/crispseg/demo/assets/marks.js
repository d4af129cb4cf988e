// What the server drew for a pixel is shown over the picture.
const show = () => {
  const source = element.querySelector('.cs-source');
  const marks = document.querySelector('#cs-picture .cs-marks');
  if (marks) marks.innerHTML = source ? source.innerHTML : '';
};
watch('value', show);
