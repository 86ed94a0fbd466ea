"use strict";
for (const film of document.querySelectorAll(".film")) {
  const [slider, output, button] = ["input", "output", "button"].map((n) => film.querySelector(n));
  const labels = film.dataset.labels.split("|");
  const maps = [...film.querySelectorAll("svg.map")].map((m) => [...m.querySelectorAll(".cells")]);
  let timer = null;
  const show = () => {
    const lead = Number(slider.value);
    for (const map of maps) map.forEach((cells, k) => cells.classList.toggle("later", k !== lead));
    output.value = labels[lead];
    slider.setAttribute("aria-valuetext", labels[lead]);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  slider.addEventListener("input", () => { stop(); show(); });
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    button.textContent = "Stop";
    timer = setInterval(() => {
      slider.value = (Number(slider.value) + 1) % labels.length;
      show();
    }, 700);
  });
  slider.value = 0; // browsers keep the last place over a reload
  show();
}
