"""Verdicts for readers and programs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.results.claims.claim import Claim, Side
from harness.results.claims.evidence import Missing
from harness.results.claims.verdict import Outcome, Verdict

_EXPLAINED = {
    Outcome.REPRODUCED: "a published value, measured in its own setting, within the claim's tolerance",
    Outcome.WITHIN: "outside of the tolerance, but inside the 95 % interval of what was measured",
    Outcome.DIFFERS: "a published value that is not what was measured",
    Outcome.HOLDS: "what is said to happen does happen on the models asked; no published number is meant",
    Outcome.FAILS: "it does not happen there",
    Outcome.UNDECIDED: "the samples are too few to tell",
    Outcome.NOT_COMPARABLE: "nothing that could be run here would be the same thing",
    Outcome.NOT_RUN: "there is no run; the reason says what is missing",
}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim, the names of its settings or why one has none here, and its verdict."""

    claim: Claim
    named: Mapping[Side, Sequence[str] | Missing]
    verdict: Verdict


def counted(judged: Sequence[Judged]) -> dict[str, int]:
    """Return how many claims have come to what, in the order of `Outcome`."""
    counts = Counter(one.verdict.outcome for one in judged)
    return {outcome.value: counts[outcome] for outcome in Outcome if counts[outcome]}


def entry(one: Judged) -> dict[str, Any]:
    """Return all of a claim and its verdict as plain values."""
    claim, verdict = one.claim, one.verdict
    return {
        "id": claim.id,
        "system": claim.system,
        "claim": claim.text,
        "paper": claim.paper,
        "place": claim.place,
        "kind": "published" if claim.published else "mechanism" if claim.checks else "statement",
        "published": str(claim.published) if claim.published else None,
        "verdict": verdict.outcome.value,
        "because": verdict.because,
        "measured": vars(verdict.measured) if verdict.measured else None,
        "n": verdict.n,
        "settings": [_setting(side, one.named[side]) for side in claim.sides],
        "run_ids": list(verdict.run_ids),
    }


def _setting(side: Side, named: Sequence[str] | Missing) -> dict[str, Any]:
    missing = named if isinstance(named, Missing) else Missing()
    ids = [] if isinstance(named, Missing) else list(named)
    return {
        "command": side.command,
        "setting_ids": ids,
        "missing": missing.reason or None,
        "parts": list(missing.parts),
    }


def document(judged: Sequence[Judged], systems: Mapping[str, str]) -> str:
    """Return the Markdown page of all claims: counts, what verdicts mean, and one table per system.

    `systems` are the headings by system, in order.
    """
    lines = ["Written by `decbench claims --markdown`: claims are data, verdicts follow from stored runs.", ""]
    lines += ["| verdict | claims | what it means |", "|---|---|---|"]
    lines += [f"| {name} | {count} | {_EXPLAINED[Outcome(name)]} |" for name, count in counted(judged).items()]
    for system, heading in systems.items():
        own = [one for one in judged if one.claim.system == system]
        if own:
            lines += ["", f"## {heading}", "", "| claim | source | published | verdict | because | n |"]
            lines += ["|---|---|---|---|---|---|", *map(_row, own)]
    return "\n".join(lines)


def _row(one: Judged) -> str:
    claim, verdict = one.claim, one.verdict
    cells = [
        f"<a id='{claim.id}'></a>{claim.text}",
        f"{claim.paper}, {claim.place}",
        str(claim.published or ""),
        verdict.outcome.value,
        verdict.because,
        str(verdict.n or ""),
    ]
    return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"
