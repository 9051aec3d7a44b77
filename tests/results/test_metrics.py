"""Golden vectors of the counts and the area under parallelism, and a run's columns worked out by hand."""

import pytest

from harness.results.metrics import (
    OperatingPoint,
    area_under_parallelism,
    summarize,
    tokens_out,
    tokens_per_forward,
    unfinished_warnings,
)
from harness.results.schemas import RUNS
from tests.results.factory import sample_rows


@pytest.mark.parametrize(
    ("response", "stop_ids", "expected"),
    [
        ([1, 2, 3, 9, 9, 9, 9, 9], {9}, 4),
        ([1, 2, 3, 4, 5, 6, 7, 8], {9}, 8),
        ([9, 1, 2, 3], {9}, 1),
        ([1, 8, 9, 9], {8, 9}, 2),
    ],
)
def test_tokens_out_golden_vectors(response: list[int], stop_ids: set[int], expected: int) -> None:
    """Guards against counting padding after the end, and against leaving the end itself out."""
    assert tokens_out(response, stop_ids) == expected


def test_tokens_per_forward_is_a_ratio_of_sums() -> None:
    """Guards against the mean of ratios: (4 / 1 + 4 / 4) / 2 = 2.5 instead of 8 / 5."""
    assert tokens_per_forward([4, 4], [1, 4]) == pytest.approx(1.6)
    assert tokens_per_forward([4], [0]) is None


@pytest.mark.parametrize(
    ("points", "best", "expected"),
    [
        ([(1, 80), (2, 79), (4, 76), (8, 60)], 80, 299.552345),
        ([(1, 80), (2, 79), (4, 76)], 82, 284.381113),
        ([(1, 75)], 80, 75.0),
        ([(4, 76), (1, 80), (2, 79)], 82, 284.381113),
        ([(1, 80), (2, 75)], 80, 151.088592),
        ([(1, 80), (2, 75), (4, 74.9), (8, 70.5)], 80, 151.088592),
        ([(1, 80), (2, 74.9), (3, 75)], 80, 222.177184),
    ],
)
def test_area_under_parallelism_golden_vectors(points: list[tuple[float, float]], best: float, expected: float) -> None:
    """Guards the weight, the order of points, the dropped last point, and the drop of 5 points that is allowed."""
    made = [OperatingPoint(tpf=tpf, accuracy=accuracy) for tpf, accuracy in points]
    assert area_under_parallelism(made, best) == pytest.approx(expected, abs=1e-6)


def test_a_run_is_the_summary_of_its_samples() -> None:
    """Guards every derived column: 2 samples of 4 prompt and 4 response tokens, 4 and 1 calls of 8 tokens."""
    summary = summarize(sample_rows(correct=[True, False], nfe=[4, 1], latency_s=[0.5, 0.1]), batch_seconds=0.8)
    assert summary.keys() <= set(RUNS.names)
    expected = {"n": 2, "accuracy": 0.5, "nfe": 2.5, "query_tokens": 20, "tpf": 1.6, "efe": 2.5, "tps": 10}
    expected |= {"latency_s": 0.3, "latency_p50_s": 0.3, "latency_p90_s": 0.46, "ttft_s": None, "nfe_draft": None}
    assert {name: summary[name] for name in expected} == pytest.approx(expected)


def test_repetitions_measure_time_and_not_accuracy() -> None:
    """Guards against a narrower interval of accuracy because the same answers were timed twice."""
    once = sample_rows(correct=[True, False], nfe=[4, 1], latency_s=[0.5, 0.1])
    again = [{**row, "repetition": 1, "latency_s": 0.2} for row in once]
    summary = summarize([*once, *again])
    assert (summary["n"], summary["accuracy"], summary["latency_s"]) == (2, 0.5, pytest.approx(0.25))


def test_samples_without_end_are_named() -> None:
    """Guards the warning of a run: each such sample once, whatever was repeated, and no line of a thousand names."""

    def rows(*names: str, reason: str = "budget") -> list[dict[str, object]]:
        return [{"sample_id": name, "finish_reason": reason} for name in names]

    assert unfinished_warnings(rows("a", "b", reason="length")) == []
    (line,) = unfinished_warnings(rows("a", "a") + rows("b", reason="stop"))
    assert line.startswith("1 of 2 samples") and line.endswith("(finish_reason=budget): a")
    (line,) = unfinished_warnings(rows(*"abcdefg"))
    assert line.endswith(": a, b, c, d, e and 2 more")


def drafted(rounds: int, accepted: int, drafts: int, tried: list[int], stood: list[int], rate: float | None) -> dict:
    """Return the columns of one sample's drafts."""
    counts = {"rounds": rounds, "draft_tokens": drafts, "accepted_draft_tokens": accepted, "acceptance_rate": rate}
    return counts | {"tried_at": tried, "accepted_at": stood, "layer_loads": 4.0 * (rounds + 1), "tokens_generated": 6}


def test_what_drafts_came_to_is_a_ratio_of_sums() -> None:
    """Guards against means of ratios, and places that some samples never come to: 5 and 3 rounds, 10 and 2 drafts."""
    rows = sample_rows(correct=[True, True], nfe=[6, 4], latency_s=[1, 1])
    rows[0] |= drafted(5, 7, 10, [5, 4, 1], [4, 3, 0], 0.7)
    rows[1] |= drafted(3, 1, 2, [2], [1], 0.5)
    summary = summarize(rows)
    assert (summary["accepted_length"], summary["draft_length"]) == (2.0, 1.5)
    assert (summary["rounds"], summary["layer_loads"]) == (4.0, 20.0)
    assert summary["acceptance_rate"] == pytest.approx(8 / 12) and summary["waste"] == pytest.approx(1 - 8 / 12)
    assert summary["acceptance_at"] == pytest.approx([5 / 7, 3 / 4, 0])
    rows[1]["acceptance_rate"] = None
    assert summarize(rows)["acceptance_rate"] is None, "of trees"


def test_what_does_not_apply_is_null() -> None:
    """Guards against zeros for methods that draft nothing, runs without a draft, and counts that are not known."""
    names = ("accepted_length", "draft_length", "acceptance_rate", "acceptance_at", "rounds", "draft_tokens")
    rows = sample_rows(correct=[True], nfe=[4], latency_s=[1])
    assert {name: summarize(rows)[name] for name in (*names, "waste")} == dict.fromkeys((*names, "waste"))
    rows[0] |= drafted(3, 0, 0, [], [], None)
    made = summarize(rows)
    assert (made["accepted_length"], made["acceptance_rate"], made["acceptance_at"]) == (1.0, None, [])
