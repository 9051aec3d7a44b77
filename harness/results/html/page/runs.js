// Pages of tasks and runs.

import * as board from "board";
import { chunk } from "chunks";
import { address, element, link, number, percent, plain } from "format";
import { figure } from "plots";
import { table } from "table";

let runs = [];
let meanings = {};
const at = (id) => document.getElementById(id);

export function prepare(all) {
  runs = all.runs;
  meanings = all.columns;
}

const COLUMNS = [
  { title: "run", value: (run) => run.run_id, cell: (run) => link("run", { id: run.run_id }, run.run_id) },
  { title: "status", value: (run) => run.status, cell: (run) => element("span", { class: `status ${run.status}` }, run.status) },
  { title: "model", value: (run) => run.model },
  { title: "setting", value: (run) => run.setting },
  { title: "task", value: (run) => run.task, cell: (run) => (run.task === null ? "–" : link("task", { name: run.task }, run.task)) },
  { title: "accuracy %", numeric: true, value: (run) => run.accuracy, cell: (run) => percent(run.accuracy) },
  { title: "nfe", numeric: true, value: (run) => run.nfe, cell: (run) => number(run.nfe) },
  { title: "n", numeric: true, value: (run) => run.n },
  { title: "measure", value: (run) => run.measure },
  { title: "played", value: (run) => run.films.length, numeric: true,
    cell: (run) => (run.films.length ? link("viewer", { a: run.run_id }, String(run.films.length)) : "–") },
  { title: "made", value: (run) => run.created, cell: (run) => (run.created ?? "–").replace("T", " ").slice(0, 16) },
];

export function openRuns(wanted) {
  const rows = runs.filter((run) => ["setting", "model", "status", "task"].every((key) => !wanted[key] || run[key] === wanted[key]));
  table("runs-table", COLUMNS, rows, { order: [[10, "desc"]] });
}

export function openTasks() {
  const rows = [...new Set(runs.map((run) => run.task))].filter((task) => task !== null).map((task) => {
    const own = runs.filter((run) => run.task === task);
    const good = own.filter((run) => run.status === "ok" && run.accuracy !== null);
    return { task, good: good.length, all: own.length, best: Math.max(...good.map((run) => run.accuracy)),
             models: new Set(own.map((run) => run.model)).size };
  });
  table("tasks-table", [
    { title: "task", value: (one) => one.task, cell: (one) => link("task", { name: one.task }, one.task) },
    { title: "models", numeric: true, value: (one) => one.models },
    { title: "runs", numeric: true, value: (one) => one.all },
    { title: "good", numeric: true, value: (one) => one.good },
    { title: "best accuracy %", numeric: true, value: (one) => one.best, cell: (one) => (one.good ? percent(one.best) : "–") },
  ], rows, { paging: 100 });
}

export async function openTask({ name }) {
  const own = runs.filter((run) => run.task === name);
  at("task-title").textContent = own.length ? `Task ${name}` : `${name}: no run here is of this task`;
  const values = (column) => [...new Set(own.map((run) => plain(run[column])))].join(", ");
  facts("task-facts", ["template", "protocol", "gen_length", "seed", "dtype", "n"].map((one) => [one, values(one)]));
  table("task-runs", COLUMNS.filter((one) => one.title !== "task"), own, { order: [[4, "desc"]] });
  const [model] = board.models(name);
  at("task-figure").hidden = model === undefined;
  if (model !== undefined) await figure("task-figure", board.on(name), "nfe", true, name);
}

const FACTS = ["setting_id", "run_id", "status", "model", "setting", "task", "template", "protocol", "measure", "n",
               "accuracy", "nfe", "query_tokens", "tpf", "efe", "latency_s", "gen_length", "batch_size", "dtype", "device",
               "peak_memory_bytes", "energy_joules", "throttled", "busy", "git_commit", "dirty", "created"];

export async function openRun({ id }) {
  const details = await chunk(`run-${id}`);
  for (const one of document.querySelectorAll("#run > :not(h2)")) one.hidden = details === null;
  if (details === null) {
    at("run-title").textContent = `${id}: no such run here`;
    return;
  }
  const { row, ...about } = (await chunk(`about-${details.about}`))[id];
  at("run-title").textContent = `${row.model} · ${row.setting} · ${row.task}`;
  const { samples } = details;
  at("run-error").hidden = !row.error;
  at("run-error").textContent = row.error ?? "";
  at("run-warnings").replaceChildren(...(row.warnings ?? []).map((one) => element("li", {}, one)));
  facts("run-facts", FACTS.filter((one) => row[one] !== null).map((one) => [one, plain(row[one])]));
  const [kept, all] = details.listed;
  at("run-listed").textContent = kept < all ? `The first ${kept} of ${all} are here; decbench results show ${id} has all.` : "";
  const films = new Set(details.films.map((one) => one.sample));
  table("run-samples", samples.columns.map((name, place) => sampleColumn(name, place, id, films)), samples.rows);
  const cells = Object.entries(row).filter(([, value]) => value !== null);
  table("run-columns", [
    { title: "column", value: ([name]) => name },
    { title: "value", value: ([, value]) => plain(value) },
    { title: "unit", value: ([name]) => meanings[name]?.[0] ?? "" },
    { title: "meaning", value: ([name]) => meanings[name]?.[1] ?? "" },
  ], cells, { paging: 100 });
  for (const name of ["config", "provenance", "produced_by"]) {
    at(`run-${name}`).textContent = JSON.stringify(about[name], null, 1);
  }
}

function sampleColumn(name, place, run, films) {
  const value = (row) => row[place];
  if (name === "sample_id") {
    const cell = (row) => (films.has(value(row)) ? link("viewer", { a: run, sample: value(row) }, value(row)) : value(row));
    return { title: "sample", value, cell };
  }
  const numeric = !["correct", "correct_strict", "output_text", "extracted", "detail", "finish_reason"].includes(name);
  return { title: name.replaceAll("_", " "), value, numeric, cell: (row) => plain(value(row)) };
}

function facts(id, pairs) {
  at(id).replaceChildren(...pairs.map(([name, value]) =>
    element("div", { title: meanings[name]?.[1] ?? null }, element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, value))));
}
