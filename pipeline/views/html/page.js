"use strict";
/* Draws every chart of the page when it comes into view, in the colours of the page, without the lines that its panel's
   checkboxes hide; and again whenever either changes. */

const dark = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)");
const drawn = new Set();

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function translucent(color) {
  return color + (dark.matches ? "40" : "2b");
}

/** A trace as the page shows it now: themed, and hidden if a checkbox says so. */
function shown(trace, hidden) {
  const { role, colors, keys } = trace.meta;
  const color = colors.length ? colors[dark.matches ? 1 : 0] : css("--muted");
  const visible = !Object.entries(keys).some(([key, value]) => hidden.has(key + "\n" + value));
  if (role === "gram") {
    const colorscale = [[0, css("--low")], [0.5, css("--panel")], [1, css("--high")]];
    return { ...trace, colorscale, textfont: { color: css("--ink") } };
  }
  if (role === "band") return { ...trace, visible, fillcolor: translucent(color) };
  const themed = { ...trace, visible, line: { ...trace.line, color } };
  if (trace.marker) themed.marker = { ...trace.marker, color };
  if (trace.error_y) themed.error_y = { ...trace.error_y, color };
  return themed;
}

function layoutOf(layout) {
  const axis = {
    gridcolor: css("--rule"), zeroline: false, linecolor: css("--rule"), showline: true, ticks: "outside", ticklen: 4,
    tickcolor: css("--rule"),
  };
  return {
    ...layout,
    autosize: true,
    margin: { l: 8, r: 12, t: 8, b: layout.xaxis.title ? 40 : 24 },
    paper_bgcolor: css("--panel"),
    plot_bgcolor: css("--panel"),
    font: { color: css("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
    colorway: [css("--muted")],
    dragmode: touch.matches ? false : "zoom", // on a touch screen dragging scrolls the page
    hoverlabel: { bgcolor: css("--ground"), bordercolor: css("--rule"), font: { color: css("--ink") }, namelength: -1 },
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
}

function hiddenIn(panel) {
  const boxes = panel ? [...panel.querySelectorAll("input[data-key]")] : [];
  return new Set(boxes.filter((box) => !box.checked).map((box) => box.dataset.key + "\n" + box.dataset.value));
}

function draw(figure) {
  const { data, layout } = JSON.parse(figure.querySelector(".chart-data").textContent);
  const hidden = hiddenIn(figure.closest(".panel"));
  const options = {
    responsive: true,
    displaylogo: false,
    displayModeBar: touch.matches || figure.matches(".gram") ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  drawn.add(figure);
  return Plotly.react(figure.querySelector(".plot"), data.map((trace) => shown(trace, hidden)), layoutOf(layout), options);
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "400px" });

const figures = [...document.querySelectorAll("figure")];
figures.forEach((figure) => watcher.observe(figure));
dark.addEventListener("change", () => drawn.forEach(draw));
addEventListener("beforeprint", () => figures.forEach(draw));

document.addEventListener("change", (event) => {
  if (event.target.matches("input[data-key]")) {
    event.target.closest(".panel").querySelectorAll("figure").forEach((figure) => drawn.has(figure) && draw(figure));
  }
});

document.addEventListener("click", (event) => {
  if (event.target.matches("button[data-all]")) {
    const boxes = [...event.target.closest("fieldset").querySelectorAll("input")];
    const checked = !boxes.every((box) => box.checked);
    boxes.forEach((box) => { box.checked = checked; });
    boxes[0].dispatchEvent(new Event("change", { bubbles: true }));
  }
});
