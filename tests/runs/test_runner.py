"""A run ends in rows, once; what fails is stored as failed and leaves everything else alone."""

import json
import re
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch

from harness.config.build import build_task, load_model
from harness.config.composition import compose, resolved
from harness.config.job import by_role
from harness.config.source_digest import Code, Reader
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import NeverRevise
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.model import ForwardRequest
from harness.errors import ConfigError, DataError
from harness.models.embedded import EmbeddedModel
from harness.results.store import Store
from harness.runs.execution import execute
from harness.runs.plan import plan
from harness.runs.runner import run, setting
from harness.runs.sweep import expand
from tests.conftest import RunDecbench

SMALL = ["model=random_mdm", "task.samples=4", "gen_length=16"]


def composed(results_dir: Path, *overrides: str):
    """Compose a small run into a store of its own."""
    return compose([*SMALL, f"results_dir={results_dir}", *overrides])


def outputs(results_dir: Path) -> list[list[int]]:
    """Read the stored answers, in order."""
    return Store(root=results_dir).read("samples")["output_ids"].to_pylist()


def test_a_run_leaves_a_row_and_its_samples(results_dir: Path):
    """Guards the street of a sample: everything that was counted arrives in parquet."""
    record = run(composed(results_dir))
    samples = Store(root=results_dir).read("samples").to_pylist()
    assert record.status == "ok"
    assert len(samples) == 4
    assert all(row["nfe"] == 16 and row["query_tokens"] == 16 * 32 for row in samples)
    assert json.loads(record.row["config"])["method"]["name"] == "llada"


