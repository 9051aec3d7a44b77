// From the changes that a film holds to what stood where after each step.

/**
 * Return the states of a film, the first before any step.
 *
 * Of every position: the token (null where none is decided), the mark that the step left, how sure the token was when
 * it was committed (in percent, null where that is unknown), and whether a cache answered for it.
 */
export function states(film) {
  const start = () => new Array(film.length).fill(null);
  const found = [{ step: 0, tokens: start(), marks: start(), sure: start(), cached: new Set(), frame: null }];
  for (const frame of film.frames) {
    const before = found[found.length - 1];
    const tokens = [...before.tokens];
    const sure = [...before.sure];
    for (const at of frame.clear) [tokens[at], sure[at]] = [null, null];
    for (const [at, token] of frame.set) [tokens[at], sure[at]] = [token, null];
    for (const [at, value] of frame.sure) sure[at] = value;
    const marks = start();
    for (const [mark, places] of Object.entries(frame.marks)) for (const at of places) marks[at] = mark;
    found.push({ step: frame.step, tokens, marks, sure, cached: new Set(frame.cached ?? []), frame });
  }
  return found;
}

/** Return what a state is in words. */
export function told(film, at, state) {
  const last = film.frames.length;
  const decided = state.tokens.filter((token) => token !== null).length;
  const parts = [`step ${Math.min(at, last)} of ${last}`, `${decided} of ${film.length} decided`];
  if (state.frame && state.frame.computed !== null) {
    parts.push(state.frame.computed ? `computed ${state.frame.computed} positions, reused ${state.frame.reused}`
                                    : "no call of its own");
  }
  if (state.frame?.moved) parts.push("the response grew or shrank: earlier positions may be others");
  return parts.join(" · ");
}
