"""`decbench verify`: the same run once more, from what is stored of it alone."""

import json
import shutil
from pathlib import Path

import pytest

from harness.config.job import Job, Shared, resolve
from harness.config.stored import restored
from harness.engine.shared.policy import REGISTRY
from harness.models.embedded import CHECKPOINTS
from harness.results.canonical import canonical_json, printable
from harness.results.store import Store
from harness.runs.plan import plan
from harness.runs.sweep import expand
from tests.config.plugin import write
from tests.conftest import RunDecbench

PLUGIN = ("--config-dir", "own")
RUN = ("run", "model=random_mdm", "task.samples=2", "gen_length=4", "results_dir=store")
OWN = (*RUN, "method=mean", "task.samples=3", "gen_length=8", *PLUGIN)


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def run_id(tmp_path: Path) -> str:
    """Return the name of the one run that is stored."""
    (name,) = Store(root=tmp_path / "store").read("runs")["run_id"].to_pylist()
    return name


@pytest.mark.parametrize(
    "asked",
    [
        "model=random_mdm measure=traced batch_size=2 task.samples=3",
        "model=random_mdm method=threshold method/cache=dual",
        pytest.param("model=tiny_ar method=ar_sample measure=timed measure.repetitions=2", marks=pytest.mark.slow),
    ],
)
def test_an_unchanged_run_is_the_same(asked: str, tmp_path: Path, call_decbench: RunDecbench):
    """Guards the plain case, caches, draws and repetitions, and a store that is only read."""
    assert call_decbench("run", "task.samples=2", "gen_length=4", *asked.split(), "results_dir=store").returncode == 0
    before = files(tmp_path / "store")
    said = call_decbench("verify", run_id(tmp_path)[:6], "results_dir=store")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "is the same in all" in said.stdout and "nothing that names a run" in said.stdout
    assert files(tmp_path / "store") == before


def test_every_decoder_and_cache_is_told_by_what_is_stored():
    """Guards knobs, types and names of all parts: a stored config alone makes the same run."""
    jobs = [one.job for one in plan(expand(["experiment=smoke", "results_dir=nowhere"])).jobs]
    assert len(jobs) > 50
    shared = Shared()
    for job in jobs:
        assert isinstance(job, Job)
        again = resolve(restored(json.loads(canonical_json(printable(job.plain)))), shared)
        assert (again.setting_id, again.run_id) == (job.setting_id, job.run_id), job.plain["method"]["name"]


@pytest.mark.parametrize("text", ["a ${gen_length} b", r"\${x} \\${y}", "plain {braces}", r"\back"])
def test_texts_of_a_stored_config_refer_to_nothing(text: str):
    """Guards prompts of a user's own, which may hold what a config reads as a reference."""
    task = {"name": "t", "prompt": text, "turns": [{"content": text}]}
    config = {"models": {"target": {}}, "method": {}, "protocol": "own", "task": task, "gen_length": 4}
    made = restored(config).task
    assert (made.prompt, made.turns[0].content) == (text, text)


@pytest.mark.parametrize(("measure", "step"), [("traced", "positions"), ("counts", "decided_at")])
def test_a_changed_rule_is_named_by_sample_step_and_module(
    measure: str, step: str, tmp_path: Path, call_decbench: RunDecbench
):
    """Guards the answer to: what is another now, where, and because of which code?"""
    write(tmp_path / "own")
    assert call_decbench(*OWN, f"measure={measure}").returncode == 0
    (tmp_path / "own" / "my_helper.py").write_text("def share():\n    return 9.0\n")
    told = call_decbench("verify", run_id(tmp_path), "results_dir=store", "--json", *PLUGIN)
    found = json.loads(told.stdout)
    first = Store(root=tmp_path / "store").read("samples")["sample_id"].to_pylist()[0]
    assert told.returncode == 1 and not found["same"] and found["changed"] == ["my_helper"]
    assert found["first"]["sample"] == first and found["first"]["step"] == 0 and step in found["first"]["fields"]
    said = call_decbench("verify", run_id(tmp_path), "results_dir=store", *PLUGIN).stdout
    assert f"first difference: sample {first}, step 0" in said and "changed since it was stored: my_helper" in said