def test_a_finished_run_is_taken_from_the_store(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards resume, and that nothing is decoded for it."""
    first = run(composed(results_dir))
    monkeypatch.setattr("harness.runs.street.decode_batch", None)
    second = run(composed(results_dir, "tracker=none", "name=again"))
    assert second.resumed
    assert second.run_id == first.run_id


def test_another_setting_is_another_run(results_dir: Path):
    """Guards against resume taking one setting's results for another's."""
    ids = {
        run(composed(results_dir, *extra)).run_id for extra in ([], ["method.steps=8"], ["seed=1"], ["batch_size=2"])
    }
    assert len(ids) == 4


def test_what_a_sweep_looks_like_does_not_change_its_runs(results_dir: Path):
    """Guards resume when an experiment gets another point, figure or name."""
    cfgs = [
        composed(results_dir, *extra) for extra in ([], ["figure=areas"], ["points=['method=llada']"], ["name=mine"])
    ]
    assert len({run(cfg).run_id for cfg in cfgs}) == 1


def test_a_setting_names_what_was_put_in_place():
    """Guards tables against one line for a method with and without another part."""

    def named(*overrides: str) -> str:
        return setting(by_role(resolved(compose(overrides))), overrides)

    assert named("method=llada") == "llada"
    assert named("method=llada", "method.block_length=8") == "llada block_length=8"
    assert named("method=llada", "method.steps=8", "method/verifier=freedave") == "llada steps=8 verifier=freedave"
    drafted = ["method=threshold", "method/verifier=freedave", "method.verifier.draft_steps=8"]
    assert named(*drafted) == "threshold verifier=freedave verifier.draft_steps=8"
    assert named("method=freedave", "method.draft_steps=8") == "freedave draft_steps=8"


def test_answers_do_not_depend_on_the_batch(results_dir: Path, tmp_path: Path):
    """Guards independence of rows through the whole runner."""
    run(composed(results_dir, "method.temperature=1"))
    run(composed(tmp_path / "other", "method.temperature=1", "batch_size=3"))
    assert outputs(results_dir) == outputs(tmp_path / "other")


def test_a_timed_run_has_seconds_and_repetitions(results_dir: Path):
    """Guards the columns that a latency figure needs."""
    record = run(composed(results_dir, "measure=timed", "measure.repetitions=2"))
    assert record.row["latency_s"] > 0 and record.row["tps"] > 0
    samples = Store(root=results_dir).read("samples").to_pylist()
    assert all(0 < row["ttft_s"] <= row["latency_s"] for row in samples)
    assert Store(root=results_dir).read("samples").num_rows == 8
    assert record.row["n"] == 4


def test_a_traced_run_adds_up(results_dir: Path):
    """Guards the steps table: every position of every sample is committed once."""
    run(composed(results_dir, "measure=traced", "method.steps=4"))
    steps = Store(root=results_dir).read("steps").to_pylist()
    assert sum(step["n_committed"] for step in steps) == 4 * 16
    assert {step["step"] for step in steps} == {0, 1, 2, 3}


def test_logits_that_are_no_numbers_fail_the_run(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against an answer made of NaN: one failed row with its reason, and a traceback kept beside it."""
    real = EmbeddedModel.forward
    monkeypatch.setattr(EmbeddedModel, "forward", lambda *a, **k: real(*a, **k) * torch.nan)
    record = run(composed(results_dir, "on_error=record"))
    assert record.status == "failed"
    assert "NaN" in record.row["error"]
    assert (results_dir / "errors" / f"{record.run_id}.txt").read_text().startswith("Traceback")
    with pytest.raises(DecodeError, match="random_mdm"):
        run(composed(results_dir))
    monkeypatch.undo()
    assert run(composed(results_dir)).status == "ok"


def test_the_sample_with_logits_that_are_no_numbers_is_named(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards whoever has to find the one prompt of many that breaks a model."""
    real = EmbeddedModel.forward

    def sick(self: EmbeddedModel, request: ForwardRequest):
        logits_NV = real(self, request)
        return logits_NV if len(request.tokens_BT) > 1 else logits_NV * torch.nan

    monkeypatch.setattr(EmbeddedModel, "forward", sick)
    names = [sample.id for sample in build_task(composed(results_dir)).instances()]
    with pytest.raises(DecodeError, match=f"^sample {re.escape(names[3])}: model random_mdm .* not numbers"):
        run(composed(results_dir, "batch_size=3"))


def test_a_row_without_end_is_stored_and_changes_no_other(
    results_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call_decbench: RunDecbench,
    caplog: pytest.LogCaptureFixture,
):
    """Guards a run against its one sample that oscillates: it is kept as it stands, counted and named."""
    in_order = ["batch_size=4", "method.remasking=left_to_right"]
    expected = run(composed(results_dir, *in_order)).row
    plain = Store(root=results_dir).read("samples").to_pylist()

    def undo(self: NeverRevise, canvas: Canvas, *_: object) -> None:
        canvas.remask((canvas.sample_B == 2)[:, None] & (canvas.place_BL != 0))

    monkeypatch.setattr(NeverRevise, "__call__", undo)
    monkeypatch.setattr("harness.models.tokenizer.SymbolTokenizer.decode", lambda self, ids: f"{list(ids)}")
    other = tmp_path / "other"
    said = call_decbench("run", *SMALL, *in_order, f"results_dir={other}")
    assert said.returncode == 0
    assert "ended as they stood: random_mdm llada remasking=left_to_right 1 of 4" in " ".join(said.stdout.split())
    store = Store(root=other)
    (row,) = store.read("runs").to_pylist()
    rows = store.read("samples").to_pylist()
    endless = rows.pop(2)
    unread = {"output_text": None, "detail": None, "extracted": None, "extraction": None, "measures": None}
    unread |= {"correct": None, "correct_strict": None}
    assert [one | unread for one in rows] == [one | unread for one in plain[:2] + plain[3:]]
    assert (endless["finish_reason"], endless["nfe"]) == ("budget", 4 * 16)
    mask = loaded_mask(results_dir)
    assert endless["output_ids"][1:] == [mask] * 15 and endless["output_ids"][0] != mask
    assert endless["decided_at"][0] >= 0 and endless["decided_at"][1:] == [-2] * 15
    assert (endless["tokens_out"], endless["tokens_canvas"]) == (1, 16)
    assert endless["output_text"] == f"{endless['output_ids'][:1]}"
    (warning,) = row["warnings"]
    assert endless["sample_id"] in warning and warning in caplog.text
    assert expected["warnings"] == [] and {one["finish_reason"] for one in plain} <= {"stop", "length"}


def loaded_mask(results_dir: Path) -> int:
    """Return the mask of the small runs' model."""
    mask = load_model(composed(results_dir)).model.spec.mask_id
    assert mask is not None
    return mask


@pytest.mark.parametrize("method", ["method=threshold", "method=ar_greedy"])
def test_margins_are_stored_under_every_measure(results_dir: Path, tmp_path: Path, method: str):
    """Guards the margins of a sample, which are the smallest of its steps, and null where nothing is compared."""
    model = ["model=random_mdm" if method == "method=threshold" else "model=tiny_ar"]
    found = {}
    for measure in ("counts", "timed", "traced"):
        folder = tmp_path / measure
        run(compose([*SMALL[1:], *model, method, f"measure={measure}", f"results_dir={folder}"]))
        rows = Store(root=folder).read("samples").filter(pc.field("repetition") == 0).to_pylist()
        found[measure] = {one["sample_id"]: (one["token_margin"], one["choice_margin"]) for one in rows}
    assert found["counts"] == found["timed"] == found["traced"]
    steps = Store(root=tmp_path / "traced").read("steps").to_pylist()
    for name, margins in found["traced"].items():
        mine = [(step["token_margin"], step["choice_margin"]) for step in steps if step["sample_id"] == name]
        known = [[one for one in column if one is not None] for column in zip(*mine, strict=True)]
        assert margins == tuple(min(column) if column else None for column in known)
        assert margins[0] is not None and (margins[1] is None) == (method == "method=ar_greedy")


def test_a_prompt_beyond_the_context_is_named(results_dir: Path):
    """Guards the check that needs the prompt's own length."""
    with pytest.raises(DataError, match=r"16 prompt tokens and gen_length=120 exceed the 128 positions"):
        run(composed(results_dir, "gen_length=120"))


def test_an_empty_prompt_is_named(results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against decoding from nothing."""
    monkeypatch.setattr("harness.models.tokenizer.SymbolTokenizer.encode", lambda self, text: [])
    with pytest.raises(DataError, match="the prompt is empty"):
        run(composed(results_dir))


def test_results_that_cannot_be_written_stop_the_run_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against hours of work that end in an unwritable folder."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("harness.config.build.load_model", None)
    with pytest.raises(DataError, match="file"):
        run(composed(tmp_path / "file"))


def test_one_failing_run_leaves_the_others_of_a_sweep(results_dir: Path):
    """Guards a night's sweep: impossible pairs are skipped with a reason, the rest runs."""
    from rich.console import Console

    choices = ["model=tiny_ar,random_mdm", "method=llada,ar_greedy", "on_error=record"]
    records = execute(plan(expand([*SMALL[1:], f"results_dir={results_dir}", *choices])), Console(quiet=True))
    assert [record.status for record in records] == ["skipped", "ok", "ok", "skipped"]
    assert "does not run on model=tiny_ar" in records[0].row["error"]


def test_experiments_expand_to_points_times_axes():
    """Guards the sweep that the quickstart runs, its order included: models stay together."""
    sweep = expand(["experiment=quickstart", "task.samples=3"])
    assert len(sweep.jobs) == len(sweep.base.points) * len(sweep.base.axes.task)
    models = [next(o for o in job if o.startswith("model=")) for job in sweep.jobs]
    assert models == sorted(models, reverse=True)
    assert all("task.samples=3" in job for job in sweep.jobs)


def test_greedy_decoding_has_at_most_one_token_per_call(results_dir: Path):
    """Guards the counting rule across families: the prompt's call gives a token, and its work is counted."""
    row = run(compose(["model=tiny_ar", "method=ar_greedy", "task.samples=8", f"results_dir={results_dir}"])).row
    samples = Store(root=results_dir).read("samples").to_pylist()
    assert row["tpf"] == 1 and row["nfe_prefill"] == 1
    for one in samples:
        assert one["nfe"] == one["tokens_out"] <= one["tokens_canvas"] == 16
        assert one["query_tokens"] == one["prompt_tokens"] + one["tokens_out"] - 1
    shares = [one["query_tokens"] / (one["prompt_tokens"] + 16) for one in samples]
    assert row["efe"] == pytest.approx(sum(shares) / len(shares))


def test_another_version_of_the_code_is_run_anew_and_named(
    results_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Guards against stale numbers after an edit, and against wondering why a run is made again."""
    first = run(composed(results_dir))
    read = Reader.code_of
    monkeypatch.setattr(Reader, "code_of", lambda reader, roots: edited(read(reader, roots)))
    second = run(composed(results_dir))
    assert not second.resumed and first.row["setting_id"] == second.row["setting_id"]
    assert (first.row["attempt"], second.row["attempt"]) == (1, 2)
    changed = [record.getMessage() for record in caplog.records if "run anew" in record.getMessage()]
    assert changed == [f"{second.run_id}: stored as {first.run_id}, run anew: changed harness.engine.diffusion.loop"]


def edited(code: Code) -> Code:
    """Return code in which one module differs."""
    return Code(modules={**code.modules, "harness.engine.diffusion.loop": "edited"}, versions=code.versions)


def test_the_command_line_beats_an_experiment():
    """Guards against an experiment that runs its own tasks after all: what was typed holds, with what belongs to it."""
    sweep = expand(["experiment=quickstart", "task=list_sort", "method=llada,eb"])
    assert {one for job in sweep.jobs for one in job if one.startswith("task=")} == {"task=list_sort"}
    assert not [one for job in sweep.jobs for one in job if one.startswith("method.")]
    assert len(sweep.jobs) == 2 * 2, "models of the points times methods of the command line"


@pytest.mark.parametrize(
    ("choice", "values"),
    [
        ("seed=range(0,3)", ["0", "1", "2"]),
        ("task=glob(list_re*,exclude=list_rem*)", ["list_repeat_each", "list_repeat_list", "list_replace_index",
                                                   "list_replace_random", "list_reverse"]),
        ("method.threshold=0.50,0.9", ["0.50", "0.9"]),
    ],
)  # fmt: skip
def test_choices_of_every_kind(choice: str, values: list[str]):
    """Guards sweeps that name a range or a pattern, and numbers against being shown otherwise than typed."""
    jobs = expand(["method=threshold", choice]).jobs
    assert [job[-1].partition("=")[2] for job in jobs] == values


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=interval(0,3)"], r"^seed=interval\(0,3\): .* range\("),
        (["seed=glob(*)"], r"^seed=glob\(\*\): glob chooses among the options of model, "),
        (["task=glob(nothing*)"], r"^task=glob\(nothing\*\): chooses nothing; known: "),
        (["axes={seed: 3}"], r"^axes.seed=3: an axis is a list"),
    ],
)
def test_what_is_no_choice_is_refused(overrides: list[str], message: str):
    """Guards against a traceback, and against one run where many were meant."""
    with pytest.raises(ConfigError, match=message):
        expand(overrides)


def test_values_of_an_axis_may_hold_commas():
    """Guards lists as values of an axis."""
    jobs = expand(["method=prophet", "axes={method.gap_thresholds: [[7.5, 5, 2.5], [3, 2, 1]]}"]).jobs
    assert [job[-1] for job in jobs] == ["method.gap_thresholds=[7.5, 5, 2.5]", "method.gap_thresholds=[3, 2, 1]"]


def test_unknown_choices_of_a_sweep_are_refused():
    """Guards against a typo that shows only after the first runs."""
    with pytest.raises(ConfigError, match="did you mean threshold"):
        expand(["method=treshold"])


def test_a_value_of_another_type_ends_in_one_line(results_dir: Path):
    """Guards the message against the library's own, which names a key that the user never wrote."""
    message = r"^method\.\S+=many: must be a whole number"
    with pytest.raises(ConfigError, match=message):
        run(composed(results_dir, "method.steps=many"))
    assert not (results_dir / "runs").exists()
    record = run(composed(results_dir, "method.steps=many", "on_error=record"))
    assert record.status == "skipped" and re.match(message, record.row["error"])
