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
function shown(trace, hidden, palette) {
  const { role, keys } = trace.meta;
  const colors = (palette && palette[keys.run]) || trace.meta.colors;
  const color = colors.length ? colors[dark.matches ? 1 : 0] : css("--muted");
  const visible = !Object.entries(keys).some(([key, value]) => hidden.has(key + "\n" + value));
  if (role === "gram") {
    const colorscale = [[0, css("--low")], [0.5, css("--panel")], [1, css("--high")]];
    return { ...trace, colorscale, textfont: { color: css("--ink") } };
  }
  if (role === "heat") {
    const colorscale = [[0, css("--cool")], [0.5, css("--warm")], [1, css("--hot")]];
    return { ...trace, colorscale, textfont: { color: css("--on-heat") }, xgap: 2, ygap: 2 };
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

/** The colours that the runs of a panel have by what is chosen there; null where nothing is to choose. */
function paletteOf(panel) {
  const choice = panel?.querySelector("select[data-colors]");
  return choice && JSON.parse(panel.querySelector(".palettes").textContent)[choice.value];
}

/** Two of them stand side by side on A4 and letter. A page is laid out for print after its script was asked to draw. */
const PRINTED = { autosize: false, width: 310, height: 300 };

function draw(figure, printed = false) {
  const { data, layout } = JSON.parse(figure.querySelector(".chart-data").textContent);
  const panel = figure.closest(".panel"), hidden = hiddenIn(panel), palette = paletteOf(panel);
  const options = {
    responsive: !printed,
    displaylogo: false,
    displayModeBar: touch.matches || data.some((trace) => trace.type === "heatmap") ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  drawn.add(figure);
  const size = printed && !figure.matches(".gram") ? PRINTED : {};
  const traces = data.map((trace) => shown(trace, hidden, palette));
  return Plotly.react(figure.querySelector(".plot"), traces, { ...layoutOf(layout), ...size }, options);
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
const again = () => drawn.forEach((figure) => draw(figure));
dark.addEventListener("change", again);
addEventListener("beforeprint", () => figures.forEach((figure) => draw(figure, true)));
addEventListener("afterprint", again);

document.addEventListener("change", (event) => {
  if (event.target.matches("input[data-key]")) {
    event.target.closest(".panel").querySelectorAll("figure").forEach((figure) => drawn.has(figure) && draw(figure));
  }
});

document.addEventListener("change", (event) => {
  if (event.target.matches("select[data-colors]")) {
    const panel = event.target.closest(".panel"), palette = paletteOf(panel);
    for (const box of panel.querySelectorAll("input[data-key=run]")) {
      const [light, dark] = palette[box.dataset.value];
      box.parentElement.querySelector(".swatch").style = `--light:${light};--dark:${dark}`;
    }
    panel.querySelectorAll("figure").forEach((figure) => drawn.has(figure) && draw(figure));
  }
});

/** Rows of a table by a column: numbers by size, words by the alphabet, what is missing last; again: the other way. */
function sortBy(head) {
  const body = head.closest("table").tBodies[0];
  const falling = head.getAttribute("aria-sort") === "ascending";
  const cell = (row) => row.cells[head.cellIndex].textContent.trim();
  const rank = (text) => (text === "-" || text === "" ? 2 : Number.isNaN(Number(text)) ? 1 : 0);
  const rows = [...body.rows].sort((first, second) => {
    const [a, b] = [cell(first), cell(second)], [ra, rb] = [rank(a), rank(b)];
    if (ra !== rb) return ra - rb;
    const order = ra === 0 ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
    return falling ? -order : order;
  });
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  body.append(...rows);
}

for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  button.addEventListener("click", () => sortBy(head));
  head.append(button);
}

document.addEventListener("click", (event) => {
  if (event.target.matches("button[data-all]")) {
    const boxes = [...event.target.closest("fieldset").querySelectorAll("input")];
    const checked = !boxes.every((box) => box.checked);
    boxes.forEach((box) => { box.checked = checked; });
    boxes[0].dispatchEvent(new Event("change", { bubbles: true }));
  }
});