def test_a_rule_that_was_changed_behind_our_back_is_seen(
    tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards what no digest tells: the same code by name, another decoding."""
    call_decbench(
        "run", "model=random_mdm", "method=threshold", "task.samples=2", "measure=traced", "results_dir=store"
    )
    cls = REGISTRY["method/selector", "threshold"]
    real = cls.__call__
    monkeypatch.setattr(cls, "__call__", lambda self, c, open_BL, *more: open_BL & ~real(self, c, open_BL, *more))
    said = call_decbench("verify", run_id(tmp_path), "results_dir=store")
    assert said.returncode == 1 and "step 0, positions" in said.stdout
    assert "changed since it was stored: nothing that names a run" in said.stdout


def test_options_of_today_do_not_matter(tmp_path: Path, call_decbench: RunDecbench):
    """Guards runs whose method has other defaults now, or is no option any more: their classes are what they were."""
    write(tmp_path / "own")
    call_decbench(*OWN)
    file = tmp_path / "own" / "conf" / "method" / "mean.yaml"
    file.write_text(file.read_text().replace("weight: 1.0", "weight: 3.0"))
    assert call_decbench("verify", run_id(tmp_path), "results_dir=store", *PLUGIN).returncode == 0
    file.unlink()
    assert call_decbench("verify", run_id(tmp_path), "results_dir=store", *PLUGIN).returncode == 0


def test_some_samples_are_decoded_in_the_batches_they_were_in(tmp_path: Path, call_decbench: RunDecbench):
    """Guards samples=N against other shapes of batches, and against calling the others missing."""
    call_decbench(*RUN, "task.samples=5", "batch_size=2")
    told = json.loads(call_decbench("verify", run_id(tmp_path), "samples=3", "results_dir=store", "--json").stdout)
    assert told["same"] and told["decoded"] == 4


def test_other_samples_than_the_stored_ones_are_named(
    tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards against comparing what is left of a task whose rows went, or are others."""
    write(tmp_path / "own")
    call_decbench(*OWN, "task=echo")
    task = tmp_path / "own" / "my_task.py"
    task.write_text(task.read_text().replace("str(number)", "str(number + 1)"))
    told = call_decbench("verify", run_id(tmp_path), "results_dir=store", *PLUGIN)
    assert told.returncode == 1
    assert "differs in 2 of 3 decodings" in told.stdout and "sample 0, sample_id: was not decoded again" in told.stdout


def test_an_absent_checkpoint_is_named(tmp_path: Path, call_decbench: RunDecbench):
    """Guards against a traceback where the weights of a stored run have gone, and a change of them that is not told."""
    shutil.copytree(CHECKPOINTS / "tiny_mdm", tmp_path / "weights")
    run = ("run", "model=tiny_mdm", f"model.path={tmp_path / 'weights'}", "task.samples=1", "gen_length=4")
    assert call_decbench(*run, "results_dir=store").returncode == 0
    shutil.rmtree(tmp_path / "weights")
    told = call_decbench("verify", run_id(tmp_path), "results_dir=store")
    assert told.returncode == 2 and len(told.stderr.splitlines()) == 2
    assert str(tmp_path / "weights") in told.stderr


def test_a_plug_in_that_is_gone_is_named(tmp_path: Path, call_decbench: RunDecbench):
    """Guards against comparing with something else where the code of a run is not here."""
    write(tmp_path / "own")
    call_decbench(*OWN)
    told = call_decbench("verify", run_id(tmp_path), "results_dir=store")
    assert told.returncode == 2 and "there is no module my_rule" in told.stderr


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["no"], "no: no such run"),
        ([], ""),
        (["a", "b"], "verify a b: takes one run"),
        (["a", "sample=2"], "did you mean samples?"),
        (["a", "samples=0"], "samples=0: must be a whole number from 1"),
        (["a", "--jsn"], "did you mean --json?"),
    ],
)
def test_a_wrong_request_ends_in_one_line(
    asked: list[str], message: str, tmp_path: Path, call_decbench: RunDecbench, results_dir: Path
):
    """Guards against tracebacks as the answer to a typo."""
    call_decbench(*RUN)
    told = call_decbench("verify", *asked, "results_dir=store")
    assert told.returncode == 2 and message in told.stderr


def test_a_run_that_failed_has_nothing_to_compare(tmp_path: Path, call_decbench: RunDecbench):
    """Guards against calling nothing the same as nothing."""
    call_decbench(
        "run", "model=random_mdm", "gen_length=3", "method.block_length=2", "on_error=record", "results_dir=store"
    )
    told = call_decbench("verify", run_id(tmp_path), "results_dir=store")
    assert told.returncode == 2 and "is skipped, so that there is nothing to compare" in told.stderr
