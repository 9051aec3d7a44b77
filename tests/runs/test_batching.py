"""Rows that share calls: batch after batch, or as many as there is room for, one beginning as another ends."""

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.composition import compose
from harness.engine.shared.model import ForwardRequest
from harness.engine.shared.shortage import out_of_memory
from harness.errors import ConfigError, DataError, RunFailed
from harness.models.embedded import EmbeddedModel
from harness.results.store import Store
from harness.runs.decode_batch import decode_batch, decode_stream
from harness.runs.room import Room
from harness.runs.runner import run
from harness.runs.street import Batch
from harness.runs.unfinished import Unfinished
from tests.conftest import RunDecbench

RUN = ["model=tiny_mdm", "method=threshold", "task=list_shuffle", "task.samples=9", "device.dtype=float64"]
OF_THE_BATCH = {"setting_id", "run_id", "attempt", "padded_tokens", "token_margin", "choice_margin"}


def made(folder: Path, *overrides: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of a run, and those of its samples without what their neighbours decide."""
    row = run(compose([*RUN, f"results_dir={folder}", "save_every_s=0", *overrides])).row
    samples = Store(root=folder).read("samples", [row["run_id"]]).to_pylist()
    return row, [{key: value for key, value in one.items() if key not in OF_THE_BATCH} for one in samples]


@pytest.mark.parametrize("model", ["tiny_mdm", "tiny_ar"])
def test_rows_are_the_same_however_they_share_calls(model: str, results_dir: Path):
    """Guards answers and counts of continuous batches, in both loops, and the names that tell such runs apart."""
    asked = [f"model={model}", f"method={'threshold' if model == 'tiny_mdm' else 'ar_greedy'}"]
    fixed, expected = made(results_dir, *asked, "batch_size=4")
    assert made(results_dir, *asked, "batch_size=1")[1] == expected
    for words in (["batch_size=4"], ["batch_size=9", "batch_tokens=100"]):
        other, samples = made(results_dir, *asked, *words, "batching=continuous")
        assert samples == expected
        assert other["setting_id"] == fixed["setting_id"] and other["run_id"] != fixed["run_id"]


def test_continuous_batches_make_fewer_calls_of_the_model(monkeypatch: pytest.MonkeyPatch, results_dir: Path):
    """Guards that rows begin as others end: calls of the model with fewer rows than there is room for are the last."""
    rows: list[int] = []

    def watching(*arguments: Any, tell: Any, **named: Any) -> float:
        def told(decoded: Any) -> None:
            rows[:] = [len(record.sample_B) for record in decoded.calls]
            tell(decoded)

        return decode_stream(*arguments, tell=told, **named)

    monkeypatch.setattr("harness.runs.street.decode_stream", watching)
    made(results_dir, "batch_size=4", "batching=continuous")
    full = [count == 4 for count in rows]
    assert max(rows) == 4 and full == sorted(full, reverse=True)


def test_a_continuous_run_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch, results_dir: Path):
    """Guards hours of decoding: samples that are done are neither decoded again nor lost."""
    _, expected = made(results_dir / "whole", "batch_size=2", "batching=continuous")
    asked: list[int] = []

    def stopping(*arguments: Any, tell: Any, **named: Any) -> float:
        def told(decoded: Any) -> None:
            tell(decoded)
            if len(asked) == 1:
                raise KeyboardInterrupt

        asked.append(len(named["prompts"]))
        return decode_stream(*arguments, tell=told, **named)

    monkeypatch.setattr("harness.runs.street.decode_stream", stopping)
    with pytest.raises(KeyboardInterrupt):
        made(results_dir, "batch_size=2", "batching=continuous")
    assert made(results_dir, "batch_size=2", "batching=continuous")[1] == expected
    assert asked[0] == 9 and 0 < asked[1] < 9


SECONDS = ("latency_s", "ttft_s", "cpu_s", "forward_s", "rest_s")
HALVED = "out of memory with 4 rows at once: went on with 2"


def short_of_memory(monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """Have memory for so many rows at once; return the list that takes down how many each call asks for."""
    forward, asked = EmbeddedModel.forward, []

    def short(model: EmbeddedModel, request: ForwardRequest) -> torch.Tensor:
        asked.append(len(request.tokens_BT))
        if asked[-1] > rows:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return forward(model, request)

    monkeypatch.setattr(EmbeddedModel, "forward", short)
    return asked


@pytest.mark.parametrize("words", ["batching=fixed", "batching=continuous", "measure=timed measure.repetitions=1"])
def test_half_the_rows_are_decoded_at_once_where_memory_is_short(
    words: str, monkeypatch: pytest.MonkeyPatch, results_dir: Path
):
    """Guards a run that asked for too much, warm-up included: it goes on, once, and its row says how."""
    _, expected = made(results_dir / "whole", "batch_size=1")
    short_of_memory(monkeypatch, 2)
    row, samples = made(results_dir, "batch_size=4", *words.split())
    assert [one | dict.fromkeys(SECONDS) for one in samples] == expected
    assert HALVED in row["warnings"]
    short_of_memory(monkeypatch, 1)
    told = r"batch_size=4: no memory for 4 rows at once, nor for 2 \(RuntimeError: .* memory\); use batch_size=1"
    with pytest.raises(RunFailed, match=told):
        made(results_dir / "less", "batch_size=4", *words.split())


def test_no_row_begins_beside_others_in_fixed_batches_that_were_halved(
    monkeypatch: pytest.MonkeyPatch, results_dir: Path
):
    """Guards rules that read across rows: they see rows that began together, in batches of half the size, too."""
    asked = short_of_memory(monkeypatch, 2)
    made(results_dir, "batch_size=4", "method=llada", "task.samples=6")
    steps = len(asked[1:]) // 3
    assert asked == [4, *[2] * 3 * steps] and steps > 1


def test_a_run_that_goes_on_says_what_it_met_before(monkeypatch: pytest.MonkeyPatch, results_dir: Path):
    """Guards the warning of samples that were decoded before a stop."""
    with monkeypatch.context() as patched:
        short_of_memory(patched, 2)
        keep, kept = Unfinished.keep, []

        def stopping(keeper: Unfinished, batch: Batch) -> None:
            keep(keeper, batch)
            kept.append(batch)
            if len(kept) == 2:
                raise KeyboardInterrupt

        patched.setattr(Unfinished, "keep", stopping)
        with pytest.raises(KeyboardInterrupt):
            made(results_dir, "batch_size=4")
    row, _ = made(results_dir, "batch_size=4")
    assert row["warnings"] == [HALVED]


def test_warm_up_has_the_shape_of_what_is_timed(monkeypatch: pytest.MonkeyPatch, results_dir: Path):
    """Guards first calls of a shape, which compile or tune: rows alone are warmed up alone, though two are."""
    asked = short_of_memory(monkeypatch, 9)
    made(results_dir, "measure=timed", "measure.repetitions=1", "batch_size=1", "task.samples=3")
    assert {*asked} == {1}


def test_a_budget_is_the_batch(monkeypatch: pytest.MonkeyPatch, results_dir: Path):
    """Guards a budget by itself: as many rows as it holds, 32 positions each; and one that holds none."""
    asked = short_of_memory(monkeypatch, 9)
    row, _ = made(results_dir, "batching=continuous", "batch_tokens=100")
    assert max(asked) == 3 and row["batching"] == "continuous 100"
    for said, rows in (("batch_size=2", 2), ("seed=1", 5)):
        assert compose([*RUN, "batching=continuous", "batch_tokens=100", said]).batch_size == rows
    with pytest.raises(DataError, match=r"batch_tokens=31: .* alone takes 32 positions, gen_length=16 of them; use at"):
        made(results_dir, "batching=continuous", "batch_tokens=31")


def test_room_is_rows_and_positions():
    """Guards the budget: padding counts, a row that is too long comes alone, and halves."""
    room = Room(rows=4, tokens=40)
    assert room.beside(0, 99, [10, 10, 10, 10, 10]) == 4
    assert room.beside(0, 0, [10, 15, 20]) == 2
    assert room.beside(0, 0, [100, 10]) == 1
    assert room.beside(1, 30, [10]) == 0 and room.beside(3, 10, [10, 10]) == 1
    assert room.halved() == Room(rows=2, tokens=20) and Room(rows=1).halved() == Room(rows=1)
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("x")) and not out_of_memory(ValueError("out of memory"))


def test_padding_is_counted(results_dir: Path):
    """Guards the share of positions that nobody needed: none alone, and what a row of its own length leaves."""
    prompts, steps = [[2] * 4, [2] * 10], 8
    from harness.config.build import build_method, load_model
    from harness.runs.measure import Measure, Measurement

    cfg = compose(["model=random_mdm", "method=llada", "gen_length=8", "method.steps=8"])
    decoded = decode_batch(
        load_model(cfg).model, build_method(cfg), prompts, seeds=[0, 0], gen_length=8,
        measure=Measure(name=Measurement.COUNTS),
    )  # fmt: skip
    assert decoded.padded == [6 * steps, 0]
    assert made(results_dir, "batch_size=1")[0]["padding_waste"] == 0


def test_seconds_of_a_row_end_with_it(results_dir: Path):
    """Guards latencies: from a row's entry to its end, not to that of its neighbours; a run's seconds hold them all."""
    timed = ["measure=timed", "measure.repetitions=1", "batch_size=3", "batching=continuous"]
    row = run(compose([*RUN, *timed, f"results_dir={results_dir}"])).row
    samples = Store(root=results_dir).read("samples", [row["run_id"]]).to_pylist()
    assert all(0 < one["ttft_s"] <= one["latency_s"] and 0 < one["forward_s"] <= one["latency_s"] for one in samples)
    whole = sum(one["tokens_out"] for one in samples) / row["tps"]
    assert max(one["latency_s"] for one in samples) < whole < sum(one["latency_s"] for one in samples)
    assert row["latency_p50_s"] <= row["latency_p95_s"] <= row["latency_p99_s"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["batching=rolling"], "batching=rolling: must be fixed or continuous"),
        (["batch_tokens=512"], "batch_tokens=512: must be at least 1, and needs batching=continuous"),
        (
            ["batch_tokens=0", "batching=continuous"],
            "batch_tokens=0: must be at least 1, and needs batching=continuous",
        ),
    ],
)
def test_what_no_batch_can_be_is_refused(words: list[str], told: str):
    """Guards words that would count for nothing."""
    with pytest.raises(ConfigError, match=told):
        compose([*RUN, *words])


def test_a_method_that_reads_across_rows_is_refused_by_name(tmp_path: Path, call_decbench: RunDecbench):
    """Guards a batch mean whose batches nobody knows: told in the plan, and fixed batches take it."""
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "my_mean.py").write_text(
        "from harness.engine.diffusion.needs import Needs\n"
        "from harness.engine.shared.policy import policy\n"
        '@policy("method/selector", "mean")\nclass Mean:\n'
        "    needs = Needs(across_rows=True)\n"
        "    def __call__(self, candidates, open_BL, quota_B, canvas):\n"
        "        return open_BL & (candidates.score_BL >= candidates.score_BL[open_BL].mean())\n"
    )
    option = "defaults: [threshold, override selector: mean, _self_]\nsummary: Mean.\nmodels: [masked_diffusion]\n"
    (tmp_path / "conf" / "method" / "mean.yaml").write_text(option)
    words = ["run", "model=tiny_mdm", "method=mean", "task.samples=2", "tracker=none", "--config-dir", str(tmp_path)]
    store = f"results_dir={tmp_path / 'store'}"
    refused = call_decbench(*words, store, "batching=continuous")
    told = "method=mean batching=continuous: the selector mean reads across rows, of which none may begin later"
    assert refused.returncode == 2 and told in refused.stderr
    assert call_decbench(*words, store, "batch_size=2").returncode == 0
