"use strict";
// Fills the page from the JSON in it: charts by Plotly, the timeline of samples, the walk between z.
const content = JSON.parse(document.getElementById("content").textContent);

// A slider with a button that plays: show(number) draws picture `number` and returns its name.
function player(figure, milliseconds, show) {
  const slider = figure.querySelector("input"), button = figure.querySelector("button");
  const output = figure.querySelector("output"), action = button.getAttribute("aria-label");
  const last = Number(slider.max);
  let timer = null;
  function draw() {
    const name = show(Number(slider.value));
    output.textContent = name;
    slider.setAttribute("aria-valuetext", name);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
    button.setAttribute("aria-label", action);
  }
  function play() {
    timer = setInterval(() => { slider.value = (Number(slider.value) + 1) % (last + 1); draw(); }, milliseconds);
    button.textContent = "Pause";
    button.setAttribute("aria-label", action.replace("Play", "Pause"));
  }
  slider.addEventListener("input", () => { stop(); draw(); });
  button.addEventListener("click", () => (timer === null ? play() : stop()));
  button.disabled = slider.disabled = last === 0;
  draw();
}

for (const figure of document.querySelectorAll(".timeline")) {
  const run = content.runs[Number(figure.dataset.run)], picture = figure.querySelector("img");
  const pictures = [...run.samples, picture.src];  // the last one is on the page from the start
  player(figure, 400, (number) => {
    const step = run.steps[number], best = step === run.best ? " (the best)" : "";
    picture.src = pictures[number];
    picture.alt = `Samples at step ${step}`;
    return `step ${step.toLocaleString("en")}${best}`;
  });
}

for (const figure of document.querySelectorAll(".walk")) {
  const { frames, columns, rows } = content.runs[Number(figure.dataset.run)].walk;
  const sheet = new Image(), canvas = figure.querySelector("canvas"), count = columns * rows;
  sheet.addEventListener("load", () => {
    const width = sheet.naturalWidth / columns, height = sheet.naturalHeight / rows;
    canvas.width = Math.floor(width);
    canvas.height = Math.floor(height);
    player(figure, 90, (number) => {
      const left = (number % columns) * width, top = Math.floor(number / columns) * height;
      canvas.getContext("2d").drawImage(sheet, left, top, width, height, 0, 0, canvas.width, canvas.height);
      return `frame ${number + 1} of ${count}`;
    });
  });
  sheet.src = frames;
}

// Named one by one: by default there is one that sends a chart away.
const BUTTONS = [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]];
const dark = matchMedia("(prefers-color-scheme: dark)"), touch = matchMedia("(pointer: coarse)");

// Plotly draws by itself, so the colours of the page are told to it, again when they change.
function colours() {
  const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { gridcolor: of("--line"), linecolor: of("--line"), tickcolor: of("--line") };
  const changes = {
    "font.color": of("--text"), "hoverlabel.bgcolor": of("--card"), "hoverlabel.bordercolor": of("--line"),
    "hoverlabel.font.color": of("--text"), "modebar.color": of("--quiet"), "modebar.activecolor": of("--accent"),
    "modebar.bgcolor": "rgba(0,0,0,0)",
  };
  for (const [name, value] of Object.entries(axis)) {
    changes[`xaxis.${name}`] = changes[`yaxis.${name}`] = value;
  }
  return changes;
}

document.querySelectorAll(".chart").forEach((figure, number) => {
  const plot = figure.querySelector(".plot"), { data, layout } = content.charts[number];
  // With a finger one scrolls the page; a mouse zooms.
  layout.dragmode = touch.matches ? false : "zoom";
  layout.font = { family: "system-ui, sans-serif", size: 12 };
  const config = { responsive: true, displaylogo: false, displayModeBar: true, modeBarButtons: BUTTONS };
  Plotly.newPlot(plot, data, layout, config).then(() => Plotly.relayout(plot, colours()));
  dark.addEventListener("change", () => Plotly.relayout(plot, colours()));
  figure.querySelector(".logarithmic").addEventListener("change", (event) => {
    Plotly.relayout(plot, { "yaxis.type": event.target.checked ? "log" : "linear", "yaxis.autorange": true });
  });
});
