"""What is said about a run, as pure functions of its samples."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from statistics import fmean
from typing import Any

from harness.errors import listed
from harness.results.canonical import canonical_json
from harness.results.schemas import ASKED, BUDGET, COUNTERS, MEANS
from harness.results.statistics import wilson

_NAMED = 5
_ALLOWED_DROP = 5.0
_DECAY = 3.0
_OF_DRAFTS = ("rounds", "draft_tokens", "accepted_draft_tokens")
_FROM_DRAFTS: tuple[str, ...] = ("accepted_length", "draft_length", "acceptance_rate", "acceptance_at")


def tokens_out(response: Sequence[int], stop_ids: Collection[int]) -> int:
    """Count the response up to and including its first stop id; all of it where there is none."""
    return next((index + 1 for index, token in enumerate(response) if token in stop_ids), len(response))


def unfinished_warnings(samples: Sequence[Mapping[str, object]]) -> list[str]:
    """Return what a reader must know of samples that were ended undecided: nothing, or one line that names them."""
    names = list(dict.fromkeys(str(row["sample_id"]) for row in samples if row["finish_reason"] == BUDGET))
    if not names:
        return []
    total = len({row["sample_id"] for row in samples})
    return [
        f"{len(names)} of {total} samples used up their model calls and were ended as they stood "
        f"(finish_reason={BUDGET}): {listed(names, _NAMED)}"
    ]


def tokens_per_forward(tokens: Sequence[int | None], nfe: Sequence[int | None]) -> float | None:
    """Return the ratio of sums; None when no model was called, and where any of them is not known."""
    calls, made = _sum(nfe), _sum(tokens)
    return made / calls if calls and made is not None else None


def equivalent_full_forwards(query_tokens: Sequence[int | None], canvas_lengths: Sequence[int | None]) -> float | None:
    """Return the mean over samples of query tokens over canvas length (prompt and response), in calls.

    None where any of them is not known.
    """
    pairs = [(q, c) for q, c in zip(query_tokens, canvas_lengths, strict=True) if q is not None and c is not None]
    return fmean(query / length for query, length in pairs) if len(pairs) == len(query_tokens) else None


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile in [0, 100], interpolated between neighbours."""
    import numpy as np

    return float(np.percentile(values, percent))


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One setting of a method: tokens per forward and accuracy in percent."""

    tpf: float
    accuracy: float


def area_under_parallelism(points: Sequence[OperatingPoint], best_accuracy: float) -> float:
    """Return the area under accuracy over tokens per forward (d3LLM), which falls as accuracy falls below the best.

    `best_accuracy` is that of any method on the task, in percent. Points more than 5 percent points below the
    slowest one are dropped, the last included, where the authors' code raises. The value depends on which points
    were run: publish them with it.
    """
    kept = kept_points(points)
    area = kept[0].tpf * kept[0].accuracy
    for left, right in pairwise(kept):
        heights = weighed_accuracy(right.accuracy, best_accuracy) + weighed_accuracy(left.accuracy, best_accuracy)
        area += (right.tpf - left.tpf) * heights / 2
    return area


def kept_points(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Return the points that count in an area, slowest first: the others are more than 5 points below that one."""
    slowest, *others = sorted(points, key=lambda point: (point.tpf, -point.accuracy))
    return [slowest, *(point for point in others if point.accuracy >= slowest.accuracy - _ALLOWED_DROP)]


def weighed_accuracy(accuracy: float, best_accuracy: float) -> float:
    """Return what an accuracy counts in an area, both in percent: less, the farther it is below the best."""
    return accuracy * min(1.0, math.exp(-_DECAY * (1 - accuracy / best_accuracy)))


