// Which page is shown: the address says so, #page?key=value.

import * as board from "board";
import { chunk } from "chunks";
import * as plots from "plots";
import * as runs from "runs";
import * as viewer from "viewer";

const PAGES = {
  board: board.open,
  plots: plots.open,
  tasks: runs.openTasks,
  task: runs.openTask,
  runs: runs.openRuns,
  run: runs.openRun,
  viewer: viewer.open,
};
const PARENTS = { task: "tasks", run: "runs" };
const notice = document.getElementById("notice");

async function show() {
  const [name, query] = location.hash.slice(1).split("?");
  if (name === "main") return document.getElementById("main").focus();
  const page = Object.hasOwn(PAGES, name) ? name : "board";
  viewer.stop();
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== page;
  for (const one of document.querySelectorAll("nav a")) {
    const current = one.hash === `#${PARENTS[page] ?? page}`;
    if (current) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  await PAGES[page](Object.fromEntries(new URLSearchParams(query)));
  document.documentElement.dataset.shown = location.hash;
  document.title = `${document.getElementById(`${page}-title`).textContent} - decbench report`;
}

async function start() {
  if (!("DecompressionStream" in window)) {
    notice.textContent = "This page needs a browser of 2023 or newer, which can unpack what is inside it.";
    return;
  }
  const all = await chunk("board");
  for (const part of [board, plots, runs, viewer]) part.prepare(all);
  window.addEventListener("hashchange", show);
  await show();
  notice.hidden = true;
}

start();
