// The decoding viewer: which films stand beside each other, at which step, and what plays them.

import { chunk } from "chunks";
import { states } from "film";
import { address, element, fill, link } from "format";
import { pane } from "grid";

const part = (name) => document.querySelector(`#viewer-controls [name=${name}]`);
const slider = document.getElementById("viewer-step");

let playable = [];
let shown = { a: "", b: "", sample: "", step: 0 };
let panes = [];
let length = 0;
let timer = null;
let asked = 0;

export function prepare(board) {
  playable = board.runs.filter((run) => run.films.length);
  const change = (values) => open({ ...shown, ...values });
  part("task").addEventListener("change", () => open({ task: part("task").value }));
  part("sample").addEventListener("change", () => change({ sample: part("sample").value, step: 0 }));
  part("a").addEventListener("change", () => change({ a: part("a").value }));
  part("b").addEventListener("change", () => change({ b: part("b").value }));
  slider.addEventListener("input", () => go(Number(slider.value)));
  document.getElementById("viewer-controls").addEventListener("submit", (event) => event.preventDefault());
  document.querySelector("#viewer .player").addEventListener("click", (event) => {
    const action = event.target.closest("[data-go]")?.dataset.go;
    if (action) act(action);
  });
  document.addEventListener("keydown", pressed);
}

/** Show what an address asks for; what it leaves open is chosen: the first run that can be played, its first sample. */
export async function open(wanted) {
  stop();
  if (!playable.length) {
    document.getElementById("viewer-panes").textContent = "No run here tells how its samples were decoded.";
    return;
  }
  const tasks = [...new Set(playable.map((run) => run.task))];
  const first = playable.find((run) => run.run_id === wanted.a);
  const task = fill(part("task"), tasks.map((one) => [one, one]), first ? first.task : wanted.task);
  const runs = playable.filter((run) => run.task === task);
  const options = runs.map((run) => [run.run_id, labelled(run, runs)]);
  const a = fill(part("a"), options, wanted.a);
  const b = fill(part("b"), [["", "nothing"], ...options], wanted.b);
  const samples = runs.find((run) => run.run_id === a).films;
  const sample = fill(part("sample"), samples.map((one) => [one, one]), wanted.sample);
  shown = { a, b, sample, step: Math.max(0, Number(wanted.step) || 0) };
  await draw(runs);
}

function labelled(run, others) {
  const same = others.filter((one) => one.model === run.model && one.setting === run.setting);
  return `${run.model} · ${run.setting}${same.length > 1 ? ` · ${run.run_id}` : ""}`;
}

async function draw(runs) {
  const turn = (asked += 1);
  const wanted = [shown.a, shown.b].filter(Boolean);
  const [prompts, ...details] = await Promise.all(["prompts", ...wanted.map((run) => `run-${run}`)].map(chunk));
  // Somebody may have chosen anew while this was unpacked.
  if (turn !== asked) return;
  panes = [];
  length = 0;
  const films = [];
  const place = document.getElementById("viewer-panes");
  place.replaceChildren();
  details.forEach((one, at) => {
    const run = runs.find((other) => other.run_id === wanted[at]);
    const film = one.films.find((other) => other.sample === shown.sample);
    if (!film) {
      place.append(element("article", { class: "pane" }, `${run.setting}: this sample has not been kept step by step.`));
      return;
    }
    films.push([run, film]);
    const made = pane(film, states(film), one.words, heading(run, film), go);
    panes.push(made);
    length = Math.max(length, film.frames.length);
    place.append(made.place);
  });
  place.classList.toggle("two", wanted.length > 1);
  asking(films, prompts);
  slider.max = String(length);
  go(shown.step);
}

/** Show what the sample was asked: once where both sides were asked the same. */
function asking(films, prompts) {
  const place = document.getElementById("viewer-prompt");
  const folded = place.querySelector("details")?.open === false;
  const asked = new Map(films.map(([run, film]) => [film.prompt, run]));
  place.replaceChildren(...[...asked].map(([prompt, run]) => {
    const turns = prompts[prompt] ?? [["", "It cannot be told; decbench report said why when it wrote this page."]];
    const name = asked.size > 1 ? `Prompt of ${run.model} · ${run.setting}` : "Prompt";
    return element("details", { class: "prompt", open: folded ? null : "" }, element("summary", {}, name),
                   ...turns.map(([role, text]) => element("pre", { tabindex: "0" }, role ? element("b", {}, `${role}\n`) : null, text)));
  }));
}

function heading(run, film) {
  const verdict = film.correct === null ? "not graded" : film.correct ? "right" : "wrong";
  const calls = film.nfe === null ? "" : `, ${film.nfe} calls`;
  const again = film.again ? ", decoded again for this page" : "";
  return element("span", {}, link("run", { id: run.run_id }, `${run.model} · ${run.setting}`),
                 element("span", { class: `verdict ${verdict.replace(" ", "-")}` }, `${verdict}${calls}${again}`));
}

function go(step) {
  shown.step = Math.min(Math.max(0, step), length);
  slider.value = String(shown.step);
  document.getElementById("viewer-now").textContent = `${shown.step} of ${length}`;
  for (const one of panes) one.show(shown.step);
  history.replaceState(null, "", address("viewer", shown));
  if (shown.step >= length) stop();
}

function act(action) {
  if (action === "play") return timer === null ? play() : stop();
  if (action === "link") return copied();
  stop();
  go({ first: 0, back: shown.step - 1, on: shown.step + 1, last: length }[action]);
}

function play() {
  if (shown.step >= length) go(0);
  const every = Number(document.getElementById("viewer-speed").value);
  timer = setInterval(() => go(shown.step + 1), every);
  button("Pause");
}

export function stop() {
  if (timer !== null) clearInterval(timer);
  timer = null;
  button("Play");
}

function button(label) {
  document.querySelector("#viewer [data-go=play]").textContent = label;
}

async function copied() {
  const said = document.getElementById("viewer-said");
  try {
    await navigator.clipboard.writeText(location.href);
    said.textContent = "copied";
  } catch {
    said.textContent = "the address bar holds the link";
  }
}

function pressed(event) {
  if (document.getElementById("viewer").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const on = event.target.closest?.("select, input, button, a, summary, [tabindex='0']");
  const action = { " ": "play", ArrowLeft: "back", ArrowRight: "on", Home: "first", End: "last" }[event.key];
  if (action) {
    // What has a use of its own for a key keeps it.
    if (on?.matches("select, input") || (event.key === " " && on?.matches("button, a, summary"))) return;
    event.preventDefault();
    act(action);
  } else if (!on?.matches("select, input")) {
    if (event.key === "n" || event.key === "p") beside(event.key === "n" ? 1 : -1);
    if (event.key === "x" && shown.b) open({ ...shown, a: shown.b, b: shown.a });
  }
}

/** Go to the sample before or behind. */
function beside(by) {
  const options = [...part("sample").options].map((one) => one.value);
  const next = options[options.indexOf(shown.sample) + by];
  if (next !== undefined) open({ ...shown, sample: next, step: 0 });
}
