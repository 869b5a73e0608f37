// Draws the page's figures, makes the requests of its buttons, and follows jobs. The service describes figures without
// colours; each trace says its role (its legend group), and the style sheet has a colour per role, light and dark.
"use strict";

// The buttons stand beside the drawing, and appear when the pointer is over it.
const CONFIG = {
  displaylogo: false,
  displayModeBar: "hover",
  responsive: true,
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
};

// On a phone, in pixels, names in one column would leave no room for what they name.
const NARROW = 560;
const IN_TWO_COLUMNS = { entrywidth: 0.5, entrywidthmode: "fraction", font: { size: 11 } };

function colour(role) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${role}`).trim();
}

function paintTrace(trace) {
  const role = trace.legendgroup;
  if (trace.type === "histogram" || trace.type === "bar") {
    // Bars are thinner than areas, and need more of the colour.
    return { ...trace, marker: { color: colour(role.replace("interval", "bar")) } };
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
    const painted = paintLayout(layout);
    if (element.clientWidth < NARROW) painted.legend = { ...painted.legend, ...IN_TWO_COLUMNS };
    Plotly.react(element, data.map(paintTrace), painted, CONFIG).then(() => reach(element));
  }
}

// The buttons of a figure (closer, further, all of it, as a picture) are reached by the keyboard, too.
function reach(element) {
  for (const button of element.querySelectorAll(".modebar-btn")) {
    button.tabIndex = 0;
    button.role = "button";
    button.ariaLabel = button.dataset.title;
    button.onkeydown = (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      button.click();
    };
  }
}

// A changed question is asked at once. Some forms name the element that answers them: it is put in place, and the form stays as
// it is. Of others the page comes back, where it was asked.
for (const form of document.querySelectorAll("form[method=get]")) {
  const place = form.dataset.answer;
  for (const field of form.elements) {
    field.addEventListener("change", () => {
      if (place) return answer(form, place);
      const section = field.closest("section[id]");
      form.action = form.getAttribute("action").replace(/#.*/, "") + (section ? `#${section.id}` : "");
      form.requestSubmit();
    });
  }
  if (place) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer(form, place);
    });
  }
}

let nAsked = 0;

async function answer(form, place) {
  const number = ++nAsked;
  const address = `${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`;
  document.getElementById(place).ariaBusy = "true";
  try {
    const response = await fetch(address);
    const text = await response.text();
    // What was asked in the meantime counts instead.
    if (number !== nAsked) return;
    if (!response.ok) return complain(JSON.parse(text));
    complain({});
    const page = new DOMParser().parseFromString(text, "text/html");
    document.getElementById(place).replaceWith(page.getElementById(place));
    history.replaceState(null, "", address);
    draw();
  } catch (error) {
    complain({ detail: `The service cannot be reached: ${error.message}` });
  } finally {
    if (number === nAsked) document.getElementById(place).ariaBusy = null;
  }
}

// What went wrong, as a problem says it; nothing, where nothing did.
function complain({ title, detail, errors }) {
  const details = (errors ?? []).map((error) => `${error.pointer ?? error.parameter ?? ""} ${error.message}`);
  document.getElementById("answer").textContent = [detail ?? title ?? "", ...details].filter(Boolean).join("; ");
}

// A button says which request it makes: the same that a program would.
async function call({ method, address, body, confirm: question }) {
  if (question && !confirm(question)) return;
  complain({});
  try {
    const response = await fetch(address, {
      method,
      body,
      headers: body ? { "content-type": "application/json" } : {},
    });
    const content = response.status === 204 ? {} : await response.json();
    if (!response.ok) {
      complain(content);
    } else if (response.status === 202) {
      location.href = `/jobs/${content.job_id}`;
    } else if (content.forecast_id) {
      const address = new URL(location.href);
      address.searchParams.set("forecast", content.forecast_id);
      location.href = address;
    } else {
      location.reload();
    }
  } catch (error) {
    complain({ detail: `The service cannot be reached: ${error.message}` });
  }
}

for (const button of document.querySelectorAll("button.call")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    await call(button.dataset);
    button.disabled = false;
  });
}

// A form that asks for something sends its fields as JSON.
for (const form of document.querySelectorAll("form.call")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    if (button.disabled) return;
    button.disabled = true;
    const fields = [...form.elements].filter((field) => field.name && field.value !== "");
    const value = (field) => (field.type === "number" ? field.valueAsNumber : field.value);
    const body = JSON.stringify(Object.fromEntries(fields.map((field) => [field.name, value(field)])));
    await call({ method: "POST", address: form.dataset.address, body });
    button.disabled = false;
  });
}

function addLine({ written_at, text }) {
  const log = document.getElementById("log");
  const item = log.appendChild(document.createElement("li"));
  item.appendChild(document.createElement("time")).textContent = written_at.slice(11, 19);
  item.append(` ${text}`);
  item.scrollIntoView({ block: "nearest" });
}

// A job tells what it does until it is over; then the page has its result.
function follow(section) {
  const field = (name) => section.querySelector(`[data-field="${name}"]`);
  const updates = new EventSource(section.dataset.updates);
  updates.addEventListener("line", (event) => {
    if (Number(event.lastEventId) > Number(section.dataset.line)) {
      section.dataset.line = event.lastEventId;
      addLine(JSON.parse(event.data));
    }
  });
  updates.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    field("state").textContent = job.state;
    field("state").className = `state ${job.state}`;
    field("progress").value = job.progress;
    field("activity").textContent = job.activity;
    if (job.finished_at) {
      updates.close();
      location.reload();
    }
  });
  // A stream that ends is asked for again by the browser, one that is refused is not.
  updates.addEventListener("error", () => {
    if (updates.readyState === EventSource.CLOSED) setTimeout(() => follow(section), 5000);
  });
}

for (const section of document.querySelectorAll("[data-updates]")) follow(section);

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
