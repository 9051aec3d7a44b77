// Accuracy over cost, a point per setting, by Plotly.

import * as board from "board";
import { text } from "chunks";
import { COSTS, address, fill, number, percent } from "format";

const form = document.getElementById("plots-controls");
// Okabe and Ito without yellow; with shapes of another count, so that a pair comes again late.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"];
const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "x", "triangle-down", "star", "hexagon", "pentagon", "bowtie"];
let loading = null;

/** Return the library, which is unpacked when the first figure is drawn. */
function library() {
  loading ??= text("plotly").then((source) => {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
    return window.Plotly;
  });
  return loading;
}

export function prepare() {
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    const values = { ...Object.fromEntries(new FormData(form)), log: form.log.checked ? "on" : "off" };
    open(values);
    history.replaceState(null, "", address("plots", values));
  });
}

export async function open(wanted) {
  const task = fill(form.task, board.tasks().map((one) => [one, one]), wanted.task);
  const model = fill(form.model, board.models(task).map((one) => [one, one]), wanted.model);
  const all = board.on(task, model);
  // Means over fewer tasks are of other samples.
  const most = Math.max(...all.map((one) => one.tasks));
  const rows = all.filter((one) => one.tasks === most);
  const cost = fill(form.cost, costs(rows), wanted.cost);
  form.log.checked = wanted.log !== "off";
  await figure("plots-figure", rows, cost, form.log.checked);
}

function costs(rows) {
  const known = Object.keys(COSTS).filter((cost) => rows.some((one) => one[cost] !== null));
  return known.map((cost) => [cost, COSTS[cost].label]);
}

/** Draw settings into a place of the page. */
export async function figure(id, rows, cost, log) {
  const place = document.getElementById(id);
  const plotly = await library();
  const points = rows.filter((one) => one[cost] !== null);
  const variants = [...new Set(points.map((one) => one.variant))];
  const traces = variants.map((name, at) => points_of(points.filter((one) => one.variant === name), name, at, cost));
  if (!points.length) return plotly.purge(place);
  await plotly.react(place, [front(points, cost), ...traces], layout(cost, log), { responsive: true, displayModeBar: false });
  // What was hidden has not followed the window.
  await plotly.Plots.resize(place);
  place.removeAllListeners("plotly_click");
  place.on("plotly_click", ({ points: [point] }) => {
    const runs = point.data.customdata?.[point.pointNumber];
    if (runs?.length === 1) location.hash = address("run", { id: runs[0] });
  });
}

const scaled = (one, cost) => one[cost] * COSTS[cost].scale;

function points_of(rows, name, at, cost) {
  const up = (pick) => rows.map(({ accuracy: [value, low, high] }) => 100 * pick(value, low, high));
  return {
    type: "scatter",
    mode: "markers",
    name: escaped(name),
    x: rows.map((one) => scaled(one, cost)),
    y: up((value) => value),
    error_y: { type: "data", symmetric: false, array: up((value, low, high) => high - value),
               arrayminus: up((value, low) => value - low), thickness: 1, width: 2 },
    marker: { size: 9, color: COLOURS[at % COLOURS.length],
              symbol: rows.map((one) => SHAPES[at % SHAPES.length] + (one.beaten.includes(cost) ? "-open" : "")) },
    customdata: rows.map((one) => one.runs),
    text: rows.map((one) => escaped(hover(one))).map((line) => line.replaceAll("\n", "<br>")),
    hovertemplate: "%{text}<extra></extra>",
  };
}

function hover(one) {
  const [value, low, high] = one.accuracy;
  const against = one.verdict === "none" ? "" : `\nagainst ${one.baseline}: ${one.verdict}`;
  return `${one.setting}\naccuracy ${percent(value)} [${percent(low)}, ${percent(high)}] %, n ${one.n}\n`
    + `nfe ${number(one.nfe)}, tpf ${number(one.tpf, 2)}, efe ${number(one.efe)}, query ${number(one.query_tokens, 0)}${against}`;
}

/** Return text as what Plotly, which knows some markup, shows as it stands. */
function escaped(line) {
  return line.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function front(rows, cost) {
  const on = rows.filter((one) => one.front.includes(cost)).sort((a, b) => a[cost] - b[cost]);
  return {
    type: "scatter", mode: "lines", name: "front", hoverinfo: "skip",
    x: on.map((one) => scaled(one, cost)), y: on.map((one) => 100 * one.accuracy[0]),
    line: { color: "#6e6e6e", width: 5 }, opacity: 0.35,
  };
}

function layout(cost, log) {
  const narrow = window.innerWidth < 700;
  const ticks = [-2, -1, 0, 1, 2, 3, 4, 5].flatMap((ten) => [1, 2, 5].map((one) => Number(`${one}e${ten}`)));
  const axis = log ? { type: "log", tickmode: "array", tickvals: ticks, ticktext: ticks.map(String) } : { rangemode: "tozero" };
  return {
    height: narrow ? 620 : 520,
    margin: { l: 60, r: 20, t: 20, b: 60 },
    font: { family: "system-ui, sans-serif", size: 13, color: "#1b1b1b" },
    xaxis: { title: { text: COSTS[cost].label }, gridcolor: "#e6e6e6", ...axis },
    yaxis: { title: { text: "accuracy, %" }, gridcolor: "#e6e6e6", rangemode: "tozero" },
    legend: narrow ? { orientation: "h", y: -0.2 } : { y: 1 },
    hovermode: "closest",
  };
}
