"""What a step says of itself adds up to what is counted, and is null where it cannot be known."""

from pathlib import Path
from typing import Any

import pytest

from harness.config.composition import compose
from harness.results.store import Store
from harness.runs.runner import run

Rows = dict[str, list[dict[str, Any]]]


def traced(folder: Path, *overrides: str) -> tuple[list[dict[str, Any]], Rows]:
    """Run two samples and return their rows, and the rows of their steps by sample."""
    run(compose(["task.samples=2", "batch_size=2", "measure=traced", f"results_dir={folder}", *overrides]))
    samples, steps = (Store(root=folder).read(table).to_pylist() for table in ("samples", "steps"))
    assert len(samples) == 2 and steps
    by_sample: Rows = {one["sample_id"]: [] for one in samples}
    for step in steps:
        by_sample[step["sample_id"]].append(step)
    return samples, by_sample


DIFFUSION = ("model=random_mdm", "gen_length=16")
LEFT_TO_RIGHT = ("method=llada", "method.remasking=left_to_right", "method.block_length=8", "method.steps=16")


@pytest.mark.parametrize(
    "overrides",
    [
        (*DIFFUSION, "method=threshold", "method.threshold=0.02"),
        (*DIFFUSION, *LEFT_TO_RIGHT, "method/cache=dual"),
        (*DIFFUSION, "method=freedave", "method/cache=dual", "method.block_length=8"),
        (*DIFFUSION, *LEFT_TO_RIGHT, "method/cache=layer_reuse"),
        ("model=tiny_ar", "method=ar_greedy", "task=list_sort"),
    ],
    ids=["full", "dual", "drafts", "layers", "causal"],
)
def test_the_work_of_steps_is_that_of_the_sample(results_dir: Path, overrides: tuple[str, ...]):
    """Guards figures of work over steps: no call is charged twice, to another sample, or to nobody."""
    samples, steps = traced(results_dir, *overrides)
    for one in samples:
        mine = steps[one["sample_id"]]
        assert sum(step["n_computed"] for step in mine) == one["query_tokens"]
        assert all(step["n_reused"] >= 0 for step in mine)
        assert len({step["step"] for step in mine}) == len(mine)
        assert (sum(step["n_reused"] for step in mine) > 0) == ("method=threshold" not in overrides)


def test_a_step_tells_what_it_computed_and_reused(results_dir: Path):
    """Guards the numbers of a cache: a window's first call computes every position, the others the window."""
    samples, steps = traced(results_dir, *DIFFUSION, *LEFT_TO_RIGHT, "method/cache=dual")
    whole = samples[0]["prompt_tokens"] + 16
    told = [(step["n_computed"], step["n_reused"]) for step in steps[samples[0]["sample_id"]]]
    assert told == [(whole, 0), *[(8, whole - 8)] * 7] * 2
    cached = [step["cached"] for step in steps[samples[0]["sample_id"]]]
    assert cached == [[], *[[*range(8, 16)]] * 7, [], *[[*range(8)]] * 7]


@pytest.mark.parametrize(
    ("overrides", "second"),
    [((), []), (("method/cache=prefix",), []), (("method/cache=layer_reuse",), None)],
)
def test_a_step_tells_which_positions_caches_answered_for(
    results_dir: Path, overrides: tuple[str, ...], second: list[int] | None
):
    """Guards the viewer: nothing is cached without a cache, nor of a window's rest, and layers may differ in it."""
    samples, steps = traced(results_dir, *DIFFUSION, *LEFT_TO_RIGHT, *overrides)
    assert steps[samples[0]["sample_id"]][1]["cached"] == second


def test_a_round_tells_what_it_committed(results_dir: Path):
    """Guards autoregressive steps: the prompt's call commits the first token, every other one more, from the cache."""
    samples, steps = traced(results_dir, "model=tiny_ar", "method=ar_greedy", "task=list_sort")
    one, prompt = samples[0], samples[0]["prompt_tokens"]
    mine = steps[one["sample_id"]]
    assert [step["positions"] for step in mine] == [[index] for index in range(one["tokens_out"])]
    assert [step["tokens"] for step in mine] == [[token] for token in one["output_ids"]]
    work = [(step["n_computed"], step["n_reused"]) for step in mine]
    assert work == [(prompt, 0), *((1, prompt + index) for index in range(len(mine) - 1))]
    assert [step["cached"] for step in mine] == [[], *([*range(index)] for index in range(len(mine) - 1))]
    assert all(0 <= step["entropy"][0] < 5 and step["drafted"] == [] for step in mine)
    assert all(step["remasked"] is None and step["scores"] is None for step in mine)


