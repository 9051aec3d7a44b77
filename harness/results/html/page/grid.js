// One film in its pane: the answer as it stands, and the grid of tokens over steps.

import { element } from "format";
import { told } from "film";

const KINDS = { "+": "commit", "=": "accept", "!": "reject", "~": "edit", "-": "remask" };
const WORDS = { "+": "committed", "=": "accepted draft", "!": "rejected draft", "~": "replaced", "-": "taken back" };
const MOST_CELLS = 30000;

// From unsure to sure, of falling lightness; dark text is readable on all of it.
const UNSURE = [255, 243, 219];
const SURE = [107, 174, 214];

export function shade(percent) {
  const share = percent / 100;
  return `rgb(${UNSURE.map((one, at) => Math.round(one + share * (SURE[at] - one))).join(" ")})`;
}

/** Return the pane of a film; `show(at)` draws a state of it, and `choose` is called with a step that is clicked. */
export function pane(film, states, words, heading, choose) {
  const place = document.getElementById("pane").content.cloneNode(true).firstElementChild;
  place.querySelector("h3").append(heading);
  place.querySelector(".grid").setAttribute("aria-label", `Steps of ${heading.textContent}`);
  const head = element("tr", {}, element("th", { scope: "col" }, "step"));
  for (let at = 0; at < film.length; at += 1) head.append(element("th", { scope: "col" }, String(at)));
  place.querySelector("thead").append(head);
  const reach = Math.max(5, Math.floor(MOST_CELLS / film.length / 2));
  const spelled = (token) => words[token] ?? String(token);
  const rows = new Map();

  function row(at) {
    if (!rows.has(at)) {
      const button = element("button", { type: "button", tabindex: "-1" }, String(at));
      button.addEventListener("click", () => choose(at));
      const made = element("tr", {}, element("th", { scope: "row" }, button));
      for (let place = 0; place < film.length; place += 1) made.append(cell("td", states[at], place, spelled));
      rows.set(at, made);
    }
    return rows.get(at);
  }

  function show(wanted) {
    const at = Math.min(wanted, states.length - 1);
    const now = states[at];
    place.querySelector(".told").textContent = told(film, at, now) + (film.traced ? "" : "; not traced");
    place.querySelector(".now").replaceChildren(
      ...now.tokens.map((_, position) => cell("span", now, position, spelled)),
    );
    // Of long films, the steps around the present one.
    const first = Math.max(1, at - reach);
    const end = Math.min(states.length, Math.max(at, 1) + reach);
    const drawn = [];
    for (let step = first; step < end; step += 1) drawn.push(row(step));
    place.querySelector("tbody").replaceChildren(...drawn);
    for (const [step, one] of rows) {
      one.classList.toggle("here", step === at);
      one.classList.toggle("later", step > at);
      if (step === at) one.setAttribute("aria-current", "step");
      else one.removeAttribute("aria-current");
    }
    follow(place.querySelector(".grid"), rows.get(at));
  }
  return { place, show };
}

/** Return one position of a state. */
function cell(name, state, position, spelled) {
  const [token, mark, sure] = [state.tokens[position], state.marks[position], state.sure[position]];
  const kinds = ["cell", mark ? KINDS[mark] : null, token === null ? "open" : null];
  if (state.cached.has(position)) kinds.push("cached");
  const sign = mark === "-" ? "−" : (mark ?? "");
  const made = element(name, { class: kinds.filter(Boolean).join(" "), title: title(state, position, spelled) });
  if (token !== null && sure !== null) made.style.backgroundColor = shade(sure);
  if (sign) made.append(element("b", {}, sign));
  made.append(token === null ? (sign ? "" : "·") : spelled(token));
  return made;
}

function title(state, position, spelled) {
  const [token, mark, sure] = [state.tokens[position], state.marks[position], state.sure[position]];
  const parts = [`position ${position}`, token === null ? "not decided" : spelled(token)];
  if (mark) parts.push(WORDS[mark]);
  if (token !== null && sure !== null) parts.push(`${sure} % sure`);
  if (state.cached.has(position)) parts.push("from a cache");
  return parts.join(", ");
}

/** Keep the present row in sight, without moving the page. */
function follow(scroller, row) {
  if (!row) {
    scroller.scrollTop = 0;
    return;
  }
  const head = scroller.querySelector("thead").offsetHeight;
  if (row.offsetTop < scroller.scrollTop + head) scroller.scrollTop = row.offsetTop - head;
  const end = row.offsetTop + row.offsetHeight;
  if (end > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = end - scroller.clientHeight;
}
