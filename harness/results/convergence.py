"""When answers emerge: the analysis behind Prophet (arXiv:2508.19982, section 3).

Of a traced run whose steps predict the whole response, the emergence of a correct answer is the first step whose best
tokens at the answer's positions are already the final ones; the last step counts in any case, and a later change of
mind is allowed. Samples with a wrong answer are left out. Deviation: decided positions count as they stand, since
models that are trained on masked positions alone predict nothing of use at others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from harness.results.parts import as_rows
from harness.results.statistics import Estimate, wilson
from harness.results.store import Store

_ASKED = (25.0, 50.0)


@dataclass(frozen=True, kw_only=True)
class Emergence:
    """Of one run: its samples, and the emergence of every correct one in percent of its steps (step 0: 0 percent)."""

    run_id: str
    model: str
    setting: str
    task: str
    samples: tuple[str, ...]
    percent: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Emerged:
    """The share of `n` correct samples whose answer has emerged, with its Wilson interval."""

    share: Estimate
    n: int


def emerged(found: Sequence[Emergence], percent: float) -> Emerged | None:
    """Return what has emerged by then; None where no sample is correct.

    A sample that several runs answered correctly, with other seeds, is one: what counts is the mean over them.
    """
    of_sample: dict[tuple[str, str, str], list[bool]] = {}
    for one in found:
        for name, at in one.percent.items():
            of_sample.setdefault((one.model, one.task, name), []).append(at <= percent)
    if not of_sample:
        return None
    share, n = fmean(fmean(known) for known in of_sample.values()), len(of_sample)
    return Emerged(share=replace(wilson(round(share * n), n), value=share), n=n)


def emergences(store: Store, run_ids: Sequence[str]) -> list[Emergence]:
    """Return one entry per traced run, in the order given; steps that predicted nothing of an answer do not count."""
    steps: dict[tuple[str, str], list[tuple[int, list[int]]]] = {}
    for row in store.read("steps", run_ids, ["sample_id", "repetition", "step", "predicted"]).to_pylist():
        if row["predicted"] is not None and row["repetition"] == 0:
            steps.setdefault((row["run_id"], row["sample_id"]), []).append((row["step"], row["predicted"]))
    samples: dict[str, list[dict]] = {}
    columns = ["sample_id", "repetition", "correct", "output_ids", "tokens_out"]
    for row in store.read("samples", run_ids, columns).to_pylist():
        samples.setdefault(row["run_id"], []).append(row)
    runs = {row["run_id"]: row for row in as_rows(store.read("runs", run_ids))}
    found = []
    for run_id in dict.fromkeys(run_ids):
        mine = [
            row for row in samples.get(run_id, []) if row["repetition"] == 0 and (run_id, row["sample_id"]) in steps
        ]
        if mine:
            percent = {
                row["sample_id"]: _emergence(row, steps[run_id, row["sample_id"]]) for row in mine if row["correct"]
            }
            run = runs[run_id]
            found.append(
                Emergence(
                    run_id=run_id,
                    model=run["model"],
                    setting=run["setting"],
                    task=run["task"],
                    samples=tuple(row["sample_id"] for row in mine),
                    percent=percent,
                )
            )
    return found


def _emergence(sample: dict, steps: list[tuple[int, list[int]]]) -> float:
    answer = sample["output_ids"][: sample["tokens_out"]]
    in_order = [predicted for _, predicted in sorted(steps)]
    first = next((s for s, seen in enumerate(in_order) if seen[: len(answer)] == answer), len(in_order) - 1)
    return 100 * first / len(in_order)


def markdown(found: Sequence[Emergence]) -> str:
    """Return the shares that have emerged by a quarter and by half of the steps, over all tasks of a setting."""
    lines = ["| model | setting | correct | by 25 % of the steps | by 50 % |", "|---|---|---|---|---|"]
    for model, setting in dict.fromkeys((one.model, one.setting) for one in found):
        mine = [one for one in found if (one.model, one.setting) == (model, setting)]
        known = [emerged(mine, by) for by in _ASKED]
        shares = ["-" if one is None else f"{100 * one.share.value:.1f} %" for one in known]
        samples = len({(one.task, name) for one in mine for name in one.samples})
        correct = 0 if known[0] is None else known[0].n
        lines.append(f"| {model} | {setting} | {correct} of {samples} | {' | '.join(shares)} |")
    return "\n".join(lines)