def summarize(samples: Sequence[Mapping[str, object]], batch_seconds: float | None = None) -> dict[str, object]:
    """Return the columns of a run that follow from its samples (rows of the samples table, at least one).

    `batch_seconds` is the wall time of all batches, each counted once; None leaves `tps` unknown. Answers are
    graded once per sample: accuracy is that of repetition 0, None unless every verdict is known. A ratio is None where
    any of its counts is: somebody else's code, or a server, tells some of them only.
    """
    assert samples, "a run without samples has no summary"
    first = [row for row in samples if row["repetition"] == 0]
    graded = all(row["correct"] is not None for row in first)
    accuracy = wilson(sum(bool(row["correct"]) for row in first), len(first)) if graded else None
    counters = {name: _mean(samples, name) for name in (*COUNTERS, *MEANS)}
    latencies = _known(samples, "latency_s")
    out = _sum(_column(samples, "tokens_out"))
    return {
        "n": len(first),
        "accuracy": accuracy.value if accuracy else None,
        "accuracy_low": accuracy.low if accuracy else None,
        "accuracy_high": accuracy.high if accuracy else None,
        "accuracy_strict": _mean(first, "correct_strict"),
        **counters,
        **_drafting(samples),
        **{name: _asked(samples, name) for name in ASKED},
        "waste": _waste(samples),
        "tpf": tokens_per_forward(_column(samples, "tokens_out"), _column(samples, "nfe")),
        "efe": equivalent_full_forwards(_column(samples, "query_tokens"), _canvas_lengths(samples)),
        "latency_s": _mean(samples, "latency_s"),
        "latency_p50_s": percentile(latencies, 50) if latencies else None,
        **{f"latency_p{p}_s": percentile(latencies, p) if latencies else None for p in (90, 95, 99)},
        "ttft_s": _mean(samples, "ttft_s"),
        "forward_s": _mean(samples, "forward_s"),
        "rest_s": _mean(samples, "rest_s"),
        "padding_waste": _padding_waste(samples),
        "tps": out / batch_seconds if batch_seconds and out is not None else None,
    }


def _drafting(samples: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    """Return what the drafts of all samples came to, as ratios of sums; None where a method drafts nothing."""
    rounds, drafted, accepted = (_sum(_column(samples, name)) for name in _OF_DRAFTS)
    if rounds is None or drafted is None or accepted is None:
        return dict.fromkeys(_FROM_DRAFTS)
    chains = all(row["acceptance_rate"] is not None for row in samples if row["draft_tokens"])
    tried, stood = (_by_place(samples, name) for name in ("tried_at", "accepted_at"))
    return {
        "accepted_length": accepted / rounds + 1 if rounds else None,
        "draft_length": drafted / rounds if rounds else None,
        "acceptance_rate": accepted / drafted if drafted and chains else None,
        "acceptance_at": [one / of for one, of in zip(stood, tried, strict=True)],
    }


def _by_place(samples: Sequence[Mapping[str, object]], column: str) -> list[int]:
    return [sum(counts) for counts in zip_longest(*_column(samples, column), fillvalue=0)]


def _asked(samples: Sequence[Mapping[str, object]], column: str) -> str | None:
    """Return the means over all samples of what models by further roles were asked, as JSON; None if none was."""
    told = [json.loads(one) for one in _known(samples, column)]
    return canonical_json(_means(told, len(samples))) if told else None


def _means(told: Sequence[Mapping[str, Any]], n: int) -> dict[str, Any]:
    """Return the means over `n` samples of numbers by name, which may be in groups; a name that is missing counts 0."""
    names = dict.fromkeys(name for one in told for name in one)
    found = {name: [one[name] for one in told if name in one] for name in names}
    return {name: _means(some, n) if isinstance(some[0], dict) else sum(some) / n for name, some in found.items()}


def _waste(samples: Sequence[Mapping[str, object]]) -> float | None:
    generated, kept = (_sum(_column(samples, name)) for name in ("tokens_generated", "tokens_out"))
    return None if kept is None or not generated else 1 - kept / generated


def _padding_waste(samples: Sequence[Mapping[str, object]]) -> float | None:
    padded, needed = (_sum(_column(samples, name)) for name in ("padded_tokens", "query_tokens"))
    return None if padded is None or not needed else padded / (padded + needed)


def _canvas_lengths(samples: Sequence[Mapping[str, object]]) -> list[int | None]:
    pairs = zip(_column(samples, "prompt_tokens"), _column(samples, "tokens_canvas"), strict=True)
    return [None if prompt is None or canvas is None else prompt + canvas for prompt, canvas in pairs]


def _column(samples: Sequence[Mapping[str, object]], column: str) -> list:
    return [row[column] for row in samples]


def _known(samples: Sequence[Mapping[str, object]], column: str) -> list:
    return [value for value in _column(samples, column) if value is not None]


def _mean(samples: Sequence[Mapping[str, object]], column: str) -> float | None:
    values = _known(samples, column)
    return fmean(values) if values else None
