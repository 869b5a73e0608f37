// Draws the page's figures. The service describes them without colours; each trace says its role
// (its legend group), and the style sheet has a colour per role, light and dark.
"use strict";

// The buttons stand beside the drawing, and appear when the pointer is over it.
const CONFIG = {
  displaylogo: false,
  displayModeBar: "hover",
  responsive: true,
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
};

function colour(role) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${role}`).trim();
}

function paintTrace(trace) {
  const role = trace.legendgroup;
  if (trace.type === "histogram" || trace.type === "bar") {
    return { ...trace, marker: { color: colour(role) } };
  }
  if (role.startsWith("interval-")) {
    return { ...trace, fillcolor: colour(role), line: { ...trace.line, color: colour(role) } };
  }
  return { ...trace, line: { ...trace.line, color: colour(role) } };
}

function paintLayout(layout) {
  const axis = (description) => ({
    ...description,
    gridcolor: colour("grid"),
    linecolor: colour("rule"),
    tickcolor: colour("rule"),
    tickfont: { color: colour("quiet") },
    title: { ...description.title, font: { color: colour("quiet"), size: 13 }, standoff: 12 },
  });
  return {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { ...layout.font, color: colour("ink"), family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("rule"), font: { color: colour("ink") } },
    xaxis: axis(layout.xaxis),
    yaxis: axis(layout.yaxis),
    modebar: { orientation: "v", bgcolor: "rgba(0,0,0,0)", color: colour("issue-time"), activecolor: colour("median") },
    shapes: (layout.shapes ?? []).map((shape) => ({ ...shape, line: { ...shape.line, color: colour("issue-time") } })),
    annotations: (layout.annotations ?? []).map((note) => ({ ...note, font: { color: colour("quiet"), size: 12 } })),
  };
}

function draw() {
  for (const element of document.querySelectorAll("[data-figure]")) {
    const { data, layout } = JSON.parse(document.getElementById(element.dataset.figure).textContent);
    Plotly.react(element, data.map(paintTrace), paintLayout(layout), CONFIG);
  }
}

// A changed question is asked at once.
for (const form of document.querySelectorAll("form.question")) {
  form.addEventListener("change", () => form.requestSubmit());
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
