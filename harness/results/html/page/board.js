// The leaderboard: settings beside each other, filtered as the address says.

import { COSTS, address, element, fill, link, number, percent } from "format";
import { table } from "table";

const form = document.getElementById("board-controls");
export const ALL = "all tasks";
let standings = [];

export function prepare(board) {
  standings = board.standings;
  const told = Object.entries(board.filters).map(([column, values]) => `${column}=${values.join(",")}`);
  document.getElementById("board-scope").textContent = told.length ? `Runs with ${told.join(" ")}` : "";
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    const values = Object.fromEntries(new FormData(form));
    open(values);
    history.replaceState(null, "", address("board", values));
  });
}

export function tasks() {
  return [...new Set(standings.map((one) => one.task ?? ALL))];
}

export function models(task) {
  return [...new Set(standings.filter((one) => (one.task ?? ALL) === task).map((one) => one.model))];
}

/** Return the standings on a task, or over all of them. */
export function on(task, model) {
  return standings.filter((one) => (one.task ?? ALL) === task && (!model || one.model === model));
}

export function open(wanted) {
  const task = fill(form.task, tasks().map((one) => [one, one]), wanted.task);
  const model = fill(form.model, [["", "all"], ...models(task).map((one) => [one, one])], wanted.model);
  const methods = [...new Set(on(task, model).map((one) => one.method))].sort();
  const method = fill(form.method, [["", "all"], ...methods.map((one) => [one, one])], wanted.method);
  const costs = Object.keys(COSTS).filter((cost) => on(task).some((one) => one[cost] !== null));
  const front = fill(form.front, [["", "anything"], ...costs.map((one) => [one, COSTS[one].label])], wanted.front);
  form.lossless.checked = wanted.lossless === "on";
  const rows = on(task, model).filter((one) => (!method || one.method === method)
    && (!front || one.front.includes(front)) && !(form.lossless.checked && one.verdict === "worse"));
  draw(rows, task);
}

function draw(rows, task) {
  const several = new Set(rows.map((one) => one.model)).size > 1;
  const known = (column) => rows.some((one) => one[column] !== null);
  const columns = [
    { title: "setting", value: (one) => one.setting, cell: named },
    several ? { title: "model", value: (one) => one.model } : null,
    { title: "accuracy %", numeric: true, value: (one) => one.accuracy[0], cell: (one) => interval(one.accuracy) },
    { title: "Δ %", numeric: true, value: (one) => one.difference?.[0] ?? null, cell: difference },
    { title: "against baseline", value: (one) => one.verdict, cell: verdict },
    cost("nfe", "nfe"),
    { title: "tpf", numeric: true, value: (one) => one.tpf, cell: (one) => number(one.tpf, 2) },
    cost("efe", "efe"),
    cost("query", "query_tokens"),
    known("latency_s") ? cost("ms", "latency_s") : null,
    times("× nfe", "times_nfe"),
    times("× efe", "times_efe"),
    known("times_wall") ? times("× wall", "times_wall") : null,
    { title: "front", value: (one) => one.front.join(" "), cell: (one) => one.front.map(short).join(", ") || "–" },
    { title: "n", numeric: true, value: (one) => one.n },
  ].filter(Boolean);
  if (task === ALL) columns.splice(-1, 0, { title: "tasks", numeric: true, value: (one) => one.tasks });
  table("board-table", columns, rows, { order: [[columns.findIndex((one) => one.title === "accuracy %"), "desc"]] });
}

const short = (name) => ({ query_tokens: "query", latency_s: "ms" }[name] ?? name);

function named(one) {
  const target = one.runs.length === 1 ? ["run", { id: one.runs[0] }] : ["runs", { setting: one.setting, model: one.model }];
  const made = element("span", {}, link(...target, one.setting));
  if (one.unfinished) made.append(element("span", { class: "aside" }, ` ${one.unfinished} unfinished`));
  return made;
}

function interval([value, low, high]) {
  const bar = element("span", { class: "interval", "aria-hidden": "true" });
  bar.style.setProperty("--low", `${100 * low}%`);
  bar.style.setProperty("--width", `${Math.max(1, 100 * (high - low))}%`);
  bar.style.setProperty("--at", `${100 * value}%`);
  return element("span", { class: "estimate" }, `${percent(value)} `,
                 element("span", { class: "range" }, `[${percent(low, 0)}, ${percent(high, 0)}]`), bar);
}

function ranged(estimate, text) {
  if (!estimate) return "–";
  const [value, low, high] = estimate;
  const range = low === null ? "" : ` [${text(low)}, ${text(high)}]`;
  return element("span", { class: "estimate" }, text(value), element("span", { class: "range" }, range));
}

function difference(one) {
  return ranged(one.verdict === "baseline" ? null : one.difference, (value) => (value > 0 ? "+" : "") + percent(value));
}

function verdict(one) {
  const words = { none: "no baseline", baseline: "baseline", open: "open", better: "better", worse: "worse" };
  const told = one.p_holm === null ? "" : ` p ${one.p_holm < 0.001 ? "< 0.001" : number(one.p_holm, 3)}`;
  const lost = one.p_holm === null ? null : `lost ${one.lost}, gained ${one.gained}; p before correction ${number(one.p, 4)}`;
  return element("span", { class: `verdict ${one.verdict}`, title: lost }, words[one.verdict],
                 element("span", { class: "range" }, told));
}

function cost(title, name) {
  const { digits, scale } = COSTS[name];
  const value = (one) => (one[name] === null ? null : one[name] * scale);
  return { title, numeric: true, value, cell: (one) => number(value(one), digits) };
}

function times(title, name) {
  return { title, numeric: true, value: (one) => one[name]?.[0] ?? null,
           cell: (one) => ranged(one[name], (value) => number(value, 2)) };
}