def test_drafts_are_told_where_they_became_a_step_or_were_replaced(results_dir: Path):
    """Guards accepted lengths of diffusion: from left to right, a step for each draft that stands and for each call."""
    drafting = (*LEFT_TO_RIGHT, "method/verifier=freedave", "method.verifier.draft_steps=4")
    samples, steps = traced(results_dir, *DIFFUSION, *drafting)
    for one in samples:
        mine = steps[one["sample_id"]]
        assert sum(step["n_accepted"] for step in mine) == len(mine) - one["nfe"]
        assert all(step["n_drafted"] == len(step["drafted"]) for step in mine)
        assert all(step["drafted"][: step["n_accepted"]] == step["positions"] * step["n_accepted"] for step in mine)
    told = [(step["drafted"], step["n_accepted"]) for step in steps[samples[0]["sample_id"]]]
    assert told[:5] == [([], 0), ([1, 2, 3], 1), ([], 0), ([3, 4, 5], 0), ([4, 5, 6], 1)]


def test_a_branch_is_told_with_the_position_that_it_adds(results_dir: Path):
    """Guards looking ahead: the surest branch is a step of its own, and what the others add is not taken."""
    samples, steps = traced(results_dir, "model=tiny_mdm", "task=list_shuffle", "method=lopa", "method.k=3")
    told = [(step["step"], step["drafted"], step["n_accepted"]) for step in steps[samples[0]["sample_id"]]]
    assert told == [(0, [], 0), (0, [1, 2], 1), (1, [], 0), (2, [], 0)]


def test_nothing_is_told_of_drafts_where_a_method_makes_none(results_dir: Path):
    """Guards averages of accepted lengths: a method that drafts nothing has none, not zero."""
    _, steps = traced(results_dir, *DIFFUSION, *LEFT_TO_RIGHT)
    assert {step[name] for mine in steps.values() for step in mine for name in ("n_drafted", "n_accepted")} == {None}


@pytest.mark.parametrize(
    ("method", "knobs"),
    [("wino", ["method.tau1=0.02", "method.tau2=0.9"]), ("t2t_edit", ["method.tau=0.03", "method.tau_edit=0.02"])],
)
def test_what_is_taken_back_and_replaced_is_told(results_dir: Path, method: str, knobs: list[str]):
    """Guards figures of revision: positions of every step, which add up to what the sample counts."""
    samples, steps = traced(results_dir, *DIFFUSION, f"method={method}", *knobs)
    for one in samples:
        mine = steps[one["sample_id"]]
        assert sum(len(step["remasked"]) for step in mine) == one["remasked"]
        told = {}
        for step in mine:
            told |= dict(zip(step["positions"], step["tokens"], strict=True))
        edited = {place for step in mine for place in step["edited"]}
        differs = {place for place, token in enumerate(one["output_ids"]) if told[place] != token}
        assert differs <= edited and not (edited and method == "wino")
    revised = [place for mine in steps.values() for step in mine for place in step["remasked"] + step["edited"]]
    assert revised


def test_entropies_are_those_of_what_was_committed(results_dir: Path):
    """Guards the column that entropy figures need: one number per commit, at most that of all tokens being equal."""
    _, steps = traced(results_dir, *DIFFUSION, "method=threshold", "method.threshold=0.02")
    for step in (step for mine in steps.values() for step in mine):
        assert len(step["entropy"]) == len(step["positions"]) == step["n_committed"]
        assert all(0 < entropy < 5 for entropy in step["entropy"])


def test_the_time_of_model_calls_stands_beside_the_whole(results_dir: Path):
    """Guards the share of a method that is not the model: known of timed runs, null elsewhere."""
    row = run(compose([*DIFFUSION, "task.samples=2", "measure=timed", f"results_dir={results_dir}"])).row
    samples = Store(root=results_dir).read("samples").to_pylist()
    assert all(one["forward_s"] > 0 and one["rest_s"] > 0 for one in samples)
    assert all(one["forward_s"] + one["rest_s"] == pytest.approx(one["latency_s"]) for one in samples)
    assert row["forward_s"] + row["rest_s"] == pytest.approx(row["latency_s"])
    counted = run(compose([*DIFFUSION, "task.samples=1", f"results_dir={results_dir}"])).row
    assert (counted["forward_s"], counted["rest_s"], counted["latency_s"]) == (None, None, None)


def test_a_row_says_what_it_rests_on(results_dir: Path):
    """Guards choosing rows by code and machine without reading JSON, and null in place of what nobody knows."""
    row = run(compose([*DIFFUSION, "task.samples=1", f"results_dir={results_dir}"])).row
    assert len(row["git_commit"]) == 40 and row["dirty"] in (True, False)
    assert len(row["lock_sha256"]) == len(row["packages_sha256"]) == 64
    assert (row["attention_kernel"], row["threads"]) == ("sdpa", 1)
    assert (row["driver"], row["throttled"]) == (None, None)
